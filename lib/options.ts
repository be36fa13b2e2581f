import type { IncomingMessage, ServerResponse } from 'node:http'
import { isUint8Array } from 'node:util/types'

import type { Sequelize } from 'sequelize'

import { createOptionChecks, show, suggest } from '../models/option-checks'
import { readStorageOptions, type StorageOptions, type UserIdType } from '../models/storage-options'
import type { ApiKeysError } from './errors'
import type { AppRequest, AppResponse, SignedInUser } from './http/request'
import type { TrustedOrigins } from './http/same-origin'
import type { GrantableContext } from './keys/grantable'
import {
  isLimitName,
  limitNameRule,
  longestWindowSeconds,
  maxLimits,
  mostUses,
  type Limits,
} from './keys/limits'
import type { RedisClient } from './limits/redis'

/** The type that ids of the app's users have in JavaScript and JSON. */
export type UserIdOf<Type extends UserIdType> = Type extends 'integer' ? number : string

/** What is there at once where nothing has to be waited for. */
export type MaybePromise<Value> = Value | Promise<Value>

/**
 * The options of `createApiKeys`. `Req` and `Res` are what the app's functions take: the types of Express that the app has, or
 * what all of them have in common.
 */
export interface ApiKeysOptions<
  Permission extends string,
  User extends SignedInUser,
  Type extends UserIdType,
  Req = AppRequest,
  Res = AppResponse,
> extends StorageOptions<Type> {
  /** The app's Sequelize, on Postgres. We share its pool and settings, and change nothing of it. */
  sequelize: Sequelize
  /**
   * What every plain-text key begins with, so that people and secret scanners know it: 2 to 16 characters, lower-case
   * letters, digits and underscores, such as `acme` or `acme_live`.
   */
  keyPrefix: string
  /** The permissions that keys may hold: a list of names, or names with a description each. */
  permissions: readonly Permission[] | Readonly<Record<Permission, string>>
  /** Says who is signed in, by the app's own means; needed by the routers and by `orSignedIn`. */
  currentUser?: ((req: Req) => MaybePromise<User | null | undefined>) | undefined
  /** Says who may manage everyone's keys; needed by the admin router. */
  isAdmin?: ((user: NoInfer<User>) => MaybePromise<boolean | null | undefined>) | undefined
  /** Loads what becomes `req.user` on a request with a key. A key whose user is gone is refused. */
  loadUser?:
    | ((userId: UserIdOf<NoInfer<Type>>, req: Req) => MaybePromise<object | null | undefined>)
    | undefined
  /**
   * Says which permissions a user holds, and so may give to a key. It is held against every request, too: what the owner may
   * no longer do, the key may not. Answers are remembered; `userChanged` has all processes ask anew. Within a call that you
   * passed a `transaction`, `context.transaction` is that one: pass it on to your queries.
   */
  grantable?:
    | ((
        userId: UserIdOf<NoInfer<Type>>,
        context: GrantableContext,
      ) => MaybePromise<readonly NoInfer<Permission>[]>)
    | undefined
  /**
   * How many milliseconds an answer of `grantable` is used for before it is asked again, beside the requests. One that is
   * twice as old is used no more: requests wait for another one, and are answered with 503 where there is none. 0 has it
   * asked for every request; at most 86,400,000.
   *
   * @default 60_000
   */
  grantableMaxAgeMs?: number | undefined
  /**
   * How many keys a user may have that are neither revoked nor expired; `Infinity` for any number.
   *
   * @default 1_000
   */
  maxKeysPerUser?: number | undefined
  /**
   * How many seconds after its creation a key expires at the latest. Where lifetimes are limited, `expiresAt` is required.
   *
   * @default Infinity
   */
  maxLifetimeSeconds?: number | undefined
  /**
   * How many seconds the old secret of a key may work on after a rotation, at most.
   *
   * @default 2_592_000 (30 days)
   */
  maxGracePeriodSeconds?: number | undefined
  /**
   * Names in the `metadata` of keys that their owners read but do not write: a plan, say.
   *
   * @default []
   */
  reservedMetadata?: readonly string[] | undefined
  /**
   * How often each key may be used: named limits that hold at once, such as
   * `{ burst: { limit: 100, windowSeconds: 60 }, monthly: { limit: 100_000, windowSeconds: 2_592_000 } }`. Administrators may
   * give a key limits of its own.
   *
   * @default {} (as often as it likes)
   */
  limits?: Limits | undefined
  /**
   * A client of `ioredis`, or of `redis` from version 4, for one server or a cluster. All processes count uses there together.
   * Without it, each process counts for itself. Connect it before the app listens.
   */
  redis?: RedisClient | undefined
  /**
   * What a request gets whose key has limits while `redis` is unavailable: 503, or it passes uncounted.
   *
   * @default 'refuse'
   */
  onLimiterOutage?: 'refuse' | 'allow' | undefined
  /**
   * How many times a minute an address (an IPv6 network of 64 bits) may come with something that is not a key. Beyond that
   * it is told so, with 429, and nothing more is looked up for it that it could have made up. Good keys pass.
   *
   * @default 60
   */
  maxFailedAttemptsPerMinute?: number | undefined
  /**
   * Secrets under which keys are hashed (HMAC), at least 32 random bytes each. Whoever has a copy of the database, but not
   * these, can verify no key, and keys that somebody made up cost no query. The first is used for new keys, all of them for
   * verification.
   *
   * @default [] (hashes are unkeyed)
   */
  secrets?: readonly (string | Uint8Array)[] | undefined
  /**
   * Goes on accepting keys made before the app had `secrets`.
   *
   * @default false
   */
  acceptUnkeyed?: boolean | undefined
  /** A second header that may carry a key, such as `X-API-Key`. */
  header?: string | undefined
  /**
   * The `realm` of challenges (RFC 9110, section 11.5).
   *
   * @default 'api'
   */
  realm?: string | undefined
  /**
   * Origins other than the app's own whose pages may change keys, such as `https://console.example.com` or
   * `capacitor://localhost`; or a function that decides. It is not asked about the origin `null`.
   *
   * @default []
   */
  trustedOrigins?: TrustedOrigins<Req> | undefined
  /**
   * For how many milliseconds after a change at most a key may still be judged by what it was before, in any process: a
   * revoked key is refused everywhere by then, and within milliseconds as a rule. From 100 to 600,000. Each process asks
   * the database for changes three times as often.
   *
   * @default 1000
   */
  maxStalenessMs?: number | undefined
  /**
   * For how many milliseconds more keys that are known to be good pass while the database is away. Adds to the bound. At
   * most 3,600,000.
   *
   * @default 0
   */
  outageGraceMs?: number | undefined
  /**
   * How many keys are cached at most; about 450 bytes each, and their metadata. Twice as many keys and hours, 20,000 at least,
   * have room for counts of uses that are not written yet.
   *
   * @default 100_000
   */
  cacheSize?: number | undefined
  /**
   * How many milliseconds `lastUsedAt` may be behind, which saves writes: a key that is in use is written once in so
   * many, by all processes together.
   * Each process writes its counts of uses as often, and once a minute at least.
   *
   * @default 60_000
   */
  lastUsedResolutionMs?: number | undefined
  /**
   * Hears of changes at once, by LISTEN on a connection of its own: to the database of `sequelize`, to another address of
   * it where a pooler in transaction mode stands between, or not at all. Without it changes are seen within the bound.
   *
   * @default true
   */
  listen?: boolean | string | undefined
  /**
   * Has look-ups prepared by the server. `false` for poolers that cannot keep prepared statements.
   *
   * @default true
   */
  preparedStatements?: boolean | undefined
  /** Answers refusals in the app's own format. `error` carries `code`, `status`, `headers` and `expose`. May be async. */
  onRefusal?:
    | ((error: ApiKeysError, req: Req, res: Res, next: (error?: unknown) => void) => unknown)
    | undefined
}

/** The options as the parts of the library take them: complete, and free of the types that only callers need. */
export type Settings = ReturnType<typeof readOptions>

const optionNames = [
  'sequelize',
  'schema',
  'users',
  'keyPrefix',
  'permissions',
  'currentUser',
  'isAdmin',
  'loadUser',
  'grantable',
  'grantableMaxAgeMs',
  'maxKeysPerUser',
  'maxLifetimeSeconds',
  'maxGracePeriodSeconds',
  'reservedMetadata',
  'limits',
  'redis',
  'onLimiterOutage',
  'maxFailedAttemptsPerMinute',
  'secrets',
  'acceptUnkeyed',
  'header',
  'realm',
  'trustedOrigins',
  'maxStalenessMs',
  'outageGraceMs',
  'cacheSize',
  'lastUsedResolutionMs',
  'listen',
  'preparedStatements',
  'onRefusal',
] as const satisfies (keyof ApiKeysOptions<string, SignedInUser, UserIdType>)[]

const checks = createOptionChecks('createApiKeys')
const { check } = checks

export type AnyOptions = ApiKeysOptions<
  string,
  SignedInUser,
  UserIdType,
  IncomingMessage,
  ServerResponse
>

/** Applies the defaults and refuses nonsense, so that a mistake shows at start-up and not on a request. */
export function readOptions(options: AnyOptions) {
  if (typeof options !== 'object' || options === null) {
    throw new TypeError('createApiKeys: needs an object of options')
  }
  checks.refuseUnknownNames(options, optionNames)
  const {
    sequelize,
    keyPrefix,
    permissions,
    currentUser,
    isAdmin,
    loadUser,
    grantable,
    grantableMaxAgeMs = 60_000,
    maxKeysPerUser = 1_000,
    maxLifetimeSeconds = Infinity,
    maxGracePeriodSeconds = 2_592_000,
    reservedMetadata = [],
    limits = {},
    redis,
    onLimiterOutage = 'refuse',
    maxFailedAttemptsPerMinute = 60,
    secrets = [],
    acceptUnkeyed = false,
    header,
    realm = 'api',
    trustedOrigins = [],
    maxStalenessMs = 1_000,
    outageGraceMs = 0,
    cacheSize = 100_000,
    lastUsedResolutionMs = 60_000,
    listen = true,
    preparedStatements = true,
    onRefusal,
  } = options

  const version = versionOf(sequelize)
  check(
    'sequelize',
    /^6\.|^$/.test(version),
    `must be an instance of Sequelize 6, not of ${version}`,
  )
  check('sequelize', isPostgres(sequelize), 'must be a Sequelize instance on Postgres')
  check('keyPrefix', isKeyPrefix(keyPrefix), keyPrefixRule, keyPrefix)
  for (const [name, value] of Object.entries({
    currentUser,
    isAdmin,
    loadUser,
    grantable,
    onRefusal,
  })) {
    check(name, value === undefined || typeof value === 'function', 'must be a function', value)
  }
  check('maxKeysPerUser', isLimit(maxKeysPerUser), 'must be a whole number above 0', maxKeysPerUser)
  check(
    'maxLifetimeSeconds',
    isLimit(maxLifetimeSeconds) && isLifetime(maxLifetimeSeconds),
    'must be a whole number of seconds from 1 to 3,162,240,000 (100 years), or Infinity',
    maxLifetimeSeconds,
  )
  check(
    'reservedMetadata',
    Array.isArray(reservedMetadata) && reservedMetadata.every((name) => typeof name === 'string'),
    'must be a list of names',
    reservedMetadata,
  )
  checkLimits(limits)
  // Not shown: a client holds a password.
  check('redis', isRedisClient(redis), 'must be a client of ioredis, or of redis from version 4')
  check(
    'onLimiterOutage',
    ['refuse', 'allow'].includes(onLimiterOutage),
    "must be 'refuse' or 'allow'",
    onLimiterOutage,
  )
  check(
    'maxFailedAttemptsPerMinute',
    isLimit(maxFailedAttemptsPerMinute),
    'must be a whole number above 0',
    maxFailedAttemptsPerMinute,
  )
  check('acceptUnkeyed', typeof acceptUnkeyed === 'boolean', 'must be true or false', acceptUnkeyed)
  check(
    'header',
    header === undefined || isHeaderName(header),
    'must be the name of a header other than Authorization',
    header,
  )
  check('realm', isQuotable(realm), 'must be printable ASCII', realm)
  checkNumber('grantableMaxAgeMs', grantableMaxAgeMs, 0, 86_400_000)
  checkNumber('maxGracePeriodSeconds', maxGracePeriodSeconds, 0, 31_536_000)
  checkNumber('maxStalenessMs', maxStalenessMs, 100, 600_000)
  checkNumber('outageGraceMs', outageGraceMs, 0, 3_600_000)
  checkNumber('cacheSize', cacheSize, 1, 10_000_000)
  checkNumber('lastUsedResolutionMs', lastUsedResolutionMs, 0, 86_400_000)
  // Not shown: an address holds a password.
  check('listen', isListenOption(listen), 'must be true, false or the address of the database')
  check(
    'preparedStatements',
    typeof preparedStatements === 'boolean',
    'must be true or false',
    preparedStatements,
  )
  checkSecrets(secrets, acceptUnkeyed)

  return {
    sequelize,
    storage: readStorageOptions(options, checks),
    keyPrefix,
    permissions: readPermissions(permissions),
    describedPermissions: describe(permissions),
    currentUser,
    isAdmin,
    loadUser,
    grantable,
    grantableMaxAgeMs,
    maxKeysPerUser,
    maxLifetimeSeconds,
    maxGracePeriodSeconds,
    reservedMetadata,
    limits,
    redis,
    onLimiterOutage,
    maxFailedAttemptsPerMinute,
    secrets,
    acceptUnkeyed,
    header: header?.toLowerCase(),
    realm,
    trustedOrigins: readOrigins(trustedOrigins),
    maxStalenessMs,
    outageGraceMs,
    cacheSize,
    lastUsedResolutionMs,
    listen,
    preparedStatements,
    onRefusal,
  }
}

/** Throws a `TypeError` unless at least one permission is named and the app has all of them. It suggests the nearest one. */
export function checkPermissionNames(
  caller: string,
  names: readonly string[],
  known: readonly string[],
) {
  if (names.length === 0) throw new TypeError(`${caller}: needs at least one permission`)

  for (const name of names) {
    if (!known.includes(name)) {
      throw new TypeError(
        `${caller}: ${show(name)} is not one of the app's permissions.${suggest(name, known)}`,
      )
    }
  }
}

/** Throws a `TypeError` unless a request can count for so many uses of its key. */
export function checkCost(caller: string, cost: unknown, least: 0 | 1) {
  if (Number.isSafeInteger(cost) && Number(cost) >= least) return
  throw new TypeError(`${caller}: the cost must be a whole number from ${least}, got ${show(cost)}`)
}

/** The version of its class. 7 is the package `@sequelize/core`. Empty for what is no Sequelize. */
function versionOf(sequelize: unknown): string {
  const { version } = ((sequelize as object | undefined)?.constructor ?? {}) as {
    version?: unknown
  }
  return typeof version === 'string' ? version : ''
}

function isPostgres(sequelize: unknown): boolean {
  const { getDialect } = (sequelize ?? {}) as Partial<Sequelize>
  return typeof getDialect === 'function' && getDialect.call(sequelize) === 'postgres'
}

const keyPrefixRule =
  'must be 2 to 16 lower-case letters, digits and underscores, begin with a letter and not end in an underscore'

function isKeyPrefix(keyPrefix: unknown): boolean {
  return (
    typeof keyPrefix === 'string' &&
    /^[a-z][a-z0-9_]{1,15}$/.test(keyPrefix) &&
    !keyPrefix.endsWith('_')
  )
}

function isLimit(limit: unknown): boolean {
  return limit === Infinity || (Number.isSafeInteger(limit) && Number(limit) > 0)
}

function checkLimits(limits: unknown) {
  const isObject = typeof limits === 'object' && limits !== null && !Array.isArray(limits)
  check('limits', isObject, 'must be an object of limits, by their names', limits)
  const entries = Object.entries(limits as Record<string, unknown>)
  check('limits', entries.length <= maxLimits, `must have at most ${maxLimits} limits`)

  for (const [name, limit] of entries) {
    const option = `limits.${name}`
    check(option, isLimitName(name), limitNameRule, name)
    const isObject = typeof limit === 'object' && limit !== null
    check(option, isObject, 'must be { limit, windowSeconds }', limit)
    checks.refuseUnknownNames(limit as object, ['limit', 'windowSeconds'], `${option}.`)
    const { limit: uses, windowSeconds } = limit as Record<string, unknown>
    checkNumber(`${option}.limit`, uses, 1, mostUses)
    checkNumber(`${option}.windowSeconds`, windowSeconds, 1, longestWindowSeconds)
  }
}

/** Whether it has what the two kinds of clients run a script with. */
function isRedisClient(client: unknown): boolean {
  if (client === undefined) return true

  const { defineCommand, isOpen, eval: evaluate } = (client ?? {}) as Record<string, unknown>
  const isOfEither = typeof defineCommand === 'function' || typeof isOpen === 'boolean'
  return isOfEither && typeof evaluate === 'function'
}

function isLifetime(seconds: number): boolean {
  return seconds === Infinity || seconds <= 100 * 366 * 86_400
}

function checkNumber(option: string, value: unknown, least: number, most: number) {
  const isFine = Number.isInteger(value) && Number(value) >= least && Number(value) <= most
  check(option, isFine, `must be a whole number from ${least} to ${most}`, value)
}

function isListenOption(listen: unknown): boolean {
  if (typeof listen !== 'string') return typeof listen === 'boolean'
  return /^postgres(ql)?:\/\//.test(listen) && URL.canParse(listen)
}

/** A token (RFC 9110, section 5.6.2). */
function isHeaderName(name: unknown): boolean {
  return (
    typeof name === 'string' &&
    /^[!#$%&'*+\-.^_`|~0-9a-z]+$/i.test(name) &&
    !['authorization', 'cookie'].includes(name.toLowerCase())
  )
}

function isQuotable(text: unknown): boolean {
  return typeof text === 'string' && /^[\x20-\x7e]*$/.test(text)
}

/** Says what is wrong with a secret without showing it. */
function checkSecrets(secrets: AnyOptions['secrets'] & object, acceptUnkeyed: boolean) {
  check('secrets', Array.isArray(secrets), 'must be a list')
  for (const [index, secret] of secrets.entries()) {
    const isReadable = typeof secret === 'string' || isUint8Array(secret)
    check(`secrets[${index}]`, isReadable, `must be text or bytes, it is ${typeof secret}`)
  }
  const all = secrets.map((secret) => Buffer.from(secret))

  for (const [index, bytes] of all.entries()) {
    check(
      `secrets[${index}]`,
      bytes.length >= 32,
      `must have at least 32 bytes, it has ${bytes.length}`,
    )
    check(
      `secrets[${index}]`,
      new Set(bytes).size >= 8,
      'must be random: it repeats a few characters',
    )
    check(
      `secrets[${index}]`,
      !all.slice(0, index).some((other) => other.equals(bytes)),
      'must not be repeated',
    )
  }
  check(
    'acceptUnkeyed',
    !acceptUnkeyed || all.length > 0,
    'needs secrets: without them all keys are unkeyed',
  )
}

/** Names are scope tokens (RFC 6749, section 3.3), as challenges name them in `scope`. */
function readPermissions(permissions: AnyOptions['permissions']): readonly [string, ...string[]] {
  const isUsable = typeof permissions === 'object' && permissions !== null
  check(
    'permissions',
    isUsable,
    'must be a list of names, or an object of names and descriptions',
    permissions,
  )
  const names: readonly unknown[] = Array.isArray(permissions)
    ? permissions
    : Object.keys(permissions)
  for (const [name, description] of Array.isArray(permissions) ? [] : Object.entries(permissions)) {
    check(
      `permissions.${name}`,
      typeof description === 'string',
      'must be a description',
      description,
    )
  }

  for (const name of names) {
    const isScopeToken = typeof name === 'string' && /^[\x21\x23-\x5b\x5d-\x7e]{1,100}$/.test(name)
    check(
      'permissions',
      isScopeToken,
      'must have names of 1 to 100 printable ASCII characters without space, " and \\',
      name,
    )
  }
  check('permissions', new Set(names).size === names.length, 'must not repeat a name')
  const [first, ...others] = names as readonly string[]
  if (first === undefined)
    throw new TypeError('createApiKeys: the option permissions must name at least one')

  return [first, ...others]
}

/** A permission of the app, with what `permissions` says of it; `null` if that is a list of names. */
export interface DescribedPermission {
  readonly name: string
  readonly description: string | null
}

function describe(permissions: AnyOptions['permissions']): readonly DescribedPermission[] {
  return Array.isArray(permissions)
    ? (permissions as readonly string[]).map((name) => ({ name, description: null }))
    : Object.entries(permissions).map(([name, description]) => ({ name, description }))
}

function readOrigins(origins: unknown): TrustedOrigins {
  // What it returns is checked when it is asked.
  if (typeof origins === 'function') return origins as TrustedOrigins
  check(
    'trustedOrigins',
    Array.isArray(origins),
    'must be a list of origins or a function',
    origins,
  )

  for (const origin of origins as unknown[]) {
    check(
      'trustedOrigins',
      typeof origin === 'string' && isOrigin(origin),
      'must have origins such as https://console.example.com',
      origin,
    )
  }
  return origins as string[]
}

/** A scheme and a host as browsers send them. To `URL`, what is not of the web has no origin. */
const otherOrigin = /^[a-z][a-z0-9+.-]*:\/\/[^/?#@\s]+$/

function isOrigin(text: string): boolean {
  if (/^https?:/.test(text)) return URL.canParse(text) && new URL(text).origin === text
  return otherOrigin.test(text)
}
