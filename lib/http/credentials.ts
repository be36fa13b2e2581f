import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'

import { ApiKeysError } from '../errors'
import type { SentKey } from '../keys/secret'

/*
 * RFC 6750, section 2.1, and RFC 9110, section 11.4:
 *
 *   credentials = "Bearer" 1*SP b64token          (the scheme in any case)
 *   b64token    = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
 */
const scheme = /^bearer(?: +|$)/i
const tokenSyntax = String.raw`[A-Za-z0-9\-._~+/]+=*`
const b64token = new RegExp(`^${tokenSyntax}$`)
/** How nearly all clients write it. */
const plainScheme = 'Bearer '
const plainCredentials = new RegExp(`^${plainScheme}${tokenSyntax}$`)

/** What the headers of a request carry, as far as we are concerned. */
export type Credential =
  /** Nothing, or a scheme such as Basic that is not our business. */
  | { kind: 'none' }
  /** A bearer token that is not one of our keys, a JWT say. */
  | { kind: 'foreign' }
  /** Something that begins as our keys do. Whether it is one is for the verifier to say. */
  | ({ kind: 'key' } & SentKey)
  /** Not to be understood; `isOurs` if it holds something that begins as our keys do. */
  | { kind: 'unreadable'; isOurs: boolean; error: ApiKeysError }

export interface CredentialReader {
  /** Finds the credential of a request. */
  read(req: IncomingMessage): Credential
  /**
   * The same for what nearly all requests look like: one `Authorization: Bearer`, and nothing that was read before. Returns
   * `null` for all others. Takes both views of the headers, for it costs to ask a request of Express's for a property.
   */
  readPlain(headers: IncomingHttpHeaders, rawHeaders: string[]): Credential | null
}

interface CredentialOptions {
  /** What every key of ours begins with. */
  marker: string
  /** A second header that may carry a key, in lower case. */
  header: string | undefined
}

/**
 * Makes what finds the key of a request: in `Authorization: Bearer` or in the app's own header, nowhere
 * else. It masks what it finds of ours in `headers` and `rawHeaders`, readable or not, so that nothing that logs the
 * request later can leak it; values of others stay as they are.
 */
export function createCredentialReader({ marker, header }: CredentialOptions): CredentialReader {
  // Behind anything that no token has, such as the brackets of a template. Inside another's token it is not ours.
  const ours = new RegExp(`(^|[^A-Za-z0-9\\-._~+/])${marker}[^\\s,;"']*`, 'g')
  const mask = `$1${marker}***`
  const plainMask = `${plainScheme}${marker}***`

  function isOurs(value: string) {
    return value.search(ours) !== -1
  }

  function readAuthorization(value: string): Credential {
    const [prefix] = scheme.exec(value) ?? []
    if (prefix === undefined)
      return isOurs(value) ? unreadable('malformed_credential', true) : { kind: 'none' }

    const token = value.slice(prefix.length)
    if (!b64token.test(token)) return unreadable('malformed_credential', isOurs(value))
    if (!token.startsWith(marker)) return { kind: 'foreign' }
    return { kind: 'key', text: value, start: prefix.length }
  }

  function readHeader(value: string): Credential {
    if (value === '') return { kind: 'none' }
    if (value.startsWith(marker)) return { kind: 'key', text: value, start: 0 }
    return isOurs(value) ? unreadable('malformed_credential', true) : { kind: 'foreign' }
  }

  function readPlain(headers: IncomingHttpHeaders, rawHeaders: string[]): Credential | null {
    const { authorization } = headers
    if (authorization === undefined || !plainCredentials.test(authorization)) return null
    if (header !== undefined && headers[header] !== undefined) return null

    const line = findOnlyLine(rawHeaders, 'authorization')
    if (line === -1 || rawHeaders[line] !== authorization) return null
    if (!authorization.startsWith(marker, plainScheme.length)) return { kind: 'foreign' }

    headers.authorization = plainMask
    rawHeaders[line] = plainMask
    return { kind: 'key', text: authorization, start: plainScheme.length }
  }

  function read(req: IncomingMessage): Credential {
    const authorizations = takeValues(req, 'authorization')
    const others = header === undefined ? [] : takeValues(req, header)
    const found = [...authorizations.map(readAuthorization), ...others.map(readHeader)]

    const mine = found.filter(concernsUs)
    if (mine.length > 1 || (mine.length > 0 && isRepeated(authorizations, others))) {
      return unreadable('multiple_credentials', true)
    }
    return (
      mine[0] ??
      found.find(({ kind }) => kind === 'unreadable') ??
      found.find(({ kind }) => kind === 'foreign') ?? { kind: 'none' }
    )
  }

  /** Returns the values of a header, one per line that the client sent, and leaves masked ones behind. */
  function takeValues({ headers, rawHeaders }: IncomingMessage, name: string): string[] {
    const joined = headers[name]
    if (joined === undefined) return []
    const value = String(joined)
    if (isOurs(value)) headers[name] = value.replace(ours, mask)

    const lines: string[] = []
    for (let at = 0; at < rawHeaders.length; at += 2) {
      const line = rawHeaders[at + 1]
      if (line === undefined || !isName(rawHeaders[at], name)) continue

      lines.push(line)
      if (isOurs(line)) rawHeaders[at + 1] = line.replace(ours, mask)
    }
    // The app may have put the one value there itself, from a cookie say.
    return lines.length > 1 ? lines : [value]
  }

  return { read, readPlain }
}

/** Returns where the value of a header stands among the lines; -1 where it was sent twice, or not at all. */
function findOnlyLine(rawHeaders: readonly string[], name: string): number {
  let line = -1
  for (let at = 0; at < rawHeaders.length; at += 2) {
    if (!isName(rawHeaders[at], name)) continue
    if (line !== -1) return -1
    line = at + 1
  }
  return line
}

/** Whether a header as it was sent has a name, given in lower case. */
function isName(sent: string | undefined, name: string): boolean {
  return sent !== undefined && sent.length === name.length && sent.toLowerCase() === name
}

function concernsUs(credential: Credential) {
  return credential.kind === 'key' || (credential.kind === 'unreadable' && credential.isOurs)
}

/** Node keeps the first of two `Authorization` lines and hides the second, so that readers could disagree. */
function isRepeated(authorizations: string[], others: string[]) {
  return authorizations.length > 1 || others.length > 1
}

function unreadable(
  code: 'malformed_credential' | 'multiple_credentials',
  isOurs: boolean,
): Credential {
  return { kind: 'unreadable', isOurs, error: new ApiKeysError(code) }
}
