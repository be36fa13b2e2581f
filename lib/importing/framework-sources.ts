import { plain, sha256, sha512 } from './digests'
import {
  columnOf,
  commonFields,
  isTrue,
  later,
  lost,
  optionalPrefix,
  readRow,
  storedIn,
  toList,
  toText,
  toTime,
} from './rows'
import { djangoPbkdf2 } from './salted'
import { crc32, type ImportSource } from './source'

const minuteMs = 60_000

/** Tokens of Laravel Sanctum. `expirationMinutes` is its setting `expiration`. */
export function sanctum({
  prefix,
  expirationMinutes,
}: { prefix?: string; expirationMinutes?: number } = {}): ImportSource {
  return {
    name: 'sanctum',
    accepts: new RegExp(`^(?:\\d{1,20}\\|)?${optionalPrefix(prefix)}[A-Za-z0-9]{40}[0-9a-f]{8}$`),
    digest: sha256.hex,
    // The number may be missing, and counts for nothing.
    digested: (key) => key.slice(key.indexOf('|') + 1),
    check: (key) => parseInt(key.slice(-8), 16) === crc32(key.slice(-48, -8)),
    readRow(row) {
      const { expiresAt, ...common } = commonFields(row)
      const abilities = toList(columnOf(row, 'abilities'))
      const type = toText(columnOf(row, 'tokenableType')) ?? ''
      return readRow(
        {
          ...common,
          stored: storedIn(row, 'token'),
          userId: toText(columnOf(row, 'tokenableId')),
          permissions: abilities,
          expiresAt: expiresAt ?? later(common.createdAt, expirationMinutes, minuteMs),
        },
        [
          {
            field: 'abilities',
            message: 'is *, which stands for all',
            isGiven: abilities.includes('*'),
          },
          {
            field: 'tokenable_type',
            message: 'names owners of other kinds than users',
            isGiven: !/(?:^|\\)User$|^$/.test(type),
          },
        ],
      )
    },
  }
}

/** Keys of djangorestframework-api-key, of version 3 and from before. */
export function drfApiKey(): ImportSource {
  const prefix = 'sha512$$'
  return {
    name: 'drf-api-key',
    accepts: /^[A-Za-z0-9]{8}\.[A-Za-z0-9]{32}$/,
    digest: {
      of: sha512.hex.of,
      read: (stored) =>
        stored.startsWith(prefix) ? sha512.hex.read(stored.slice(prefix.length)) : null,
    },
    salted: djangoPbkdf2,
    locate: (key) => key.slice(0, 8),
    schemes: ['Api-Key'],
    readRow: (row) =>
      readRow({
        ...commonFields(row),
        stored: storedIn(row, 'hashedKey'),
        locator: storedIn(row, 'prefix'),
        expiresAt: toTime(columnOf(row, 'expiryDate')),
        status: isTrue(columnOf(row, 'revoked')) ? 'REVOKED' : 'ACTIVE',
        shown: { prefix: toText(columnOf(row, 'prefix')) },
      }),
  }
}

/** Tokens of django-rest-knox 5. */
export function knox({ prefix }: { prefix?: string } = {}): ImportSource {
  return {
    name: 'knox',
    accepts: new RegExp(`^${optionalPrefix(prefix)}[0-9a-f]{64}$`),
    digest: sha512.hex,
    schemes: ['Token'],
    readRow: (row) =>
      readRow({
        ...commonFields(row),
        stored: storedIn(row, 'digest'),
        userId: toText(columnOf(row, 'userId')),
        expiresAt: toTime(columnOf(row, 'expiry')),
        shown: { prefix: toText(columnOf(row, 'tokenKey')) },
      }),
  }
}

/** Access tokens of Doorkeeper. `isPlain` is for apps without `hash_token_secrets`. */
export function doorkeeper({ isPlain = false }: { isPlain?: boolean } = {}): ImportSource {
  return {
    name: 'doorkeeper',
    accepts: /^[A-Za-z0-9_-]{43}$/,
    digest: isPlain ? plain : sha256.hex,
    readRow(row) {
      const revokedAt = toTime(columnOf(row, 'revokedAt'))
      const createdAt = toTime(columnOf(row, 'createdAt'))
      return readRow(
        {
          stored: storedIn(row, 'token'),
          userId: toText(columnOf(row, 'resourceOwnerId')),
          permissions: toList(columnOf(row, 'scopes')),
          createdAt,
          expiresAt: later(createdAt, columnOf(row, 'expiresIn'), 1_000),
          status: revokedAt === null ? 'ACTIVE' : 'REVOKED',
          revokedAt,
        },
        [
          lost(row, 'refreshToken', 'would make new tokens'),
          lost(row, 'applicationId', 'names the application of the token'),
        ],
      )
    },
  }
}
