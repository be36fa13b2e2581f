import pg, { type ClientConfig } from 'pg'
import type { Sequelize } from 'sequelize'

import { clearTimeout, type Background } from '../background'
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
  query(statement: Statement, limitMs: number): Promise<Answer>
  /** Gives up the connection that there is, for another one. */
  reset(): void
  /** The same, and gives up what is being opened. A query after that begins anew. */
  close(): void
}

/** A statement, or one that the server is to remember by its name. */
export type Statement = string | { name: string; text: string; values: unknown[] }

/** What we ask of a client of the driver. Spelled out, so that an app can do without the driver's types. */
export interface Client {
  query(statement: Statement): Promise<unknown>
  on(event: 'end' | 'notification', listener: () => void): unknown
}

/** Opens a connection to the database, as the app's Sequelize would, unless it is told to give up before. */
export type OpenClient = (signal?: AbortSignal) => Promise<Client>

/** How many openings may be under way; and with those that were given up, whose hooks may still hang. */
const maxOpenings = 3
const maxUnsettled = 10
const longestUnsettledMs = 30_000

/** How long nobody is let try again after a connection could not be opened. */
const restMs = 50

interface ConnectionParts {
  background: Background
  open: OpenClient
  clock: Clock
  /** How long opening it may take before another opening is tried beside it, and a query gives up. */
  openingLimitMs: number
}

interface Opening {
  client: Promise<Client>
  controller: AbortController
}

export function createConnection(parts: ConnectionParts): Connection {
  const { background, open, clock, openingLimitMs } = parts
  let current: Client | undefined
  /** Under way, the oldest first. One that hangs goes on beside the next: the first that is open is taken. */
  let openings: Opening[] = []
  const unsettled = new Set<Opening>()
  let startedAt = -Infinity
  let failure: { error: unknown; at: number } | undefined

  function startOpening() {
    const controller = new AbortController()
    const opening: Opening = { client: background.run(() => open(controller.signal)), controller }
    startedAt = clock.monotonic()
    openings.push(opening)
    unsettled.add(opening)
    // A hook that hangs for ever holds its place only for so long.
    const timer = background.startTimer(() => unsettled.delete(opening), longestUnsettledMs)
    const settle = () => {
      clearTimeout(timer)
      unsettled.delete(opening)
    }
    opening.client.then(
      (client) => {
        settle()
        if (!forget(opening) || current) return abandon(client)
        current = client
        // It can be lost at any time.
        client.on('end', () => discard(client))
      },
      (error: unknown) => {
        settle()
        if (forget(opening)) failure = { error, at: clock.monotonic() }
      },
    )
  }

  /** Whether it was still wanted. */
  function forget(opening: Opening): boolean {
    const isWanted = openings.includes(opening)
    openings = openings.filter((other) => other !== opening)
    return isWanted
  }

  function giveUp(opening: Opening | undefined) {
    if (opening && forget(opening)) opening.controller.abort()
  }

  async function connect(): Promise<Client> {
    if (current) return current
    const now = clock.monotonic()
    if (openings.length === 0 && failure && now - failure.at < restMs) throw failure.error

    const isDue = openings.length === 0 || now - startedAt >= openingLimitMs
    if (isDue && unsettled.size < maxUnsettled) {
      // The oldest may only be slow; one after it was lost in a network that hung, for all that anybody knows.
      if (openings.length === maxOpenings) giveUp(openings[1])
      startOpening()
    }
    const client = await Promise.any(openings.map(({ client }) => client))
    // Another one may have been quicker meanwhile.
    return current ?? client
  }

  function discard(client: Client) {
    if (current === client) current = undefined
    abandon(client)
  }

  function reset() {
    if (current) discard(current)
  }

  return {
    async query(statement, limitMs) {
      const client = await within({ limitMs: openingLimitMs }, connect()).catch(refuse)
      const sentAt = momentOf(clock)
      try {
        const result = await within({ limitMs }, client.query(statement))
        return { rows: rowsOf(result), sentAt }
      } catch (error) {
        // Whatever it was: nothing is left half done in the session, nor is a late answer taken for another's.
        discard(client)
        throw refusalOf(error)
      }
    },

    reset,

    close() {
      reset()
      for (const opening of openings) giveUp(opening)
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

  return async function openClient(signal) {
    const { config } = app.connectionManager
    const settings = { ...(config.replication ? config.replication.write : config) }
    await app.runHooks('beforeConnect', settings)
    signal?.throwIfAborted()

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
    signal?.addEventListener('abort', () => abandon(client), { once: true })
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
