import type { Express } from 'express'
import { Sequelize } from 'sequelize'

import type { Options, TestApiKeys } from '../support/app'
import { forgeKey } from '../support/keys'
import { startProxy, type Proxy } from '../support/proxy'
import { until } from '../support/until'
import { useWorld, type Process } from '../support/world'

const { apiKeys, createKey, createProcess, database } = useWorld()

const maxStalenessMs = 300

let proxy: Proxy
let gateway: string

beforeAll(async () => {
  proxy = await startProxy(Number(new URL(database.url).port))
  const caller = { userId: 'gateway', name: 'Gateway', permissions: ['EXECUTE_BLOCK' as const] }
  gateway = (await apiKeys.create(caller)).plainTextKey
})

afterEach(() => proxy.accept())

afterAll(() => proxy.close())

function addTokens(app: Express, keys: TestApiKeys) {
  app.use('/oauth', keys.tokenRouter({ introspect: { permission: 'EXECUTE_BLOCK' } }))
}

/** Makes a process whose network to its Postgres can be made to fail. It has a key in its cache. */
async function createDistant(options: Options, token: string) {
  const sequelize = new Sequelize(proxy.through(database.url), { logging: false })
  database.closeFirst(sequelize)
  const distant = createProcess({ maxStalenessMs, sequelize, ...options }, addTokens)
  await until(async () => (await introspect(distant, token)) === true)
  return distant
}

/**
 * Takes the database away until the bound of all that a process has read is over. Rows may have been read after the last answer to
 * a poll, so that the bound begins here at the latest.
 */
async function refuse({ apiKeys }: Process) {
  proxy.refuse()
  const refusedAt = performance.now()
  await until(async () => (await apiKeys.health()).feed === 'unreachable')
  await until(() => performance.now() - refusedAt > maxStalenessMs)
}

/** Returns if a key is active, or the code of the refusal. */
async function introspect({ http }: Process, token: string): Promise<unknown> {
  const sent = http.with(gateway).post('/oauth/introspect').type('form')
  const { body } = await sent.send({ token })
  return body.active ?? body.code
}

describe('an introspection without the database', () => {
  it('takes no good key for a bad one', async () => {
    const { plainTextKey: token } = await createKey()
    const distant = await createDistant({}, token)
    const forged = forgeKey()

    await refuse(distant)

    for (const key of [token, forged]) {
      expect(await introspect(distant, key)).toBe('database_unavailable')
    }
    await proxy.accept()
    await until(async () => (await introspect(distant, token)) === true)
    await until(async () => (await introspect(distant, forged)) === false)
  })

  it('knows keys in use for longer if the app sets outageGraceMs, and no other keys', async () => {
    const { plainTextKey: token } = await createKey()
    const { plainTextKey: cold } = await createKey()
    const distant = await createDistant({ outageGraceMs: 60_000 }, token)

    await refuse(distant)

    expect(await introspect(distant, token)).toBe(true)
    for (const key of [cold, forgeKey()]) {
      expect(await introspect(distant, key)).toBe('database_unavailable')
    }
    expect(await introspect(distant, 'agpt_x')).toBe(false)
  })
})
