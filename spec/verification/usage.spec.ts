import type { Sequelize, Transaction } from 'sequelize'

import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { findBlockedSession } from '../support/blocked'
import { setClock } from '../support/clock'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'

let database: Database
let sequelize: Sequelize
let apiKeys: TestApiKeys
let queries: string[]
let held: (Transaction & { finished?: string })[] = []

beforeAll(async () => {
  database = await createDatabase()
  sequelize = database.connect()
})

beforeEach(() => {
  queries = []
  apiKeys = createInstance()
})

afterAll(() => database.drop())

afterEach(async () => {
  jest.useRealTimers()
  for (const transaction of held) if (!transaction.finished) await transaction.rollback()
  held = []
})

/** The library as in one more process, with the queries that all of them make. */
function createInstance() {
  return createTestApiKeys(database, {
    sequelize: database.connect({ logging: (sql) => queries.push(sql), pool: { max: 5 } }),
  })
}

async function create() {
  const { apiKey, plainTextKey } = await apiKeys.create(newKey())
  return { id: apiKey.id, plainTextKey }
}

async function lastUsedAt(id: string) {
  const { lastUsedAt } = await apiKeys.get(id)
  return lastUsedAt
}

/** Runs `sql` in a transaction of the app, and keeps its locks until that ends, or the spec. */
async function hold(sql: string): Promise<Transaction> {
  const transaction = await sequelize.transaction()
  held.push(transaction)
  await sequelize.query(sql, { transaction })
  return transaction
}

const lockTable = 'LOCK TABLE api_keys IN SHARE MODE'
const [earlier, now, later] = [
  new Date('2026-11-01T12:00:00.000Z'),
  new Date('2026-11-01T12:00:00.001Z'),
  new Date('2026-11-01T12:00:00.002Z'),
] as const

describe('lastUsedAt', () => {
  it('is empty until a key is used, and then the time of its last use', async () => {
    const { id, plainTextKey } = await create()
    expect(await lastUsedAt(id)).toBeNull()

    for (const time of [earlier, now]) {
      setClock(time)
      await apiKeys.verify(plainTextKey)
      await apiKeys.flush()
      expect(await lastUsedAt(id)).toEqual(time)
    }
  })

  it('changes nothing else about the key', async () => {
    const { id, plainTextKey } = await create()
    const before = await apiKeys.get(id)

    await apiKeys.verify(plainTextKey)
    await apiKeys.flush()

    expect(await apiKeys.get(id)).toEqual({ ...before, lastUsedAt: expect.any(Date) })
    expect((await apiKeys.events({ apiKeyId: id })).events).toHaveLength(1)
  })

  it('is the time of no use that was refused', async () => {
    const { id, plainTextKey } = await create()
    await apiKeys.suspend(id)

    await apiKeys.verify(plainTextKey)
    await apiKeys.verify(`${plainTextKey}!`)
    await apiKeys.flush()

    expect(await lastUsedAt(id)).toBeNull()
  })

  it('never goes back, whichever process comes last and whatever its clock says', async () => {
    const other = createInstance()
    const { id, plainTextKey } = await create()
    setClock(now)
    await apiKeys.verify(plainTextKey)
    await apiKeys.flush()

    setClock(earlier)
    await other.verify(plainTextKey)
    await other.flush()
    await apiKeys.verify(plainTextKey)
    await apiKeys.flush()

    expect(await lastUsedAt(id)).toEqual(now)
  })
})

describe('verify', () => {
  it('answers while the note of a use waits, and gathers what comes meanwhile', async () => {
    const [one, other] = [await create(), await create()]
    const lock = await hold(lockTable)

    queries = []
    setClock(earlier)
    expect(await apiKeys.verify(one.plainTextKey)).toMatchObject({ valid: true })
    await findBlockedSession(sequelize)
    setClock(now)
    for (let use = 0; use < 20; use++) {
      expect(await apiKeys.verify(other.plainTextKey)).toMatchObject({ valid: true })
    }
    setClock(later)
    expect(await apiKeys.verify(one.plainTextKey)).toMatchObject({ valid: true })
    expect(await lastUsedAt(one.id)).toBeNull()
    await lock.rollback()
    await apiKeys.flush()

    expect(await lastUsedAt(one.id)).toEqual(later)
    expect(await lastUsedAt(other.id)).toEqual(now)
    expect(queries.filter((sql) => sql.includes('SET last_used_at'))).toHaveLength(2)
  })

  it('answers while a transaction of the app holds the key, and notes the use later', async () => {
    const [held, free] = [await create(), await create()]
    const lock = await hold(`SELECT 1 FROM api_keys WHERE id = '${held.id}' FOR UPDATE`)

    setClock(now)
    expect(await apiKeys.verify(held.plainTextKey)).toMatchObject({ valid: true })
    expect(await apiKeys.verify(free.plainTextKey)).toMatchObject({ valid: true })
    await apiKeys.flush()
    expect(await lastUsedAt(held.id)).toBeNull()
    expect(await lastUsedAt(free.id)).toEqual(now)

    await lock.rollback()
    await apiKeys.flush()
    expect(await lastUsedAt(held.id)).toEqual(now)
  })

  it('answers while uses cannot be noted, and keeps them until they can', async () => {
    const [one, other] = [await create(), await create()]
    await sequelize.query(`
      CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'no more uses'; END $$;
      CREATE TRIGGER refuse BEFORE UPDATE OF last_used_at ON api_keys EXECUTE FUNCTION refuse()`)

    setClock(earlier)
    expect(await apiKeys.verify(one.plainTextKey)).toMatchObject({ valid: true })
    await expect(apiKeys.flush()).rejects.toThrow('no more uses')
    setClock(now)
    expect(await apiKeys.verify(other.plainTextKey)).toMatchObject({ valid: true })
    await expect(apiKeys.flush()).rejects.toThrow('no more uses')
    await sequelize.query('DROP TRIGGER refuse ON api_keys')
    await apiKeys.flush()

    expect(await lastUsedAt(one.id)).toEqual(earlier)
    expect(await lastUsedAt(other.id)).toEqual(now)
  })

  it('is of no harm to others that note the same keys', async () => {
    const keys = await Promise.all(Array.from({ length: 20 }, create))
    const instances = [createInstance(), createInstance(), createInstance()]

    for (let round = 0; round < 10; round++) {
      setClock(new Date(now.getTime() + round))
      await Promise.all(
        instances.flatMap((instance, number) => {
          const order = number === 1 ? keys.toReversed() : keys
          return order.map(({ plainTextKey }) => instance.verify(plainTextKey))
        }),
      )
      await Promise.all(instances.map((instance) => instance.flush()))
    }
    for (const instance of instances) await instance.flush()

    for (const { id } of keys) expect(await lastUsedAt(id)).toEqual(new Date(now.getTime() + 9))
  })
})

describe('flush', () => {
  it('makes no query where nothing was used', async () => {
    const { plainTextKey } = await create()
    await apiKeys.verify(plainTextKey)
    await apiKeys.flush()

    queries = []
    await apiKeys.flush()
    expect(queries).toEqual([])
  })

  it('forgets a key that is gone', async () => {
    const { id, plainTextKey } = await create()
    const lock = await hold(lockTable)
    await apiKeys.verify(plainTextKey)
    await findBlockedSession(sequelize)
    await sequelize.query(`DELETE FROM api_keys WHERE id = '${id}'`, { transaction: lock })
    await lock.commit()

    await apiKeys.flush()
    queries = []
    await apiKeys.flush()
    expect(queries).toEqual([])
  })
})

describe('close', () => {
  it('writes what is noted, and leaves the app its connections', async () => {
    const { id, plainTextKey } = await create()
    setClock(now)
    await apiKeys.verify(plainTextKey)

    await apiKeys.close()

    expect(await lastUsedAt(id)).toEqual(now)
  })
})
