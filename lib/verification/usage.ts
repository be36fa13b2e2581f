import { randomUUID } from 'node:crypto'

import { clearTimeout, type Background } from '../background'
import { causeOf, sqlStateOf } from '../keys/database'
import type { Audit } from '../keys/audit'
import type { Tally } from '../keys/usage'
import type { CachedKey } from './cache'
import { hourMs, type Clock } from './clock'
import type { Connection, TextRow } from './connection'
import { within } from './time-limit'
import type { Bearer, VerifiedApiKey } from './verified-api-key'

/** Whose uses are counted. */
type UsedKey = Pick<VerifiedApiKey, 'id' | 'userId'>

export type UsageRecorder = ReturnType<typeof createUsageRecorder>

interface UsageRecorderParts {
  background: Background
  connection: Connection
  clock: Pick<Clock, 'monotonic'>
  /** The qualified, quoted name of the table of keys. */
  table: string
  /** That of the table of the audit trail. */
  eventTable: string
  /** Vouches for an entry of it. */
  entryMacOf: Audit['entryMacOf']
  /** Those of the tables of usage and of those who write it. */
  usageTable: string
  writerTable: string
  /** How far apart two uses of a key are that are both written. */
  lastUsedResolutionMs: number
  /** How many keys this process may remember: it may have counts of as many. */
  cacheSize: number
}

/** How the counting of uses is doing. */
export interface UsageHealth {
  /** How many counts, of a key and hour each, are not in the database yet. */
  pending: number
  /** How many uses were not counted, since there were too many counts that could not be written. */
  dropped: number
}

/** How many uses were refused afterwards: the key lacks a permission, say; a limit is reached. */
type Refusals = Pick<Tally, 'denied' | 'rateLimited'>

/** When and from where a key was last used. */
export interface LastUse {
  atMs: number
  from: string | null
}

/** Whose key it was of which a secret was used that works no more, and from where. */
interface RetiredUse {
  userId: string | number
  from: string | null
}

/** Counts that are written together, once. */
interface Batch {
  /** Batches of one process are numbered from 1 on. */
  number: number
  tallies: readonly Tally[]
  isWritten: boolean
}

/** What is written in a transaction of its own. Written twice, it does no more than once. */
interface Part {
  statement: string
  onWritten(rows: readonly TextRow[]): void
  onFailure(): void
}

const flushEveryMs = 1_000

/** How many keys are written in one statement, and the last uses of how many if there are many counts. */
const maxKeys = 5_000
const fewKeys = 500

/** For how many keys there is room for counts at least. */
const leastKeys = 10_000

/** How long counts are kept back at most, so that few are lost with a process that is killed. */
const longestCountMs = 60_000

const writeLimitMs = 5_000

/** Keeps the process alive for a write: whoever asks for it waits for it. */
function awaited(write: Promise<void>): Promise<void> {
  return within({ limitMs: 2 * writeLimitMs, isAwaited: true }, write)
}

/** How long the table may be locked for a write not to be put off. */
const lockLimitMs = 100

const noRefusals: Refusals = { denied: 0, rateLimited: 0 }

const nothing: ReadonlyMap<string, CachedKey> = new Map()

/**
 * Notes when keys are used and counts how often, beside the request, and writes that down once a second: all keys in one
 * text, the last use of each only where what the database has is older than the resolution, so that a fleet writes no more
 * than one process, and its counts along with that.
 */
export function createUsageRecorder(parts: UsageRecorderParts) {
  const { background, connection, clock, table, eventTable, usageTable, writerTable } = parts
  const { entryMacOf, lastUsedResolutionMs } = parts
  const countSeconds = Math.min(lastUsedResolutionMs, longestCountMs) / 1000
  // Twice, as each key that is in use has counts of two hours when the hour is full.
  const maxCounts = 2 * Math.max(parts.cacheSize, leastKeys)
  const writerId = randomUUID()

  /** By their ids the keys whose last use is to be written. */
  const noted = new Map<string, CachedKey>()
  /** Keys of which a secret was used that works no more, and from where. */
  let retiredUses = new Map<string, RetiredUse>()
  let beingWritten = nothing

  /** By their ids the keys that have counts, those first that have had them for longest: for each one of its secrets. */
  const counting = new Map<string, CachedKey>()
  /** By the ids of those the ones of their uses that were refused afterwards. */
  const refusals = new Map<string, Refusals>()
  /** Counts that no use will be added to: of hours that are over. */
  const finished: Tally[] = []
  /** The last one. If it is not known to be written, it is written again as it is, before there is another. */
  let batch: Batch | undefined
  let batches = 0
  let dropped = 0
  /** How many wait for all that there is to be written, so that it is due. */
  let flushes = 0

  let writing: Promise<void> | undefined
  /** Whether something cannot be written at the moment, so that each kind is tried by itself. */
  let isHampered = false
  /** True if the last write failed, so that the next one waits its time. */
  let hasFailed = false
  let timer: NodeJS.Timeout | undefined

  function nowSeconds(): number {
    return Math.floor(clock.monotonic() / 1000)
  }

  /** True if more than a part of the room for counts is taken. */
  function isTaken(part: number): boolean {
    return counting.size + finished.length > part * maxCounts
  }

  function hasRoom(): boolean {
    if (pending() < maxCounts) return true
    dropped++
    return false
  }

  /** Makes a key the one of its secrets that has the counts, and those of this hour. Returns whether there is room. */
  function startCounting(key: CachedKey, hour: number): boolean {
    const { id } = key
    const current = counting.get(id)
    if (current?.hour === hour) {
      if (current !== key) handOver(current, key)
      return true
    }
    if (current) finished.push(take(current))
    if (!hasRoom()) return false

    key.hour = hour
    key.countedSinceSeconds = nowSeconds()
    counting.set(id, key)
    writeLater()
    return true
  }

  function handOver(from: CachedKey, to: CachedKey) {
    to.hour = from.hour
    to.verified = from.verified
    to.countedSinceSeconds = from.countedSinceSeconds
    from.verified = 0
    // In its place.
    counting.set(to.id, to)
  }

  function take(key: CachedKey): Tally {
    const tally = tallyOf(key)
    key.verified = 0
    counting.delete(key.id)
    refusals.delete(key.id)
    return tally
  }

  function tallyOf({ id, userId, hour, verified }: CachedKey): Tally {
    return { id, userId, hour, verified, ...(refusals.get(id) ?? noRefusals) }
  }

  /** Counts that a use which was accepted in some hour was refused after all, once. */
  function noteRefusal({ id, userId }: UsedKey, bearer: Bearer, kind: keyof Refusals) {
    bearer.wasRefused = true
    const { countedInHour: hour } = bearer
    if (hour === undefined) return

    bearer.countedInHour = undefined
    if (counting.get(id)?.hour === hour) {
      const known = refusals.get(id) ?? noRefusals
      refusals.set(id, { ...known, [kind]: known[kind] + 1 })
    } else if (hasRoom()) {
      finished.push({ id, userId, hour, verified: 0, ...noRefusals, [kind]: 1 })
      writeLater()
    }
  }

  /** Writes what is due by now, or the first part of it. */
  async function writeOnce() {
    // Last uses take several times as long to write as counts. They must not hold up counts that soon find no room.
    const uses = takeUses(isTaken(1 / 2) && flushes === 0 ? fewKeys : maxKeys)
    const parts = [uses, takeCounts(), takeRetiredUses()].filter((part) => part !== null)
    if (parts.length > 1 && !isHampered) {
      try {
        return await writeParts(parts)
      } catch (error) {
        if (!isAnswered(error)) return fail(parts, error)
        isHampered = true
      }
    }
    await writeApart(parts)
    isHampered = false
  }

  /** One kind may be kept from being written, and the others not. */
  async function writeApart(parts: readonly Part[]) {
    const failures: unknown[] = []
    for (const [index, part] of parts.entries()) {
      try {
        await writeParts([part])
      } catch (error) {
        if (!isAnswered(error)) return fail(parts.slice(index), error)
        part.onFailure()
        failures.push(error)
      }
    }
    if (failures.length > 0) throw failures[0]
  }

  async function writeParts(parts: readonly Part[]) {
    const transactions = parts.map(
      ({ statement }) => `
        START TRANSACTION ISOLATION LEVEL READ COMMITTED;
        SET LOCAL lock_timeout = ${lockLimitMs};
        SET LOCAL statement_timeout = ${writeLimitMs};
        ${statement};
        COMMIT`,
    )
    const { rows } = await connection.query(transactions.join(';'), writeLimitMs)
    for (const part of parts) part.onWritten(rows)
  }

  function takeUses(most: number): Part | null {
    if (noted.size === 0) return null

    const uses = new Map<string, CachedKey>()
    for (const [id, key] of noted) {
      if (uses.size === most) break
      uses.set(id, key)
      noted.delete(id)
    }
    beingWritten = uses

    function putBack(ids: Iterable<string>) {
      beingWritten = nothing
      for (const id of ids) {
        const key = uses.get(id)
        // There may have been a later use.
        if (key && !noted.has(id)) noted.set(id, key)
      }
    }
    return {
      statement: lastUsesStatement(uses),
      onWritten: (rows) => putBack(rows.map(({ id }) => String(id))),
      onFailure: () => putBack(uses.keys()),
    }
  }

  function takeCounts(): Part | null {
    if (batch?.isWritten !== false) {
      const tallies = takeTallies()
      if (tallies.length === 0) return null
      batch = { number: ++batches, tallies, isWritten: false }
    }
    const taken = batch
    return {
      statement: countsStatement(taken),
      onWritten() {
        taken.isWritten = true
      },
      // Nobody knows whether it was, as an answer may get lost.
      onFailure() {},
    }
  }

  /** What is due, and of keys whose last use is written now, what there is. */
  function takeTallies(): Tally[] {
    const tallies = finished.splice(0, maxKeys)
    const now = nowSeconds()
    for (const key of counting.values()) {
      if (tallies.length === maxKeys || !isDue(key, now)) break
      tallies.push(take(key))
    }
    for (const id of beingWritten.keys()) {
      const key = counting.get(id)
      if (key && tallies.length < maxKeys) tallies.push(take(key))
    }
    return tallies
  }

  function isDue({ countedSinceSeconds: since }: CachedKey, now: number): boolean {
    return since + countSeconds <= now || flushes > 0 || isTaken(1 / 2)
  }

  function takeRetiredUses(): Part | null {
    if (retiredUses.size === 0) return null

    const uses = retiredUses
    retiredUses = new Map()
    return {
      statement: retiredUsesStatement(uses),
      onWritten() {},
      onFailure() {
        retiredUses = new Map([...retiredUses, ...uses].slice(0, maxKeys))
      },
    }
  }

  /**
   * Returns the ids of those left out because somebody else is changing their rows: waiting for a lock would hold up
   * whoever waits for one of ours. Ids, times and addresses are ours, and no text of anybody else's.
   */
  function lastUsesStatement(uses: ReadonlyMap<string, CachedKey>): string {
    const keys = [...uses.values()]
    const list = (read: (key: CachedKey) => string | number) => `'{${keys.map(read).join()}}'`
    // Judged on the row as it is once it is locked, so that no use is written over a later one.
    const isDue = `(key.last_used_at IS NULL OR (
      key.last_used_at < noted.used_at
      AND key.last_used_at <= noted.used_at - interval '${lastUsedResolutionMs} milliseconds'
    ))`
    return `
       WITH noted AS (
         SELECT id, to_timestamp(used_at_ms / 1000)::timestamptz(3) AS used_at, used_from
           FROM unnest(
             ${list(({ id }) => id)}::uuid[], ${list(({ lastUsedAtMs }) => lastUsedAtMs)}::float8[],
             ${list(({ lastUsedFrom }) => lastUsedFrom ?? 'NULL')}::text[]
           ) AS noted (id, used_at_ms, used_from)
       ), used AS (
         SELECT key.id, noted.used_at, noted.used_from
           FROM noted JOIN ${table} AS key ON key.id = noted.id
          WHERE ${isDue}
          ORDER BY key.id
            FOR NO KEY UPDATE OF key SKIP LOCKED
       ), written AS (
         UPDATE ${table} AS key SET last_used_at = used.used_at, last_used_from = used.used_from
           FROM used WHERE key.id = used.id
         RETURNING key.id
       )
       SELECT key.id::text
         FROM noted JOIN ${table} AS key ON key.id = noted.id
        WHERE ${isDue} AND key.id NOT IN (SELECT id FROM written)`
  }

  /**
   * Adds the counts to what others have counted, unless the database has this batch already. User ids may be any text, and
   * so they are spelt in hexadecimal.
   */
  function countsStatement({ number, tallies }: Batch): string {
    const list = (read: (tally: Tally) => string | number) => `'{${tallies.map(read).join()}}'`
    return `
       WITH news AS (
         INSERT INTO ${writerTable} AS writer (id, batch, written_at)
         VALUES ('${writerId}', ${number}, clock_timestamp())
             ON CONFLICT (id) DO UPDATE SET batch = excluded.batch, written_at = excluded.written_at
          WHERE writer.batch < excluded.batch
         RETURNING batch
       )
       INSERT INTO ${usageTable} AS usage (api_key_id, user_id, hour, verified, denied, rate_limited)
       SELECT id, convert_from(decode(min(user_id), 'hex'), 'UTF8'),
              to_timestamp(hour * ${hourMs / 1000}.0), sum(verified), sum(denied), sum(rate_limited)
         FROM unnest(
           ${list(({ id }) => id)}::uuid[], ${list(({ userId }) => `"${toHex(userId)}"`)}::text[],
           ${list(({ hour }) => hour)}::int[], ${list(({ verified }) => verified)}::bigint[],
           ${list(({ denied }) => denied)}::bigint[],
           ${list(({ rateLimited }) => rateLimited)}::bigint[]
         ) AS counted (id, user_id, hour, verified, denied, rate_limited)
        WHERE EXISTS (SELECT FROM news)
        GROUP BY id, hour
        ORDER BY id, hour
           ON CONFLICT (api_key_id, hour) DO UPDATE
          SET verified = usage.verified + excluded.verified,
              denied = usage.denied + excluded.denied,
              rate_limited = usage.rate_limited + excluded.rate_limited`
  }

  /**
   * Once per key and hour, by all processes together. Where the key has another owner by now, the next use is told of. Ids of
   * users are spelt in hexadecimal.
   */
  function retiredUsesStatement(uses: ReadonlyMap<string, RetiredUse>): string {
    const entries = [...uses].map(([apiKeyId, { userId, from }]) => {
      const ref = randomUUID()
      const entryMac = entryMacOf({
        apiKeyId,
        userId,
        action: 'retired_secret_used',
        actorType: 'system',
        actorId: null,
        address: from,
        reason: null,
        before: null,
        after: null,
        ref,
      })
      return { apiKeyId, owner: toHex(userId), address: from ?? '""', ref, entryMac }
    })
    const column = (name: keyof (typeof entries)[number]) =>
      `'{${entries.map((entry) => entry[name]).join()}}'`

    return `
       INSERT INTO ${eventTable} (api_key_id, user_id, action, actor_type, address, ref, entry_mac)
       SELECT key.id, key.user_id, 'retired_secret_used', 'system', nullif(used.address, ''),
              used.ref, used.entry_mac
         FROM unnest(
                ${column('apiKeyId')}::uuid[], ${column('owner')}::text[], ${column('address')}::text[],
                ${column('ref')}::uuid[], ${column('entryMac')}::text[]
              ) AS used (id, owner, address, ref, entry_mac)
         JOIN ${table} AS key
           ON key.id = used.id AND encode(convert_to(key.user_id::text, 'UTF8'), 'hex') = used.owner
        ORDER BY key.id
           ON CONFLICT DO NOTHING`
  }

  function write(): Promise<void> {
    writing ??= background
      .run(writeOnce)
      .then(
        () => {
          hasFailed = false
        },
        (error: unknown) => {
          hasFailed = true
          throw error
        },
      )
      .finally(() => {
        writing = undefined
        if (size() > 0) writeLater()
      })
    return writing
  }

  function size(): number {
    return noted.size + retiredUses.size + pending()
  }

  function pending(): number {
    return counting.size + finished.length + unwrittenBatch().length
  }

  function unwrittenBatch(): readonly Tally[] {
    return batch?.isWritten === false ? batch.tallies : []
  }

  /** How many writes it takes to write all that there is. */
  function countWrites(): number {
    const most = Math.max(noted.size, counting.size + finished.length)
    const writes = Math.max(Math.ceil(most / maxKeys), Math.sign(retiredUses.size))
    return writes + Math.sign(unwrittenBatch().length)
  }

  function stop() {
    clearTimeout(timer)
    timer = undefined
  }

  /** Writes once a second, and without a pause while room is about to run out: no use is dropped that can be written. */
  function writeLater() {
    // The end of a write comes back here.
    if (writing) return
    if (isTaken(3 / 4) && !hasFailed) return writeNow()

    timer ??= background.startTimer(() => {
      timer = undefined
      writeNow()
    }, flushEveryMs)
  }

  /** What could not be written stays noted, for the next time. */
  function writeNow() {
    write().catch(() => {})
  }

  return {
    get size() {
      return size()
    },

    /** Names this process in the table of those who write usage. */
    writerId,

    /** How many batches of counts there were, and how many of them are known to be written. */
    get batches() {
      return { begun: batches, written: batches - (batch?.isWritten === false ? 1 : 0) }
    },

    /** Notes a use, where it is so long after the last one that it is worth writing. */
    noteUse(key: CachedKey, wall: number, bearer: Bearer) {
      if (wall < key.lastUsedAtMs + lastUsedResolutionMs) return
      // If there is no room, the next use of the key is noted instead.
      if (noted.size >= maxCounts && !noted.has(key.id)) return

      key.lastUsedAtMs = wall
      key.lastUsedFrom = bearer.ip ?? null
      noted.set(key.id, key)
      writeLater()
    },

    /** Notes that somebody used a secret of a key that works no more, and the address that it came from. */
    noteRetiredUse({ id, userId }: UsedKey, { ip }: Bearer) {
      if (retiredUses.size >= maxKeys) return
      retiredUses.set(id, { userId, from: ip ?? null })
      writeLater()
    },

    /** Counts a use of a good key, by the hour of the wall clock in UTC. */
    countUse(key: CachedKey, wall: number, bearer: Bearer) {
      const hour = Math.floor(wall / hourMs)
      const isCounting = key.verified > 0 && key.hour === hour
      if (!isCounting && !startCounting(key, hour)) return

      key.verified++
      bearer.countedInHour = hour
    },

    /** Counts a use that was counted as denied: the key is good, but not for this. */
    noteDenied(apiKey: UsedKey, bearer: Bearer) {
      noteRefusal(apiKey, bearer, 'denied')
    },

    /** Counts a use that was counted as refused by a limit. */
    noteRateLimited(apiKey: UsedKey, bearer: Bearer) {
      noteRefusal(apiKey, bearer, 'rateLimited')
    },

    /** The last use of a key that was noted and may not be written yet. */
    lastUseOf(id: string): LastUse | undefined {
      const key = noted.get(id) ?? beingWritten.get(id)
      return key && { atMs: key.lastUsedAtMs, from: key.lastUsedFrom }
    },

    /** What was counted for a key that somebody lacks who sees the batches of this process up to one of them. */
    countsOf(id: string, seenBatch: number): Tally[] {
      const key = counting.get(id)
      const last = batch && batch.number > seenBatch ? batch.tallies : []
      const others = [...finished, ...last].filter((tally) => tally.id === id)
      return key ? [tallyOf(key), ...others] : others
    },

    health(): UsageHealth {
      return { pending: pending(), dropped }
    },

    /**
     * Resolves once everything noted so far is in the database, but for keys whose rows are locked by somebody else:
     * those stay noted for the next write. Rejects where it cannot be written.
     */
    async flush() {
      stop()
      if (writing) await awaited(writing).catch(() => {})
      flushes++
      try {
        for (let left = countWrites(); left > 0; left--) await awaited(write())
        // Somebody else may have been quicker.
        if (writing) await awaited(writing)
      } finally {
        flushes--
      }
    },

    /** Writes no more by itself, until another use is noted. */
    stop,
  }
}

function toHex(userId: string | number): string {
  return Buffer.from(String(userId)).toString('hex')
}

function fail(parts: readonly Part[], error: unknown): never {
  for (const part of parts) part.onFailure()
  throw error
}

/** Whether the server is there, and only did not do it. */
function isAnswered(error: unknown): boolean {
  return sqlStateOf(causeOf(error)) !== ''
}
