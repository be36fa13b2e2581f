import { isUint8Array } from 'node:util/types'

import type { Sequelize } from 'sequelize'

/** Returns the version of the class of a Sequelize; 7 is the package `@sequelize/core`. Empty for any other value. */
export function versionOf(sequelize: unknown): string {
  const { version } = Object(Object(sequelize).constructor) as { version?: unknown }
  return typeof version === 'string' ? version : ''
}

/** True for an instance of Sequelize on Postgres. */
export function isPostgres(sequelize: unknown): boolean {
  const { getDialect } = Object(sequelize) as Partial<Sequelize>
  return typeof getDialect === 'function' && getDialect.call(sequelize) === 'postgres'
}

/** True for 2 to 16 lower-case letters, digits and underscores that begin with a letter and do not end in an underscore. */
export function isKeyPrefix(keyPrefix: unknown): boolean {
  return typeof keyPrefix === 'string' && /^[a-z][a-z0-9_]{0,14}[a-z0-9]$/.test(keyPrefix)
}

/** True for a scope token (RFC 6749, section 3.3). Challenges name permissions in `scope`. */
export function isScopeToken(name: unknown): boolean {
  return typeof name === 'string' && /^[\x21\x23-\x5b\x5d-\x7e]{1,100}$/.test(name)
}

/** True for a whole number above 0, and for `Infinity`. */
export function isPositive(value: unknown): boolean {
  return value === Infinity || (Number.isSafeInteger(value) && Number(value) > 0)
}

/** True for a number of seconds up to 100 years, and for `Infinity`. */
export function isLifetime(seconds: unknown): boolean {
  return isPositive(seconds) && (seconds === Infinity || Number(seconds) <= 100 * 366 * 86_400)
}

/** True for an object with the members by which the two kinds of clients run a script. */
export function isRedisClient(client: unknown): boolean {
  const { defineCommand, isOpen, eval: evaluate } = Object(client) as Record<string, unknown>
  const isOfEither = typeof defineCommand === 'function' || typeof isOpen === 'boolean'
  return isOfEither && typeof evaluate === 'function'
}

/** Returns the fault of a secret without showing it; `null` if it has none. */
export function faultOfSecret(
  secret: unknown,
  others: readonly (string | Uint8Array)[],
): string | null {
  if (typeof secret !== 'string' && !isUint8Array(secret)) {
    return `must be text or bytes, it is ${typeof secret}`
  }
  const bytes = Buffer.from(secret)
  if (bytes.length < 32) return `must have at least 32 bytes, it has ${bytes.length}`
  if (new Set(bytes).size < 8) return 'must be random: it repeats a few characters'
  return others.some((other) => bytes.equals(Buffer.from(other))) ? 'must not be repeated' : null
}

/** True for a token (RFC 9110, section 5.6.2) that names no header that servers read themselves. */
export function isHeaderName(name: unknown): boolean {
  return (
    typeof name === 'string' &&
    /^[!#$%&'*+\-.^_`|~0-9a-z]+$/i.test(name) &&
    !['authorization', 'cookie'].includes(name.toLowerCase())
  )
}

/** True for text that stands in the quoted string of a header. */
export function isQuotable(text: unknown): boolean {
  return typeof text === 'string' && /^[\x20-\x7e]*$/.test(text)
}

/** A scheme and a host as browsers send them. To `URL`, schemes other than those of the web have no origin. */
const otherOrigin = /^[a-z][a-z0-9+.-]*:\/\/[^/?#@\s]+$/

/** True for an origin as browsers send it. */
export function isOrigin(text: unknown): boolean {
  if (typeof text !== 'string') return false
  if (/^https?:/.test(text)) return URL.canParse(text) && new URL(text).origin === text
  return otherOrigin.test(text)
}

/** True for `true`, `false` and the address of a Postgres server. */
export function isListenOption(listen: unknown): boolean {
  if (typeof listen !== 'string') return typeof listen === 'boolean'
  return /^postgres(ql)?:\/\//.test(listen) && URL.canParse(listen)
}
