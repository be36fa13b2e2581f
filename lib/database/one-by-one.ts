import { ApiKeysError } from '../errors'
import type { Connection } from './connection'
import { within } from './time-limit'

/** A connection whose statements wait for each other. */
export type QueuedConnection = ReturnType<typeof oneByOne>

/**
 * Makes a connection whose statements wait for each other before they are handed to the driver. After an error, a connection gives up
 * its client, and statements that wait in the driver would fail with it.
 */
export function oneByOne(connection: Connection) {
  let last: Promise<unknown> = Promise.resolve()
  let closed = 0

  async function queryAfter(before: Promise<unknown>, ...args: Parameters<Connection['query']>) {
    const closedBefore = closed
    await within({ limitMs: args[1] }, before)
    if (closed !== closedBefore) {
      const cause = new Error('express-api-keys: the connection was closed')
      throw new ApiKeysError('database_unavailable', { cause })
    }
    return connection.query(...args)
  }

  function closeIdle() {
    const before = last
    void before.then(() => (last === before ? connection.close() : closeIdle()))
  }

  return {
    ...connection,

    async query(...args: Parameters<Connection['query']>) {
      const before = last
      const result = queryAfter(before, ...args)
      // A statement that ends because it has waited too long leaves the statement before it under way.
      last = Promise.allSettled([before, result])
      return result
    },

    /** Closes the connection once no statement is under way or waits. Work of another call may need it. */
    closeIdle,

    close() {
      closed++
      connection.close()
    },
  }
}
