import { QueryTypes, type Sequelize } from 'sequelize'

import { onDatabase } from '../keys/database'

/** Notes when keys are used, beside the request. */
export interface UsageRecorder {
  noteUse(id: string): void
  /**
   * Resolves once everything noted so far is in the database, but for keys whose rows are locked by somebody else:
   * those stay noted for the next write. Rejects where it cannot be written.
   */
  flush(): Promise<void>
}

interface UsageRecorderParts {
  sequelize: Sequelize
  /** The qualified, quoted name of the table of keys. */
  table: string
}

/** One write is under way at a time: what is noted meanwhile is gathered, one entry per key, for the next. */
export function createUsageRecorder({ sequelize, table }: UsageRecorderParts): UsageRecorder {
  let noted = new Map<string, Date>()
  let writing: Promise<void> | undefined

  async function writeAll() {
    const skipped = new Map<string, Date>()
    try {
      while (noted.size > 0) {
        const uses = noted
        noted = new Map()
        const left = await writeLastUsed(uses).catch((error: unknown) => {
          noted = new Map([...uses, ...noted])
          throw error
        })
        for (const id of left) skipped.set(id, uses.get(id) ?? new Date())
      }
    } finally {
      noted = new Map([...skipped, ...noted])
      writing = undefined
    }
  }

  /**
   * Returns the ids of those left out because somebody else is changing their rows: waiting for a lock would hold up a
   * connection, and with it whoever waits for one of ours.
   */
  async function writeLastUsed(uses: ReadonlyMap<string, Date>): Promise<string[]> {
    const skipped = await sequelize.query<{ id: string }>(
      `WITH noted AS (
         SELECT * FROM unnest($1::uuid[], $2::timestamptz[]) AS noted (id, used_at)
       ), used AS (
         SELECT key.id, noted.used_at
           FROM noted JOIN ${table} AS key ON key.id = noted.id
          WHERE key.last_used_at IS NULL OR key.last_used_at < noted.used_at
          ORDER BY key.id
            FOR NO KEY UPDATE OF key SKIP LOCKED
       ), written AS (
         UPDATE ${table} AS key SET last_used_at = used.used_at FROM used WHERE key.id = used.id
         RETURNING key.id
       )
       SELECT key.id
         FROM noted JOIN ${table} AS key ON key.id = noted.id
        WHERE (key.last_used_at IS NULL OR key.last_used_at < noted.used_at)
          AND key.id NOT IN (SELECT id FROM written)`,
      {
        bind: [[...uses.keys()], [...uses.values()].map((usedAt) => usedAt.toISOString())],
        type: QueryTypes.SELECT,
        useMaster: true,
        transaction: null,
      },
    )
    return skipped.map(({ id }) => id)
  }

  async function flush() {
    if (noted.size > 0) writing ??= onDatabase(writeAll)
    await writing
  }

  return {
    noteUse(id) {
      noted.set(id, new Date())
      // A failure to note a use is no reason to fail anything else. What is noted stays so, for the next write.
      flush().catch(() => {})
    },
    flush,
  }
}
