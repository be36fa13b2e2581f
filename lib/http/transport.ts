import type { ServerResponse } from 'node:http'

import { warn } from '../../models/warnings'
import { readClientAddress } from '../keys/addresses'
import type { Settings } from '../read-options'
import type { GuardedRequest } from './request'

export type Transport = NonNullable<ReturnType<typeof createTransport>>

/**
 * Makes the check of how a request came (draft-ietf-httpapi-privacy-06, section 2.4): `undefined` if the app has asked for none, so that
 * no request pays for it.
 */
export function createTransport({
  insecureTransport,
  strictTransportSecurity,
}: Pick<Settings, 'insecureTransport' | 'strictTransportSecurity'>) {
  if (insecureTransport === 'allow' && strictTransportSecurity === undefined) return undefined

  return {
    /**
     * True if a request is refused because it came over plain HTTP. The answer to a request over HTTPS gets
     * `Strict-Transport-Security` (RFC 6797, section 7.1), unless the app has set it.
     */
    refuses(req: GuardedRequest, res: ServerResponse | undefined): boolean {
      if (!isSecure(req)) return insecureTransport !== 'allow' && !isFromMachine(req)
      if (strictTransportSecurity !== undefined && res && !res.headersSent) {
        const isSet = res.hasHeader('Strict-Transport-Security')
        if (!isSet) res.setHeader('Strict-Transport-Security', `max-age=${strictTransportSecurity}`)
      }
      return false
    },

    /**
     * True if the key of a refused request is revoked. A request that a proxy has passed on may have come to the proxy over HTTPS. So its key is
     * revoked only if the proxy says otherwise, by the field that Express reads. A client that makes up such a field keeps a key that it has
     * anyway.
     */
    revokes(req: GuardedRequest): boolean {
      if (insecureTransport !== 'revoke') return false
      if (!isForwarded(req)) return true
      if (isReadByExpress(req) && protocolOfProxy(req) === 'http') return true
      warn(
        'API_KEYS_INSECURE_PROXY',
        'A request that a proxy has passed on was refused as plain HTTP, and no key was revoked, because the proxy does not say http in X-Forwarded-Proto. Set trust proxy for your proxies, and have them send that field.',
      )
      return false
    },
  }
}

/** True if a request came over HTTPS, by the rules of Express, which depend on `trust proxy`. */
function isSecure(req: GuardedRequest): boolean {
  if (isReadByExpress(req)) return req.secure
  const { socket } = req as { socket?: { encrypted?: unknown } }
  return socket?.encrypted === true
}

function isReadByExpress(req: GuardedRequest): req is GuardedRequest & { secure: boolean } {
  return typeof (req as { secure?: unknown }).secure === 'boolean'
}

/** The header fields by which a proxy says that it has passed a request on. */
const forwardingFields = [
  'forwarded',
  'via',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-proto',
  'x-real-ip',
]

/** The machine itself as a host, with or without a port. A proxy that adds no field passes on the host that its client has asked for. */
const ownHost = /^(?:(?:[\w-]+\.)*localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d*)?$/i

/**
 * True if a request has not left the machine: its connection comes from there, it asks for the machine itself, and no proxy has passed it
 * on.
 */
function isFromMachine(req: GuardedRequest): boolean {
  const { socket, headers } = req as Partial<Pick<GuardedRequest, 'socket' | 'headers'>>
  const address = readClientAddress(socket?.remoteAddress)
  const isLoopback = address === '::1' || address?.startsWith('127.') === true
  return isLoopback && ownHost.test(headers?.host ?? '') && !isForwarded(req)
}

/** Returns the protocol by which a client has reached its proxy, as the proxy says it. */
function protocolOfProxy({ headers }: GuardedRequest): string {
  const [first = ''] = String(headers['x-forwarded-proto'] ?? '').split(',')
  return first.trim().toLowerCase()
}

function isForwarded(req: GuardedRequest): boolean {
  const { headers } = req as Partial<Pick<GuardedRequest, 'headers'>>
  return forwardingFields.some((name) => headers?.[name] !== undefined)
}
