import { randomUUID } from 'node:crypto'
import { setImmediate as nextTurn } from 'node:timers/promises'

import { QueryTypes, type Sequelize } from 'sequelize'

import { tablesOf } from '../../models/tables'
import { createBackground } from '../../lib/database/background'
import { systemClock } from '../../lib/database/clock'
import { createConnections } from '../../lib/database/connections'
import { createWriter } from '../../lib/database/writer'
import { createUsageRecorder } from '../../lib/usage/recorder'
import type { KeyCaller } from '../../lib/verification/verified-key'
import { CachedKey, type KeyRow } from '../../lib/verification/cache'
import { createTestApiKeys } from '../support/app'
import { createDatabase, databaseAway, type Database } from '../support/database'
import { newKey, unbound } from '../support/keys'
import { until } from '../support/until'
import { cachedUser } from '../support/owners'
import { allOf } from '../support/permissions'

let database: Database
let sequelize: Sequelize

beforeAll(async () => {
  database = await createDatabase()
  sequelize = database.connect()
})

afterAll(() => database.drop())

describe('the counts of many keys', () => {
  it('are all written, 5,000 in a statement', async () => {
    const { recorder, writer } = createRecorder(sequelize)
    const userId = 'O\'Brien "\\{},😀'
    const keys = Array.from({ length: 20_001 }, (_, index) => cachedKey(index, userId))
    for (const key of keys) recorder.countUse(key, Date.now(), anybody())
    for (const key of keys.slice(0, 5)) recorder.noteUse(key, Date.now(), anybody())

    await writer.flush()

    const [row] = await sequelize.query<object>(
      `SELECT count(*)::int AS keys, sum(verified)::int AS verified FROM api_key_usage
        WHERE owner_id = $1`,
      { bind: [userId], type: QueryTypes.SELECT },
    )
    expect(row).toEqual({ keys: 20_001, verified: 20_001 })
    expect(recorder.health()).toEqual({ pending: 0, dropped: 0 })
  })

  it('are written without waiting if room for them is about to run out', async () => {
    const { recorder, writer } = createTimelessRecorder(sequelize)
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
    await writer.flush()

    const [row] = await sequelize.query<object>(
      `SELECT count(*)::int AS keys, sum(verified)::int AS verified FROM api_key_usage
        WHERE owner_id = $1`,
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
    const { recorder, writer } = createTimelessRecorder(connected)
    const keys = Array.from({ length: 20_000 }, (_, index) => cachedKey(index))
    for (const key of keys.slice(0, 16_000)) recorder.countUse(key, Date.now(), anybody())

    await until(() => attempts > 0)
    await expect(writer.flush()).rejects.toMatchObject({ code: 'database_unavailable' })
    const before = attempts
    for (const key of keys.slice(16_000)) recorder.countUse(key, Date.now(), anybody())
    await nextTurn()

    expect(attempts).toBe(before)
    writer.stop()
  })

  it('are bounded in number, and the uses that are not among them are reported', async () => {
    const { recorder, writer } = createRecorder(databaseAway.connect(), 1)
    const keys = Array.from({ length: 20_001 }, (_, index) => cachedKey(index))
    for (const key of keys) recorder.countUse(key, Date.now(), anybody())
    // The first counts are on their way to the database, and must not be counted twice.
    const [known, unknown] = [keys[19_999], keys[20_000]]
    if (!known || !unknown) throw new Error('there are too few')

    for (const key of [known, known, unknown]) recorder.countUse(key, Date.now(), anybody())
    await expect(writer.flush()).rejects.toMatchObject({ code: 'database_unavailable' })
    writer.stop()

    expect(recorder.countsOf(known.id, 0)).toMatchObject([{ verified: 3 }])
    expect(recorder.countsOf(unknown.id, 0)).toEqual([])
    expect(recorder.health()).toEqual({ pending: 20_000, dropped: 2 })
  })
})

describe('last uses that cannot be written', () => {
  it('are bounded in number, and noted again at the next use', async () => {
    const { recorder } = createTimelessRecorder(databaseAway.connect())
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
  it('is counted once as rate limited, and not as accepted', async () => {
    const { recorder, writer } = createRecorder(sequelize)
    const apiKeys = createTestApiKeys(database)
    const { apiKey } = await apiKeys.create(newKey())
    const { id } = apiKey
    const key = cachedKey(0, 'alice', id)
    const noon = Date.parse('2026-11-04T12:59:59Z')
    const [first, second, third, fourth] = [anybody(), anybody(), anybody(), anybody()]
    for (const bearer of [first, second, third, fourth]) recorder.countUse(key, noon, bearer)

    recorder.noteRateLimited(key, first)
    recorder.noteDenied(key, second)
    await writer.flush()
    // A new hour has begun.
    recorder.countUse(key, noon + 1_000, anybody())
    recorder.noteRateLimited(key, third)
    for (const again of [first, second, third]) recorder.noteRateLimited(key, again)
    await writer.flush()

    const { usage } = await apiKeys.usage(id, { to: '2026-11-05T00:00:00Z' })
    expect(usage).toMatchObject([
      { accepted: 1, denied: 1, rateLimited: 2 },
      { accepted: 1, denied: 0, rateLimited: 0 },
    ])
    await apiKeys.close()
  })
})

/** Makes the recorder of one more process, and its writer. */
function createRecorder(
  connected: Sequelize,
  cacheSize = 100_000,
  background = createBackground(),
) {
  const { usage } = createConnections({
    appSequelize: connected,
    background,
    clock: systemClock,
    maxStalenessMs: 1_000,
    listen: false,
  })
  const writer = createWriter({ background, connection: usage })
  const recorder = createUsageRecorder({
    writer,
    tables: tablesOf('public'),
    clock: systemClock,
    lastUsedResolutionMs: 60_000,
    cacheSize,
  })
  return { recorder, writer }
}

/** A recorder whose timers never lead to a write. */
function createTimelessRecorder(connected: Sequelize) {
  return createRecorder(connected, 1, { ...createBackground(), startTimer: () => setTimeout(noop) })
}

function noop() {}

function anybody(): KeyCaller {
  return { refusalOf: () => null }
}

function cachedKey(number: number, userId = 'alice', id?: string): CachedKey {
  const row: KeyRow = {
    digest: `digest-${number}`,
    id: id ?? `00000000-0000-4000-8000-${number.toString(16).padStart(12, '0')}`,
    owner: cachedUser(userId),
    name: 'Deployment',
    permissions: allOf(['READ_GRAPH']),
    status: 'ACTIVE',
    expiresAtMs: null,
    endsAtMs: Infinity,
    lastUsedAtMs: null,
    worksUntilMs: null,
    isPending: false,
    environment: null,
    policy: { allowedIps: null, metadata: '{}', limits: [], bindings: unbound },
  }
  return new CachedKey(row, { monotonic: 0, wall: 0, isFollowed: true })
}
