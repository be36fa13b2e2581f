import type { IncomingMessage } from 'node:http'
import { isUint8Array } from 'node:util/types'

import type { Sequelize } from 'sequelize'
import v = require('valibot')

import { createOptionChecks, show } from '../models/option-checks'
import { readStorageOptions, storageOptionNames } from '../models/storage-options'
import { dayMs } from './database/clock'
import { readImports } from './importing/read-imports'
import { environmentOptions, readEnvironments, refuseUnknownOptions } from './keys/environments'
import { matching, wholeNumber } from './keys/fields'
import { isListOfNames } from './keys/grantable'
import { limitFields, limitsOption } from './keys/limits'
import { isObject, pathTo, withAll } from './keys/parse-input'
import { formerPermissionsOption, permissionsOption, readFormer } from './keys/permission-options'
import { createPermissions } from './keys/permissions'
import { resourcesOption, type ResourceTypes } from './keys/resources'
import type { AnyOptions, RedisClient, TrustedOrigins } from './options'

/** The options for the parts of the library: checked, and complete with their defaults. */
export type Settings = ReturnType<typeof readOptions>

const maxKeys = {
  user: v.optional(numberOrInfinity()),
  organization: v.optional(numberOrInfinity()),
  service: v.optional(numberOrInfinity()),
}

/** Each option but the options of storage, with its default and its rule. */
export const optionFields = {
  sequelize: v.pipe(
    anything<Sequelize>(),
    v.check(
      (sequelize) => /^6\.|^$/.test(versionOf(sequelize)),
      ({ input }) => `must be an instance of Sequelize 6, not of ${versionOf(input)}`,
    ),
    v.check((sequelize) => isPostgres(sequelize), 'must be a Sequelize instance on Postgres'),
  ),
  ...environmentOptions,
  // Checked with its own messages.
  imports: v.optional(v.unknown(), []),
  permissions: permissionsOption,
  formerPermissions: formerPermissionsOption,
  currentUser: v.undefinedable(aFunction<AnyOptions['currentUser']>()),
  isAdmin: v.undefinedable(aFunction<AnyOptions['isAdmin']>()),
  services: v.optional(v.boolean('must be true or false'), false),
  loadOwner: v.undefinedable(aFunction<AnyOptions['loadOwner']>()),
  ownerNames: v.undefinedable(aFunction<AnyOptions['ownerNames']>()),
  grantable: v.undefinedable(aFunction<AnyOptions['grantable']>()),
  grantableMaxAgeMs: v.optional(wholeNumber(0, 86_400_000), 60_000),
  maxKeysPerOwner: v.pipe(
    v.optional(
      v.union(
        [numberOrInfinity(), v.strictObject(maxKeys)],
        'must be a whole number above 0, or an object such as { user: 10, organization: 100 }',
      ),
      1_000,
    ),
    v.transform((most) => {
      if (typeof most === 'number') return { user: most, organization: most, service: most }
      const { user = 1_000, organization = 1_000, service = 1_000 } = most
      return { user, organization, service }
    }),
  ),
  maxLifetimeSeconds: v.optional(
    numberOrInfinity(
      'must be a whole number of seconds from 1 to 3,162,240,000 (100 years), or Infinity',
      3_162_240_000,
    ),
    Infinity,
  ),
  maxIdleDays: v.optional(
    numberOrInfinity('must be a whole number of days from 1 to 36500, or Infinity', 36_500),
    Infinity,
  ),
  maxGracePeriodSeconds: v.optional(wholeNumber(0, 31_536_000), 2_592_000),
  undoMinutes: v.optional(wholeNumber(0, 60), 0),
  resources: v.pipe(
    v.undefinedable(resourcesOption),
    v.transform((types): ResourceTypes => types ?? new Map()),
  ),
  reservedMetadata: v.optional(
    v.custom<readonly string[]>(isListOfNames, 'must be a list of names'),
    [],
  ),
  limits: v.optional(limitsOption, {}),
  redis: v.undefinedable(
    unshown<RedisClient>(isRedisClient, 'must be a client of ioredis, or of redis from version 4'),
  ),
  onLimiterOutage: v.optional(
    v.picklist(['refuse', 'allow'], "must be 'refuse' or 'allow'"),
    'refuse',
  ),
  maxFailedAttemptsPerMinute: v.optional(numberOrInfinity(), 60),
  insecureTransport: v.optional(
    v.picklist(['allow', 'refuse', 'revoke'], "must be 'allow', 'refuse' or 'revoke'"),
    'allow',
  ),
  strictTransportSecurity: v.undefinedable(wholeNumber(0, 2 ** 31)),
  maxExposedPerMinute: v.optional(numberOrInfinity(), 100),
  secrets: v.optional(
    v.pipe(
      anything<readonly (string | Uint8Array)[]>(),
      v.check(Array.isArray, 'must be a list'),
      v.rawCheck(({ dataset: { value, issues }, addIssue }) => {
        if (issues) return
        for (const [index, secret] of value.entries()) {
          const message = faultOfSecret(secret, value.slice(0, index))
          if (message !== null) return addIssue({ path: pathTo(value, index), message })
        }
      }),
    ),
    [],
  ),
  acceptUnkeyed: v.optional(v.boolean('must be true or false'), false),
  header: v.undefinedable(
    v.pipe(
      // A token (RFC 9110, section 5.6.2) that names no header that servers read themselves.
      matching(
        /^(?!(?:authorization|cookie)$)[!#$%&'*+\-.^_`|~0-9a-z]+$/i,
        'must be the name of a header other than Authorization',
      ),
      v.toLowerCase(),
    ),
  ),
  realm: v.optional(matching(/^[\x20-\x7e]*$/, 'must be printable ASCII'), 'api'),
  trustedOrigins: v.optional(
    v.pipe(
      v.custom<TrustedOrigins<IncomingMessage>>(
        (value) => typeof value === 'function' || Array.isArray(value),
        'must be a list of origins or a function',
      ),
      v.check(
        // The answer of a function is checked when it is asked.
        (origins) => typeof origins === 'function' || origins.every(isOrigin),
        ({ input }) => {
          const wrong = typeof input === 'function' ? input : input.find((text) => !isOrigin(text))
          return `must have origins such as https://console.example.com, got ${show(wrong)}`
        },
      ),
    ),
    [],
  ),
  maxStalenessMs: v.optional(wholeNumber(100, 600_000), 1_000),
  outageGraceMs: v.optional(wholeNumber(0, 3_600_000), 0),
  cacheSize: v.optional(wholeNumber(1, 10_000_000), 100_000),
  lastUsedResolutionMs: v.optional(wholeNumber(0, 86_400_000), 60_000),
  listen: v.optional(
    unshown<boolean | string>(isListenOption, 'must be true, false or the address of the database'),
    true,
  ),
  preparedStatements: v.optional(v.boolean('must be true or false'), true),
  onRefusal: v.undefinedable(aFunction<AnyOptions['onRefusal']>()),
}

const schema = v.pipe(
  v.custom<object>(isObject),
  withAll(optionFields),
  v.object(optionFields),
  v.forward(
    v.partialCheck(
      [['acceptUnkeyed'], ['secrets']],
      ({ acceptUnkeyed, secrets }) => !acceptUnkeyed || secrets.length > 0,
      'needs secrets: without them all keys are unkeyed',
    ),
    ['acceptUnkeyed'],
  ),
)

const checks = createOptionChecks('createApiKeys')

/** Applies the defaults and refuses nonsense, so that a mistake shows at start-up and not on a request. */
export function readOptions(options: AnyOptions) {
  if (!isObject(options)) throw new TypeError('createApiKeys: needs an object of options')
  checks.refuseUnknownNames(options, [...Object.keys(optionFields), ...storageOptionNames])
  for (const [name, limit] of Object.entries(Object(options.limits))) {
    if (!isObject(limit)) continue
    checks.refuseUnknownNames(limit, Object.keys(limitFields), `limits.${name}.`)
  }

  refuseUnknownOptions(Reflect.get(options, 'environments'), checks)

  const result = v.safeParse(schema, options, { abortEarly: true })
  if (!result.success) return refuse(result.issues[0])

  const {
    keyPrefix: _,
    formerPrefixes: __,
    permissions,
    formerPermissions,
    services,
    ...settings
  } = result.output
  const former = readFormer(formerPermissions, permissions, checks)
  const storage = readStorageOptions(options, checks)
  const imports = readImports(result.output.imports, checks)
  return {
    ...settings,
    imports,
    // A use is noted late twice: in the process, and in the database, where another process may have noted one before it.
    idleMs: settings.maxIdleDays * dayMs + 2 * settings.lastUsedResolutionMs,
    environments: readEnvironments(result.output, imports, checks),
    storage,
    idTypes: {
      user: storage.users.idType,
      organization: storage.organizations?.idType,
      service: services ? ('text' as const) : undefined,
    },
    permissions: createPermissions(permissions, former),
  }
}

/** Throws a `TypeError` for an option. A value is shown if its type is wrong; a check says itself what it may show. */
function refuse({ kind, path, message, input }: v.BaseIssue<unknown>): never {
  const keys = path?.map(({ key }) => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`))
  const name = keys?.join('').slice(1)
  const got = kind === 'schema' ? `, got ${show(input)}` : ''
  throw new TypeError(`createApiKeys: the option ${name} ${message}${got}`)
}

/** Makes the schema of an option that only a check may refuse, because its value may hold a password. */
function anything<Value>() {
  return v.custom<Value>(() => true)
}

/** Makes the schema of an option that a message may not show, and that has one rule. */
function unshown<Value>(isFine: (value: unknown) => boolean, message: string) {
  return v.pipe(anything<Value>(), v.check<Value, string>(isFine, message))
}

function numberOrInfinity(message = 'must be a whole number above 0', most = 2 ** 53 - 1) {
  return v.union([wholeNumber(1, most), v.literal(Infinity)], message)
}

function aFunction<Value>() {
  return v.custom<NonNullable<Value>>((value) => typeof value === 'function', 'must be a function')
}

/** Returns the version of the class of a Sequelize; 7 is the package `@sequelize/core`. Empty for any other value. */
function versionOf(sequelize: unknown): string {
  const { version } = Object(Object(sequelize).constructor) as { version?: unknown }
  return typeof version === 'string' ? version : ''
}

/** True for an instance of Sequelize on Postgres. */
function isPostgres(sequelize: unknown): boolean {
  const { getDialect } = Object(sequelize) as Partial<Sequelize>
  return typeof getDialect === 'function' && getDialect.call(sequelize) === 'postgres'
}

/** True for an object with the members by which the two kinds of clients run a script. */
function isRedisClient(client: unknown): boolean {
  const { defineCommand, isOpen, eval: evaluate } = Object(client) as Record<string, unknown>
  const isOfEither = typeof defineCommand === 'function' || typeof isOpen === 'boolean'
  return isOfEither && typeof evaluate === 'function'
}

/** Returns the fault of a secret without showing it; `null` if it has none. */
function faultOfSecret(secret: unknown, others: readonly (string | Uint8Array)[]): string | null {
  if (typeof secret !== 'string' && !isUint8Array(secret)) {
    return `must be text or bytes, it is ${typeof secret}`
  }
  const bytes = Buffer.from(secret)
  if (bytes.length < 32)
    return `must have at least 32 bytes, such as those of "openssl rand -base64 32", it has ${bytes.length}`
  if (new Set(bytes).size < 8) return 'must be random: it repeats a few characters'
  return others.some((other) => bytes.equals(Buffer.from(other))) ? 'must not be repeated' : null
}

/** A scheme and a host as browsers send them. To `URL`, schemes other than the schemes of the web have no origin. */
const otherOrigin = /^[a-z][a-z0-9+.-]*:\/\/[^/?#@\s]+$/

/** True for an origin as browsers send it. */
function isOrigin(text: unknown): boolean {
  if (typeof text !== 'string') return false
  if (/^https?:/.test(text)) return URL.canParse(text) && new URL(text).origin === text
  return otherOrigin.test(text)
}

/** True for `true`, `false` and the address of a Postgres server. */
function isListenOption(listen: unknown): boolean {
  if (typeof listen !== 'string') return typeof listen === 'boolean'
  return /^postgres(ql)?:\/\//.test(listen) && URL.canParse(listen)
}
