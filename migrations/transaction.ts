import type { Sequelize, Transaction } from 'sequelize'

import { asGuest } from '../models/guest'
import { select } from '../models/statements'

export type Run = (sql: string, bind?: unknown[]) => Promise<Record<string, unknown>[]>

function runnerOf(sequelize: Sequelize, transaction: Transaction): Run {
  return async function run(sql, bind) {
    // Not logged, because each is a whole file.
    return select<Record<string, unknown>>(sequelize, sql, { bind, transaction, logging: false })
  }
}

/** Works in a transaction of its own, one after the other with all others that do. */
export async function exclusively<Result>(
  sequelize: Sequelize,
  schema: string,
  work: (run: Run) => Promise<Result>,
): Promise<Result> {
  const guest = asGuest(sequelize)

  return guest.transaction(async (transaction) => {
    const run = runnerOf(guest, transaction)
    await run('SELECT pg_advisory_xact_lock(hashtextextended($1, 0))', [
      `express-api-keys migrations ${schema}`,
    ])
    return work(run)
  })
}

/** The code (SQLSTATE) and the message that the server gave an error. */
export function reasonOf(error: unknown): { code: string; message: string } {
  const { parent } = error as { parent?: { code?: string; message?: string } }
  return { code: parent?.code ?? '', message: parent?.message ?? '' }
}
