import type { ImportSource } from '../../lib'
import { vectors, type Vector } from '../support/imported-keys'
import { useWorld } from '../support/world'

/** A vector for each source. Some sources store keys in two ways. */
const bySource = new Map(
  Object.values(vectors).map((vector): [string, Vector] => [vector.source.name, vector]),
)
const imports: ImportSource[] = [...bySource.values()].map(({ source }) => source)

const { apiKeys, http } = useWorld({
  options: { imports },
  routes: (app, keys) => {
    app.use('/oauth', keys.tokenRouter({ introspect: { permission: 'EXECUTE_BLOCK' } }))
  },
})

describe('an imported key', () => {
  it.each([...bySource])('is introspected until it is revoked: %s', async (name, vector) => {
    const caller = { userId: 'gateway', name: 'Gateway', permissions: ['EXECUTE_BLOCK' as const] }
    const { plainTextKey: gateway } = await apiKeys.create(caller)
    await apiKeys.importKeys(name, [{ ...vector.row, userId: name }])
    const introspect = async (token: string) => {
      const sent = http.with(gateway).post('/oauth/introspect').type('form')
      return (await sent.send({ token })).body
    }

    expect(await introspect(vector.key)).toMatchObject({
      active: true,
      sub: name,
      scope: 'READ_GRAPH',
    })
    for (const text of vector.nearMisses) expect(await introspect(text)).toEqual({ active: false })

    await apiKeys.revokeAll({ type: 'user', id: name })
    expect(await introspect(vector.key)).toEqual({ active: false })
  })
})
