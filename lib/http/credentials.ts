import { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'

import { ApiKeysError } from '../errors'
import type { ImportedKeys } from '../importing/imported-keys'
import {
  ellipsis,
  longerNameEnd,
  shownLength,
  shownPattern,
  type SecretFormat,
  type SentKey,
} from '../keys/secret'
import { createImportedTokens, headersWithKeys, type ImportedTokens } from './imported-tokens'

/*
 * RFC 6750, section 2.1, and RFC 9110, section 11.4:
 *
 *   credentials = "Bearer" 1*SP b64token          (the scheme in any case)
 *   b64token    = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
 */
const scheme = /^bearer(?: +|$)/i
const tokenSyntax = String.raw`[A-Za-z0-9\-._~+/]+=*`
const b64token = new RegExp(`^${tokenSyntax}$`)
/** Nearly all clients write the scheme like this. */
const plainScheme = 'Bearer '
const plainCredentials = new RegExp(`^${plainScheme}${tokenSyntax}$`)
/** The keys of some other systems have a bar, which no token of RFC 6750 has. */
const plainImports = new RegExp(`^${plainScheme}[|${tokenSyntax.slice(1)}$`)

/** The credential in the headers of a request. */
export type Credential =
  /** Nothing, or a scheme such as Basic that the library does not read. */
  | { kind: 'none' }
  /**
   * A bearer token that is not a key of ours, for example a JWT. A key with a longer name is masked, and kept in `sent` for the
   * instance that has such keys.
   */
  | { kind: 'foreign'; sent?: SentKey }
  /** Text that begins as our keys do. The verifier says if it is a key. */
  | ({ kind: 'key' } & SentKey)
  /** A malformed credential. `isOurs` is true if it holds text that begins as our keys do. */
  | { kind: 'unreadable'; isOurs: boolean; error: ApiKeysError }

/** The part that finds the key of a request. */
export type CredentialReader = ReturnType<typeof createCredentialReader>

interface CredentialOptions extends Pick<SecretFormat, 'markers' | 'markerEndAt'> {
  /** A second header that may carry a key, in lower case. */
  header: string | undefined
  /** `undefined` in an app without imported keys. */
  imported?: ImportedKeys | undefined
}

/**
 * Makes the part that finds the key of a request: in `Authorization: Bearer` or in the app's own header, nowhere else. It masks
 * each key in every view of the headers, readable or not, so that no later logger can leak it.
 */
export function createCredentialReader(options: CredentialOptions) {
  const { markerEndAt, header, imported } = options
  const tokens = imported && createImportedTokens(imported)
  const names = headersWithKeys(header, imported)
  const syntax = tokens ? plainImports : plainCredentials
  const masks = createMasks(options, tokens)
  const keyIn = createKeyFinder(options, tokens)

  function readAuthorization(value: string): Credential {
    const sent = tokens?.readBasic(value)
    if (sent) return { kind: 'key', ...sent }
    const [prefix] = scheme.exec(value) ?? tokens?.schemeOf(value) ?? []
    const key = prefix === undefined ? undefined : keyIn(value, prefix.length)
    const isBearer = scheme.test(value)
    const isReadable = b64token.test(value.slice(prefix?.length))
    if (key && (isReadable || tokens?.hasShape(value.slice(prefix?.length)) === true)) return key
    if (isBearer && isReadable) return { kind: 'foreign' }
    const isOurs = masks.fits(value)
    return isBearer || isOurs ? unreadable('malformed_credential', isOurs) : { kind: 'none' }
  }

  function readHeader(value: string): Credential {
    if (value === '') return { kind: 'none' }
    const credential = keyIn(value, 0)
    if (credential) return credential
    return masks.fits(value) ? unreadable('malformed_credential', true) : { kind: 'foreign' }
  }

  return {
    /**
     * Finds the credential of a plain request, given the list of its header lines: one `Authorization: Bearer`, and nothing that
     * was read before. Nearly all requests are plain. Returns `null` for all other requests.
     */
    readPlain(req: IncomingMessage, lines: string[] | undefined): Credential | null {
      if (lines === undefined) return null
      const headers = headersOf(req)
      const { authorization } = headers
      if (authorization === undefined || !syntax.test(authorization)) return null
      if (header !== undefined && headers[header] !== undefined) return null
      if (tokens !== undefined && names.some((name) => headers[name] !== undefined)) return null

      const line = findOnlyLine(lines, 'authorization')
      if (line === -1 || lines[line] !== authorization) return null
      const markerEnd = markerEndAt(authorization, plainScheme.length)
      if (markerEnd === -1 && tokens === undefined) return { kind: 'foreign' }
      if (authorization.endsWith(ellipsis)) return null
      if (tokens !== undefined && (markerEnd === -1 || authorization.includes('|'))) {
        const token = authorization.slice(plainScheme.length)
        if (!tokens.hasShape(token)) return b64token.test(token) ? { kind: 'foreign' } : null
      }

      const otherEnd = markerEnd === -1 ? -1 : longerNameEnd(authorization, markerEnd)
      const shownEnd = Math.max(markerEnd, otherEnd, plainScheme.length) + shownLength
      const masked = authorization.slice(0, shownEnd) + ellipsis
      headers.authorization = masked
      lines[line] = masked
      masks.putInDistinct(req, 'authorization')
      const text = authorization
      const start = plainScheme.length
      return otherEnd === -1
        ? { kind: 'key', text, start }
        : { kind: 'foreign', sent: { text, start } }
    },

    /**
     * Finds the credential of any request, given the list of its header lines if it has such a list. If another instance has
     * masked a key and not judged it, that key is given as well, because it may be one of this instance.
     */
    read(req: IncomingMessage, lines: string[] | undefined, masked?: SentKey): Credential {
      const authorizations = masks.take(req, lines, 'authorization')
      const others = names.map((name) => masks.take(req, lines, name))
      const found = [...authorizations.map(readAuthorization), ...others.flat().map(readHeader)]

      const mine = found.filter((one) => isOurs(one) || isOfOther(one))
      // Node keeps the first of two `Authorization` lines and hides the second, so that readers could disagree.
      const isRepeated = [authorizations, ...others].some((values) => values.length > 1)
      if (mine.length > 1 || (mine.length > 0 && isRepeated)) {
        return unreadable('multiple_credentials', true)
      }
      const isMasked = mine[0]?.kind === 'unreadable' && masked !== undefined
      const kept = isMasked ? keyIn(masked.text, masked.start) : undefined
      if (kept) return kept
      return (
        mine[0] ??
        found.find(({ kind }) => kind === 'unreadable') ??
        found.find(({ kind }) => kind === 'foreign') ?? { kind: 'none' }
      )
    },
  }
}

/**
 * Makes the function that returns the key which begins at a character of a text; `undefined` if none does. A masked key cannot be read
 * again.
 */
function createKeyFinder({ markerEndAt }: CredentialOptions, tokens: ImportedTokens | undefined) {
  return function keyIn(text: string, start: number): Credential | undefined {
    const markerEnd = markerEndAt(text, start)
    if (markerEnd === -1) {
      const token = text.slice(start)
      if (tokens?.isMasked(token) === true) return unreadable('malformed_credential', true)
      return tokens?.hasShape(token) === true ? { kind: 'key', text, start } : undefined
    }
    if (text.endsWith(ellipsis)) return unreadable('malformed_credential', true)
    const sent = { text, start }
    return longerNameEnd(text, markerEnd) === -1
      ? { kind: 'key', ...sent }
      : { kind: 'foreign', sent }
  }
}

/** True if a credential is a key of ours, or holds text that begins as our keys do. */
export function isOurs(credential: Credential): boolean {
  return credential.kind === 'key' || (credential.kind === 'unreadable' && credential.isOurs)
}

/** True for a key with a longer name. */
function isOfOther(credential: Credential): boolean {
  return credential.kind === 'foreign' && credential.sent !== undefined
}

/**
 * Masks the keys in headers. A mask shows as much of a key as lists do, so that a cache or a limiter behind a guard can
 * still distinguish keys. All other values stay unchanged.
 */
function createMasks(format: Pick<SecretFormat, 'markers'>, tokens: ImportedTokens | undefined) {
  // A key may stand behind any character that no token has, such as the bracket of a template. Inside the token of another
  // issuer it is not ours.
  const inToken = `[^\\s,;"']`
  const ours = new RegExp(
    `(^|[^A-Za-z0-9\\-._~+/])(${shownPattern(format, inToken)})${inToken}*`,
    'g',
  )
  const mask = `$1$2${ellipsis}`

  /** Returns a value with its keys masked. */
  function masked(value: string): string {
    const own = value.replace(ours, mask)
    return tokens ? tokens.mask(own) : own
  }

  /** True if a value holds text that is masked. */
  function fits(value: string): boolean {
    return value.search(ours) !== -1 || (tokens !== undefined && tokens.fits(value))
  }

  /** Masks `headersDistinct` if Node has made it. If it is made later, it is made of masked lines. */
  function putInDistinct(req: IncomingMessage, name: string) {
    const values = distinctHeadersOf(req)?.[name]
    if (values === undefined) return
    for (const [index, value] of values.entries()) values[index] = masked(value)
  }

  return {
    fits,
    putInDistinct,

    /** Returns the values of a header, one for each line that the client sent, and leaves masked values behind. */
    take(req: IncomingMessage, lines: string[] | undefined, name: string): string[] {
      const headers = headersOf(req)
      const joined = headers[name]
      if (joined === undefined) return []
      const value = String(joined)
      if (fits(value)) headers[name] = masked(value)
      putInDistinct(req, name)

      const sent: string[] = []
      const all = lines ?? []
      for (let at = 0; at < all.length; at += 2) {
        const line = all[at + 1]
        if (line === undefined || !isName(all[at], name)) continue

        sent.push(line)
        if (fits(line)) all[at + 1] = masked(line)
      }
      // The app may have put a single value there itself, for example from a cookie.
      return sent.length > 1 ? sent : [value]
    },
  }
}

/** Returns the index of a header's value among the lines; -1 if the header was sent twice, or not at all. */
function findOnlyLine(rawHeaders: readonly string[], name: string): number {
  let line = -1
  for (let at = 0; at < rawHeaders.length; at += 2) {
    if (!isName(rawHeaders[at], name)) continue
    if (line !== -1) return -1
    line = at + 1
  }
  return line
}

/** True if a header of a request has a name, which is given in lower case. */
function isName(sent: string | undefined, name: string): boolean {
  return sent !== undefined && sent.length === name.length && sent.toLowerCase() === name
}

function unreadable(
  code: 'malformed_credential' | 'multiple_credentials',
  isOurs: boolean,
): Credential {
  return { kind: 'unreadable', isOurs, error: new ApiKeysError(code) }
}

/**
 * Returns the header lines of a request as they were sent, names and values in turn: the same list each time. `undefined` for a
 * request without such a list, for example a mock.
 */
export function linesOf(req: IncomingMessage): string[] | undefined {
  // Before Node 24, Express gives each request a shape of its own. `Reflect` reads such an object three times as fast.
  const rawHeaders = Reflect.get(req, 'rawHeaders') as string[] | undefined
  // Some runtimes make a new list at each reading.
  return rawHeaders === Reflect.get(req, 'rawHeaders') ? rawHeaders : pin(req, 'rawHeaders')
}

/** Returns the headers of a request by name: the same object each time. */
export function headersOf(req: IncomingMessage): IncomingMessage['headers'] {
  const headers = Reflect.get(req, 'headers') as IncomingMessage['headers'] | undefined
  // Reading what Node keeps takes a third of the time of a second reading.
  const isKept = keptHeaders !== undefined && headers === Reflect.get(req, keptHeaders)
  return isKept || headers === Reflect.get(req, 'headers') ? (headers ?? {}) : pin(req, 'headers')
}

/** Makes a request return the same object from now on, so that masked values stay masked. */
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

/** Node keeps `headers` under this name. */
const keptHeaders = nameOfHeaders()

function nameOfHeaders(): symbol | undefined {
  const req = new IncomingMessage(new Socket())
  const { headers } = req
  const names = Object.getOwnPropertySymbols(req)
  return names.find((name) => Reflect.get(req, name) === headers && req.headers === headers)
}

/** Node keeps `headersDistinct` under this name once it was read. Reading `headersDistinct` itself would make it, for each request. */
const distinctHeaders = nameOfDistinctHeaders()

function nameOfDistinctHeaders(): symbol | undefined {
  const req = new IncomingMessage(new Socket())
  const before = new Set(Object.getOwnPropertySymbols(req))
  const view = req.headersDistinct
  return Object.getOwnPropertySymbols(req).find(
    (name) => !before.has(name) && Reflect.get(req, name) === view,
  )
}

/** Returns `headersDistinct` of a request, if the app has read it before. */
export function distinctHeadersOf(
  req: IncomingMessage,
): Partial<IncomingMessage['headersDistinct']> | undefined {
  // Looking on the request alone is much faster than reading, which goes through all prototypes.
  const isUnread = distinctHeaders !== undefined && !Object.hasOwn(req, distinctHeaders)
  return isUnread ? undefined : req.headersDistinct
}

/**
 * Returns the paths under which pino prints keys: the headers that carry a key, and the answer that creates one. The types of
 * pino demand a list that may be changed.
 */
export function redactionPathsOf(
  header: string | undefined,
  imported: ImportedKeys | undefined,
): string[] {
  const headers = ['authorization', ...headersWithKeys(header, imported)]

  return [
    ...headers.flatMap((name) => [`req.headers["${name}"]`, `headers["${name}"]`]),
    'plainTextKey',
    '*.plainTextKey',
    'res.body.plainTextKey',
  ]
}
