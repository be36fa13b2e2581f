import type { Sequelize, Transaction } from 'sequelize'

import { allowMs } from '../database/answer-limit'
import { select } from '../database/query'
import { readSnapshotSql, savepoint, statementLimitMs } from './read-trail'

/*
 * The seals, and the keys beside their seals, are read by statements that work for long and need nothing of each other. If the app's pool
 * has a connection to spare, the second of them runs there, in the same snapshot. Whatever keeps it from its answer, the first connection
 * asks again: no fault is found or missed because of the second.
 */

/**
 * How long the second connection waits for a lock. A statement that changes a table may wait for the first connection, and then the second
 * waits behind it. The server knows of no circle there, because the first waits for the second only in this process.
 */
const lockLimitMs = 2_000

/** A statement on a second connection. */
export type Beside = ReturnType<typeof readBeside>

/** A snapshot that a transaction has exported. */
interface Snapshot {
  id: string
  /** Which transactions it sees. */
  sees: string
}

/**
 * Exports the snapshot of a transaction that has just begun to read; `null` if the app's pool has no connection to spare. The server may
 * deny it, because the role lacks the right for example. The transaction has failed then, and begins anew. A savepoint would be no help, because
 * the server exports no snapshot behind one.
 */
export async function exportSnapshot(
  sequelize: Sequelize,
  transaction: Transaction,
): Promise<Snapshot | null> {
  if (!hasSpareConnection(sequelize)) return null
  const sql = 'SELECT pg_export_snapshot() AS id, pg_current_snapshot()::text AS sees'
  try {
    const [snapshot = null] = await select<Snapshot>(sequelize, sql, { transaction })
    return snapshot
  } catch {
    await sequelize.query(`ROLLBACK; BEGIN; ${readSnapshotSql()}`, { transaction })
    return null
  }
}

/** Starts a statement in a snapshot. The transaction that has exported it must stay open until the end. */
export function readBeside(sequelize: Sequelize, snapshot: Snapshot | null, sql: string) {
  let isOver = snapshot === null
  /** The process of the server that works on the statement. */
  let pid: string | undefined
  let cancelling: Promise<unknown> | undefined
  let reading: Promise<string[] | null> | undefined

  async function readIn(transaction: Transaction, { id, sees }: Snapshot) {
    const options = { transaction }
    allowMs(transaction, statementLimitMs)
    await sequelize.query(readSnapshotSql(id), options)
    const ownSql = `SELECT pg_backend_pid()::text AS pid, pg_current_snapshot()::text AS sees, set_config('lock_timeout', '${lockLimitMs}', true)`
    const [own] = await select<{ pid: string; sees: string }>(sequelize, ownSql, options)
    // Another server may have a snapshot of the same name.
    if (isOver || own?.sees !== sees) return null
    pid = own.pid
    try {
      return (await select<{ json: string }>(sequelize, sql, options)).map(({ json }) => json)
    } finally {
      pid = undefined
      // A later cancellation would hit the app's next statement on this connection.
      await cancelling
    }
  }

  async function start(snapshot: Snapshot) {
    await sequelize.transaction(async (transaction) => {
      if (isOver) return
      reading = readIn(transaction, snapshot)
      await reading
    })
  }

  const done = snapshot && start(snapshot).catch(() => {})

  return {
    /** Returns the answer; `null` if there is none, or if the second connection has not been there in time. */
    async answer(): Promise<string[] | null> {
      isOver ||= reading === undefined
      return (await reading?.catch(() => null)) ?? null
    },

    /** Ends the statement. The transaction of the snapshot cancels it, even after an error. */
    async end(transaction: Transaction) {
      isOver = true
      if (pid !== undefined) {
        const cancelSql = `ROLLBACK TO SAVEPOINT ${savepoint}; SELECT pg_cancel_backend(${pid})`
        cancelling = sequelize.query(cancelSql, { transaction }).catch(() => {})
      }
      if (reading) await done
    },
  }
}

/** True if two connections of the app's pool are free, so that one is left for the app. */
function hasSpareConnection(sequelize: Sequelize): boolean {
  // Sequelize has no public way to its pool.
  const { pool } = (sequelize as unknown as SequelizeInternals).connectionManager
  const { maxSize, using, waiting } = pool.write ?? pool
  return maxSize - using - waiting >= 2
}

interface Pool {
  maxSize: number
  using: number
  waiting: number
}

/** The members of Sequelize 6 that its types leave out. */
interface SequelizeInternals {
  connectionManager: { pool: Pool & { write?: Pool } }
}
