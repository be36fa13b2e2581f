import type { Sequelize, Transaction } from 'sequelize'

import {
  keyLogTriggers,
  ownerLogTriggers,
  suspensionLogTriggers,
} from '../../migrations/change-log-triggers'
import { afterCommit, run, select, withoutStandbys } from '../database/query'
import { literal } from '../../models/names'
import { ownerColumns } from '../../models/owner'
import type { Tables } from '../../models/tables'
import { onDatabase } from '../database/failures'
import type { OwnChanges } from '../database/own-changes'
import type { Owner } from '../keys/owner'
import type { Connection, TextRow } from '../database/connection'
import { conditionsOf, confirmationSql, maxChanges, pollSql, pruneSql } from './change-log-sql'

/** An entry of the log. After a crash or a failover, another entry may have its number, but not its mark. */
export interface Position {
  readonly revision: number
  readonly mark: string
}

/** The answer of the log at a moment, about the entries that follow an entry. */
export type LogReading = Awaited<ReturnType<ChangeLogReader['read']>>

interface ChangeLogParts {
  /** For statements that verification waits for. */
  connection: Pick<Connection, 'query'>
  /** For all other statements. */
  sequelize: Sequelize
  tables: Tables
  /** The changes that must be logged for this process to rely on the log. */
  followed: 'keys' | 'keys and owners'
  /** How long this process may go on accepting a key after it was revoked. */
  boundMs: number
  ownChanges: Pick<OwnChanges, 'begin'>
}

/** Reads and prunes the log of changes. */
export type ChangeLogReader = ReturnType<typeof createChangeLog>

/** Makes the functions that read and prune the log of changes, and register the bound that this process keeps. */
export function createChangeLog(parts: ChangeLogParts) {
  const { connection, sequelize, tables, boundMs, ownChanges } = parts
  const { revisions, userChanges, bounds } = tables
  // If one of them is missing, changes may go unlogged.
  const triggers = [
    ...keyLogTriggers(tables),
    ...suspensionLogTriggers(tables),
    ...(parts.followed === 'keys' ? [] : ownerLogTriggers(tables)),
  ]
  const conditions = conditionsOf(tables, triggers, boundMs)
  /** The version of the triggers that was last found to be as the migrations made them. */
  let confirmed: string | null = null

  /** Returns the version of the triggers if they are as the migrations made them. */
  async function confirm(fingerprint: string | null, limitMs: number): Promise<string | null> {
    if (fingerprint !== null && fingerprint !== confirmed) {
      const sql = confirmationSql(conditions.fingerprint, triggers)
      const { rows } = await connection.query(sql, limitMs)
      confirmed = rows[0]?.fingerprint ?? null
    }
    return fingerprint === confirmed ? fingerprint : null
  }

  return {
    conditions,

    /** Reads everything that follows an entry, in one snapshot. */
    async read(from: Position | null, limitMs: number) {
      const sql = pollSql(tables, from?.revision ?? null, conditions)
      const { rows, sentAt } = await connection.query(sql, limitMs)
      const [row = {}] = rows
      return {
        sentAt,
        /** True if the entry that the reading began from is there, with the same mark. */
        continues: from !== null && row.seen_mark === from.mark,
        /** The version of the triggers that write the log; `null` unless all are as the migrations made them. */
        triggers: await confirm(row.fingerprint ?? null, limitMs),
        ...readRow(row),
      }
    },

    /** Returns the numbers of the entries of transactions, by the transaction. */
    async find(xids: readonly string[], limitMs: number): Promise<Map<string, number>> {
      const sql = `
      START TRANSACTION ISOLATION LEVEL READ COMMITTED READ ONLY;
      SELECT xid::text, min(revision)::text AS revision FROM ${revisions}
       WHERE xid = ANY (${literal(`{${xids.join(',')}}`)}::xid8[]) GROUP BY xid;
      COMMIT`
      const { rows } = await connection.query(sql, limitMs)
      return new Map(rows.map((row) => [String(row.xid), Number(row.revision)]))
    },

    /**
     * Removes entries that readers pass over. After the deletion, every process evicts its cache, with a number above
     * all earlier numbers.
     */
    async remove(numbers: readonly number[]) {
      await onDatabase(() =>
        run(sequelize, `DELETE FROM ${revisions} WHERE revision = ANY ($1::bigint[])`, {
          bind: [numbers],
          transaction: null,
        }),
      )
    },

    /** Reports to every process that the permissions of an owner may have changed. */
    async reportOwnerChange({ type, id }: Owner, transaction: Transaction | undefined) {
      const [logged] = await select<{ xid: string }>(
        sequelize,
        `WITH logged AS (INSERT INTO ${userChanges} (${ownerColumns[type]}) VALUES ($1))
         SELECT pg_current_xact_id()::text AS xid`,
        { bind: [String(id)], transaction: transaction ?? null },
      )
      const committed = ownChanges.begin()
      if (transaction) afterCommit(transaction, () => committed(String(logged?.xid)))
      else committed(String(logged?.xid))
    },

    /**
     * Registers the bound, or confirms it from time to time. Every process that waits for everyone waits for it. A bound that is confirmed is
     * on the standbys already. So a confirmation does not wait for them: processes go on while a synchronous standby is away.
     */
    async register(limitMs: number) {
      const sql = `
      START TRANSACTION ISOLATION LEVEL READ COMMITTED;
      SET LOCAL lock_timeout = ${Math.ceil(limitMs)};
      SELECT set_config('synchronous_commit', 'local', true) WHERE EXISTS (SELECT FROM ${bounds} WHERE bound_ms = ${boundMs});
      INSERT INTO ${bounds} AS known (bound_ms, registered_at) VALUES (${boundMs}, clock_timestamp())
          ON CONFLICT (bound_ms) DO UPDATE SET registered_at = excluded.registered_at
       WHERE known.registered_at < now() - interval '30 minutes';
      COMMIT`
      await connection.query(sql, limitMs)
    },

    /** Removes old entries, and bounds that no process has confirmed for a day. */
    async prune() {
      const options = { transaction: null }
      await onDatabase(async () => {
        await run(sequelize, pruneSql(tables), options)
        const isOld = "registered_at < now() - interval '1 day'"
        await run(sequelize, `${withoutStandbys}; DELETE FROM ${bounds} WHERE ${isOld}`, options)
      })
    },
  }
}

function readRow(row: TextRow) {
  const { revision, mark } = row
  const isTooMuch = row.has_all === 'true' || Number(row.count) > maxChanges
  return {
    /** The newest entry; `null` if the log is empty. */
    newest: revision && mark ? { revision: Number(revision), mark } : null,
    /** The ids of the keys that were changed; `null` if anything may have changed, or too much has. */
    changedIds: isTooMuch ? null : (JSON.parse(row.ids ?? '[]') as string[]),
    /** The names of the owners who were suspended or reactivated, or whose permissions may have changed. */
    changedOwners: JSON.parse(row.owners ?? '[]') as string[],
    /** True if SQL has added keys, or keys have new hashes. */
    hasNew: row.has_new === 'true',
    /** True if SQL has added keys, or keys were imported. */
    hasAdded: row.has_added === 'true',
    /** True if the server is a standby, which may lag behind. */
    isStandby: row.is_standby !== 'false',
    /** True if logical replication feeds the table of keys, which may lag behind, too. */
    isSubscriber: row.is_subscriber !== 'false',
    /** The transactions of the entries. */
    xids: JSON.parse(row.xids ?? '[]') as string[],
    /** True if the bound of this process is registered in the database. */
    isRegistered: row.is_registered === 'true',
    /** The server's clock, in milliseconds since 1970. */
    serverMs: Number(row.server_ms),
  }
}
