import { plain, sha256, sha512, withSuffix } from './digests'
import {
  columnOf,
  commonFields,
  fromJson,
  isTrue,
  lost,
  optionalPrefix,
  readRow,
  storedIn,
  toList,
  toMetadata,
  toNamedActions,
  toText,
  toTime,
  type ForeignRow,
} from './rows'
import { crc32, hexOfSecret, type ImportSource } from './source'

/** Keys of `@better-auth/api-key`, with its own generator. `isPlain` is for `disableKeyHashing`. */
export function betterAuth({
  prefix,
  length = 64,
  isPlain = false,
}: { prefix?: string; length?: number; isPlain?: boolean } = {}): ImportSource {
  return {
    name: 'better-auth',
    accepts: new RegExp(`^${optionalPrefix(prefix)}[A-Za-z]{${length}}$`),
    digest: isPlain ? plain : sha256.base64url,
    headers: ['x-api-key'],
    readRow(row) {
      const limit = `${String(columnOf(row, 'rateLimitMax'))} per ${String(columnOf(row, 'rateLimitTimeWindow'))} ms`
      const credits = 'counts credits, which the library does not have'
      const isLimited =
        isTrue(columnOf(row, 'rateLimitEnabled')) &&
        toText(columnOf(row, 'rateLimitMax')) !== undefined
      return readRow(
        {
          ...commonFields(row),
          stored: storedIn(row, 'key'),
          userId: toText(columnOf(row, 'referenceId', 'userId')),
          permissions: toNamedActions(columnOf(row, 'permissions')),
          status: isTrue(columnOf(row, 'enabled') ?? true) ? 'ACTIVE' : 'SUSPENDED',
          lastUsedAt: toTime(columnOf(row, 'lastRequest')),
          metadata: toMetadata(columnOf(row, 'metadata')),
          shown: { prefix: toText(columnOf(row, 'start')) },
        },
        [
          {
            field: 'rateLimitMax',
            message: `is ${limit}, which better-auth gives every key by default`,
            isGiven: isLimited,
          },
          lost(row, 'remaining', credits),
          lost(row, 'refillAmount', credits),
        ],
      )
    },
  }
}

/** Keys of `prefixed-api-key`. The hash covers the long token, and the import binds the short token to it. */
export function prefixedApiKey({
  prefix,
  shortLength = 8,
  longLength = 24,
}: {
  prefix: string
  shortLength?: number
  longLength?: number
}): ImportSource {
  const base58 = '[1-9A-HJ-NP-Za-km-z]'
  return {
    name: 'prefixed-api-key',
    accepts: new RegExp(`^${prefix}_${base58}{${shortLength}}_${base58}{${longLength}}$`),
    digest: sha256.hex,
    digested: (key) => key.slice(-longLength),
    locate: (key) => key.slice(-longLength - 1 - shortLength, -longLength - 1),
    readRow: (row) =>
      readRow({
        ...commonFields(row),
        stored: storedIn(row, 'longTokenHash'),
        locator: storedIn(row, 'shortToken'),
        userId: toText(columnOf(row, 'userId')),
        shown: { prefix: toText(columnOf(row, 'shortToken')) },
      }),
  }
}

/** Returns the secret of a token, which is behind its last dot. In base64, neither its characters nor its digits give `-` or `_`. */
function secretOf(key: string): string {
  return atob(key.slice(key.lastIndexOf('.') + 1))
}

/** Access tokens of `@adonisjs/auth`. */
export function adonis({ prefix = 'oat_' }: { prefix?: string } = {}): ImportSource {
  return {
    name: 'adonis',
    // 44 to 50 bytes in base64, without padding.
    accepts: new RegExp(
      `^${prefix}[A-Za-z0-9_-]{1,64}\\.[A-Za-z0-9]{56}(?:[A-Za-z0-9]{3,4}|[A-Za-z0-9]{6,8}|[A-Za-z0-9]{10,11})$`,
    ),
    digest: sha256.hex,
    digested: secretOf,
    check(key) {
      const secret = secretOf(key)
      return secret.slice(40) === String(crc32(secret.slice(0, 40)))
    },
    readRow: (row) =>
      readRow(
        {
          ...commonFields(row),
          stored: storedIn(row, 'hash'),
          userId: toText(columnOf(row, 'tokenableId')),
          permissions: toList(columnOf(row, 'abilities')),
        },
        [
          {
            field: 'abilities',
            message: 'is *, which stands for all',
            isGiven: toList(columnOf(row, 'abilities')).includes('*'),
          },
        ],
      ),
  }
}

/** Keys of keypal. `salt` and `algorithm` are its options. */
export function keypal({
  prefix,
  salt,
  algorithm = 'sha256',
  length = 32,
}: {
  prefix?: string
  salt?: string
  algorithm?: 'sha256' | 'sha512'
  length?: number
} = {}): ImportSource {
  const digest = algorithm === 'sha512' ? sha512 : sha256
  return {
    name: 'keypal',
    accepts: new RegExp(`^${optionalPrefix(prefix)}[A-Za-z0-9]{${length}}$`),
    digest: withSuffix(digest, salt === undefined ? '' : hexOfSecret(salt)).hex,
    headers: ['x-api-key'],
    readRow(row) {
      const details = Object(fromJson(columnOf(row, 'metadata'))) as ForeignRow
      const revokedAt = toTime(columnOf(details, 'revokedAt'))
      const isEnabled = isTrue(columnOf(details, 'enabled') ?? true)
      return readRow(
        {
          ...commonFields(details),
          stored: storedIn(row, 'keyHash'),
          userId: toText(columnOf(details, 'ownerId')),
          permissions: toList(columnOf(details, 'scopes')),
          status: revokedAt === null ? (isEnabled ? 'ACTIVE' : 'SUSPENDED') : 'REVOKED',
          revokedAt,
        },
        [
          lost(details, 'resources', 'has scopes of single resources'),
          lost(details, 'rotatedTo', 'names the key that replaces this one'),
        ],
      )
    },
  }
}
