import type { Sequelize } from 'sequelize'

import type { TextRow } from './connection'
import { sqlStateOf } from './failures'
import { nameOf, unprepared } from './prepared'
import { onPrimary, type Run } from './query'

/** Runs statements on a connection of the app's pool. */
export type OnPool = ReturnType<typeof createOnPool>

/** SQLSTATEs of a statement alone that show that the default of the server is not READ COMMITTED. */
const isolated = /^(25001|40001)$/

/**
 * Makes the function that takes a connection of the app's pool for statements, each of them a transaction. They go past the queries of
 * Sequelize, which prepare nothing, and cost more CPU time than a statement. All else is as with Sequelize: its hooks around connections,
 * its logger, its errors.
 *
 * A statement alone takes one round trip. It must be READ COMMITTED. If that is not the default, the first statement fails, and from then
 * on statements are sent in transactions.
 */
export function createOnPool(sequelize: Sequelize, options: { preparedStatements: boolean }) {
  // Sequelize lends its connections to its own queries and transactions only.
  const app = sequelize as unknown as SequelizeInternals
  const { connectionManager, dialect } = app
  const state = { canPrepare: options.preparedStatements, isReadCommitted: true }

  return async function onPool<Result>(work: (run: Run) => Promise<Result>): Promise<Result> {
    // The words with which Sequelize asks for the primary.
    const client = await connectionManager.getConnection({ type: 'SELECT', useMaster: true })
    const { logging } = app.options
    const query = new dialect.Query(client, sequelize, { logging })

    async function run(sql: string, values: readonly unknown[]): Promise<TextRow[]> {
      // Sequelize's own name.
      // oxlint-disable-next-line no-underscore-dangle
      const done = logging ? query._logQuery(sql, () => {}) : undefined
      try {
        const rows = await send(client, sql, values, state)
        done?.()
        return rows
      } catch (error) {
        // Nothing is known of a connection on which the server has said nothing.
        if (sqlStateOf(error) === '') Object.assign(client, invalid)
        throw query.formatError(error as Error, new Error().stack)
      }
    }

    try {
      return await work(run)
    } finally {
      connectionManager.releaseConnection(client)
    }
  }
}

type State = { canPrepare: boolean; isReadCommitted: boolean }

/** Sends a statement, and sends it again in another way if the server shows that it cannot take it as it is. */
async function send(
  client: Client,
  sql: string,
  values: readonly unknown[],
  state: State,
): Promise<TextRow[]> {
  const { canPrepare, isReadCommitted } = state
  const statement = { text: `${onPrimary} ${sql}`, values: [...values] }
  const named = canPrepare ? { ...statement, name: nameOf(sql) } : statement
  try {
    if (isReadCommitted) return (await client.query(named)).rows
    return await sendWithin(client, named)
  } catch (error) {
    const sqlState = sqlStateOf(error)
    if (canPrepare && unprepared.test(sqlState)) state.canPrepare = false
    else if (isReadCommitted && isolated.test(sqlState)) state.isReadCommitted = false
    else throw error
    return send(client, sql, values, state)
  }
}

async function sendWithin(client: Client, statement: Statement): Promise<TextRow[]> {
  await client.query({ text: 'START TRANSACTION ISOLATION LEVEL READ COMMITTED' })
  try {
    const { rows } = await client.query(statement)
    await client.query({ text: 'COMMIT' })
    return rows
  } catch (error) {
    if (sqlStateOf(error) !== '') await client.query({ text: 'ROLLBACK' })
    throw error
  }
}

type Statement = { text: string; values?: unknown[]; name?: string }

/** Sequelize's mark of a connection that it must not use again. */
const invalid = { _invalid: true }

/** The members of the driver's client that are used. */
interface Client {
  query(statement: Statement): Promise<{ rows: TextRow[] }>
}

/** The members of Sequelize 6 that its types leave out. */
interface SequelizeInternals {
  options: { logging?: unknown }
  connectionManager: {
    getConnection(options: { type: 'SELECT'; useMaster: true }): Promise<Client>
    releaseConnection(client: Client): void
  }
  dialect: {
    Query: new (
      client: Client,
      sequelize: Sequelize,
      options: { logging: unknown },
    ) => {
      _logQuery(sql: string, debug: () => void): () => void
      formatError(error: Error, stack: string | undefined): Error
    }
  }
}
