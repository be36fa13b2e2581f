import { QueryTypes, type Sequelize, type Transaction } from 'sequelize'

import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { setClock } from '../support/clock'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'
import { recordStatements, type Statements } from '../support/statements'
import { until } from '../support/until'

type Options = Parameters<typeof createTestApiKeys>[1]

let database: Database
let sequelize: Sequelize
/** Makes an instance that writes every use. By default, only one use in a minute is written. */
let apiKeys: TestApiKeys
let statements: Statements
let held: (Transaction & { finished?: string })[] = []
let instances: TestApiKeys[] = []

beforeAll(async () => {
  database = await createDatabase()
  sequelize = database.connect()
})

beforeEach(() => {
  statements = recordStatements()
  apiKeys = createInstance({ lastUsedResolutionMs: 0 })
})

afterAll(() => database.drop())

afterEach(async () => {
  jest.useRealTimers()
  for (const transaction of held) if (!transaction.finished) await transaction.rollback()
  held = []
  for (const instance of instances) await instance.close()
  instances = []
})

/** One more process, and the statements of all processes. */
function createInstance(options: Options = {}) {
  const { driver } = statements
  const connection = database.connect({ dialectModule: driver, pool: { max: 2 } })
  const instance = createTestApiKeys(database, { sequelize: connection, ...options })
  instances.push(instance)
  return instance
}

async function create() {
  const { apiKey, plainTextKey } = await apiKeys.create(newKey())
  return { id: apiKey.id, plainTextKey }
}

/** Reads the last use from the database. */
async function lastUsedAt(id: string): Promise<Date | null> {
  const [row] = await sequelize.query<{ lastUsedAt: Date | null }>(
    'SELECT last_used_at AS "lastUsedAt" FROM api_keys WHERE id = $1',
    { bind: [id], type: QueryTypes.SELECT },
  )
  if (!row) throw new Error('there is no such key')
  return row.lastUsedAt
}

function countWrites() {
  return statements.all.filter((sql) => sql.includes('SET last_used_at')).length
}

/** Runs `sql` in a transaction of the app, which keeps its locks until it is ended, or the spec ends. */
async function hold(sql: string): Promise<Transaction> {
  const transaction = await sequelize.transaction()
  held.push(transaction)
  await sequelize.query(sql, { transaction })
  return transaction
}

const [earlier, now] = [
  new Date('2026-11-01T12:00:00.000Z'),
  new Date('2026-11-01T12:00:00.001Z'),
] as const

function after(ms: number) {
  return new Date(now.getTime() + ms)
}

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

  it('is written within a second by itself', async () => {
    const { id, plainTextKey } = await create()

    await apiKeys.verify(plainTextKey)
    await until(async () => (await lastUsedAt(id)) !== null)

    expect(countWrites()).toBe(1)
  })

  it('is seen in the process of the use before it is written', async () => {
    const other = createInstance()
    const { id, plainTextKey } = await create()
    // The use cannot be written as long as the key is locked.
    const lock = await hold(`SELECT 1 FROM api_keys WHERE id = '${id}' FOR UPDATE`)
    setClock(now)
    await apiKeys.verify(plainTextKey)

    const [listed] = (await apiKeys.list({ limit: 1 })).apiKeys
    const got = await apiKeys.get(id)
    const gotElsewhere = await other.get(id)
    await lock.rollback()
    const updated = await apiKeys.update(id, { name: 'Backup' })

    for (const key of [listed, got, updated]) expect(key).toMatchObject({ id, lastUsedAt: now })
    expect(gotElsewhere).toMatchObject({ lastUsedAt: null })
  })

  it('changes nothing else about the key, and is not in the log of changes', async () => {
    const { id, plainTextKey } = await create()
    const before = await apiKeys.get(id)
    await apiKeys.verify(plainTextKey)
    const { revision } = await apiKeys.health()

    await apiKeys.flush()

    expect(await apiKeys.get(id)).toEqual({ ...before, lastUsedAt: expect.any(Date) })
    expect((await apiKeys.events({ apiKeyId: id })).events).toHaveLength(1)
    const [newest] = await sequelize.query<{ revision: number }>(
      'SELECT max(revision)::float8 AS revision FROM api_key_revisions',
      { type: QueryTypes.SELECT },
    )
    expect(newest).toEqual({ revision })
  })

  it('ignores refused uses', async () => {
    const { id, plainTextKey } = await create()
    await apiKeys.suspend(id)

    await apiKeys.verify(plainTextKey)
    await apiKeys.verify(`${plainTextKey}!`)
    await apiKeys.flush()

    expect(await lastUsedAt(id)).toBeNull()
  })

  it('never goes back, although clocks of processes differ', async () => {
    const other = createInstance({ lastUsedResolutionMs: 0 })
    const { id, plainTextKey } = await create()
    await other.verify(plainTextKey)
    await apiKeys.verify(plainTextKey)
    setClock(new Date('2050-01-01T00:00:00Z'))
    await apiKeys.verify(plainTextKey)
    await apiKeys.flush()

    setClock(now)
    for (const instance of [other, apiKeys]) {
      await instance.verify(plainTextKey)
      await instance.flush()
    }

    expect(await lastUsedAt(id)).toEqual(new Date('2050-01-01T00:00:00Z'))
    expect(await apiKeys.get(id)).toMatchObject({ lastUsedAt: new Date('2050-01-01T00:00:00Z') })
  })
})

describe('lastUsedResolutionMs', () => {
  it.each([
    ['a minute, unless the app says otherwise', {}, 60_000],
    ['as long as the app says', { lastUsedResolutionMs: 5_000 }, 5_000],
  ])(
    'is how far apart two uses are that are both written: %s',
    async (_, options, resolutionMs) => {
      const instance = createInstance(options)
      const { id, plainTextKey } = await create()

      for (const [time, written] of [
        [now, now],
        [after(1), now],
        [after(resolutionMs - 1), now],
        [after(resolutionMs), after(resolutionMs)],
        [after(resolutionMs + 1), after(resolutionMs)],
      ] as const) {
        setClock(time)
        expect(await instance.verify(plainTextKey)).toMatchObject({ valid: true })
        await instance.flush()
        expect(await lastUsedAt(id)).toEqual(written)
      }
      // The uses in between caused no write.
      expect(countWrites()).toBe(2)
    },
  )

  it('is kept by all processes together', async () => {
    const [one, other] = [createInstance(), createInstance()]
    const { id, plainTextKey } = await create()

    for (const [instance, time, written] of [
      [one, now, now],
      [other, after(59_999), now],
      [one, after(60_000), after(60_000)],
      [other, after(119_999), after(60_000)],
      [one, after(120_000), after(120_000)],
    ] as const) {
      setClock(time)
      await instance.verify(plainTextKey)
      await instance.flush()
      expect(await lastUsedAt(id)).toEqual(written)
    }
  })

  it('keeps a process that comes later from writing, and the process shows the time in the database', async () => {
    const { id, plainTextKey } = await create()
    setClock(now)
    await apiKeys.verify(plainTextKey)
    await apiKeys.flush()
    const rowVersion = async () =>
      sequelize.query('SELECT ctid, xmin FROM api_keys WHERE id = $1', {
        bind: [id],
        type: QueryTypes.SELECT,
      })
    const before = await rowVersion()

    setClock(after(59_999))
    const other = createInstance()
    await other.verify(plainTextKey)
    await other.flush()

    expect(await rowVersion()).toEqual(before)
    expect(await other.get(id)).toMatchObject({ lastUsedAt: now })
  })
})

describe('verify', () => {
  it('answers while the table is locked, and gathers the uses until then', async () => {
    const [one, other] = [await create(), await create()]
    setClock(after(-2))
    for (const { plainTextKey } of [one, other]) await apiKeys.verify(plainTextKey)
    await apiKeys.flush()
    setClock(earlier)
    expect(await apiKeys.verify(one.plainTextKey)).toMatchObject({ valid: true })
    const lock = await hold('LOCK TABLE api_keys IN SHARE MODE')

    const flushed = apiKeys.flush().catch((error: unknown) => error)
    setClock(now)
    for (let use = 0; use < 20; use++) {
      expect(await apiKeys.verify(other.plainTextKey)).toMatchObject({ valid: true })
    }
    setClock(after(1))
    expect(await apiKeys.verify(one.plainTextKey)).toMatchObject({ valid: true })
    expect(await flushed).toMatchObject({ code: 'database_unavailable' })
    expect(await lastUsedAt(one.id)).toEqual(after(-2))
    await lock.rollback()
    const before = countWrites()
    await apiKeys.flush()

    expect(await lastUsedAt(one.id)).toEqual(after(1))
    expect(await lastUsedAt(other.id)).toEqual(now)
    // The flush writes once, unless the write of that second came before it.
    expect(countWrites()).toBeLessThanOrEqual(before + 1)
  })

  it('answers while a transaction of the app holds the key, and notes the use later', async () => {
    const [locked, free] = [await create(), await create()]
    const lock = await hold(`SELECT 1 FROM api_keys WHERE id = '${locked.id}' FOR UPDATE`)

    setClock(now)
    expect(await apiKeys.verify(locked.plainTextKey)).toMatchObject({ valid: true })
    expect(await apiKeys.verify(free.plainTextKey)).toMatchObject({ valid: true })
    await apiKeys.flush()
    expect(await lastUsedAt(locked.id)).toBeNull()
    expect(await lastUsedAt(free.id)).toEqual(now)
    expect(await apiKeys.get(locked.id)).toMatchObject({ lastUsedAt: now })

    await lock.rollback()
    await apiKeys.flush()
    expect(await lastUsedAt(locked.id)).toEqual(now)
  })

  it('answers while uses cannot be written, and keeps them until they can', async () => {
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

  it('writes the uses of keys that several processes use at once', async () => {
    const keys = await Promise.all(Array.from({ length: 20 }, create))
    const fleet = Array.from({ length: 3 }, () => createInstance({ lastUsedResolutionMs: 0 }))

    for (let round = 0; round < 10; round++) {
      setClock(after(round))
      await Promise.all(
        fleet.flatMap((instance, number) => {
          const order = number === 1 ? keys.toReversed() : keys
          return order.map(({ plainTextKey }) => instance.verify(plainTextKey))
        }),
      )
      await Promise.all(fleet.map((instance) => instance.flush()))
    }
    for (const instance of fleet) await instance.flush()

    for (const { id } of keys) expect(await lastUsedAt(id)).toEqual(after(9))
  })
})
