import timers from 'node:timers/promises'

import type { Sequelize, Transaction } from 'sequelize'

import { asGuest } from '../models/guest'
import { select } from '../lib/database/query'

// Taken when the module loads, because fake timers of an app replace the member.
const { setTimeout } = timers

/** Runs a statement in the transaction and returns its rows. */
export type Run = (sql: string, bind?: unknown[]) => Promise<Record<string, unknown>[]>

function runnerOf(sequelize: Sequelize, transaction: Transaction): Run {
  return async function run(sql, bind) {
    // Not logged, because some statements are a whole file.
    return select<Record<string, unknown>>(sequelize, sql, { bind, transaction, logging: false })
  }
}

/**
 * While a statement waits for a lock on a table, later statements of the app wait behind it. So each wait is short, and the work is
 * retried after a pause.
 */
const lockTimeoutMs = 1_000
const pauseMs = 500
const maxTries = 40

/** SQLSTATEs of a lock that was not granted: in time, or because of a deadlock. */
const lockFailures = new Set(['55P03', '40P01'])

/** Runs work in a transaction, one process at a time. The work is retried if it does not get a lock. */
export async function exclusively<Result>(
  sequelize: Sequelize,
  schema: string,
  work: (run: Run) => Promise<Result>,
): Promise<Result> {
  const guest = asGuest(sequelize)

  for (let tries = 1; ; tries++) {
    try {
      return await guest.transaction(async (transaction) => {
        const run = runnerOf(guest, transaction)
        await prepare(run, schema)
        return work(run)
      })
    } catch (error) {
      if (!lockFailures.has(reasonOf(error).code)) throw error
      if (tries === maxTries) throw explainLockFailure(error)
      await setTimeout(pauseMs)
    }
  }
}

async function prepare(run: Run, schema: string) {
  // Another process may migrate for long, so that this wait has no limit. Conditions are compared as text, so that no setting may
  // quote the names in them.
  await run(
    `SELECT set_config('lock_timeout', '0', true), set_config('statement_timeout', '0', true),
            set_config('quote_all_identifiers', 'off', true)`,
  )
  await run('SELECT pg_advisory_xact_lock(hashtextextended($1, 0))', [
    `express-api-keys migrations ${schema}`,
  ])
  await run(`SELECT set_config('lock_timeout', '${lockTimeoutMs}', true)`)
}

function explainLockFailure(error: unknown): Error {
  return new Error(
    `migrate: a table stayed locked by another transaction (${reasonOf(error).message}, ${maxTries} tries). Nothing was ` +
      'changed. Find the transaction in pg_stat_activity, have it end, and call migrate() again.',
    { cause: error },
  )
}

interface Reason {
  /** The SQLSTATE. */
  code: string
  message: string
  detail: string
}

/** Returns the server's own words on a failed statement. */
export function reasonOf(error: unknown): Reason {
  const { parent } = error as { parent?: Partial<Reason> }
  const { code = '', message = '', detail = '' } = parent ?? {}
  return { code, message, detail }
}
