import { randomUUID } from 'node:crypto'

import { readAddress } from '../keys/addresses'
import type { Audit } from '../keys/audit'
import type { Connection } from './connection'
import { within } from './time-limit'

export type UsageRecorder = ReturnType<typeof createUsageRecorder>

interface UsageRecorderParts {
  connection: Connection
  /** The qualified, quoted name of the table of keys. */
  table: string
  /** That of the table of the audit trail. */
  eventTable: string
  /** Vouches for an entry of it. */
  entryMacOf: Audit['entryMacOf']
  /** How far apart two uses of a key are that are both written. */
  lastUsedResolutionMs: number
}

const flushEveryMs = 1_000

/** How many keys are written in one statement. */
const maxKeys = 10_000

const writeLimitMs = 5_000

/** Keeps the process alive for a write: whoever asks for it waits for it. */
function awaited(write: Promise<void>): Promise<void> {
  return within({ limitMs: 2 * writeLimitMs, isAwaited: true }, write)
}

/** How long the table may be locked for a write not to be put off. */
const lockLimitMs = 100

/**
 * Notes when keys are used, beside the request, and writes that down once a second: all keys in one statement, of each
 * only where what the database has is older than the resolution, so that a fleet writes no more than one process.
 */
export function createUsageRecorder({
  connection,
  table,
  eventTable,
  entryMacOf,
  lastUsedResolutionMs,
}: UsageRecorderParts) {
  const noted = new Map<string, number>()
  /** Keys of which a secret was used that works no more, and from where. */
  let retiredUses = new Map<string, string | null>()
  let beingWritten: ReadonlyMap<string, number> = new Map()
  let writing: Promise<void> | undefined
  let timer: NodeJS.Timeout | undefined

  /** Writes what is noted by now, or the first part of it: each kind by itself, as one may be kept from being written. */
  async function writeOnce() {
    const uses = new Map([...noted].slice(0, maxKeys))
    for (const id of uses.keys()) noted.delete(id)
    const retired = retiredUses
    retiredUses = new Map()

    const outcomes = await Promise.allSettled([writeUses(uses), writeRetiredUses(retired)])
    const failed = outcomes.find((outcome) => outcome.status === 'rejected')
    if (failed) throw failed.reason
  }

  async function writeUses(uses: ReadonlyMap<string, number>) {
    if (uses.size === 0) return

    beingWritten = uses
    try {
      for (const id of await writeLastUsed(uses)) putBack(id, uses)
    } catch (error) {
      for (const id of uses.keys()) putBack(id, uses)
      throw error
    } finally {
      beingWritten = new Map()
    }
  }

  async function writeRetiredUses(uses: ReadonlyMap<string, string | null>) {
    if (uses.size === 0) return

    try {
      await recordRetiredUses(uses)
    } catch (error) {
      retiredUses = new Map([...retiredUses, ...uses].slice(0, maxKeys))
      throw error
    }
  }

  /** Keeps a use that could not be written, unless there was a later one. */
  function putBack(id: string, uses: ReadonlyMap<string, number>) {
    const usedAtMs = uses.get(id)
    if (usedAtMs !== undefined && !noted.has(id)) noted.set(id, usedAtMs)
  }

  function write(): Promise<void> {
    writing ??= writeOnce().finally(() => {
      writing = undefined
      if (noted.size + retiredUses.size > 0) writeLater()
    })
    return writing
  }

  /**
   * Returns the ids of those left out because somebody else is changing their rows: waiting for a lock would hold up
   * whoever waits for one of ours. Ids and times are ours, and no text of anybody else's.
   */
  async function writeLastUsed(uses: ReadonlyMap<string, number>): Promise<string[]> {
    // Judged on the row as it is once it is locked, so that no use is written over a later one.
    const isDue = `(key.last_used_at IS NULL OR (
      key.last_used_at < noted.used_at
      AND key.last_used_at <= noted.used_at - interval '${lastUsedResolutionMs} milliseconds'
    ))`
    const { rows } = await connection.query(
      `START TRANSACTION ISOLATION LEVEL READ COMMITTED;
       SET LOCAL lock_timeout = ${lockLimitMs};
       WITH noted AS (
         SELECT id, to_timestamp(used_at_ms / 1000)::timestamptz(3) AS used_at
           FROM unnest(
             '{${[...uses.keys()].join()}}'::uuid[], '{${[...uses.values()].join()}}'::float8[]
           ) AS noted (id, used_at_ms)
       ), used AS (
         SELECT key.id, noted.used_at
           FROM noted JOIN ${table} AS key ON key.id = noted.id
          WHERE ${isDue}
          ORDER BY key.id
            FOR NO KEY UPDATE OF key SKIP LOCKED
       ), written AS (
         UPDATE ${table} AS key SET last_used_at = used.used_at FROM used WHERE key.id = used.id
         RETURNING key.id
       )
       SELECT key.id::text
         FROM noted JOIN ${table} AS key ON key.id = noted.id
        WHERE ${isDue} AND key.id NOT IN (SELECT id FROM written);
       COMMIT`,
      writeLimitMs,
    )
    return rows.map(({ id }) => String(id))
  }

  /** Once per key and hour, by all processes together. */
  async function recordRetiredUses(uses: ReadonlyMap<string, string | null>) {
    const { rows } = await connection.query(
      `SELECT id::text, user_id::text FROM ${table} WHERE id = ANY('{${[...uses.keys()].join()}}'::uuid[])`,
      writeLimitMs,
    )
    const entries = rows.map(({ id = null, user_id: userId = null }) => {
      const ref = randomUUID()
      const address = uses.get(String(id)) ?? null
      const entryMac = entryMacOf({
        apiKeyId: id,
        userId,
        action: 'retired_secret_used',
        actorType: 'system',
        actorId: null,
        address,
        reason: null,
        before: null,
        after: null,
        ref,
      })
      // As what it is in hexadecimal digits: an owner's id is text of somebody else's.
      const owner = Buffer.from(String(userId)).toString('hex')
      return [id, owner, address ?? '', ref, entryMac] as const
    })
    if (entries.length === 0) return

    const column = (place: 0 | 1 | 2 | 3 | 4) =>
      `'{${entries.map((it) => it[place] || '""').join()}}'`
    await connection.query(
      `START TRANSACTION ISOLATION LEVEL READ COMMITTED;
       SET LOCAL lock_timeout = ${lockLimitMs};
       INSERT INTO ${eventTable} (api_key_id, user_id, action, actor_type, address, ref, entry_mac)
       SELECT key.id, key.user_id, 'retired_secret_used', 'system', nullif(used.address, ''), used.ref, used.entry_mac
         FROM unnest(
                ${column(0)}::uuid[], ${column(1)}::text[], ${column(2)}::text[], ${column(3)}::uuid[],
                ${column(4)}::text[]
              ) AS used (id, owner, address, ref, entry_mac)
         JOIN ${table} AS key
           ON key.id = used.id AND encode(convert_to(key.user_id::text, 'UTF8'), 'hex') = used.owner
        ORDER BY key.id
           ON CONFLICT DO NOTHING;
       COMMIT`,
      writeLimitMs,
    )
  }

  function stop() {
    clearTimeout(timer)
    timer = undefined
  }

  function writeLater() {
    timer ??= setTimeout(() => {
      timer = undefined
      // What could not be written stays noted, for the next time.
      write().catch(() => {})
    }, flushEveryMs).unref()
  }

  return {
    get size() {
      return noted.size + retiredUses.size
    },

    /** Notes a use, and returns from when on another one of the same key is worth noting. */
    noteUse(id: string, atMs: number): number {
      noted.set(id, atMs)
      writeLater()
      return atMs + lastUsedResolutionMs
    },

    /** Notes that somebody used a secret of a key that works no more, and the address that it came from. */
    noteRetiredUse(id: string, ip: string | undefined) {
      if (retiredUses.size >= maxKeys) return
      retiredUses.set(id, ip === undefined ? null : readAddress(ip))
      writeLater()
    },

    /** The last use of a key that was noted and may not be written yet, in milliseconds since 1970. */
    lastUseOf(id: string): number | undefined {
      return noted.get(id) ?? beingWritten.get(id)
    },

    /**
     * Resolves once everything noted so far is in the database, but for keys whose rows are locked by somebody else:
     * those stay noted for the next write. Rejects where it cannot be written.
     */
    async flush() {
      stop()
      await writing?.catch(() => {})
      for (let left = noted.size + retiredUses.size; left > 0; left -= maxKeys)
        await awaited(write())
      // Somebody else may have been quicker.
      if (writing) await awaited(writing)
    },

    /** Writes no more by itself, until another use is noted. */
    stop,
  }
}
