import type { Express } from 'express'

import type { TestApiKeys } from '../support/app'
import { setClock } from '../support/clock'
import { useWorld, type Process } from '../support/world'

const day = 86_400_000
const options = { maxIdleDays: 30, lastUsedResolutionMs: 0, maxStalenessMs: 500 }

function addTokens(app: Express, keys: TestApiKeys) {
  app.use('/oauth', keys.tokenRouter({ introspect: { permission: 'EXECUTE_BLOCK' } }))
}

const world = useWorld({ options, routes: addTokens })
const { apiKeys, rows, createKey, createProcess, holdLock } = world

afterEach(() => jest.useRealTimers())

/** Creates the key of a server that introspects other keys. */
async function createGateway() {
  const caller = { userId: 'gateway', name: 'Gateway', permissions: ['EXECUTE_BLOCK' as const] }
  return (await apiKeys.create(caller)).plainTextKey
}

async function introspect(token: string, gateway: string, { http }: Pick<Process, 'http'> = world) {
  const sent = http.with(gateway).post('/oauth/introspect').type('form')
  return (await sent.send({ token })).body
}

/** Lets days pass, and has a process use keys after that. */
async function useAfter({ apiKeys }: Pick<Process, 'apiKeys'>, days: number, keys: string[]) {
  setClock(new Date(Date.now() + days * day))
  for (const key of keys) expect((await apiKeys.verify(key)).valid).toBe(true)
}

describe('the introspection of a key that expires if it is not used', () => {
  it('knows the uses of other processes, and names no end', async () => {
    const [gateway, { plainTextKey: token }] = [await createGateway(), await createKey()]
    const other = createProcess(options)
    const { active, ...before } = await introspect(token, gateway)
    expect(active).toBe(true)

    for (let use = 0; use < 2; use++) {
      await useAfter(other, 20, [token, gateway])
      await other.apiKeys.flush()
    }

    expect(await introspect(token, gateway)).toEqual({ active: true, ...before })
    expect(before).not.toHaveProperty('exp')
  })

  it.each([
    ['cached', 1_000],
    ['evicted', 1],
  ])('knows the uses of this process that are not written, with keys %s', async (_, cacheSize) => {
    const own = createProcess({ ...options, cacheSize }, addTokens)
    const [gateway, { id, plainTextKey: token }] = [await createGateway(), await createKey()]
    // Uses are not written while the row is locked.
    const lock = await holdLock(`SELECT * FROM api_keys WHERE id = '${id}' FOR UPDATE`)
    await useAfter(own, 29, [token, gateway])

    await useAfter(own, 29, [gateway])

    expect((await introspect(token, gateway, own)).active).toBe(true)
    expect(await rows(`SELECT last_used_at FROM api_keys WHERE id = '${id}'`)).toEqual([
      { last_used_at: null },
    ])
    await lock.release()
  })

  it('takes a key for expired that was not used, as introspections are no uses', async () => {
    const [gateway, { plainTextKey: token }] = [await createGateway(), await createKey()]

    await useAfter({ apiKeys }, 20, [gateway])
    expect((await introspect(token, gateway)).active).toBe(true)
    await useAfter({ apiKeys }, 20, [gateway])

    expect(await introspect(token, gateway)).toEqual({ active: false })
  })
})
