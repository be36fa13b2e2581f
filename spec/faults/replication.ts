import type { Sequelize } from 'sequelize'

import { createTestApiKeys } from '../support/app'
import { tablesOf } from '../../models/tables'
import { readOne, startServer, type Server } from './server'
import { waitUntil } from './waiting'

/** A database that is moved to another server by logical replication. */
export interface Move {
  /** The server on which the app runs at first. */
  source: Server
  /** The server on which it is to run. */
  target: Server
  onSource: Sequelize
  onTarget: Sequelize
  /** Subscribes the target to a publication of these tables. */
  begin(tables: string, options?: { by?: Sequelize; with?: string }): Promise<void>
  /** Resolves once the target has every change that was committed on the source. */
  catchUp(): Promise<void>
  /** The failures while rows were copied and changes were applied. */
  countErrors(): Promise<{ apply: number; sync: number }>
  /** Ends the subscription. */
  end(): Promise<void>
  remove(): Promise<void>
}

const settings = {
  wal_level: 'logical',
  max_logical_replication_workers: 12,
  max_sync_workers_per_subscription: 4,
  max_worker_processes: 16,
  logical_decoding_work_mem: '64kB',
  wal_retrieve_retry_interval: '200ms',
}

/** Starts two servers. The tables of the source are migrated. */
export async function startMove(): Promise<Move> {
  const source = await startServer(settings)
  const target = await startServer(settings)
  const [onSource, onTarget] = [source.connect(), target.connect()]
  await createTestApiKeys({ connect: () => onSource }).migrate()

  return {
    source,
    target,
    onSource,
    onTarget,

    async begin(tables, { by = onTarget, with: options = 'streaming = on' } = {}) {
      await onSource.query(`CREATE PUBLICATION moved FOR ${tables}`)
      await by.query(
        `CREATE SUBSCRIPTION moved CONNECTION '${source.url}' PUBLICATION moved WITH (${options})`,
      )
      await waitUntil(
        'all tables are copied',
        async () => {
          const { left } = await readOne<{ left: number }>(
            onTarget,
            `SELECT count(*)::int AS left FROM pg_subscription_rel WHERE srsubstate <> 'r'`,
          )
          return left === 0
        },
        60_000,
      )
    },

    async catchUp() {
      const { lsn } = await readOne<{ lsn: string }>(
        onSource,
        'SELECT pg_current_wal_insert_lsn()::text AS lsn',
      )
      await waitUntil(
        'the target has caught up',
        async () => {
          const { isThere } = await readOne<{ isThere: boolean }>(
            onSource,
            `SELECT coalesce(bool_and(confirmed_flush_lsn >= '${lsn}'), false) AS "isThere"
               FROM pg_replication_slots WHERE slot_name = 'moved'`,
          )
          return isThere
        },
        60_000,
      )
    },

    countErrors: () =>
      readOne(
        onTarget,
        `SELECT apply_error_count::int AS apply, sync_error_count::int AS sync
           FROM pg_stat_subscription_stats WHERE subname = 'moved'`,
      ),

    async end() {
      await onTarget.query('DROP SUBSCRIPTION moved')
    },

    async remove() {
      await target.remove()
      await source.remove()
    },
  }
}

/** Makes our tables without a row, as `pg_dump --schema-only` does. */
export async function makeEmptyTables(sequelize: Sequelize) {
  await createTestApiKeys({ connect: () => sequelize }).migrate()
  await sequelize.query(
    `SELECT set_config('${tablesOf('public').settings.pruning}', pg_current_xact_id()::text, true);
     DELETE FROM api_key_revisions;
     DELETE FROM api_key_log_lock;
     DELETE FROM api_key_audit_head;
     DELETE FROM api_key_migrations`,
  )
}
