import pg, { type ClientConfig } from 'pg'
import type { Sequelize } from 'sequelize'

import { messageOf, sqlStateOf } from './failures'

/** A text of statements, or a statement that the server prepares under its name, or a text in which names mean what they mean in the session. */
export type Statement =
  string | { name: string; text: string; values: unknown[] } | { text: string }

/** The members of the driver's client that we use. They are spelled out, so that an app can do without the driver's types. */
export interface Client {
  query(statement: Statement): Promise<unknown>
  on(event: 'end', listener: () => void): unknown
  on(event: 'notification', listener: (notification: { channel: string }) => void): unknown
}

/** The names of the app's `dialectOptions` that go to the driver, as with Sequelize, and of the options of keep-alive. */
const passedOn = [
  'application_name',
  'ssl',
  'client_encoding',
  'keepAlive',
  'keepAliveInitialDelayMillis',
  'statement_timeout',
  'query_timeout',
  'connectionTimeoutMillis',
  'idle_in_transaction_session_timeout',
  'lock_timeout',
  'options',
  'stream',
] as const

/**
 * Makes the function that opens connections like the app's Sequelize: to the primary, with its `dialectOptions`, and
 * with its hooks around connecting, which may fetch a password. It may open a connection to another address instead. A
 * signal that aborts before gives the connection up.
 */
export function createOpenClient(sequelize: Sequelize, address?: string) {
  // Sequelize has no public way to open a connection apart from its pool.
  const app = sequelize as unknown as SequelizeInternals

  return async function openClient(signal: AbortSignal): Promise<Client> {
    const { config } = app.connectionManager
    const settings = { ...(config.replication ? config.replication.write : config) }
    await app.runHooks('beforeConnect', settings)
    signal.throwIfAborted()

    const { username, password, host, port, database, dialectOptions = {} } = settings
    const options = Object.fromEntries(
      passedOn.filter((name) => name in dialectOptions).map((name) => [name, dialectOptions[name]]),
    )
    const { Client } = settings.native === true ? pg : app.connectionManager.lib
    const client = new Client({
      application_name: 'express-api-keys',
      connectionTimeoutMillis: 10_000,
      ...options,
      ...(address === undefined
        ? { user: username, password, host, port: Number(port), database }
        : { connectionString: address }),
      types: { getTypeParser: () => String },
    } as ClientConfig)
    // An error without a listener would end the process.
    client.on('error', () => {})
    // Nothing of ours keeps a process alive. After encryption has begun, the stream is another stream.
    streamOf(client).unref?.()
    signal.addEventListener('abort', () => abandon(client), { once: true })
    try {
      await client.connect()
      streamOf(client).unref?.()
      await app.runHooks('afterConnect', client, settings)
    } catch (error) {
      abandon(client)
      throw error
    }
    return client
  }
}

/** Returns the limits of the app's pool, with the defaults of Sequelize: its size, and how long it waits for a connection. */
export function poolOf(sequelize: Sequelize) {
  // Sequelize shows the settings of its pool nowhere else.
  return (sequelize as unknown as SequelizeInternals).connectionManager.config.pool
}

const longestAcquireMs = 60_000

/** Returns how long an answer of a database that sleeps is waited for: as long as the app's pool waits for a connection. */
export function acquireLimitMs(sequelize: Sequelize): number {
  const { acquire } = poolOf(sequelize)
  return acquire > 0 ? Math.min(acquire, longestAcquireMs) : longestAcquireMs
}

interface ConnectionSettings {
  username?: string
  password?: unknown
  host?: string
  port?: string | number
  database?: string
  dialectOptions?: Record<string, unknown>
  native?: boolean
}

/** The members of Sequelize 6 that its types leave out. */
interface SequelizeInternals {
  connectionManager: {
    /** The driver that the app gave it, or that it found. */
    lib: typeof pg
    config: ConnectionSettings & {
      replication?: { write: ConnectionSettings } | false
      pool: { max: number; acquire: number }
    }
  }
  runHooks(name: string, ...args: unknown[]): Promise<void>
}

/** The words of servers and poolers that have no place for another connection. Their codes differ. */
const noPlace =
  /too many|max_?client|max clients|no more connections|connection slots|connection limit/i

/** True if the server, or a pooler in front of it, has no place for another connection. */
export function isRefusedForWantOfRoom(error: unknown): boolean {
  // Class 53 of SQLSTATE: insufficient resources.
  return sqlStateOf(error).startsWith('53') || noPlace.test(messageOf(error))
}

/** Ends a connection without a word to the server, because a connection that hangs would not answer. Its statements fail with the error. */
export function abandon(client: object, error?: Error) {
  streamOf(client).destroy(error)
}

/** The types lack these members. */
function streamOf(client: object): { destroy(error?: Error): void; unref?(): void } {
  return (client as { connection: { stream: { destroy(error?: Error): void } } }).connection.stream
}
