import type { Sequelize, Transaction } from 'sequelize'

import { keyLogTriggers, userLogTriggers } from '../../migrations/change-log-triggers'
import { literal } from '../../models/names'
import { afterCommit, run, select } from '../database/query'
import type { UserIdType } from '../../models/storage-options'
import type { Tables } from '../../models/tables'
import { onDatabase } from '../database/failures'
import type { OwnChanges } from '../database/own-changes'
import { readUserId } from '../keys/record'
import { confirmationSql, conditionsOf, maxChanges, pollSql, pruneSql } from './change-log-sql'
import type { Moment } from '../database/clock'
import type { Connection } from '../database/connection'

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

interface ChangeLogParts {
  /** For what others wait for. */
  connection: Pick<Connection, 'query'>
  /** For what no verification waits for. */
  sequelize: Sequelize
  tables: Tables
  userIdType: UserIdType
  /** What must be logged for this process to rely on the log. */
  followed: 'keys' | 'keys and users'
  /** For how long this process may go on accepting a key at most after it was revoked. */
  boundMs: number
  ownChanges: Pick<OwnChanges, 'begin'>
}

/** Reads the log of changes, and tells the database of the bound that this process holds itself to. */
export function createChangeLog(parts: ChangeLogParts) {
  const { connection, sequelize, tables, userIdType, boundMs, ownChanges } = parts
  const { revisions, userChanges, bounds } = tables
  // Without one of them, changes could go unlogged.
  const triggers = [
    ...keyLogTriggers(tables),
    ...(parts.followed === 'keys' ? [] : userLogTriggers(tables)),
  ]
  const conditions = conditionsOf({ tables, triggers, boundMs })
  /** The version of the triggers that was last found to be as the migrations made them. */
  let confirmed: string | null = null

  /** Reads everything that follows an entry, in one snapshot. */
  async function read(from: Position | null, limitMs: number): Promise<LogReading> {
    const { rows, sentAt } = await connection.query(
      pollSql(tables, from?.revision ?? null, conditions),
      limitMs,
    )
    const [row = {}] = rows
    const fingerprint = row.fingerprint ?? null
    if (fingerprint !== null && fingerprint !== confirmed) {
      const { rows: found } = await connection.query(
        confirmationSql(conditions.fingerprint, triggers),
        limitMs,
      )
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
    conditions,

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
        await run(sequelize, pruneSql(tables), { transaction: null })
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
