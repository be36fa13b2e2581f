import * as pg from 'pg'
import { QueryTypes, Sequelize, type Transaction } from 'sequelize'

import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { setClock } from '../support/clock'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'
import { startProxy } from '../support/proxy'
import { recordStatements, type Statements } from '../support/statements'
import { until } from '../support/until'

type Options = Parameters<typeof createTestApiKeys>[1]

let database: Database
let sequelize: Sequelize
let apiKeys: TestApiKeys
let statements: Statements
let held: (Transaction & { finished?: string })[] = []

beforeAll(async () => {
  database = await createDatabase()
  sequelize = database.connect()
})

beforeEach(() => {
  statements = recordStatements()
  apiKeys = createInstance()
})

afterEach(async () => {
  jest.useRealTimers()
  for (const transaction of held) if (!transaction.finished) await transaction.rollback()
  held = []
  await apiKeys.close()
})

afterAll(() => database.drop())

/** One more process, and the statements of all processes. */
function createInstance(options: Options = {}) {
  const { driver } = statements
  const connection = database.connect({ dialectModule: driver, pool: { max: 2 } })
  return createTestApiKeys(database, { sequelize: connection, ...options })
}

async function create(wishes: Parameters<typeof newKey>[0] = {}) {
  const { apiKey, plainTextKey } = await apiKeys.create(newKey(wishes))
  return { id: apiKey.id, plainTextKey }
}

interface Written {
  hour: string
  verified: number
  denied: number
  limited: number
}

/** The uses of a key in the database, hour by hour. */
function written(id: string): Promise<Written[]> {
  return sequelize.query<Written>(
    `SELECT to_char(hour AT TIME ZONE 'UTC', 'DD HH24') AS hour, verified::int, denied::int,
            rate_limited::int AS limited
       FROM api_key_usage WHERE api_key_id = $1 ORDER BY api_key_usage.hour`,
    { bind: [id], type: QueryTypes.SELECT },
  )
}

async function accepted(id: string): Promise<number> {
  return (await written(id)).reduce((sum, { verified }) => sum + verified, 0)
}

function countWrites() {
  return statements.all.filter((sql) => sql.includes('INTO "public"."api_key_usage"')).length
}

/** Runs `sql` in a transaction of the app, which keeps its locks until it is ended, or the spec ends. */
async function hold(sql: string): Promise<Transaction> {
  const transaction = await sequelize.transaction()
  held.push(transaction)
  await sequelize.query(sql, { transaction })
  return transaction
}

async function useOften(plainTextKey: string, times: number, instance = apiKeys) {
  for (let time = 0; time < times; time++) {
    expect(await instance.verify(plainTextKey)).toMatchObject({ valid: true })
  }
}

describe('the counts of uses', () => {
  it('are written along with lastUsedAt, in a text of their own', async () => {
    const { id, plainTextKey } = await create()
    await useOften(plainTextKey, 3)

    await until(async () => (await accepted(id)) === 3)

    const texts = statements.all.filter((sql) => /_usage|SET last_used_at/.test(sql))
    expect(texts).toEqual([
      expect.stringContaining('SET last_used_at'),
      expect.stringContaining('INTO "public"."api_key_usage"'),
    ])
  })

  it('wait for a minute after that, unless the app flushes', async () => {
    const { id, plainTextKey } = await create()
    await apiKeys.verify(plainTextKey)
    await apiKeys.flush()
    await useOften(plainTextKey, 5)
    const other = await create()
    await apiKeys.verify(other.plainTextKey)
    // The database has a batch before the process has the answer.
    await until(async () => (await apiKeys.health()).usage.pending === 1)

    expect(await accepted(other.id)).toBe(1)
    expect(await accepted(id)).toBe(1)
    expect((await apiKeys.health()).usage).toEqual({ pending: 1, dropped: 0 })
    const before = countWrites()
    await apiKeys.flush()
    await apiKeys.flush()

    expect(await accepted(id)).toBe(6)
    expect(countWrites()).toBe(before + 1)
    expect((await apiKeys.health()).usage).toEqual({ pending: 0, dropped: 0 })
  })

  it('follow by themselves when lastUsedResolutionMs has passed', async () => {
    const instance = createInstance({ lastUsedResolutionMs: 1_500 })
    const { id, plainTextKey } = await create()
    await instance.verify(plainTextKey)
    await instance.flush()
    await useOften(plainTextKey, 4, instance)

    // The key is no longer used.
    await until(async () => (await accepted(id)) === 5)
    // The counts are written a moment before this process has the answer.
    await until(async () => (await instance.health()).usage.pending === 0)
    expect((await instance.health()).usage.dropped).toBe(0)
  })

  it('are kept per hour of UTC, even if the clock goes back', async () => {
    const { id, plainTextKey } = await create()
    for (const [time, times] of [
      ['2026-11-04T12:59:59.999Z', 2],
      ['2026-11-04T13:00:00.000Z', 3],
      ['2026-11-04T23:59:59.999Z', 4],
      ['2026-11-05T00:00:00.000Z', 5],
      ['2026-11-04T12:00:00.000Z', 6],
    ] as const) {
      setClock(new Date(time))
      await useOften(plainTextKey, times)
    }

    await apiKeys.flush()

    expect((await written(id)).map(({ hour, verified }) => [hour, verified])).toEqual([
      ['04 12', 8],
      ['04 13', 3],
      ['04 23', 4],
      ['05 00', 5],
    ])
  })

  it('are kept per key, over all of its secrets and however often it is read again', async () => {
    const { id, plainTextKey } = await create()
    const { plainTextKey: newer } = await apiKeys.rotate(id)
    for (let round = 0; round < 3; round++) {
      await useOften(plainTextKey, 2)
      await useOften(newer, 3)
      await apiKeys.update(id, { name: `Round ${round}` })
    }
    await useOften(plainTextKey, 1)
    expect((await apiKeys.usage(id)).totals.accepted).toBe(16)

    await apiKeys.flush()

    expect(await accepted(id)).toBe(16)
    expect(await written(id)).toHaveLength(1)
  })
})

describe('counts that cannot be written', () => {
  it('stay, while lastUsedAt is written, and are not lost or doubled', async () => {
    const { id, plainTextKey } = await create()
    await useOften(plainTextKey, 2)
    const lock = await hold('LOCK TABLE api_key_usage IN SHARE MODE')

    await expect(apiKeys.flush()).rejects.toMatchObject({ code: 'database_unavailable' })
    expect((await apiKeys.get(id)).lastUsedAt).not.toBeNull()
    await useOften(plainTextKey, 3)
    await expect(apiKeys.flush()).rejects.toMatchObject({ code: 'database_unavailable' })
    expect((await apiKeys.usage(id)).totals.accepted).toBe(5)
    await lock.rollback()
    await apiKeys.flush()

    expect(await accepted(id)).toBe(5)
    expect((await apiKeys.usage(id)).totals.accepted).toBe(5)
  })

  it('are not held up by last uses that cannot', async () => {
    const { id, plainTextKey } = await create()
    await apiKeys.verify(plainTextKey)
    const lock = await hold('LOCK TABLE api_keys IN SHARE MODE')

    await expect(apiKeys.flush()).rejects.toMatchObject({ code: 'database_unavailable' })
    expect(await accepted(id)).toBe(1)
    await lock.rollback()
    await apiKeys.flush()

    expect(await accepted(id)).toBe(1)
    expect((await apiKeys.get(id)).lastUsedAt).not.toBeNull()
  })

  it('are written once, even if the answer to the write is lost', async () => {
    let losesAnswers = false
    class LosingClient extends pg.Client {
      constructor(...options: ConstructorParameters<typeof pg.Client>) {
        super(...options)
        const query = this.query.bind(this) as (...args: unknown[]) => unknown
        Object.assign(this, {
          query(...args: unknown[]) {
            const answer = query(...args)
            const isWrite = JSON.stringify(args[0]).includes('api_key_usage_writers')
            return losesAnswers && isWrite && answer instanceof Promise
              ? answer.then(() => Promise.reject(new Error('Connection terminated unexpectedly')))
              : answer
          },
        })
      }
    }
    const connection = database.connect({ dialectModule: { ...pg, Client: LosingClient } })
    const instance = createTestApiKeys(database, { sequelize: connection })
    const { id, plainTextKey } = await create()
    await useOften(plainTextKey, 2, instance)

    losesAnswers = true
    for (const times of [3, 4]) {
      await expect(instance.flush()).rejects.toMatchObject({ code: 'database_unavailable' })
      expect(await accepted(id)).toBe(2)
      await useOften(plainTextKey, times, instance)
    }
    const total = 2 + 3 + 4
    expect((await instance.usage(id)).totals.accepted).toBe(total)
    losesAnswers = false
    await instance.flush()

    expect(await accepted(id)).toBe(total)
    expect((await instance.usage(id)).totals.accepted).toBe(total)
  })

  it('go on while the database is away, and are written when it is back', async () => {
    const proxy = await startProxy(Number(new URL(database.url).port))
    const through = new Sequelize(proxy.through(database.url), { logging: false })
    const instance = createTestApiKeys(database, { sequelize: through, outageGraceMs: 60_000 })
    const { id, plainTextKey } = await create()
    try {
      await useOften(plainTextKey, 2, instance)
      await instance.flush()
      proxy.refuse()
      await until(async () => (await instance.health()).feed === 'unreachable')
      await useOften(plainTextKey, 20, instance)
      await expect(instance.flush()).rejects.toMatchObject({ code: 'database_unavailable' })
      expect((await instance.health()).usage).toEqual({ pending: 1, dropped: 0 })
      await proxy.accept()
      await until(async () => (await instance.health()).usage.pending === 0)

      expect(await accepted(id)).toBe(22)
    } finally {
      await instance.close()
      await through.close()
      await proxy.close()
    }
  })
})
