import { randomUUID } from 'node:crypto'
import { setImmediate as nextTurn } from 'node:timers/promises'

import * as pg from 'pg'
import { QueryTypes, Sequelize, type Transaction } from 'sequelize'

import { createBackground } from '../../lib/database/background'
import { CachedKey, type KeyRow } from '../../lib/verification/cache'
import { systemClock } from '../../lib/database/clock'
import { createConnections } from '../../lib/database/connections'
import { createOpenClient } from '../../lib/database/open-client'
import { createUsageRecorder } from '../../lib/usage/recorder'
import type { Bearer } from '../../lib/verification/verified-key'
import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { setClock } from '../support/clock'
import { createDatabase, databaseAway, type Database } from '../support/database'
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

/** The library as in one more process, with the statements that all of them send. */
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

/** What the database has of a key's uses, hour by hour. */
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

/** Runs `sql` in a transaction of the app, and keeps its locks until that ends, or the spec. */
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
  it('are written along with lastUsedAt, in one text', async () => {
    const { id, plainTextKey } = await create()
    await useOften(plainTextKey, 3)

    await until(async () => (await accepted(id)) === 3)

    const [text = '', ...others] = statements.all.filter((sql) => sql.includes('_usage'))
    expect(others).toEqual([])
    expect(text).toContain('SET last_used_at')
    expect(text).toContain('INTO "public"."api_key_usage"')
  })

  it('wait for a minute after that, unless somebody flushes', async () => {
    const { id, plainTextKey } = await create()
    await apiKeys.verify(plainTextKey)
    await apiKeys.flush()
    await useOften(plainTextKey, 5)
    const other = await create()
    await apiKeys.verify(other.plainTextKey)
    // The database has a batch before the process knows that it does.
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

    // Nobody uses it any more.
    await until(async () => (await accepted(id)) === 5)
    // It is written a moment before this process is told so.
    await until(async () => (await instance.health()).usage.pending === 0)
    expect((await instance.health()).usage.dropped).toBe(0)
  })

  it('are those of an hour of UTC each, whichever way the clock goes', async () => {
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

  it('are of the key, whichever of its secrets is used and whenever it was read', async () => {
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

  it('are all written where there are many keys, 10,000 in a statement', async () => {
    const recorder = createRecorder(sequelize)
    const userId = 'O\'Brien "\\{},😀'
    const keys = Array.from({ length: 20_001 }, (_, index) => cachedKey(index, userId))
    for (const key of keys) recorder.countUse(key, Date.now(), anybody())
    for (const key of keys.slice(0, 5)) recorder.noteUse(key, Date.now(), anybody())

    await recorder.flush()

    const [row] = await sequelize.query<object>(
      `SELECT count(*)::int AS keys, sum(verified)::int AS verified FROM api_key_usage
        WHERE user_id = $1`,
      { bind: [userId], type: QueryTypes.SELECT },
    )
    expect(row).toEqual({ keys: 20_001, verified: 20_001 })
    expect(recorder.health()).toEqual({ pending: 0, dropped: 0 })
  })
})

describe('counts of many keys at once', () => {
  it('are written without waiting if room for them is about to run out', async () => {
    const recorder = createTimelessRecorder(sequelize)
    const userId = 'a crowd'
    const keys = Array.from({ length: 30_000 }, (_, index) =>
      cachedKey(index, userId, randomUUID()),
    )
    for (const key of keys) {
      if (recorder.health().pending === 20_000)
        await until(() => recorder.health().pending < 20_000)
      recorder.countUse(key, Date.now(), anybody())
    }

    await until(() => recorder.health().pending <= 15_000)
    await recorder.flush()

    const [row] = await sequelize.query<object>(
      `SELECT count(*)::int AS keys, sum(verified)::int AS verified FROM api_key_usage
        WHERE user_id = $1`,
      { bind: [userId], type: QueryTypes.SELECT },
    )
    expect(row).toEqual({ keys: 30_000, verified: 30_000 })
    expect(recorder.health()).toEqual({ pending: 0, dropped: 0 })
  })

  it('wait for the next time if the database is away', async () => {
    let attempts = 0
    const connected = databaseAway.connect({
      hooks: {
        beforeConnect() {
          attempts++
        },
      },
    })
    const recorder = createTimelessRecorder(connected)
    const keys = Array.from({ length: 20_000 }, (_, index) => cachedKey(index))
    for (const key of keys.slice(0, 16_000)) recorder.countUse(key, Date.now(), anybody())

    await until(() => attempts > 0)
    await expect(recorder.flush()).rejects.toMatchObject({ code: 'database_unavailable' })
    const before = attempts
    for (const key of keys.slice(16_000)) recorder.countUse(key, Date.now(), anybody())
    await nextTurn()

    expect(attempts).toBe(before)
    recorder.stop()
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

  it('are written once, where nobody heard that they were', async () => {
    let isDeaf = false
    class DeafClient extends pg.Client {
      constructor(...options: ConstructorParameters<typeof pg.Client>) {
        super(...options)
        const query = this.query.bind(this) as (...args: unknown[]) => unknown
        Object.assign(this, {
          query(...args: unknown[]) {
            const answer = query(...args)
            const isWrite = String(args[0]).includes('api_key_usage_writers')
            return isDeaf && isWrite && answer instanceof Promise
              ? answer.then(() => Promise.reject(new Error('Connection terminated unexpectedly')))
              : answer
          },
        })
      }
    }
    const connection = database.connect({ dialectModule: { ...pg, Client: DeafClient } })
    const instance = createTestApiKeys(database, { sequelize: connection })
    const { id, plainTextKey } = await create()
    await useOften(plainTextKey, 2, instance)

    isDeaf = true
    for (const times of [3, 4]) {
      await expect(instance.flush()).rejects.toMatchObject({ code: 'database_unavailable' })
      expect(await accepted(id)).toBe(2)
      await useOften(plainTextKey, times, instance)
    }
    const total = 2 + 3 + 4
    expect((await instance.usage(id)).totals.accepted).toBe(total)
    isDeaf = false
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

  it('are bounded in number, and it is told how many uses are not among them', async () => {
    const recorder = createRecorder(databaseAway.connect(), 1)
    const keys = Array.from({ length: 20_001 }, (_, index) => cachedKey(index))
    for (const key of keys) recorder.countUse(key, Date.now(), anybody())
    // The first counts are on their way to the database, and would be counted anew.
    const [known, unknown] = [keys[19_999], keys[20_000]]
    if (!known || !unknown) throw new Error('there are too few')

    for (const key of [known, known, unknown]) recorder.countUse(key, Date.now(), anybody())
    await expect(recorder.flush()).rejects.toMatchObject({ code: 'database_unavailable' })
    recorder.stop()

    expect(recorder.countsOf(known.id, 0)).toMatchObject([{ verified: 3 }])
    expect(recorder.countsOf(unknown.id, 0)).toEqual([])
    expect(recorder.health()).toEqual({ pending: 20_000, dropped: 2 })
  })
})

describe('last uses that cannot be written', () => {
  it('are bounded in number, and noted again at the next use', async () => {
    const recorder = createTimelessRecorder(databaseAway.connect())
    const keys = Array.from({ length: 20_001 }, (_, index) => cachedKey(index))
    const [first, last] = [keys[0], keys[20_000]]
    if (!first || !last) throw new Error('there are too few')
    for (const key of keys) recorder.noteUse(key, 1_000, anybody())

    recorder.noteUse(first, 100_000, anybody())

    expect(recorder.lastUseOf(first.id)).toMatchObject({ atMs: 100_000 })
    expect(recorder.lastUseOf(last.id)).toBeUndefined()
    expect(last.lastUsedAtMs).toBe(-Infinity)
  })
})

describe('a use that a limit refuses', () => {
  it('counts as such, once, and not as accepted', async () => {
    const recorder = createRecorder(sequelize)
    const { id } = await create()
    const key = cachedKey(0, 'alice', id)
    const noon = Date.parse('2026-11-04T12:59:59Z')
    const [first, second, third, fourth] = [anybody(), anybody(), anybody(), anybody()]
    for (const bearer of [first, second, third, fourth]) recorder.countUse(key, noon, bearer)

    recorder.noteRateLimited(key, first)
    recorder.noteDenied(key, second)
    await recorder.flush()
    // Another hour has begun meanwhile.
    recorder.countUse(key, noon + 1_000, anybody())
    recorder.noteRateLimited(key, third)
    for (const again of [first, second, third]) recorder.noteRateLimited(key, again)
    await recorder.flush()

    expect(await written(id)).toEqual([
      { hour: '04 12', verified: 4, denied: 1, limited: 2 },
      { hour: '04 13', verified: 1, denied: 0, limited: 0 },
    ])
    const { usage } = await apiKeys.usage(id, { to: '2026-11-05T00:00:00Z' })
    expect(usage).toMatchObject([
      { accepted: 1, denied: 1, rateLimited: 2 },
      { accepted: 1, denied: 0, rateLimited: 0 },
    ])
  })
})

/** The recorder of one more process. */
function createRecorder(
  connected: Sequelize,
  cacheSize = 100_000,
  background = createBackground(),
) {
  const open = createOpenClient(connected)
  return createUsageRecorder({
    background,
    connection: createConnections({
      background,
      open,
      clock: systemClock,
      maxStalenessMs: 1_000,
      stopListening: () => false,
    }).usage,
    clock: systemClock,
    table: '"public"."api_keys"',
    eventTable: '"public"."api_key_events"',
    usageTable: '"public"."api_key_usage"',
    writerTable: '"public"."api_key_usage_writers"',
    entryMacOf: () => 'unused',
    lastUsedResolutionMs: 60_000,
    cacheSize,
  })
}

/** A recorder whose timers never lead to a write. */
function createTimelessRecorder(connected: Sequelize) {
  return createRecorder(connected, 1, { ...createBackground(), startTimer: () => setTimeout(noop) })
}

function noop() {}

function anybody(): Bearer {
  return { refusalOf: () => null }
}

function cachedKey(number: number, userId = 'alice', id?: string): CachedKey {
  const row: KeyRow = {
    digest: `digest-${number}`,
    id: id ?? `00000000-0000-4000-8000-${number.toString(16).padStart(12, '0')}`,
    userId,
    name: 'Deployment',
    permissions: ['READ_GRAPH'],
    status: 'ACTIVE',
    expiresAtMs: null,
    lastUsedAtMs: null,
    worksUntilMs: null,
    policy: { allowedIps: null, metadata: '{}', limits: [] },
  }
  return new CachedKey(row, { monotonic: 0, wall: 0, isFollowed: true })
}
