import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'

import express from 'express'
import { Sequelize } from 'sequelize'
import request from 'supertest'

import { ApiKeysError } from '../../lib'
import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'
import { startProxy, type Proxy } from '../support/proxy'
import { until } from '../support/until'

type Options = Parameters<typeof createTestApiKeys>[1]

let database: Database
let proxy: Proxy
let sequelize: Sequelize
let apiKeys: TestApiKeys

beforeAll(async () => {
  database = await createDatabase()
  proxy = await startProxy(Number(new URL(database.url).port))
})

afterEach(async () => {
  await apiKeys.close().catch(() => {})
  await sequelize.close()
})

afterAll(async () => {
  await proxy.close()
  await database.drop()
})

/** A process that reaches the database through a network that can fail. */
function createInstance(options: Options = {}) {
  sequelize = new Sequelize(proxy.through(database.url), { logging: false })
  apiKeys = createTestApiKeys(database, { sequelize, ...options })
  return apiKeys
}

async function createKeys(count: number) {
  const other = createTestApiKeys(database)
  const created = await Promise.all(Array.from({ length: count }, () => other.create(newKey())))
  await other.close()
  return created.map(({ apiKey, plainTextKey }) => ({ id: apiKey.id, plainTextKey }))
}

/** The outcome of a verification: accepted, the reason why not, or the code of the refusal. */
async function outcomeOf(plainTextKey: string): Promise<string> {
  try {
    const verdict = await apiKeys.verify(plainTextKey)
    return verdict.valid ? 'accepted' : verdict.code
  } catch (error) {
    return error instanceof ApiKeysError ? error.code : String(error)
  }
}

async function isLeased() {
  const { lease } = await apiKeys.health()
  return lease.isLive
}

describe('while the database is away', () => {
  it.each(['flush', 'close'] as const)('%s says so as Express understands it', async (call) => {
    createInstance()
    const [key] = await createKeys(1)
    expect(await outcomeOf(key?.plainTextKey ?? '')).toBe('accepted')
    proxy.refuse()

    await expect(apiKeys[call]()).rejects.toMatchObject({
      code: 'database_unavailable',
      status: 503,
      headers: { 'Retry-After': '1' },
    })
    await proxy.accept()
  })

  it('keys in use pass as long as the lease lasts, and nothing passes or is refused after that', async () => {
    createInstance({ maxStalenessMs: 2_000 })
    const [warm, cold] = await createKeys(2)
    if (!warm || !cold) throw new Error('no keys')
    expect(await outcomeOf(warm.plainTextKey)).toBe('accepted')

    proxy.refuse()
    expect(await outcomeOf(warm.plainTextKey)).toBe('accepted')
    expect(await outcomeOf(cold.plainTextKey)).toBe('database_unavailable')
    await until(async () => (await outcomeOf(warm.plainTextKey)) !== 'accepted')
    expect(await outcomeOf(warm.plainTextKey)).toBe('database_unavailable')
    expect((await apiKeys.health()).feed).toBe('unreachable')

    await proxy.accept()
    await until(async () => (await outcomeOf(warm.plainTextKey)) === 'accepted')
    expect(await outcomeOf(cold.plainTextKey)).toBe('accepted')
  })

  it('the answer is 503, with Retry-After', async () => {
    createInstance()
    const [key] = await createKeys(1)
    const app = express()
    app.get('/', apiKeys.requirePermission('READ_GRAPH'), (_req, res) => {
      res.json({})
    })
    const server = app.listen(0)
    await once(server, 'listening')

    proxy.refuse()
    const response = await request(server)
      .get('/')
      .set('Authorization', `Bearer ${key?.plainTextKey}`)
    await proxy.accept()
    server.close()

    expect(response.status).toBe(503)
    expect(response.headers['retry-after']).toBe('1')
    expect(response.body).toMatchObject({ code: 'database_unavailable' })
  })

  it('keys in use pass for longer if the app sets outageGraceMs, and other keys do not', async () => {
    createInstance({ maxStalenessMs: 300, outageGraceMs: 60_000 })
    const [warm, suspended, cold] = await createKeys(3)
    if (!warm || !suspended || !cold) throw new Error('no keys')
    await apiKeys.suspend(suspended.id)
    await outcomeOf(warm.plainTextKey)
    await outcomeOf(suspended.plainTextKey)

    proxy.refuse()
    await until(async () => (await apiKeys.health()).feed === 'unreachable')
    await until(async () => ((await apiKeys.health()).lagMs ?? 0) > 300)

    expect(await outcomeOf(warm.plainTextKey)).toBe('accepted')
    expect(await outcomeOf(suspended.plainTextKey)).toBe('suspended')
    expect(await outcomeOf(cold.plainTextKey)).toBe('database_unavailable')
    await proxy.accept()
  })

  it('a connection that is slow to open is opened nevertheless', async () => {
    createInstance()
    sequelize.addHook('beforeConnect', async () => {
      await new Promise((resolve) => {
        setTimeout(resolve, 900)
      })
    })
    const [key] = await createKeys(1)

    await until(async () => (await outcomeOf(key?.plainTextKey ?? '')) === 'accepted')
    expect(await isLeased()).toBe(true)
  })

  it('a connection that is lost fails no request', async () => {
    createInstance()
    const [first, second, third] = await createKeys(3)
    if (!first || !second || !third) throw new Error('no keys')
    await outcomeOf(first.plainTextKey)

    proxy.cut()

    expect(await outcomeOf(first.plainTextKey)).toBe('accepted')
    expect(await outcomeOf(second.plainTextKey)).toBe('accepted')
    proxy.cut()
    expect(await outcomeOf(third.plainTextKey)).toBe('accepted')
  })

  it('a signal does not abort, and aborts for changes of that time once the database is back', async () => {
    createInstance({ maxStalenessMs: 300 })
    const [key] = await createKeys(1)
    const verdict = await apiKeys.verify(key?.plainTextKey ?? '')
    if (!verdict.valid) throw new Error('refused')
    const { signal } = verdict.apiKey

    proxy.refuse()
    await until(async () => !(await isLeased()))
    const other = createTestApiKeys(database)
    await other.revoke(verdict.apiKey.id)
    expect(signal.aborted).toBe(false)

    await proxy.accept()
    if (!signal.aborted) await once(signal, 'abort')
    expect(signal.reason).toMatchObject({ reason: 'revoked' })
    await other.close()
  })
})

describe('a database that wakes slowly', () => {
  it.each<Options>([{}, { maxStalenessMs: 100 }])(
    'is waited for as the app’s own queries wait for it, with %o',
    async (options) => {
      const [key] = await createKeys(1)
      createInstance(options)
      proxy.freeze()
      const own = sequelize.query('SELECT 1')
      const outcome = outcomeOf(key?.plainTextKey ?? '')

      // Longer than a process waits for the answer of a database that is awake.
      await sleep(1_500)
      proxy.thaw('resumed')

      expect(await outcome).toBe('accepted')
      await own
    },
  )

  it('is waited for again by a process that came to rest', async () => {
    const [first, second] = await createKeys(2)
    createInstance()
    await outcomeOf(first?.plainTextKey ?? '')
    await apiKeys.close()

    proxy.freeze()
    const outcome = outcomeOf(second?.plainTextKey ?? '')
    await sleep(1_500)
    proxy.thaw('resumed')

    expect(await outcome).toBe('accepted')
  })

  it('is waited for no longer than the app’s pool would', async () => {
    const [key] = await createKeys(1)
    sequelize = new Sequelize(proxy.through(database.url), {
      logging: false,
      pool: { acquire: 1_200 },
    })
    apiKeys = createTestApiKeys(database, { sequelize })
    proxy.freeze()

    expect(await outcomeOf(key?.plainTextKey ?? '')).toBe('database_unavailable')
    proxy.thaw('resumed')
  })
})
