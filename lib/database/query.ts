import type { QueryTypes, Sequelize, Transaction } from 'sequelize'

import { literal } from '../../models/names'
import type { TextRow } from './connection'

/*
 * There are two ways to the database.
 *
 * The functions of this file go through the app's Sequelize. Changes of keys, the audit trail, lists and reports go this way,
 * because they may be part of a transaction of the app. They wait for a connection of the app's pool, one after the other
 * (turns.ts). Models of Sequelize are used only to write rows. Nothing is imported from `sequelize` but types. An app may have two
 * copies of Sequelize. A value of our copy (`literal()`, `Op.lt`, a lock) means nothing to the app's copy, and an error of the
 * app's copy is no instance of our classes.
 *
 * The connections of the library (connections.ts) serve polls and look-ups, for which requests wait, and writes in
 * the background (writer.ts). An app whose pool is exhausted still verifies keys, and no statement becomes part of its transactions.
 */

interface QueryOptions {
  /** Values for `$1` and so on. */
  bind?: readonly unknown[] | undefined
  /** Required, because without a transaction Sequelize would join an ambient one (CLS). */
  transaction: Transaction | null
  logging?: false
}

/**
 * Makes pgpool-II send a statement to the primary. For every other server it is a comment. It counts only at the start
 * of a statement.
 */
export const onPrimary = '/*NO LOAD BALANCE*/'

/**
 * Runs a statement on the primary and returns its rows. Statements return text, numbers as text or JSON: an app may have
 * changed the session settings (`DateStyle`) and the type parsers of its driver.
 */
export async function select<Row extends object>(
  sequelize: Sequelize,
  sql: string,
  { bind, ...options }: QueryOptions,
): Promise<Row[]> {
  return sequelize.query<Row>(`${onPrimary} ${sql}`, {
    ...options,
    ...(bind && { bind: [...bind] }),
    // The value is the same in every copy of Sequelize.
    type: 'SELECT' as QueryTypes.SELECT,
    useMaster: true,
  })
}

/** Runs a statement and returns its rows, whose values are text. */
export type Run = (sql: string, values: readonly unknown[]) => Promise<TextRow[]>

/** Returns the function that runs statements in a transaction; with `null`, each statement alone. */
export function runIn(sequelize: Sequelize, transaction: Transaction | null): Run {
  return (sql, values) => select<TextRow>(sequelize, sql, { bind: values, transaction })
}

/**
 * Runs statements that return JSON, each in one column `json`, and returns the values. The callers know their shape.
 */
export async function selectJson<Rows extends unknown[]>(
  sequelize: Sequelize,
  sql: string,
  options: QueryOptions,
): Promise<Rows> {
  const rows = await select<{ json: string }>(sequelize, sql, options)
  return rows.filter(({ json }) => json).map(({ json }): unknown => JSON.parse(json)) as Rows
}

/** Runs a statement whose result is of no interest. */
export async function run(sequelize: Sequelize, sql: string, options: QueryOptions) {
  await select(sequelize, sql, options)
}

/**
 * SQL by which no schema of the session's search path can replace a function or an operator of Postgres for the rest of a transaction.
 * Names of the library are qualified.
 */
export const systemNamesOnly = 'SET LOCAL search_path = pg_catalog, pg_temp'

/** SQL that is true while a subscription feeds a table, or a worker of it is still at work. */
export function isFedSql(table: string): string {
  return `EXISTS (
    SELECT FROM pg_catalog.pg_subscription_rel AS fed
      JOIN pg_catalog.pg_subscription AS subscription ON subscription.oid = fed.srsubid
     WHERE fed.srrelid = ${literal(table)}::regclass
       AND (subscription.subenabled OR EXISTS (
         SELECT FROM pg_catalog.pg_stat_get_subscription(subscription.oid) WHERE pid IS NOT NULL
       ))
  )`
}

/**
 * Returns SQL that gives the statements of a transaction a time limit of their own. An app may have set `statement_timeout` for
 * its requests, which work on many rows would always exceed.
 */
export function limitStatements(ms: number): string {
  return `SELECT set_config('statement_timeout', '${ms}', true)`
}

/** Calls back once a transaction has committed. A transaction within another, a savepoint, commits with the outer one. */
export function afterCommit(transaction: Transaction, callBack: () => void | Promise<void>) {
  // The types lack this member.
  const { parent } = transaction as Transaction & { parent?: Transaction | null }
  transaction.afterCommit(() => (parent ? afterCommit(parent, callBack) : callBack()))
}

/**
 * Asks the database for the outcome of a transaction, by its number. Sequelize runs the hooks of `afterCommit` even if
 * COMMIT failed. `in progress` after its end means that the server has not noticed the end. Throws if the database does
 * not answer, or no longer knows.
 */
export async function commitStatusOf(sequelize: Sequelize, xid: string) {
  const [row] = await select<{ status: 'committed' | 'aborted' | 'in progress' | null }>(
    sequelize,
    'SELECT pg_xact_status($1::text::xid8) AS status',
    { bind: [xid], transaction: null },
  )
  if (row?.status) return row.status
  throw new Error(
    `express-api-keys: the database no longer knows what became of transaction ${xid}`,
  )
}

/**
 * SQL that makes a commit return without its standbys. While a synchronous standby is away, a COMMIT waits without end, no time limit of
 * the server ends it, and a connection that is given up stays in the server.
 */
export const withoutStandbys = 'SET LOCAL synchronous_commit = local'
