import type { Sequelize } from 'sequelize'

import { select } from './query'

/** What Postgres knows of a transaction. `in progress` after its end means that the server has not noticed the end. */
export type CommitStatus = 'committed' | 'aborted' | 'in progress'

/**
 * Asks the database what became of a transaction, by its number. Sequelize runs the hooks of `afterCommit` even if COMMIT failed.
 * Throws if the database does not answer, or no longer knows.
 */
export async function commitStatusOf(sequelize: Sequelize, xid: string): Promise<CommitStatus> {
  const [row] = await select<{ status: CommitStatus | null }>(
    sequelize,
    'SELECT pg_xact_status($1::text::xid8) AS status',
    { bind: [xid], transaction: null },
  )
  if (row?.status) return row.status
  throw new Error(
    `express-api-keys: the database no longer knows what became of transaction ${xid}`,
  )
}
