import type { IncomingMessage } from 'node:http'

import { ApiKeysError } from '../errors'
import type { SentKey } from '../keys/secret'
import { distinctHeadersOf, headersOf } from './request'

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
  /**
   * Finds the credential of a request, given the list of its header lines if it has one. If another instance has masked a key
   * and not judged it, it is given as well: it may be one of this instance.
   */
  read(req: IncomingMessage, lines: string[] | undefined, masked?: SentKey): Credential
  /**
   * The same for what nearly all requests look like: one `Authorization: Bearer`, and nothing that was read before. Returns
   * `null` for all others.
   */
  readPlain(req: IncomingMessage, lines: string[] | undefined): Credential | null
}

interface CredentialOptions {
  /** What every key of ours begins with. */
  marker: string
  /** How many characters behind that lists show of a key. */
  shownLength: number
  /** A second header that may carry a key, in lower case. */
  header: string | undefined
}

/**
 * Makes what finds the key of a request: in `Authorization: Bearer` or in the app's own header, nowhere else. It masks each
 * key in every view of the headers, readable or not, so that no later logger can leak it. A mask shows of a key what lists
 * show, so that a cache or a limiter behind a guard still tells keys apart. Values of others stay as they are.
 */
export function createCredentialReader(options: CredentialOptions): CredentialReader {
  const { marker, shownLength, header } = options
  // Behind anything that no token has, such as the brackets of a template. Inside another's token it is not ours.
  const ours = new RegExp(
    `(^|[^A-Za-z0-9\\-._~+/])(${marker}[^\\s,;"']{0,${shownLength}})[^\\s,;"']*`,
    'g',
  )
  const mask = `$1$2${ellipsis}`
  const plainShownLength = plainScheme.length + marker.length + shownLength

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
    return keyIn(value, prefix.length)
  }

  function readHeader(value: string): Credential {
    if (value === '') return { kind: 'none' }
    if (value.startsWith(marker)) return keyIn(value, 0)
    return isOurs(value) ? unreadable('malformed_credential', true) : { kind: 'foreign' }
  }

  function readPlain(req: IncomingMessage, lines: string[] | undefined): Credential | null {
    if (lines === undefined) return null
    const headers = headersOf(req)
    const { authorization } = headers
    if (authorization === undefined || !plainCredentials.test(authorization)) return null
    if (header !== undefined && headers[header] !== undefined) return null

    const line = findOnlyLine(lines, 'authorization')
    if (line === -1 || lines[line] !== authorization) return null
    if (!authorization.startsWith(marker, plainScheme.length)) return { kind: 'foreign' }
    if (authorization.endsWith(ellipsis)) return null

    const masked = authorization.slice(0, plainShownLength) + ellipsis
    headers.authorization = masked
    lines[line] = masked
    maskDistinct(req, 'authorization')
    return { kind: 'key', text: authorization, start: plainScheme.length }
  }

  function read(req: IncomingMessage, lines: string[] | undefined, masked?: SentKey): Credential {
    const authorizations = takeValues(req, lines, 'authorization')
    const others = header === undefined ? [] : takeValues(req, lines, header)
    const found = [...authorizations.map(readAuthorization), ...others.map(readHeader)]

    const mine = found.filter(concernsUs)
    if (mine.length > 1 || (mine.length > 0 && isRepeated(authorizations, others))) {
      return unreadable('multiple_credentials', true)
    }
    if (mine[0]?.kind === 'unreadable' && masked?.text.startsWith(marker, masked.start)) {
      return { kind: 'key', ...masked }
    }
    return (
      mine[0] ??
      found.find(({ kind }) => kind === 'unreadable') ??
      found.find(({ kind }) => kind === 'foreign') ?? { kind: 'none' }
    )
  }

  /** Returns the values of a header, one per line that the client sent, and leaves masked ones behind. */
  function takeValues(req: IncomingMessage, lines: string[] | undefined, name: string): string[] {
    const headers = headersOf(req)
    const joined = headers[name]
    if (joined === undefined) return []
    const value = String(joined)
    if (isOurs(value)) headers[name] = value.replace(ours, mask)
    maskDistinct(req, name)

    const sent: string[] = []
    const all = lines ?? []
    for (let at = 0; at < all.length; at += 2) {
      const line = all[at + 1]
      if (line === undefined || !isName(all[at], name)) continue

      sent.push(line)
      if (isOurs(line)) all[at + 1] = line.replace(ours, mask)
    }
    // The app may have put the one value there itself, from a cookie say.
    return sent.length > 1 ? sent : [value]
  }

  /** Node makes this view when it is first read. One that is made later is made of masked lines. */
  function maskDistinct(req: IncomingMessage, name: string) {
    const values = distinctHeadersOf(req)?.[name]
    if (values === undefined) return
    for (const [index, value] of values.entries()) values[index] = value.replace(ours, mask)
  }

  return { read, readPlain }
}

/** Ends a mask. No key holds it. */
const ellipsis = '...'

/** A key that begins at a character of a text. What was masked before cannot be read again. */
function keyIn(text: string, start: number): Credential {
  return text.endsWith(ellipsis)
    ? unreadable('malformed_credential', true)
    : { kind: 'key', text, start }
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
