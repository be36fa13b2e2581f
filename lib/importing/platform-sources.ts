import { hmac, sha256, withSuffix } from './digests'
import {
  columnOf,
  commonFields,
  isTrue,
  lost,
  optionalPrefix,
  readRow,
  storedIn,
  toList,
  toMetadata,
  toText,
  toTime,
} from './rows'
import { pbkdf2With, scryptWith } from './salted'
import { hexOfSecret, type ImportRow, type ImportSource } from './source'

/** API tokens of Strapi 5. The salt is its `apiToken.salt`. */
export function strapi({ salt }: { salt: string }): ImportSource {
  return {
    name: 'strapi',
    accepts: /^[0-9a-f]{256}$/,
    digest: hmac('sha512', salt).hex,
    readRow: (row) =>
      readRow(
        {
          ...commonFields(row),
          stored: storedIn(row, 'accessKey'),
          permissions: toList(columnOf(row, 'permissions')),
        },
        [lost(row, 'type', 'says what the token may do, and has to be given as permissions')],
      ),
  }
}

const uuid = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/** API keys of Payload: of a collection with `useAPIKey`, by its slug. `isLegacy` is for keys from before 3.46. */
export function payload({
  secret,
  collection = 'users',
  accepts = uuid,
  isLegacy = false,
}: {
  secret: string
  collection?: string
  accepts?: RegExp
  isLegacy?: boolean
}): ImportSource {
  return {
    name: isLegacy ? 'payload-sha1' : 'payload',
    accepts,
    digest: hmac(isLegacy ? 'sha1' : 'sha256', hexOfSecret(secret).slice(0, 32)).hex,
    schemes: [`${collection} API-Key`],
    readRow: (row) =>
      readRow({
        ...commonFields(row),
        stored: storedIn(row, 'apiKeyIndex'),
        userId: toText(columnOf(row, 'id')),
        status: isTrue(columnOf(row, 'enableAPIKey', 'enable_a_p_i_key', 'enable_api_key') ?? true)
          ? 'ACTIVE'
          : 'SUSPENDED',
      }),
  }
}

/** Keys of Unkey, with 16 random bytes unless `bytes` says otherwise. */
export function unkey({
  prefix,
  bytes = 16,
}: { prefix?: string; bytes?: number } = {}): ImportSource {
  const longest = Math.ceil((bytes * 8) / Math.log2(58))
  const accepts = `^${optionalPrefix(prefix && `${prefix}_`)}[1-9A-HJ-NP-Za-km-z]{${longest - 1},${longest}}$`
  return {
    name: 'unkey',
    accepts: new RegExp(accepts),
    digest: sha256.base64,
    readRow(row) {
      const isDeleted = toText(columnOf(row, 'deletedAtM')) !== undefined
      const isEnabled = isTrue(columnOf(row, 'enabled') ?? true)
      return readRow(
        {
          ...commonFields(row),
          stored: storedIn(row, 'hash'),
          userId: toText(columnOf(row, 'ownerId', 'identityId')),
          permissions: toList(columnOf(row, 'permissions')),
          createdAt: toTime(columnOf(row, 'createdAtM')),
          expiresAt: toTime(columnOf(row, 'expires')),
          status: isDeleted ? 'REVOKED' : isEnabled ? 'ACTIVE' : 'SUSPENDED',
          revokedAt: toTime(columnOf(row, 'deletedAtM')),
          metadata: toMetadata(columnOf(row, 'meta')),
          shown: { prefix: toText(columnOf(row, 'start')) },
        },
        [
          lost(row, 'remainingRequests', 'counts credits, which the library does not have'),
          lost(row, 'refillDay', 'counts credits, which the library does not have'),
        ],
      )
    },
  }
}

/** Secret API keys of Medusa. Clients send them as the user of `Authorization: Basic`. */
export function medusa(): ImportSource {
  return {
    name: 'medusa',
    accepts: /^sk_[0-9a-f]{64}$/,
    digest: sha256.hex,
    salted: scryptWith({ length: 64, salt: 'text' }),
    locate: (key) => `${key.slice(0, 6)}***${key.slice(-3)}`,
    schemes: ['Basic'],
    readRow(row) {
      const [prefix, postfix] = storedIn(row, 'redacted').split('***')
      const revokedAt = toTime(columnOf(row, 'revokedAt'))
      // A revocation may lie ahead.
      const isOver = revokedAt !== null && new Date(revokedAt).getTime() <= Date.now()
      return readRow({
        ...commonFields(row),
        stored: storedIn(row, 'token'),
        salt: toText(columnOf(row, 'salt')),
        locator: storedIn(row, 'redacted'),
        name: toText(columnOf(row, 'title')),
        userId: toText(columnOf(row, 'createdBy')),
        status: isOver ? 'REVOKED' : 'ACTIVE',
        revokedAt: isOver ? revokedAt : null,
        expiresAt: isOver ? null : revokedAt,
        shown: { prefix, postfix },
      })
    },
  }
}

/** Keys of the AutoGPT platform, with a salt and from before it had one. */
export function autogpt(): ImportSource {
  return {
    name: 'autogpt',
    accepts: /^agpt_[A-Za-z0-9_-]{43}$/,
    digest: sha256.hex,
    salted: scryptWith({ length: 32, salt: 'hex' }),
    locate: (key) => key.slice(0, 8),
    headers: ['x-api-key'],
    readRow: (row) =>
      readRow({
        ...commonFields(row),
        stored: storedIn(row, 'hash'),
        salt: toText(columnOf(row, 'salt')),
        locator: storedIn(row, 'head'),
        userId: toText(columnOf(row, 'userId')),
        permissions: toList(columnOf(row, 'permissions')),
        // Its states are ours.
        status: storedIn(row, 'status') as ImportRow['status'],
        revokedAt: toTime(columnOf(row, 'revokedAt')),
        shown: { prefix: storedIn(row, 'head'), postfix: toText(columnOf(row, 'tail')) },
      }),
  }
}

/** Access tokens of Gitea. */
export function gitea(): ImportSource {
  return {
    name: 'gitea',
    accepts: /^[0-9a-f]{40}$/,
    digest: sha256.hex,
    salted: pbkdf2With({ rounds: 10_000, length: 50 }),
    locate: (key) => key.slice(-8),
    schemes: ['token'],
    readRow: (row) =>
      readRow({
        ...commonFields(row),
        stored: storedIn(row, 'tokenHash'),
        salt: toText(columnOf(row, 'tokenSalt')),
        locator: storedIn(row, 'tokenLastEight'),
        userId: toText(columnOf(row, 'uid')),
        createdAt: toTime(columnOf(row, 'createdUnix')),
        lastUsedAt: toTime(columnOf(row, 'updatedUnix')),
        permissions: toList(columnOf(row, 'scope')),
        shown: { postfix: toText(columnOf(row, 'tokenLastEight')) },
      }),
  }
}

/** Personal access tokens of GitLab. `dbKeyBase` is its `db_key_base`. */
export function gitlab({ dbKeyBase }: { dbKeyBase: string }): ImportSource {
  return {
    name: 'gitlab',
    accepts: /^glpat-[A-Za-z0-9_.=-]{20,300}$/,
    digest: withSuffix(sha256, dbKeyBase.slice(0, 32)).base64,
    headers: ['private-token'],
    readRow: (row) =>
      readRow({
        ...commonFields(row),
        stored: storedIn(row, 'tokenDigest'),
        userId: toText(columnOf(row, 'userId')),
        status: isTrue(columnOf(row, 'revoked')) ? 'REVOKED' : 'ACTIVE',
        // A scope stands in a line of its own, after a dash.
        permissions: toList(columnOf(row, 'scopes')).filter((name) => !/^-+$/.test(name)),
      }),
  }
}
