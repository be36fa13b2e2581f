import type { IncomingMessage } from 'node:http'

import type { Authenticator } from '../http/authentication'
import { distinctHeadersOf, headersOf, linesOf } from '../http/credentials'
import type { ImportedKeys } from '../importing/imported-keys'
import type { SecretFormat } from '../keys/secret'

export interface ClientSecretParts {
  authenticator: Pick<Authenticator, 'mask'>
  format: Pick<SecretFormat, 'markers'>
  /** `undefined` in an app without imported keys. */
  imported: Pick<ImportedKeys, 'hasShape'> | undefined
}

const basic = /^basic(?: +|$)/i

/**
 * Makes the function that takes the key of a client which authenticates by `client_secret_basic` (RFC 6749, section 2.3.1): the secret is the
 * key. From then on the request has the key as a bearer token, so that it is judged and counted like every key. Whatever credential a client
 * sends, it is masked. Returns true for a client that authenticates so, whatever its secret is.
 */
export function createTakeClientSecret({ authenticator, format, imported }: ClientSecretParts) {
  function isKey(secret: string): boolean {
    const isOurs = format.markers.some((marker) => secret.startsWith(marker))
    return isOurs || imported?.hasShape(secret) === true
  }

  /** Returns Basic credentials whose secret is a key as a bearer token, and every other value as it is. */
  function asBearer(value: string): string {
    const secret = basic.test(value) ? secretIn(value) : undefined
    // The replacement is in no token, so that such a key is refused, and is masked to its end.
    return secret !== undefined && isKey(secret)
      ? `Bearer ${secret.replaceAll(/[^!-~]/g, '?')}`
      : value
  }

  return function takeClientSecret(req: IncomingMessage): boolean {
    const headers = headersOf(req)
    const { authorization = '' } = headers
    const taken = asBearer(authorization)
    let isTaken = taken !== authorization
    if (isTaken) headers.authorization = taken
    // Node keeps the first of two lines in `headers`. The other would stay legible.
    const lines = linesOf(req) ?? []
    for (const [at, name] of lines.entries()) {
      const value = lines[at + 1]
      if (at % 2 === 1 || value === undefined || name.toLowerCase() !== 'authorization') continue
      lines[at + 1] = asBearer(value)
      isTaken ||= lines[at + 1] !== value
    }
    const distinct = distinctHeadersOf(req)?.authorization
    for (const [at, value] of distinct?.entries() ?? []) distinct?.splice(at, 1, asBearer(value))
    // A guard before the router may have read the request, without the secret.
    authenticator.mask(req, isTaken)
    return basic.test(authorization)
  }
}

/** Returns the secret of Basic credentials, whose parts are encoded like those of forms, unless the client has not encoded it. */
function secretIn(credentials: string): string | undefined {
  const text = Buffer.from(credentials.replace(basic, ''), 'base64').toString()
  const colon = text.indexOf(':')
  if (colon === -1) return undefined
  const secret = text.slice(colon + 1)
  try {
    return decodeURIComponent(secret)
  } catch {
    return secret
  }
}
