import pg, { type Client, type ClientConfig, type QueryConfig } from 'pg'
import type { Sequelize } from 'sequelize'

import { ApiKeysError } from '../errors'
import { explain, sqlStateOf } from '../keys/database'
import { momentOf, type Clock, type Moment } from './clock'
import { within } from './time-limit'

/** A row as the server wrote it: text, whatever parsers the app gave its driver. */
export type TextRow = Record<string, string | null>

export interface Answer {
  rows: TextRow[]
  /** When the statement was handed to the driver, on a connection that was open. */
  sentAt: Moment
}

/**
 * A connection of our own, beside the app's pool: an app whose pool is exhausted still verifies, and no statement of ours
 * becomes part of a transaction of the app. It is opened when it is needed, and again after it was lost.
 */
export interface Connection {
  /**
   * Runs one statement, or several in one text, of which the last that returns rows counts. Rejects with
   * `database_unavailable` where the database cannot be asked or does not answer in time; an answer that comes later is
   * ignored.
   */
  query(statement: string | QueryConfig, limitMs: number): Promise<Answer>
  /** Closes the connection. A query after that opens another one. */
  close(): void
}

/** Opens a connection to the database, as the app's Sequelize would. */
export type OpenClient = () => Promise<Client>

/** How many openings may be under way. */
const maxOpenings = 3

/** How long nobody is let try again after a connection could not be opened. */
const restMs = 50

interface ConnectionParts {
  open: OpenClient
  clock: Clock
  /** How long opening it may take before another opening is tried beside it, and a query gives up. */
  openingLimitMs: number
}

export function createConnection({ open, clock, openingLimitMs }: ConnectionParts): Connection {
  let current: Client | undefined
  /** Under way. One that hangs goes on beside the next: it may only be slow, and is taken if it is the first to open. */
  const openings = new Set<Promise<Client>>()
  let startedAt = -Infinity
  let failure: { error: unknown; at: number } | undefined
  /** How often it was closed: what was opened before is not wanted any more. */
  let closings = 0

  function startOpening() {
    const opening = open()
    const before = closings
    startedAt = clock.monotonic()
    openings.add(opening)
    opening.then(
      (client) => {
        openings.delete(opening)
        if (current || before !== closings) return abandon(client)
        current = client
        // It can be lost at any time.
        client.on('end', () => discard(client))
      },
      (error: unknown) => {
        openings.delete(opening)
        failure = { error, at: clock.monotonic() }
      },
    )
  }

  async function connect(): Promise<Client> {
    if (current) return current
    const now = clock.monotonic()
    if (openings.size === 0 && failure && now - failure.at < restMs) throw failure.error

    const isLate = now - startedAt >= openingLimitMs
    if (openings.size === 0 || (isLate && openings.size < maxOpenings)) startOpening()
    return Promise.any(openings)
  }

  function discard(client: Client) {
    if (current === client) current = undefined
    abandon(client)
  }

  return {
    async query(statement, limitMs) {
      const client = await within({ limitMs: openingLimitMs }, connect()).catch(refuse)
      const sentAt = momentOf(clock)
      try {
        const result: unknown = await within({ limitMs }, client.query(statement))
        return { rows: rowsOf(result), sentAt }
      } catch (error) {
        // Whatever it was: nothing is left half done in the session, nor is a late answer taken for another's.
        discard(client)
        throw refusalOf(error)
      }
    },

    close() {
      closings++
      if (current) discard(current)
    },
  }
}

/** That there is no connection is an outage, whatever kept it from opening. */
function refuse(error: unknown): never {
  if (error instanceof ApiKeysError) throw error
  const cause: unknown = error instanceof AggregateError ? error.errors[0] : error
  throw new ApiKeysError('database_unavailable', { cause })
}

/** What the server said is explained; that it said nothing is an outage. */
function refusalOf(error: unknown): unknown {
  if (error instanceof ApiKeysError) return error
  return sqlStateOf(error) === ''
    ? new ApiKeysError('database_unavailable', { cause: error })
    : explain(error)
}

/** Several statements in one text have several results. */
function rowsOf(result: unknown): TextRow[] {
  const results = [result].flat() as { rows: TextRow[] }[]
  return results.findLast(({ rows }) => rows.length > 0)?.rows ?? []
}

/** Ends a connection without a word: one that hangs would not hear it. */
export function abandon(client: Client) {
  streamOf(client).destroy()
}

/** The types know of no such members. */
function streamOf(client: Client): { destroy(): void; unref?(): void } {
  return (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream
}

/** Of the app's `dialectOptions` those that Sequelize hands to the driver, and how soon a dead connection is noticed. */
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
 * Makes the function that opens connections as the app's Sequelize does: to the primary, with its `dialectOptions` and its
 * hooks around connecting, which may fetch a password; or to another address.
 */
export function createOpenClient(sequelize: Sequelize, address?: string): OpenClient {
  const app = sequelize as unknown as SequelizeInternals

  return async function openClient() {
    const { config } = app.connectionManager
    const settings = { ...(config.replication ? config.replication.write : config) }
    await app.runHooks('beforeConnect', settings)

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
    // Before there is anybody to hear it, an error would end the process.
    client.on('error', () => {})
    // Nothing of ours keeps a process alive. The stream is another one once it is encrypted.
    streamOf(client).unref?.()
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

interface ConnectionSettings {
  username?: string
  password?: unknown
  host?: string
  port?: string | number
  database?: string
  dialectOptions?: Record<string, unknown>
  native?: boolean
}

/** What Sequelize 6 has and its types leave out. */
interface SequelizeInternals {
  connectionManager: {
    /** The driver that the app gave it, or the one that it found. */
    lib: typeof pg
    config: ConnectionSettings & { replication?: { write: ConnectionSettings } | false }
  }
  runHooks(name: string, ...args: unknown[]): Promise<void>
}
