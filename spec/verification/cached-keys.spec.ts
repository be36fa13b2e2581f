import { Sequelize } from 'sequelize'

import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { setClock } from '../support/clock'
import { createDatabase, type Database } from '../support/database'
import { forgeKey, newKey } from '../support/keys'
import { recordStatements, type Statements } from '../support/statements'
import { until } from '../support/until'

type Options = Parameters<typeof createTestApiKeys>[1]

let database: Database
let statements: Statements
let instances: TestApiKeys[] = []

beforeAll(async () => {
  database = await createDatabase()
})

beforeEach(() => {
  statements = recordStatements()
})

afterEach(async () => {
  jest.useRealTimers()
  for (const instance of instances) await instance.close()
  instances = []
})

afterAll(() => database.drop())

/** One more process, with the statements that it sends. */
function createInstance(options: Options = {}) {
  const { driver } = statements
  const sequelize = database.connect({ dialectModule: driver, pool: { max: 2 } })
  const apiKeys = createTestApiKeys(database, { sequelize, ...options })
  instances.push(apiKeys)
  return apiKeys
}

async function createKeys(apiKeys: TestApiKeys, count: number): Promise<string[]> {
  const created = await Promise.all(
    Array.from({ length: count }, () => apiKeys.create(newKey({ userId: 'alice' }))),
  )
  return created.map(({ plainTextKey }) => plainTextKey)
}

async function createColdKeys(count: number): Promise<string[]> {
  const other = createTestApiKeys(database)
  const keys = await createKeys(other, count)
  await other.close()
  return keys
}

describe('a cached key', () => {
  it('is evicted by its id, in upper or lower case', async () => {
    const apiKeys = createInstance()
    const { apiKey, plainTextKey } = await apiKeys.create(newKey())
    await apiKeys.verify(plainTextKey)
    // No process follows the log now.
    await apiKeys.close()

    await apiKeys.revoke(apiKey.id.toUpperCase())

    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
  })

  it('is verified without a statement', async () => {
    const apiKeys = createInstance()
    const [key = ''] = await createColdKeys(1)
    await apiKeys.verify(key)
    await apiKeys.flush()
    const before = statements.all.length

    for (let use = 0; use < 1_000; use++) {
      expect(await apiKeys.verify(key)).toMatchObject({ valid: true })
    }

    const polls = statements.polls().length
    const since = statements.all.slice(before).filter((sql) => !sql.includes('fingerprint'))
    // The trail is sealed in the background.
    expect(since.filter((sql) => !/LISTEN|SELECT 1|unsealed/.test(sql))).toEqual([])
    expect(polls).toBeGreaterThan(0)
  })

  it('is refused from the millisecond of its expiry, without a look-up', async () => {
    // A poll that a notification starts before the clock is set would grant no lease after it.
    const apiKeys = createInstance({ listen: false })
    const expiresAt = new Date(Date.now() + 3_600_000)
    const { plainTextKey } = await apiKeys.create(newKey({ expiresAt }))
    await apiKeys.verify(plainTextKey)
    const before = statements.lookUps().length

    setClock(new Date(expiresAt.getTime() - 1))
    const early = await apiKeys.verify(plainTextKey)
    setClock(expiresAt)
    const late = await apiKeys.verify(plainTextKey)

    expect(early).toMatchObject({ valid: true, apiKey: { expiresAt } })
    expect(late).toEqual({ valid: false, code: 'expired' })
    expect(statements.lookUps()).toHaveLength(before)
  })

  it('is a new object for each request, so that no request can change it for another', async () => {
    const apiKeys = createInstance()
    const { plainTextKey } = await apiKeys.create(
      newKey({ expiresAt: new Date('2090-01-01T00:00:00Z') }),
    )
    const first = await apiKeys.verify(plainTextKey)
    if (!first.valid) throw new Error('refused')

    first.apiKey.expiresAt?.setTime(0)
    expect(() => (first.apiKey.permissions as string[]).push('EXECUTE_GRAPH')).toThrow(TypeError)
    expect(() => Object.assign(first.apiKey, { userId: 'bob' })).toThrow(TypeError)

    expect(await apiKeys.verify(plainTextKey)).toMatchObject({
      valid: true,
      apiKey: { userId: 'alice', expiresAt: new Date('2090-01-01T00:00:00Z') },
    })
  })
})

describe('a key that is not cached', () => {
  it('is looked up once for any number of requests', async () => {
    const apiKeys = createInstance()
    const [key = ''] = await createColdKeys(1)

    const verdicts = await Promise.all(Array.from({ length: 500 }, () => apiKeys.verify(key)))

    expect(verdicts.filter(({ valid }) => valid)).toHaveLength(500)
    expect(statements.lookUps()).toHaveLength(1)
  })

  it('is looked up together with the other keys of the same moment', async () => {
    const apiKeys = createInstance()
    const keys = await createColdKeys(100)

    const verdicts = await Promise.all(keys.map((key) => apiKeys.verify(key)))

    expect(verdicts.filter(({ valid }) => valid)).toHaveLength(100)
    expect(statements.lookUps()).toHaveLength(1)
  })

  it('is found by statements that are not prepared, too', async () => {
    const apiKeys = createInstance({ preparedStatements: false })
    const keys = await createColdKeys(3)

    for (const key of keys) expect(await apiKeys.verify(key)).toMatchObject({ valid: true })
    for (const sql of statements.lookUps()) expect(sql).toContain('READ COMMITTED READ ONLY')
  })

  it('is found by statements whose names differ if their texts do', async () => {
    const [key = ''] = await createColdKeys(1)
    for (const maxStalenessMs of [1_000, 1_000, 2_000]) {
      await createInstance({ maxStalenessMs }).verify(key)
    }

    expect(statements.names.size).toBe(2)
  })

  it('takes the place of another key if the cache is full', async () => {
    const apiKeys = createInstance({ cacheSize: 3 })
    const keys = await createColdKeys(10)

    for (const key of [...keys, ...keys]) {
      expect(await apiKeys.verify(key)).toMatchObject({ valid: true })
    }

    expect((await apiKeys.health()).cache).toMatchObject({ keys: 3, maxKeys: 3 })
  })

  it('does not take the place of a key in use', async () => {
    const apiKeys = createInstance({ cacheSize: 3 })
    const [busy = '', ...others] = await createColdKeys(10)
    await apiKeys.verify(busy)
    const before = statements.lookUps().length

    for (const key of others) {
      await apiKeys.verify(key)
      await apiKeys.verify(busy)
    }

    expect(statements.lookUps()).toHaveLength(before + others.length)
  })
})

describe('a key that does not exist', () => {
  it('is looked up once, until SQL adds keys', async () => {
    const apiKeys = createInstance({ maxStalenessMs: 600_000 })
    const plainTextKey = forgeKey()

    for (let attempt = 0; attempt < 10; attempt++) {
      expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'unknown' })
    }
    expect(statements.lookUps()).toHaveLength(1)

    await apiKeys.create(newKey())
    await apiKeys.verify(plainTextKey)
    expect(statements.lookUps()).toHaveLength(1)

    await database.connect().query(
      `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
       VALUES ('alice', 'By hand', 'agpt_000000', '00000000', md5('') || md5(''), '{READ_GRAPH}')`,
    )
    await until(async () => {
      await apiKeys.verify(plainTextKey)
      return statements.lookUps().length === 2
    })
  })

  it('is looked up again when the bound is over', async () => {
    const apiKeys = createInstance({ maxStalenessMs: 100, listen: false })
    const plainTextKey = forgeKey()

    await until(async () => {
      expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'unknown' })
      return statements.lookUps().length > 2
    })
  })

  it('is accepted at once when it is made', async () => {
    const [maker, user] = [createInstance(), createInstance()]
    const [key = ''] = await createColdKeys(1)
    await user.verify(key)

    const { plainTextKey } = await maker.create(newKey())

    expect(await user.verify(plainTextKey)).toMatchObject({ valid: true })
  })
})

describe('the library', () => {
  it('opens nothing before the first verification, and nothing is open after close()', async () => {
    const sequelize = database.connect()
    const apiKeys = createInstance({ sequelize })
    const observer = database.connect()
    async function countOwn() {
      const [rows] = await observer.query(
        `SELECT count(*)::int AS count FROM pg_stat_activity
          WHERE datname = current_database() AND application_name = 'express-api-keys'`,
      )
      return (rows[0] as { count: number }).count
    }
    await until(async () => (await countOwn()) === 0)

    const { plainTextKey } = await apiKeys.create(newKey())
    await apiKeys.list()
    expect(await countOwn()).toBe(0)

    await apiKeys.verify(plainTextKey)
    await until(async () => (await countOwn()) === 4)

    await apiKeys.close()
    await until(async () => (await countOwn()) === 0)
    expect(await apiKeys.health()).toMatchObject({ feed: 'idle', listener: 'down' })
  })

  it('verifies again after close()', async () => {
    const apiKeys = createInstance()
    const { plainTextKey } = await apiKeys.create(newKey())
    await apiKeys.verify(plainTextKey)
    await apiKeys.close()

    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
    await apiKeys.revoke((await apiKeys.list({ limit: 1 })).apiKeys[0]?.id ?? '')
    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
  })

  it('verifies while all connections of the app are in use', async () => {
    const sequelize = database.connect({ pool: { max: 1, acquire: 60_000 } })
    const apiKeys = createInstance({ sequelize })
    const [key = ''] = await createColdKeys(1)
    const taken = await sequelize.transaction()

    expect(await apiKeys.verify(key)).toMatchObject({ valid: true })
    await taken.rollback()
  })

  it('reads keys from the primary only', async () => {
    const { hostname, port, username, password, pathname } = new URL(database.url)
    const primary = {
      host: hostname,
      port,
      username: decodeURIComponent(username),
      password: decodeURIComponent(password),
      database: pathname.slice(1),
    }
    const sequelize = new Sequelize({
      dialect: 'postgres',
      logging: false,
      replication: { read: [{ ...primary, port: '1' }], write: primary },
    })
    const apiKeys = createInstance({ sequelize })
    const [key = ''] = await createColdKeys(1)

    expect(await apiKeys.verify(key)).toMatchObject({ valid: true })
    await apiKeys.close()
    await sequelize.close()
  })

  it('connects as the app does: with the password that a hook fetches', async () => {
    const url = new URL(database.url)
    const password = decodeURIComponent(url.password)
    url.password = 'yesterday'
    const sequelize = new Sequelize(url.href, { logging: false })
    sequelize.addHook('beforeConnect', (config: object) => {
      Object.assign(config, { password })
    })
    const apiKeys = createInstance({ sequelize })
    const [key = ''] = await createColdKeys(1)

    expect(await apiKeys.verify(key)).toMatchObject({ valid: true })
    await apiKeys.close()
    await sequelize.close()
  })
})

describe('health()', () => {
  it('reports the state of verification', async () => {
    const maxStalenessMs = 600_000
    const apiKeys = createInstance({ maxStalenessMs })
    expect(await apiKeys.health()).toEqual({
      ok: true,
      reason: null,
      lookUpFailure: null,
      lease: { isLive: false, remainingMs: 0 },
      feed: 'idle',
      revision: null,
      lagMs: null,
      listener: 'down',
      cache: { keys: 0, maxKeys: 100_000, unknownHashes: 0, hits: 0, misses: 0, hitRate: null },
      usage: { pending: 0, dropped: 0 },
      audit: { waiting: 0, oldestAgeMs: null, lost: 0 },
      clockOffsetMs: null,
    })

    const [key = ''] = await createColdKeys(1)
    for (let use = 0; use < 4; use++) await apiKeys.verify(key)
    await until(async () => (await apiKeys.health()).listener === 'up')

    const health = await apiKeys.health()
    expect(health).toMatchObject({
      lease: { isLive: true },
      feed: 'following',
      cache: { keys: 1, hits: 3, misses: 1, hitRate: 0.75 },
      usage: { dropped: 0 },
    })
    expect(health.revision).toBeGreaterThan(1)
    expect(health.lagMs).toBeLessThan(maxStalenessMs)
    expect(Math.abs(health.clockOffsetMs ?? Infinity)).toBeLessThan(maxStalenessMs)
  })

  it('counts the living keys of every secret', async () => {
    const own = await createDatabase()
    const secrets = ['the first of two, 5d0c1e7a9b3f', 'the second of two, 82f6b4c0d1']
    const [first = '', second = ''] = secrets.map((secret) => secret.padEnd(40, '~'))
    const before = createTestApiKeys(own)
    const between = createTestApiKeys(own, { secrets: [first], acceptUnkeyed: true })
    const after = createTestApiKeys(own, { secrets: [second, first], acceptUnkeyed: true })
    await before.create(newKey())
    for (let count = 0; count < 2; count++) await between.create(newKey())
    const { apiKey } = await after.create(newKey())
    await after.create(newKey())
    await after.revoke(apiKey.id)

    const { livingKeys = [] } = await after.health({ livingKeys: true })

    expect(livingKeys.map(({ secret, keys }) => ({ secret, keys }))).toEqual(
      expect.arrayContaining([
        { secret: null, keys: 1 },
        { secret: 0, keys: 1 },
        { secret: 1, keys: 2 },
      ]),
    )
    expect(JSON.stringify(livingKeys)).not.toContain('~')
    await own.drop()
  })
})
