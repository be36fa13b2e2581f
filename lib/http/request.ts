import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

import { warn } from '../../models/warnings'
import { readClientAddress } from '../keys/addresses'

/**
 * A request as the library reads it: a request of Node with the properties that Express, Passport and the library may
 * have added. The types of Express 4 do not fit those of Express 5, and an app may have neither.
 */
export interface GuardedRequest extends IncomingMessage {
  /** The app may keep something else under this name. */
  apiKey?: unknown
  user?: object | undefined
  /** The address by the rules of Express, which depend on `trust proxy`. */
  readonly ip?: string | undefined
  res?: ServerResponse | undefined
  /** Express's app, which has the settings. */
  app?: { get(setting: string): unknown } | undefined
}

/** Returns the address of the client by Express's rules, else the address of the connection; `null` if it cannot be read. */
export function clientAddressOf(req: GuardedRequest): string | null {
  return readClientAddress(req.ip ?? (req as { socket?: Socket }).socket?.remoteAddress)
}

/**
 * Makes the check that warns if the app believes any address that a client sends, because `allowedIps` protects little then. It
 * looks once, because an app does not change this setting.
 */
export function createTrustCheck() {
  let isDone = false

  return function checkTrust(req: GuardedRequest) {
    if (isDone) return
    const { app } = req
    if (typeof app?.get !== 'function') return

    isDone = true
    if (app.get('trust proxy') !== true) return
    warn(
      'API_KEYS_TRUST_PROXY',
      "A key with allowedIps was used while Express's `trust proxy` is true, and so a client chooses its address itself. Set it to the number of proxies before the app, such as 1.",
    )
  }
}
