import { randomUUID } from 'node:crypto'

import { clearTimeout, type Background } from '../database/background'
import { causeOf, sqlStateOf } from '../database/failures'
import type { Audit } from '../audit/trail'
import type { LastUse } from '../keys/record'
import { toStoredHash } from '../keys/secret'
import type { Tally } from './report'
import type { CachedKey } from '../verification/cache'
import { hourMs, type Clock } from '../database/clock'
import type { Connection, TextRow } from '../database/connection'
import { within } from '../database/time-limit'
import type { Bearer, VerifiedApiKey } from '../verification/verified-key'

/** A key whose uses are counted. */
type UsedKey = Pick<VerifiedApiKey, 'id' | 'userId'>

export type UsageRecorder = ReturnType<typeof createUsageRecorder>

interface UsageRecorderParts {
  background: Background
  connection: Connection
  clock: Pick<Clock, 'monotonic'>
  /** The qualified, quoted name of the table of keys. */
  table: string
  /** The same of the table of the audit trail. */
  eventTable: string
  /** Signs an entry of the audit trail. */
  entryMacOf: Audit['entryMacOf']
  /** The same of the tables of usage, and of the processes that write it. */
  usageTable: string
  writerTable: string
  /** The shortest time between two uses of a key that are both written. */
  lastUsedResolutionMs: number
  /** How many keys this process caches. It has room for the counts of twice as many. */
  cacheSize: number
}

/** How the counting of uses is doing. */
export interface UsageHealth {
  /** The number of counts that are not in the database yet. Each is of one key and hour. */
  pending: number
  /** The number of uses that were not counted, because there was no room for more counts. */
  dropped: number
}

/** The numbers of uses that were refused after the key was verified: by a permission, an address, an owner or a limit. */
type Refusals = Pick<Tally, 'denied' | 'rateLimited'>

/** The use of a secret that no longer works: whose key it was, and the address that used it. */
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

/** What is written in a transaction of its own. To write it twice has the same effect as once. */
interface Part {
  statement: string
  onWritten(rows: readonly TextRow[]): void
  onFailure(): void
}

const flushEveryMs = 1_000

/** How many keys are written in one statement, and the last uses of how many if there are many counts. */
const maxKeys = 5_000
const fewKeys = 500

/** The least number of keys that there is room for. */
const leastKeys = 10_000

/** How long counts wait at most, so that a process that is killed loses few. */
const longestCountMs = 60_000

const writeLimitMs = 5_000

/** Keeps the process alive for a write that a caller waits for. */
function awaited(write: Promise<void>): Promise<void> {
  return within({ limitMs: 2 * writeLimitMs, isAwaited: true }, write)
}

/** How long a write waits for a lock before it is put off. */
const lockLimitMs = 100

const noRefusals: Refusals = { denied: 0, rateLimited: 0 }

const nothing: ReadonlyMap<string, CachedKey> = new Map()

/**
 * Notes when keys are used and counts how often, in memory. Once a second it writes what is due, for all keys in one text. It writes a
 * key's last use only if the database's value is older than the resolution, so that many processes write no more than one.
 */
export function createUsageRecorder(parts: UsageRecorderParts) {
  const { background, connection, clock, table, eventTable, usageTable, writerTable } = parts
  const { entryMacOf, lastUsedResolutionMs } = parts
  const countSeconds = Math.min(lastUsedResolutionMs, longestCountMs) / 1000
  // Twice, because a key in use has counts of two hours when a new hour begins.
  const maxCounts = 2 * Math.max(parts.cacheSize, leastKeys)
  const writerId = randomUUID()

  /** The keys whose last use is to be written, by their ids. */
  const noted = new Map<string, CachedKey>()
  /** The same for another secret of such a key that was used before: in the grace period of a rotation, both are in use. */
  const notedBefore = new Map<string, CachedKey>()
  /** Uses of secrets that no longer work, by the ids of their keys. */
  let retiredUses = new Map<string, RetiredUse>()
  let beingWritten = nothing

  /** The keys that have counts, by their ids, the oldest counts first. One of a key's secrets has the counts of all. */
  const counting = new Map<string, CachedKey>()
  /** The refused uses of these keys, by the keys' ids. */
  const refusals = new Map<string, Refusals>()
  /** Counts of hours that are over. No use is added to them. */
  const finished: Tally[] = []
  /** The last batch. Until it is known to be written it is written again, unchanged, before the next one. */
  let batch: Batch | undefined
  let batches = 0
  let dropped = 0
  /** The number of callers that wait until everything is written. Meanwhile, all counts are due. */
  let flushes = 0

  let writing: Promise<void> | undefined
  /** True if something could not be written, so that each kind is written by itself. */
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

  /** Gives a key, as one of its secrets, the counts of this hour. Returns true if there is room for them. */
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
    // The key keeps its place in the order.
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

  /** Moves one use from accepted to refused, at most once per request. */
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

  /** Writes what is due, or the first part of it. */
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

  /** Writes each kind by itself, because a lock may hold up one kind only. */
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
    const usesBefore = new Map<string, CachedKey>()
    for (const [id, key] of noted) {
      if (uses.size === most) break
      uses.set(id, key)
      noted.delete(id)
      const before = notedBefore.get(id)
      if (before) usesBefore.set(id, before)
      notedBefore.delete(id)
    }
    beingWritten = uses

    function putBack(ids: Iterable<string>) {
      beingWritten = nothing
      for (const id of ids) {
        const [key, before] = [uses.get(id), usesBefore.get(id)]
        // A later use may have been noted meanwhile.
        if (key && !noted.has(id)) noted.set(id, key)
        if (before && !notedBefore.has(id)) notedBefore.set(id, before)
      }
    }
    return {
      statement: lastUsesStatement([...uses.values(), ...usesBefore.values()]),
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
      // It may have been written all the same: the answer may be lost.
      onFailure() {},
    }
  }

  /** Takes the counts that are due, and all counts of the keys whose last use is written now. */
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
   * Returns the ids of the keys that were left out because another transaction has locked their rows. Waiting for a lock would hold up
   * transactions that wait for one of ours. Ids, times and addresses have safe forms, so they need no parameters.
   */
  function lastUsesStatement(keys: readonly CachedKey[]): string {
    const list = (read: (key: CachedKey) => string | number) => `'{${keys.map(read).join()}}'`
    // Decided on the locked row, so that no use overwrites a later one.
    const resolution = `interval '${lastUsedResolutionMs} milliseconds'`
    const found = `latest JOIN ${table} AS key ON key.id = latest.id
           LEFT JOIN noted AS before ON before.id = key.id AND before.hash = key.previous_hash`
    const isDue = `(${isDueAfter('key.last_used_at', 'latest.used_at', resolution)}
           OR (before.id IS NOT NULL AND ${isDueAfter('key.previous_last_used_at', 'before.used_at', resolution)}))`
    return `
       WITH noted AS (
         SELECT id, hash, to_timestamp(used_at_ms / 1000)::timestamptz(3) AS used_at, used_from
           FROM unnest(
             ${list(({ id }) => id)}::uuid[], ${list(({ digest }) => toStoredHash(digest))}::text[],
             ${list(({ lastUsedAtMs }) => lastUsedAtMs)}::float8[],
             ${list(({ lastUsedFrom }) => lastUsedFrom ?? 'NULL')}::text[]
           ) AS noted (id, hash, used_at_ms, used_from)
       ), latest AS (
         SELECT DISTINCT ON (id) id, used_at, used_from FROM noted ORDER BY id, used_at DESC
       ), used AS (
         SELECT key.id, latest.used_at, latest.used_from, before.used_at AS before_used_at
           FROM ${found}
          WHERE ${isDue}
          ORDER BY key.id
            FOR NO KEY UPDATE OF key SKIP LOCKED
       ), written AS (
         UPDATE ${table} AS key
            SET last_used_at = greatest(key.last_used_at, used.used_at),
                last_used_from = CASE WHEN key.last_used_at >= used.used_at THEN key.last_used_from ELSE used.used_from END,
                previous_last_used_at = greatest(key.previous_last_used_at, used.before_used_at)
           FROM used WHERE key.id = used.id
         RETURNING key.id
       )
       SELECT key.id::text
         FROM ${found}
        WHERE ${isDue} AND key.id NOT IN (SELECT id FROM written)`
  }

  /**
   * Adds the counts to those of other processes, unless the database has this batch already. User ids may be any text, so they are
   * written in hexadecimal.
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
   * Writes one entry per key and hour, for all processes together. If the key has another owner by now, the next use is reported
   * instead. User ids are written in hexadecimal.
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

  /** Returns the number of writes that it takes to write everything. */
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

    /** Names this process in the table of the processes that write usage. */
    writerId,

    /** The number of batches so far, and of those that are known to be written. */
    get batches() {
      return { begun: batches, written: batches - (batch?.isWritten === false ? 1 : 0) }
    },

    /** Notes a use if the last one that was noted is older than the resolution. */
    noteUse(key: CachedKey, wall: number, bearer: Bearer) {
      if (wall < key.lastUsedAtMs + lastUsedResolutionMs) return
      // If there is no room, the next use of the key is noted instead.
      if (noted.size >= maxCounts && !noted.has(key.id)) return

      key.lastUsedAtMs = wall
      key.lastUsedFrom = bearer.ip ?? null
      const other = noted.get(key.id)
      if (other && other.digest !== key.digest) notedBefore.set(key.id, other)
      noted.set(key.id, key)
      writeLater()
    },

    /** Notes the use of a secret that no longer works, and its address. */
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

    /** Returns the last use of a key that was noted and may not be written yet. */
    lastUseOf(id: string): LastUse | undefined {
      const key = noted.get(id) ?? beingWritten.get(id)
      if (!key) return undefined

      const previous = [key, notedBefore.get(id)].find((used) => used && used.worksUntilMs !== null)
      const previousAtMs = previous?.lastUsedAtMs ?? null
      return { atMs: key.lastUsedAtMs, from: key.lastUsedFrom, previousAtMs }
    },

    /** Returns the counts of a key that are missing from this process's batches up to a number. */
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
     * Resolves once everything noted so far is in the database. Keys whose rows another transaction has locked stay noted for
     * the next write. Rejects if the database cannot be written to.
     */
    async flush() {
      stop()
      if (writing) await awaited(writing).catch(() => {})
      flushes++
      try {
        for (let left = countWrites(); left > 0; left--) await awaited(write())
        // Another caller's write may be under way.
        if (writing) await awaited(writing)
      } finally {
        flushes--
      }
    },

    /** Stops writing until the next use is noted. */
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

/** True if the server answered with an error. */
function isAnswered(error: unknown): boolean {
  return sqlStateOf(causeOf(error)) !== ''
}

/** SQL that is true if a use is later than the one that is written, by more than the resolution. */
function isDueAfter(written: string, used: string, resolution: string): string {
  return `(${written} IS NULL OR (${written} < ${used} AND ${written} <= ${used} - ${resolution}))`
}
