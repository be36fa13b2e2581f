import type { Sequelize, Transaction } from 'sequelize'

import type { ChangeLog } from '../../models/change-log'
import { literal } from '../../models/names'
import { run } from '../../models/statements'
import type { UserIdType } from '../../models/storage-options'
import { readUserId } from '../keys/record'
import type { Moment } from './clock'
import type { Connection } from './connection'

/** An entry of the log. Numbers may be used again after a crash or a failover; the mark tells. */
export interface Position {
  readonly revision: number
  readonly mark: string
}

/** What the log said at a moment. */
export interface LogReading {
  sentAt: Moment
  /** The newest entry; `null` where the log is empty. */
  newest: Position | null
  /** Whether the entry that it was read from is there, with the same mark. */
  continues: boolean
  /** The ids of the keys that were changed since; `null` where anything may have changed, or too much has. */
  changedIds: readonly string[] | null
  /** The ids of the users of whom it was told since that they may do more, or less. */
  changedUserIds: readonly (string | number)[]
  /** Whether keys, or hashes of keys, were added since. */
  hasNew: boolean
  /** Whether the server is a standby, which may lag behind. */
  isStandby: boolean
  /** What the triggers that write the log are like; `null` unless all are there and enabled. */
  triggers: string | null
  /** Whether the database knows of the bound that this process holds itself to. */
  isRegistered: boolean
  /** The server's clock, in milliseconds since 1970. */
  serverMs: number
}

/** More changes than these are not looked up one by one: the whole cache is forgotten. */
const maxChanges = 10_000

/** Without one of them, changes could go unlogged. */
const keyTriggers = [
  'api_key_gather_row',
  'api_key_gather_update',
  'api_key_gather_truncate',
  'api_key_number',
]

/** The same where it matters what users may do. */
const userTriggers = ['api_key_gather_user']

interface ChangeLogParts {
  /** For what others wait for. */
  connection: Pick<Connection, 'query'>
  /** For what no verification waits for. */
  sequelize: Sequelize
  log: ChangeLog
  /** The qualified, quoted name of the table of keys. */
  table: string
  userIdType: UserIdType
  /** What must be logged for this process to rely on the log. */
  followed: 'keys' | 'keys and users'
  /** For how long this process may go on accepting a key at most after it was revoked. */
  boundMs: number
}

/** Reads the log of changes, and tells the database of the bound that this process holds itself to. */
export function createChangeLog(parts: ChangeLogParts) {
  const { connection, sequelize, log, table, userIdType, boundMs } = parts
  const { revisions, changes, userChanges, bounds } = log
  const triggerNames = parts.followed === 'keys' ? keyTriggers : [...keyTriggers, ...userTriggers]

  /** SQL that is true once the bound stands in the database, confirmed within the hour. */
  const isRegistered = `EXISTS (
    SELECT FROM ${bounds} WHERE bound_ms >= ${boundMs} AND registered_at > now() - interval '1 hour'
  )`

  /** SQL for what the triggers that write the log are like; NULL unless all are there and enabled. */
  const fingerprint = `
    SELECT string_agg(
             concat_ws(' ', trigger.oid, trigger.tgrelid, trigger.xmin, function.oid, function.xmin),
             ', ' ORDER BY trigger.oid
           )
      FROM pg_catalog.pg_trigger AS trigger
      JOIN pg_catalog.pg_proc AS function ON function.oid = trigger.tgfoid
     WHERE trigger.tgrelid IN (${[table, changes, userChanges].map(toRelation).join(', ')})
       AND trigger.tgname IN (${triggerNames.map(literal).join(', ')})
       AND trigger.tgenabled = 'A'
    HAVING count(*) = ${triggerNames.length}`

  /** READ COMMITTED, whatever the default: a serializable reader could make transactions of the app fail. */
  function statement(from: Position | null) {
    const revision = from?.revision ?? null
    return `
      START TRANSACTION ISOLATION LEVEL READ COMMITTED READ ONLY;
      SELECT newest.revision::text, newest.mark::text, seen.mark::text AS seen_mark,
             since.ids::text, since.user_ids::text, since.has_all::text, since.has_new::text, since.count::text,
             (${fingerprint}) AS fingerprint,
             pg_is_in_recovery()::text AS is_standby,
             (${isRegistered})::text AS is_registered,
             (extract(epoch FROM clock_timestamp()) * 1000)::text AS server_ms
        FROM (VALUES (1)) AS one
        LEFT JOIN (
          SELECT revision, mark FROM ${revisions} ORDER BY revision DESC LIMIT 1
        ) AS newest ON true
        LEFT JOIN ${revisions} AS seen ON seen.revision = ${revision}
        LEFT JOIN (
          SELECT json_agg(key_id) FILTER (WHERE key_id IS NOT NULL) AS ids,
                 json_agg(user_id::text) FILTER (WHERE user_id IS NOT NULL) AS user_ids, count(*),
                 coalesce(bool_or(key_id IS NULL AND user_id IS NULL), false) AS has_all,
                 coalesce(bool_or(is_new), false) AS has_new
            FROM (
              -- An entry without changes is damaged, and so counts as a change of everything.
              SELECT change.key_id, change.user_id, change.is_new
                FROM ${revisions} AS entry LEFT JOIN ${changes} AS change ON change.mark = entry.mark
               WHERE entry.revision > ${revision}
               LIMIT ${maxChanges + 1}
            ) AS change
        ) AS since ON true;
      COMMIT`
  }

  /** Reads everything that follows an entry, in one snapshot. */
  async function read(from: Position | null, limitMs: number): Promise<LogReading> {
    const { rows, sentAt } = await connection.query(statement(from), limitMs)
    const [row = {}] = rows
    const changedIds = JSON.parse(row.ids ?? '[]') as string[]
    const changedUserIds = JSON.parse(row.user_ids ?? '[]') as string[]
    const isTooMuch = row.has_all === 'true' || Number(row.count) > maxChanges

    return {
      sentAt,
      newest: row.revision && row.mark ? { revision: Number(row.revision), mark: row.mark } : null,
      continues: from !== null && row.seen_mark === from.mark,
      changedIds: isTooMuch ? null : changedIds,
      changedUserIds: changedUserIds.map((id) => readUserId(id, userIdType)),
      hasNew: row.has_new === 'true',
      isStandby: row.is_standby !== 'false',
      triggers: row.fingerprint ?? null,
      isRegistered: row.is_registered === 'true',
      serverMs: Number(row.server_ms),
    }
  }

  return {
    /** SQL that is true where this process may rely on what it reads. */
    isRegistered,

    fingerprint,

    read,

    /** Has the log tell every process that a user may do more, or less. */
    async tellOfUser(userId: string | number, transaction: Transaction | undefined) {
      await run(sequelize, `INSERT INTO ${userChanges} (user_id) VALUES ($1)`, {
        bind: [userId],
        transaction: transaction ?? null,
      })
    },

    /** Lets every barrier know of the bound. */
    async register(limitMs: number) {
      await connection.query(
        `START TRANSACTION ISOLATION LEVEL READ COMMITTED;
         INSERT INTO ${bounds} AS known (bound_ms, registered_at) VALUES (${boundMs}, clock_timestamp())
             ON CONFLICT (bound_ms) DO UPDATE SET registered_at = excluded.registered_at
          WHERE known.registered_at < now() - interval '30 minutes';
         COMMIT`,
        limitMs,
      )
    },

    /**
     * Removes what nobody needs any more: entries of more than an hour ago but for the newest, as a process that was
     * away for longer starts anew, and bounds that nobody has confirmed for a day. Not much at a time, and the oldest first:
     * one who prunes waits for another, as a gap behind an entry that is still there would hide changes from who reads on from it.
     */
    async prune() {
      await run(
        sequelize,
        `WITH old AS (
           SELECT revision FROM ${revisions}
            WHERE created_at < now() - interval '1 hour'
              AND revision < (SELECT max(revision) FROM ${revisions})
            ORDER BY revision LIMIT 10000 FOR UPDATE
         ), removed AS (
           DELETE FROM ${revisions} AS entry USING old WHERE entry.revision = old.revision
           RETURNING entry.mark
         )
         DELETE FROM ${changes} AS change USING removed WHERE change.mark = removed.mark`,
        { transaction: null },
      )
      await run(sequelize, `DELETE FROM ${bounds} WHERE registered_at < now() - interval '1 day'`, {
        transaction: null,
      })
    },
  }
}

export type ChangeLogReader = ReturnType<typeof createChangeLog>

function toRelation(name: string): string {
  return `${literal(name)}::regclass`
}
