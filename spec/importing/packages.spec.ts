import { sources, type ImportSource } from '../../lib'
import { withOther } from '../support/imported-keys'
import { useWorld } from '../support/world'

/** Keys that `make-vectors.mjs` once had the code of other systems make, and what these systems store of them. */
const made = require('../support/vectors-of-packages.json') as {
  system: string
  package: string
  vectors: { key: string; row: Record<string, string> }[]
}[]

const madeBy: Readonly<Record<string, ImportSource>> = {
  'prefixed-api-key': sources.prefixedApiKey({ prefix: 'acme' }),
  adonis: sources.adonis(),
  payload: sources.payload({ secret: 'payload-test-secret' }),
  strapi: sources.strapi({ salt: 'test-salt-0123456789abcd' }),
  medusa: sources.medusa(),
  n8n: sources.n8n(),
  directus: sources.directus(),
}

describe.each(made)('keys that the code of $package has made', ({ system, vectors }) => {
  const source = madeBy[system]
  if (!source) throw new Error(`there is no source for ${system}`)
  const world = useWorld({ options: { imports: [source] } })

  it('are accepted after their rows were imported, and no other text is', async () => {
    const { apiKeys } = world
    const rows = vectors.map(({ row }) => row)

    const report = await apiKeys.importKeys(source.name, rows, {
      owner: { type: 'user', id: 'alice' },
      permissions: ['READ_GRAPH'],
    })

    expect(report).toMatchObject({ imported: vectors.length, refused: [] })
    for (const { key } of vectors) {
      const miss = withOther(key, key.length - 12)
      expect(await apiKeys.verify(key)).toMatchObject({ valid: true, apiKey: { userId: 'alice' } })
      expect(await apiKeys.verify(miss)).toMatchObject({ valid: false, code: 'malformed' })
    }
  })

  it('are revoked, rotated and expire as any key', async () => {
    const { apiKeys } = world
    const [revoked, rotated, expired] = vectors.map(({ key }) => key)
    const idOf = async (key = '') => {
      const verdict = await apiKeys.verify(key)
      return verdict.valid ? verdict.apiKey.id : ''
    }

    await apiKeys.revoke(await idOf(revoked))
    const { plainTextKey } = await apiKeys.rotate(await idOf(rotated), { gracePeriodSeconds: 0 })
    const id = await idOf(expired)
    await world.rows(
      `UPDATE api_keys SET created_at = now() - interval '2 days', expires_at = now() - interval '1 day' WHERE id = $1`,
      [id],
    )
    await apiKeys.update(id, { name: 'Seen' })

    expect(await apiKeys.verify(revoked ?? '')).toMatchObject({ code: 'revoked' })
    expect(await apiKeys.verify(rotated ?? '')).toMatchObject({ valid: false })
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
    expect(await apiKeys.verify(expired ?? '')).toMatchObject({ code: 'expired' })
  })
})

describe('keys of n8n', () => {
  it('expire when their JSON Web Tokens do, and never without that claim', () => {
    const vectors = made.find(({ system }) => system === 'n8n')?.vectors ?? []

    const expiries = vectors.map(({ row }) => sources.n8n().readRow?.(row).row.expiresAt ?? null)

    const claims = vectors.map(({ key }) => {
      const [, payload = ''] = key.split('.')
      const { exp } = JSON.parse(Buffer.from(payload, 'base64url').toString()) as { exp?: number }
      return exp === undefined ? null : new Date(exp * 1_000)
    })
    expect(expiries).toEqual(claims)
    expect(expiries.map((expiry) => expiry === null)).toEqual([true, false, false])
  })
})
