import { ApiKeysError } from '../errors'
import type { Connection } from './connection'
import { within } from './time-limit'

/**
 * Makes a connection whose statements wait for each other before they are handed to the driver. After an error, a connection gives up
 * its client, and statements that wait in the driver would fail with it.
 */
export function oneByOne(connection: Connection): Connection {
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

  return {
    ...connection,

    async query(...args) {
      const before = last
      const result = queryAfter(before, ...args)
      // A statement that ends because it has waited too long leaves the statement before it under way.
      last = Promise.allSettled([before, result])
      return result
    },

    close() {
      closed++
      connection.close()
    },
  }
}
