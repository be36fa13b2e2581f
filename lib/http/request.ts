import { IncomingMessage, type ServerResponse } from 'node:http'
import { Socket } from 'node:net'

import { readClientAddress } from '../keys/addresses'

/**
 * A request as this library reads it: Node's, with what Express, Passport and the library itself may have added. It is a
 * type of our own, because those of Express 4 and 5 do not fit each other, and an app has either or none.
 */
export interface GuardedRequest extends IncomingMessage {
  /** The app may keep something else under this name. */
  apiKey?: unknown
  user?: object | undefined
  /** By Express's own rules, the app's `trust proxy`. */
  readonly ip?: string | undefined
  res?: ServerResponse | undefined
  /** Express's app, which has the settings. */
  app?: { get(setting: string): unknown } | undefined
}

/** Returns the address of the client by Express's rules, else that of the connection; `null` if it cannot be read. */
export function clientAddressOf(req: GuardedRequest): string | null {
  return readClientAddress(req.ip ?? (req as { socket?: Socket }).socket?.remoteAddress)
}

/**
 * Returns the header lines of a request as they were sent, names and values in turn: one list, however often it is asked
 * for. `undefined` for a request that has none, such as a mock.
 */
export function linesOf(req: IncomingMessage): string[] | undefined {
  const { rawHeaders } = req as { rawHeaders?: string[] }
  // Some runtimes make a new list at each reading.
  return rawHeaders === req.rawHeaders ? rawHeaders : pin(req, 'rawHeaders')
}

/** Returns the headers of a request by name: one object, however often it is asked for. */
export function headersOf(req: IncomingMessage): IncomingMessage['headers'] {
  const { headers } = req as { headers?: IncomingMessage['headers'] }
  return headers === req.headers ? (headers ?? {}) : pin(req, 'headers')
}

/** Has a request return the same object from now on, so that what is masked there stays masked. */
function pin<Name extends 'headers' | 'rawHeaders'>(
  req: IncomingMessage,
  name: Name,
): IncomingMessage[Name] {
  const value = req[name]
  Object.defineProperty(req, name, {
    value,
    writable: true,
    enumerable: true,
    configurable: true,
  })
  return value
}

/** Node keeps `headersDistinct` under this name once it was read. To read the view itself would make it, for each request. */
const distinctHeaders = nameOfDistinctHeaders()

function nameOfDistinctHeaders(): symbol | undefined {
  const req = new IncomingMessage(new Socket())
  const before = new Set(Object.getOwnPropertySymbols(req))
  const view = req.headersDistinct
  return Object.getOwnPropertySymbols(req).find(
    (name) => !before.has(name) && Reflect.get(req, name) === view,
  )
}

/** Returns the values of a request's headers by name, if the app has read them so before. */
export function distinctHeadersOf(
  req: IncomingMessage,
): Partial<IncomingMessage['headersDistinct']> | undefined {
  // To look for it on the request alone is much faster than to read it, which goes through all prototypes.
  const isUnread = distinctHeaders !== undefined && !Object.hasOwn(req, distinctHeaders)
  return isUnread ? undefined : req.headersDistinct
}
