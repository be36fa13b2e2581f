import type { ApiKeyRecord } from '../../lib'
import type { Permission, TestApp } from '../support/app'
import { setClock } from '../support/clock'
import { useWorld } from '../support/world'

const { apiKeys, rows, createKey } = useWorld()

afterEach(() => jest.useRealTimers())

/** Makes a key expire. */
async function expire({ id }: ApiKeyRecord<TestApp>) {
  await rows(`UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE id = $1`, [id])
}

describe('verify', () => {
  it('returns the owner and the permissions of a key', async () => {
    const expiresAt = new Date('2099-01-01T00:00:00.123Z')
    const { apiKey, plainTextKey } = await createKey({ expiresAt })

    const verdict = await apiKeys.verify(plainTextKey)

    expect(verdict).toEqual({
      valid: true,
      apiKey: {
        id: apiKey.id,
        owner: { type: 'user', id: 'alice' },
        userId: 'alice',
        name: 'Deployment',
        permissions: ['READ_GRAPH'],
        expiresAt,
      },
    })
    expect(Object.isFrozen(verdict.valid && verdict.apiKey)).toBe(true)
    expect(Object.isFrozen(verdict.valid && verdict.apiKey.permissions)).toBe(true)
  })

  it('reports the address of a key that it was given, in its shortest form', async () => {
    const { apiKey, plainTextKey } = await createKey()
    const verified: unknown[] = []
    const off = apiKeys.on('verified', (notice) =>
      verified.push([notice.apiKey.id, notice.address]),
    )

    await apiKeys.verify(plainTextKey, { ip: '::ffff:203.0.113.5' })
    await apiKeys.verify(plainTextKey)
    off()

    expect(verified).toEqual([
      [apiKey.id, '203.0.113.5'],
      [apiKey.id, null],
    ])
  })

  it('refuses a key while it is suspended, and always after its revocation', async () => {
    const { apiKey, plainTextKey } = await createKey()

    await apiKeys.suspend(apiKey.id)
    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'suspended' })

    await apiKeys.reactivate(apiKey.id)
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })

    await apiKeys.revoke(apiKey.id)
    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
  })

  it('refuses a key from the very millisecond at which it expires', async () => {
    const expiresAt = new Date(Date.now() + 3_600_000)
    const { plainTextKey } = await createKey({ expiresAt })

    setClock(new Date(expiresAt.getTime() - 1))
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })

    setClock(expiresAt)
    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'expired' })
  })

  it('accepts an expired key again after it got a later expiry', async () => {
    const { apiKey, plainTextKey } = await createKey()
    await expire(apiKey)
    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'expired' })

    await apiKeys.update(apiKey.id, { expiresAt: null })
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
  })

  it('refuses a key whose expiry is infinity', async () => {
    const { apiKey, plainTextKey } = await createKey()
    await rows(`UPDATE api_keys SET expires_at = 'infinity' WHERE id = $1`, [apiKey.id])

    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'expired' })
  })

  it.each([undefined, null, 42, {}, []])('reports %p as malformed', async (plainTextKey) => {
    expect(await apiKeys.verify(plainTextKey as never)).toEqual({ valid: false, code: 'malformed' })
  })

  it('reports a deleted key as unknown', async () => {
    const { apiKey, plainTextKey } = await createKey()
    await rows('DELETE FROM api_keys WHERE id = $1', [apiKey.id])

    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'unknown' })
  })
})

describe('hasPermission', () => {
  const apiKey = { permissions: ['READ_GRAPH', 'READ_BLOCK'] }

  it.each([
    ['READ_GRAPH', true],
    ['EXECUTE_GRAPH', false],
    [['READ_GRAPH', 'READ_BLOCK'], true],
    [['READ_GRAPH', 'EXECUTE_GRAPH'], false],
  ] as const)('%j of READ_GRAPH and READ_BLOCK: %p', (permission, held) => {
    expect(apiKeys.hasPermission(apiKey, permission)).toBe(held)
  })

  it.each([
    [
      'READ',
      'hasPermission: "READ" is not one of the app\'s permissions. ' +
        'It must be one of READ_GRAPH, EXECUTE_GRAPH, READ_BLOCK, EXECUTE_BLOCK.',
    ],
    [[], 'hasPermission: needs at least one permission'],
  ])('throws for the mistake %j', (permission, message) => {
    expect(() => apiKeys.hasPermission(apiKey, permission as Permission)).toThrow(
      new TypeError(message),
    )
  })
})
