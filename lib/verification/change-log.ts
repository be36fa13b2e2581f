import type { Sequelize, Transaction } from 'sequelize'

import {
  gatheredColumns,
  keyTriggers,
  numberTriggers,
  userTriggers,
} from '../../migrations/change-log-triggers'
import { alteredTriggersSql } from '../../migrations/triggers'
import { changeLogOf } from '../../models/change-log'
import { literal, qualify } from '../../models/names'
import { run, select } from '../../models/statements'
import type { UserIdType } from '../../models/storage-options'
import { afterCommit, onDatabase } from '../keys/database'
import type { OwnChanges } from '../keys/own-changes'
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
  /** The transactions of the entries since. */
  xids: readonly string[]
  /** Whether keys, or hashes of keys, were added since. */
  hasNew: boolean
  /** Whether the server is a standby, which may lag behind. */
  isStandby: boolean
  /** Whether logical replication feeds the table of keys: it may lag behind, too. */
  isSubscriber: boolean
  /** Which version of the triggers writes the log; `null` unless all are as the migrations made them. */
  triggers: string | null
  /** Whether the database knows of the bound that this process holds itself to. */
  isRegistered: boolean
  /** The server's clock, in milliseconds since 1970. */
  serverMs: number
}

/** More changes than these are not looked up one by one: the whole cache is forgotten. */
const maxChanges = 10_000

interface ChangeLogParts {
  /** For what others wait for. */
  connection: Pick<Connection, 'query'>
  /** For what no verification waits for. */
  sequelize: Sequelize
  schema: string
  userIdType: UserIdType
  /** What must be logged for this process to rely on the log. */
  followed: 'keys' | 'keys and users'
  /** For how long this process may go on accepting a key at most after it was revoked. */
  boundMs: number
  ownChanges: Pick<OwnChanges, 'begin'>
}

/** Reads the log of changes, and tells the database of the bound that this process holds itself to. */
export function createChangeLog(parts: ChangeLogParts) {
  const { connection, sequelize, schema, userIdType, boundMs, ownChanges } = parts
  const { revisions, changes, userChanges, register, bounds, pruning } = changeLogOf(schema)
  // Without one of them, changes could go unlogged.
  const triggers = [
    ...keyTriggers(schema, gatheredColumns.withLimits),
    ...numberTriggers(schema),
    ...(parts.followed === 'keys' ? [] : userTriggers(schema)),
  ]
  const tables = [...new Set(triggers.map(({ table }) => table))]
  /** The version of the triggers that was last found to be as the migrations made them. */
  let confirmed: string | null = null

  /** SQL that is true once the bound stands in the database, confirmed within the hour. */
  const isRegistered = `EXISTS (
    SELECT FROM ${bounds} WHERE bound_ms >= ${boundMs} AND registered_at > now() - interval '1 hour'
  )`

  /**
   * SQL for the version of the triggers that write the log; NULL unless all are there and enabled, and their numbers go up. It
   * changes when a trigger, its function or the sequence of the numbers is altered or made anew.
   */
  const fingerprint = `
    SELECT string_agg(
             concat_ws(' ', trigger.oid, trigger.tgrelid, trigger.xmin, function.oid, function.xmin),
             ', ' ORDER BY trigger.oid
           ) || (
             SELECT concat_ws(' ', ',', sequence.seqrelid, sequence.xmin)
               FROM pg_catalog.pg_sequence AS sequence
              WHERE sequence.seqrelid = ${toRelation(register)} AND sequence.seqincrement = 1 AND NOT sequence.seqcycle
           )
      FROM pg_catalog.pg_trigger AS trigger
      JOIN pg_catalog.pg_proc AS function ON function.oid = trigger.tgfoid
     WHERE trigger.tgrelid IN (${tables.map(toRelation).join(', ')})
       AND trigger.tgname IN (${triggers.map(({ name }) => literal(name)).join(', ')})
       AND trigger.tgenabled = 'A'
    HAVING count(*) = ${triggers.length}`

  /** SQL that is true while a subscription feeds the table of keys, or a worker of it is still at work. */
  const isSubscriber = `EXISTS (
    SELECT FROM pg_catalog.pg_subscription_rel AS fed
      JOIN pg_catalog.pg_subscription AS subscription ON subscription.oid = fed.srsubid
     WHERE fed.srrelid = ${toRelation(qualify(schema, 'api_keys'))}
       AND (subscription.subenabled OR EXISTS (
         SELECT FROM pg_catalog.pg_stat_get_subscription(subscription.oid) WHERE pid IS NOT NULL
       ))
  )`

  /** Reads the definitions themselves, which takes longer, and only when the version is another. */
  const confirmation = `
    START TRANSACTION ISOLATION LEVEL READ COMMITTED READ ONLY;
    SELECT (${fingerprint}) AS fingerprint WHERE NOT EXISTS (${alteredTriggersSql(triggers)});
    COMMIT`

  function xidsAfter(revision: number | null) {
    return `
      SELECT json_agg(entry.xid::text) FROM (
        SELECT xid FROM ${revisions} WHERE revision > ${revision} ORDER BY revision LIMIT ${maxChanges + 1}
      ) AS entry`
  }

  /** READ COMMITTED, whatever the default: a serializable reader could make transactions of the app fail. */
  function statement(from: Position | null) {
    const revision = from?.revision ?? null
    return `
      START TRANSACTION ISOLATION LEVEL READ COMMITTED READ ONLY;
      SELECT newest.revision::text, newest.mark::text, seen.mark::text AS seen_mark,
             since.ids::text, (${xidsAfter(revision)})::text AS xids, since.user_ids::text, since.has_all::text, since.has_new::text, since.count::text,
             (${fingerprint}) AS fingerprint,
             pg_is_in_recovery()::text AS is_standby, (${isSubscriber})::text AS is_subscriber,
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
                FROM (
                  SELECT mark FROM ${revisions} WHERE revision > ${revision}
                   ORDER BY revision LIMIT ${maxChanges + 1}
                ) AS entry
                LEFT JOIN LATERAL (
                  -- In the order of the primary key, so that the server reads these rows and no others, whatever it takes
                  -- their number for: after one transaction with a million changes, it would read the whole table.
                  SELECT change.key_id, change.user_id, change.is_new FROM ${changes} AS change
                   WHERE change.mark = entry.mark ORDER BY change.mark, change.place LIMIT ${maxChanges + 1}
                ) AS change ON true
               LIMIT ${maxChanges + 1}
            ) AS change
        ) AS since ON true;
      COMMIT`
  }

  /** Reads everything that follows an entry, in one snapshot. */
  async function read(from: Position | null, limitMs: number): Promise<LogReading> {
    const { rows, sentAt } = await connection.query(statement(from), limitMs)
    const [row = {}] = rows
    const fingerprint = row.fingerprint ?? null
    if (fingerprint !== null && fingerprint !== confirmed) {
      const { rows: found } = await connection.query(confirmation, limitMs)
      confirmed = found[0]?.fingerprint ?? null
    }
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
      isSubscriber: row.is_subscriber !== 'false',
      xids: JSON.parse(row.xids ?? '[]') as string[],
      triggers: fingerprint === confirmed ? fingerprint : null,
      isRegistered: row.is_registered === 'true',
      serverMs: Number(row.server_ms),
    }
  }

  return {
    /** SQL that is true where this process may rely on what it reads. */
    isRegistered,

    fingerprint,

    /** SQL that is true while what the table of keys holds may be old, on a server that is no standby. */
    isSubscriber,

    read,

    /** Returns the numbers of the entries of these transactions, by the transaction. */
    async find(xids: readonly string[], limitMs: number): Promise<Map<string, number>> {
      const { rows } = await connection.query(
        `START TRANSACTION ISOLATION LEVEL READ COMMITTED READ ONLY;
         SELECT xid::text, min(revision)::text AS revision FROM ${revisions}
          WHERE xid = ANY (${literal(`{${xids.join(',')}}`)}::xid8[]) GROUP BY xid;
         COMMIT`,
        limitMs,
      )
      return new Map(rows.map((row) => [String(row.xid), Number(row.revision)]))
    },

    /** Removes entries that readers pass over. The deletion has every process begin anew, with a number above all others. */
    async remove(revisionsToRemove: readonly number[]) {
      await onDatabase(() =>
        run(sequelize, `DELETE FROM ${revisions} WHERE revision = ANY ($1::bigint[])`, {
          bind: [revisionsToRemove],
          transaction: null,
        }),
      )
    },

    /** Has the log tell every process that a user may do more, or less. */
    async tellOfUser(userId: string | number, transaction: Transaction | undefined) {
      const [told] = await select<{ xid: string }>(
        sequelize,
        `WITH told AS (INSERT INTO ${userChanges} (user_id) VALUES ($1))
         SELECT pg_current_xact_id()::text AS xid`,
        { bind: [userId], transaction: transaction ?? null },
      )
      const committed = ownChanges.begin(String(told?.xid))
      if (transaction) afterCommit(transaction, committed)
      else committed()
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
     * away for longer starts anew, and bounds that nobody has confirmed for a day. Not much at a time, and always from the
     * beginning up to an entry that stays: a gap behind an entry that is still there would hide changes from who reads on from
     * it. Times may be in another order than numbers, if the server's clock was set back. Two who prune wait for each other.
     */
    async prune() {
      await onDatabase(async () => {
        await run(
          sequelize,
          // In one text, and so in one transaction.
          `SELECT set_config('${pruning}', pg_current_xact_id()::text, true);
         WITH first AS (
           SELECT revision, created_at FROM ${revisions} ORDER BY revision LIMIT 10000
         ), kept AS (
           SELECT coalesce(min(revision) FILTER (WHERE created_at >= now() - interval '1 hour'), max(revision)) AS revision
             FROM first
         ), old AS (
           SELECT entry.revision FROM ${revisions} AS entry, kept
            WHERE entry.revision < kept.revision
            ORDER BY entry.revision FOR UPDATE OF entry
         ), removed AS (
           DELETE FROM ${revisions} AS entry USING old WHERE entry.revision = old.revision
           RETURNING entry.mark
         )
         DELETE FROM ${changes} AS change USING removed WHERE change.mark = removed.mark`,
          { transaction: null },
        )
        await run(
          sequelize,
          `DELETE FROM ${bounds} WHERE registered_at < now() - interval '1 day'`,
          {
            transaction: null,
          },
        )
      })
    },
  }
}

export type ChangeLogReader = ReturnType<typeof createChangeLog>

function toRelation(name: string): string {
  return `${literal(name)}::regclass`
}
