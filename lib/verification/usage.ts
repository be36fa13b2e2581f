import { QueryTypes, type Sequelize } from 'sequelize'

import { onDatabase } from '../keys/database'

export type UsageRecorder = ReturnType<typeof createUsageRecorder>

interface UsageRecorderParts {
  sequelize: Sequelize
  /** The qualified, quoted name of the table of keys. */
  table: string
  /** How far apart two uses of a key are that are both written. */
  lastUsedResolutionMs: number
}

const flushEveryMs = 1_000

/**
 * Notes when keys are used, beside the request, and writes that down once a second: all keys in one statement, of each
 * only where what the database has is older than the resolution, so that a fleet writes no more than one process.
 */
export function createUsageRecorder(parts: UsageRecorderParts) {
  const { sequelize, table, lastUsedResolutionMs } = parts
  let noted = new Map<string, number>()
  let beingWritten: ReadonlyMap<string, number> = noted
  let writing: Promise<void> | undefined
  let timer: NodeJS.Timeout | undefined

  async function writeAll() {
    const skipped = new Map<string, number>()
    try {
      while (noted.size > 0) {
        const uses = noted
        beingWritten = uses
        noted = new Map()
        const left = await writeLastUsed(uses).catch((error: unknown) => {
          noted = new Map([...uses, ...noted])
          throw error
        })
        for (const id of left) skipped.set(id, uses.get(id) ?? Date.now())
      }
    } finally {
      noted = new Map([...skipped, ...noted])
      beingWritten = new Map()
      writing = undefined
      if (noted.size > 0) flushLater()
    }
  }

  /**
   * Returns the ids of those left out because somebody else is changing their rows: waiting for a lock would hold up a
   * connection, and with it whoever waits for one of ours.
   */
  async function writeLastUsed(uses: ReadonlyMap<string, number>): Promise<string[]> {
    // Judged on the row as it is once it is locked, so that no use is written over a later one.
    const isDue = `(key.last_used_at IS NULL OR (
      key.last_used_at < noted.used_at
      AND key.last_used_at <= noted.used_at - $3::float8 * interval '1 millisecond'
    ))`
    const skipped = await sequelize.query<{ id: string }>(
      `WITH noted AS (
         SELECT id, to_timestamp(used_at_ms / 1000)::timestamptz(3) AS used_at
           FROM unnest($1::uuid[], $2::float8[]) AS noted (id, used_at_ms)
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
       SELECT key.id
         FROM noted JOIN ${table} AS key ON key.id = noted.id
        WHERE ${isDue} AND key.id NOT IN (SELECT id FROM written)`,
      {
        bind: [[...uses.keys()], [...uses.values()], lastUsedResolutionMs],
        type: QueryTypes.SELECT,
        useMaster: true,
        transaction: null,
      },
    )
    return skipped.map(({ id }) => id)
  }

  function flushLater() {
    timer ??= setTimeout(() => {
      // What could not be written stays noted, for the next time.
      flush().catch(() => {})
    }, flushEveryMs).unref()
  }

  async function flush() {
    clearTimeout(timer)
    timer = undefined
    if (noted.size > 0) writing ??= onDatabase(writeAll)
    await writing
  }

  return {
    /** Notes a use, and returns from when on another one of the same key is worth noting. */
    noteUse(id: string, atMs: number): number {
      noted.set(id, atMs)
      flushLater()
      return atMs + lastUsedResolutionMs
    },

    /** The last use of a key that was noted and may not be written yet, in milliseconds since 1970. */
    lastUseOf(id: string): number | undefined {
      return noted.get(id) ?? beingWritten.get(id)
    },

    /**
     * Resolves once everything noted so far is in the database, but for keys whose rows are locked by somebody else:
     * those stay noted for the next write. Rejects where it cannot be written.
     */
    flush,
  }
}
