import type { QueryTypes, Sequelize, Transaction } from 'sequelize'

/** The options of a statement. */
export interface StatementOptions {
  /** The values of `$1`, `$2` and so on. */
  bind?: readonly unknown[] | undefined
  /** Required: without it, Sequelize would join an ambient transaction (CLS). */
  transaction: Transaction | null
  logging?: false
}

/*
 * Our statements go through the Sequelize instance that the app gave us, and nothing is imported from `sequelize` but types. An
 * app may have two copies of Sequelize. A value of our copy (`literal()`, `Op.lt`, a lock) means nothing to the app's copy, and
 * an error of the app's copy is no instance of our classes.
 */

/** Makes pgpool-II send a statement to the primary. Everywhere else it is a comment. It counts only at the start of a statement. */
export const onPrimary = '/*NO LOAD BALANCE*/'

/**
 * Runs a statement on the primary and returns its rows. Statements return text, numbers as text or JSON: an app may have
 * changed the session settings (`DateStyle`) and the type parsers of its driver.
 */
export async function select<Row extends object>(
  sequelize: Sequelize,
  sql: string,
  { bind, ...options }: StatementOptions,
): Promise<Row[]> {
  return sequelize.query<Row>(`${onPrimary} ${sql}`, {
    ...options,
    ...(bind && { bind: [...bind] }),
    // The value is the same in every copy of Sequelize.
    type: 'SELECT' as QueryTypes.SELECT,
    useMaster: true,
  })
}

/**
 * SQL that gives the statements of a transaction a time limit of their own. An app may have set `statement_timeout` for its
 * requests, which work on many rows would always exceed.
 */
export function limitStatements(ms: number): string {
  return `SELECT set_config('statement_timeout', '${ms}', true)`
}

/** Runs a statement without a result. */
export async function run(sequelize: Sequelize, sql: string, options: StatementOptions) {
  await select(sequelize, sql, options)
}
