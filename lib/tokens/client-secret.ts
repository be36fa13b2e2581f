import type { IncomingMessage } from 'node:http'

import { distinctHeadersOf, headersOf, linesOf } from '../http/credentials'
import type { SecretFormat } from '../keys/secret'

const basic = /^basic(?: +|$)/i

/**
 * Makes the function that takes the key of a client which authenticates by `client_secret_basic` (RFC 6749, section 2.3.1): the secret is the
 * key. From then on the request has the key as a bearer token, so that it is judged, counted and masked like every key. Returns true for a
 * client that authenticates so, whatever its secret is.
 */
export function createTakeClientSecret({ markers }: Pick<SecretFormat, 'markers'>) {
  return function takeClientSecret(req: IncomingMessage): boolean {
    const headers = headersOf(req)
    const sent = headers.authorization
    if (sent === undefined || !basic.test(sent)) return false

    const key = secretIn(sent)
    if (key === undefined || !markers.some((marker) => key.startsWith(marker))) return true
    const replacement = `Bearer ${key}`
    headers.authorization = replacement
    replace(linesOf(req), sent, replacement)
    replace(distinctHeadersOf(req)?.authorization, sent, replacement)
    return true
  }
}

/** Returns the secret of Basic credentials, whose parts are encoded like those of forms; `undefined` for malformed ones. */
function secretIn(credentials: string): string | undefined {
  const text = Buffer.from(credentials.replace(basic, ''), 'base64').toString()
  const colon = text.indexOf(':')
  if (colon === -1) return undefined
  try {
    return decodeURIComponent(text.slice(colon + 1))
  } catch {
    return undefined
  }
}

function replace(values: string[] | undefined, sent: string, replacement: string) {
  for (const [at, value] of values?.entries() ?? [])
    if (value === sent) values?.splice(at, 1, replacement)
}
