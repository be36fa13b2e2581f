import type { Sequelize, Transaction } from 'sequelize'

import { clearTimeout, setTimeout } from './background'
import { abandon, acquireLimitMs } from './open-client'
import { noAnswer } from './time-limit'

/** How long an answer is waited for at least, however short the pool waits for a connection. */
const leastMs = 5_000

/** How much longer the answer of a statement is waited for than the server works on it. */
const graceMs = 10_000

/** How long each connection of the app's pool that the library has may leave a statement unanswered. */
const limits = new WeakMap<object, { ms: number }>()

/** The `query` that a connection had before the library took it. */
const before = new WeakMap<object, PropertyDescriptor | undefined>()

/**
 * Has a guest's connections of the app's pool give up statements whose answer does not come within the time that the pool waits for a
 * connection. A server or a network that hangs never answers, and the driver would wait without an end. Such a connection is ended,
 * because nothing is known of it. A transaction of the caller has its connection from the app, and no limit.
 */
export function limitAnswers(guest: Sequelize): Sequelize {
  // Sequelize has no public way to its connections.
  const app = guest as unknown as SequelizeInternals
  const { connectionManager } = app
  const limitMs = Math.max(acquireLimitMs(guest), leastMs)

  app.connectionManager = Object.assign(Object.create(connectionManager), {
    async getConnection(options: unknown) {
      const client = await connectionManager.getConnection(options)
      limit(client, limitMs)
      return client
    },
    releaseConnection(client: PoolClient) {
      unlimit(client)
      return connectionManager.releaseConnection(client)
    },
    destroyConnection(client: PoolClient) {
      unlimit(client)
      return connectionManager.destroyConnection(client)
    },
  } satisfies ConnectionManager)
  return guest
}

/** Gives the next statements of a transaction of the library the time that the server has for them, because they work on many rows. */
export function allowMs(transaction: Transaction, ms: number) {
  // The types lack this member.
  const { connection } = transaction as Transaction & { connection: object }
  const limit = limits.get(connection)
  if (limit) limit.ms = ms + graceMs
}

/** Lays a `query` over that of the connection, which tracers may have replaced. */
function limit(client: PoolClient, limitMs: number) {
  // The native driver has no stream that could be ended.
  if (!client.connection?.stream) return

  const query = client.query
  const time = { ms: limitMs }
  limits.set(client, time)
  before.set(client, Object.getOwnPropertyDescriptor(client, 'query'))
  client.query = function queryInTime(...args) {
    const timer = setTimeout(() => abandon(client, noAnswer(time.ms)), time.ms)
    timer.unref()
    const last = args.at(-1)
    if (typeof last === 'function') {
      args[args.length - 1] = (...answer: unknown[]) => {
        clearTimeout(timer)
        last(...answer)
      }
      return query.apply(client, args)
    }
    return Promise.resolve(query.apply(client, args)).finally(() => clearTimeout(timer))
  }
}

function unlimit(client: PoolClient) {
  if (!limits.delete(client)) return
  const property = before.get(client)
  if (property) Object.defineProperty(client, 'query', property)
  else Reflect.deleteProperty(client, 'query')
}

/** A connection of the app's pool. */
interface PoolClient {
  query(...args: unknown[]): Promise<unknown> | undefined
  connection?: { stream?: unknown }
}

interface ConnectionManager {
  getConnection(options: unknown): Promise<PoolClient>
  releaseConnection(client: PoolClient): unknown
  destroyConnection(client: PoolClient): unknown
}

/** A member of Sequelize 6 that its types leave out. */
interface SequelizeInternals {
  connectionManager: ConnectionManager
}
