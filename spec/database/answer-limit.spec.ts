import { Sequelize, type Transaction } from 'sequelize'

import { createTestApiKeys, createTestApp, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { createHttp } from '../support/http'
import { newKey } from '../support/keys'
import { expectProblem } from '../support/problem'
import { startProxy, type Frozen, type Proxy } from '../support/proxy'
import { until } from '../support/until'

/** The shortest limit of an answer. */
const acquire = 5_000

let database: Database
let id: string
let closing: (() => unknown)[] = []

/** Makes a process with connections through a network. */
async function createProcess(proxy: Proxy, max = 2) {
  const sequelize = new Sequelize(proxy.through(database.url), {
    logging: false,
    pool: { max, acquire },
    dialectOptions: { connectionTimeoutMillis: acquire },
  })
  const apiKeys = createTestApiKeys({ connect: () => sequelize })
  closing.push(
    () => apiKeys.close(),
    () => sequelize.close(),
  )
  // On a busy machine, connections may not open at once.
  await until(() => isAnswered(Promise.all([1, 2].map(() => apiKeys.list()))))
  return { sequelize, apiKeys }
}

async function isAnswered(call: Promise<unknown>) {
  return call.then(
    () => true,
    () => false,
  )
}

async function codeOf(call: Promise<unknown>) {
  return call.then(
    () => 'answered',
    (error: { code?: string }) => error.code,
  )
}

beforeAll(async () => {
  database = await createDatabase()
  const apiKeys = createTestApiKeys(database)
  id = (await apiKeys.create(newKey())).apiKey.id
  // Sequelize says by itself that it gives up the connection of a transaction.
  jest.spyOn(console, 'warn').mockImplementation(() => {})
})

afterEach(async () => {
  for (const close of closing) await close()
  closing = []
})

afterAll(async () => {
  jest.restoreAllMocks()
  await database.drop()
})

async function startNetwork() {
  const proxy = await startProxy(Number(new URL(database.url).port))
  closing.push(() => proxy.close())
  return proxy
}

describe('a database that hangs', () => {
  it('has calls and requests refused, and not wait for ever', async () => {
    const calls: Record<string, (apiKeys: TestApiKeys) => Promise<unknown>> = {
      create: (apiKeys) => apiKeys.create(newKey()),
      createMany: (apiKeys) => apiKeys.createMany([newKey(), newKey()]),
      get: (apiKeys) => apiKeys.get(id),
      list: (apiKeys) => apiKeys.list(),
      update: (apiKeys) => apiKeys.update(id, { name: 'Backup' }),
      rotate: (apiKeys) => apiKeys.rotate(id),
      revoke: (apiKeys) => apiKeys.revoke(id),
      revokeAll: (apiKeys) => apiKeys.revokeAll({ type: 'user', id: 'bob' }),
      revokeMany: (apiKeys) => apiKeys.revokeMany({ ids: [id] }),
      events: (apiKeys) => apiKeys.events({ apiKeyId: id }),
      usage: (apiKeys) => apiKeys.usage(id),
      pruneUsage: (apiKeys) => apiKeys.pruneUsage({ olderThanDays: 900 }),
    }
    const proxy = await startNetwork()
    const processes = await Promise.all(
      Object.entries(calls).map(async ([name, call]) => {
        const { apiKeys } = await createProcess(proxy)
        return { name, call, apiKeys }
      }),
    )
    const app = createTestApp((await createProcess(proxy, 10)).apiKeys)
    const alice = createHttp(() => app).as('alice')
    proxy.freeze()

    const [codes, listed, posted] = await Promise.all([
      Promise.all(
        processes.map(async ({ name, call, apiKeys }) => [name, await codeOf(call(apiKeys))]),
      ),
      alice.get('/api-keys'),
      alice.post('/api-keys', { name: 'CI', permissions: ['READ_GRAPH'] }),
    ])
    proxy.thaw('resumed')

    expect(codes).toEqual(Object.keys(calls).map((name) => [name, 'database_unavailable']))
    for (const answer of [listed, posted]) {
      expectProblem(answer, 'database_unavailable')
      expect(answer.headers['retry-after']).toBe('1')
    }
  })

  it.each<Frozen>(['resumed', 'abandoned'])(
    'costs the pool no connection, with connections that are %s afterwards',
    async (frozen) => {
      const proxy = await startNetwork()
      const { sequelize, apiKeys } = await createProcess(proxy, 4)
      proxy.freeze()
      const codes = await Promise.all([1, 2, 3, 4].map(() => codeOf(apiKeys.get(id))))
      proxy.thaw(frozen)

      expect(new Set(codes)).toEqual(new Set(['database_unavailable']))
      await until(() => isAnswered(apiKeys.get(id)))
      const transactions: Transaction[] = []
      while (transactions.length < 4) transactions.push(await sequelize.transaction())
      for (const transaction of transactions) await transaction.rollback()
    },
  )

  it('leaves the app its time: for its own statements, and for calls in its transactions', async () => {
    const proxy = await startNetwork()
    const { sequelize, apiKeys } = await createProcess(proxy, 2)
    const other = (await createProcess(proxy)).apiKeys
    const transaction = await sequelize.transaction()
    // From now on, the library and the app share the other connection of the pool.
    await until(() => isAnswered(apiKeys.list()))
    proxy.freeze()
    const creation = apiKeys.create(newKey(), { transaction })
    const statement = sequelize.query('SELECT 1 AS one')

    expect(await codeOf(other.get(id))).toBe('database_unavailable')
    proxy.thaw('resumed')

    expect(await creation).toMatchObject({ apiKey: { status: 'ACTIVE' } })
    expect((await statement)[0]).toEqual([{ one: 1 }])
    await transaction.rollback()
  })
})
