import type { IncomingMessage, ServerResponse } from 'node:http'

import type { Sequelize } from 'sequelize'

import type { OwnerTable, StorageOptions, UserIdType } from '../models/storage-options'
import type { ApiKeysError } from './errors'
import type { GrantableContext } from './keys/grantable'
import type { NamedOwner } from './keys/owner-names'
import type { ImportSource } from './importing/source'
import type { LimitOverrides, Limits } from './keys/limits'
import type { PermissionDescription } from './keys/permission-options'
import type { OrganizationOwner, ServiceOwner, UserOwner } from './keys/owner'
import type { MayBind } from './keys/resources'

declare global {
  namespace Express {
    // Apps and packages such as Passport add to these. Here they are empty, for an app that has no types of Express.
    interface Request {}
    interface Response {}
  }
}

/** The type that ids of a column type have in JavaScript and JSON. */
export type IdOf<Type extends UserIdType> = Type extends 'integer' ? number : string

/** The owners that keys of an app may have. */
export type OwnersIn<
  UserType extends UserIdType,
  Organizations extends OwnerTable | false,
  Services extends boolean,
> =
  | UserOwner<IdOf<UserType>>
  | (Organizations extends object
      ? OrganizationOwner<
          Organizations extends { type: infer Type extends UserIdType } ? IdOf<Type> : string
        >
      : never)
  | (Services extends true ? ServiceOwner : never)

/** How many keys an owner of each kind may have; 1,000 for kinds that are left out. */
export interface MaxKeys {
  readonly user?: number | undefined
  readonly organization?: number | undefined
  readonly service?: number | undefined
}

/** A value, or a promise of it if it is not known yet. */
export type MaybePromise<Value> = Value | Promise<Value>

/** A signed-in user: any object of the app's with an `id`. */
export interface SignedInUser {
  id: string | number | bigint
}

/** The type of `req.user`: as Passport declares it, or another package; else any signed-in user. */
type UserOf<Req> = 'user' extends keyof Req
  ? Req extends { user?: infer User }
    ? WithId<User>
    : never
  : SignedInUser | undefined

/** The user that Passport declares is empty until the app gives it properties. */
type WithId<User> = User extends null | undefined
  ? User
  : 'id' extends keyof User
    ? User
    : User & SignedInUser

/**
 * A request in functions of the app whose parameters have no type: what Express 4 and 5 have in common. For more, such as
 * `req.session`, write the type: `(req: Request) => req.session.user`.
 */
export type AppRequest = IncomingMessage &
  Express.Request & {
    user?: UserOf<Express.Request>
    readonly ip?: string | undefined
    readonly path: string
    originalUrl: string
    baseUrl: string
    get(name: string): string | undefined
  }

/** A response in functions of the app whose parameters have no type: what Express 4 and 5 have in common. */
export type AppResponse = ServerResponse &
  Express.Response & {
    status(code: number): AppResponse
    set(fields: Readonly<Record<string, string>>): AppResponse
    set(field: string, value: string): AppResponse
    type(type: string): AppResponse
    json(body: unknown): AppResponse
    send(body?: unknown): AppResponse
  }

/** A client of `ioredis`, or of `redis` from version 4, for one server or a cluster. */
export interface RedisClient {
  eval(...args: never[]): Promise<unknown>
}

/** The origins that are trusted besides the app's own: a list, compared as text, or a function that answers for one origin. */
export type TrustedOrigins<Req> =
  readonly string[] | ((origin: string, req: Req) => MaybePromise<boolean | null | undefined>)

/**
 * The options of `createApiKeys`. `Req` and `Res` are the types of the request and the response that the app's functions take:
 * Express's, or by default those parts of them that Express 4 and 5 have in common.
 */
export interface ApiKeysOptions<
  Permission extends string,
  User extends SignedInUser,
  UserType extends UserIdType,
  Organizations extends OwnerTable | false = false,
  Services extends boolean = false,
  Environment extends string = never,
  Resource extends string = never,
  Req = AppRequest,
  Res = AppResponse,
> extends StorageOptions<UserType> {
  /** The app's Sequelize, on Postgres. The library uses its pool and its settings, and changes neither. */
  sequelize: Sequelize
  /**
   * Environments whose keys are kept apart, for example `{ live: 'acme_live', test: 'acme_test' }`, in place of `keyPrefix`: a prefix
   * for each, or an object with its prefix, former prefixes and limits. A key never changes its environment. Guards take keys of
   * `acceptedEnvironments`, unless they name others. If there is one of these, it is the environment of a new key that names none.
   */
  environments?: Readonly<Record<Environment, string | EnvironmentOptions>> | undefined
  /**
   * The prefixes of keys from before the product had its present name. Such keys go on working and are masked. A rotation gives them the
   * present prefix.
   *
   * @default []
   */
  formerPrefixes?: readonly string[] | undefined
  /**
   * The systems whose keys the app accepts beside its own, once `importKeys` has imported them: those of `sources`, or your own.
   *
   * @default []
   */
  imports?: readonly ImportSource[] | undefined
  /**
   * Allows a prefix that secret scanners take for another vendor's, for example `sk_live` (Stripe) or `ghp` (GitHub). They would report
   * your keys to that vendor, and not to you.
   *
   * @default false
   */
  allowForeignPrefix?: boolean | undefined
  /**
   * The permissions that keys may hold: a list of names, or an object of names and their descriptions. A name is a scope token
   * (RFC 6749, section 3.3): 1 to 100 printable characters of ASCII without space, `"` and `\\`, for example `READ_GRAPH` or
   * `graphs:read`. A permission may imply others: `{ description: 'All', implies: '*' }`.
   */
  permissions:
    | readonly Permission[]
    | Readonly<Record<Permission, string | PermissionDescription<NoInfer<Permission>>>>
  /**
   * Names that permissions had before, each with its new name, or with `null` if the permission was dropped. Keys that have
   * the former name have the permission all the same: `{ RUN_GRAPH: 'EXECUTE_GRAPH', OLD: null }`.
   *
   * @default {}
   */
  formerPermissions?: Readonly<Record<string, string | null>> | undefined
  /** Returns the user who is signed in, by the app's own means. The routers and `orSignedIn` need it. */
  currentUser?: ((req: Req) => MaybePromise<User | null | undefined>) | undefined
  /** Returns true if a user may manage the keys of all users. The admin router needs it. */
  isAdmin?: ((user: NoInfer<User>) => MaybePromise<boolean | null | undefined>) | undefined
  /**
   * The app's organizations in the database: their Sequelize model, or their table, as in `users`. With it, keys may belong to
   * organizations.
   *
   * @default false
   */
  organizations?: Organizations | undefined
  /**
   * Lets keys belong to services, which have names that the app chooses, for example `nightly-import`.
   *
   * @default false
   */
  services?: Services | undefined
  /**
   * Loads the `req.user` of a request with a key. If it returns nothing for a user, the key is refused. For other owners, `req.user` is
   * then unset.
   */
  loadOwner?:
    | ((
        owner: OwnersIn<NoInfer<UserType>, NoInfer<Organizations>, NoInfer<Services>>,
        req: Req,
      ) => MaybePromise<object | null | undefined>)
    | undefined
  /**
   * Returns owners with the names by which people know them, for lists of keys: `[{ type: 'user', id: 7, name: 'Alice' }]`. It gets up to
   * a few hundred owners at once, of all kinds that the app has. Names are cached for a minute. If it fails or takes longer than a
   * second, names that are not cached are missing, and it is not called again for ten seconds.
   */
  ownerNames?:
    | ((
        owners: readonly OwnersIn<NoInfer<UserType>, NoInfer<Organizations>, NoInfer<Services>>[],
      ) => MaybePromise<
        readonly NamedOwner<
          OwnersIn<NoInfer<UserType>, NoInfer<Organizations>, NoInfer<Services>>
        >[]
      >)
    | undefined
  /**
   * Returns the permissions that an owner holds. The owner's keys cannot be given other permissions, and on every request
   * a key has only those of its permissions that its owner still holds. Without the option, all owners hold all
   * permissions. Answers are cached, and `ownerChanged` makes all processes ask again. If a management call has a
   * `transaction`, it is `context.transaction`: pass it on to your queries.
   */
  grantable?:
    | ((
        owner: OwnersIn<NoInfer<UserType>, NoInfer<Organizations>, NoInfer<Services>>,
        context: GrantableContext,
      ) => MaybePromise<readonly NoInfer<Permission>[]>)
    | undefined
  /**
   * The types of resources to which a key can be bound, for example `{ graph: true }`. A function in place of `true` returns true if an
   * owner may bind a key to some ids. It is asked when a key is created, gets other ids, or gets another owner. It is not asked when a key is
   * used, because a binding only takes away: the route checks what the owner may see, as it does without keys.
   */
  resources?:
    | {
        readonly [Type in Resource]:
          true | MayBind<OwnersIn<NoInfer<UserType>, NoInfer<Organizations>, NoInfer<Services>>>
      }
    | undefined
  /**
   * How many milliseconds old an answer of `grantable` may become before it is refreshed in the background. An answer of twice that
   * age expires: requests then wait for a new answer, and get 503 if there is none. With 0 every request asks. At most
   * 86,400,000.
   *
   * @default 60_000
   */
  grantableMaxAgeMs?: number | undefined
  /**
   * How many keys an owner may have that are neither revoked nor expired; `Infinity` for any number. An object has a number for each
   * kind of owner: `{ user: 10, organization: 100 }`.
   *
   * @default 1_000
   */
  maxKeysPerOwner?: number | MaxKeys | undefined
  /**
   * How many seconds after its creation a key expires at the latest. If lifetimes are limited, `expiresAt` is required.
   *
   * @default Infinity
   */
  maxLifetimeSeconds?: number | undefined
  /**
   * After how many days without a use a key expires, at most 36,500. A rotation and a reactivation count like a use. A use may be noted up to
   * twice `lastUsedResolutionMs` late, so a key expires so much later.
   *
   * @default Infinity
   */
  maxIdleDays?: number | undefined
  /**
   * How many seconds the old secret of a key may work after a rotation, at most 31,536,000 (a year).
   *
   * @default 2_592_000 (30 days)
   */
  maxGracePeriodSeconds?: number | undefined
  /**
   * For how many minutes after its revocation administrators can undo it with `unrevoke`, at most 60. With 0 no revocation is undone.
   * That of an exposed key never is.
   *
   * @default 0
   */
  undoMinutes?: number | undefined
  /**
   * Names in the `metadata` of keys that their owners can read but not write, for example a plan.
   *
   * @default []
   */
  reservedMetadata?: readonly string[] | undefined
  /**
   * How often each key may be used: named limits that hold together, for example
   * `{ burst: { limit: 100, windowSeconds: 60 }, monthly: { limit: 100_000, windowSeconds: 2_592_000 } }`. Administrators may
   * give a key limits of its own.
   *
   * @default {} (no limits)
   */
  limits?: Limits | undefined
  /**
   * A client of `ioredis`, or of `redis` from version 4, for one server or a cluster. All processes count uses there together.
   * Without it, each process counts for itself. Connect it before the app listens.
   */
  redis?: RedisClient | undefined
  /**
   * The answer while `redis` is unavailable, if the key of a request has limits: `'refuse'` answers 503, `'allow'` lets the request
   * through uncounted.
   *
   * @default 'refuse'
   */
  onLimiterOutage?: 'refuse' | 'allow' | undefined
  /**
   * How many malformed or unknown keys an address (an IPv6 network of 64 bits) may send in a minute; `Infinity` for any
   * number. After that, malformed keys get 429. Keys that every client could make, because they have no keyed hash, get
   * ten look-ups a second, and 503 beyond. Good keys still pass. Each process counts for itself.
   *
   * @default 60
   */
  maxFailedAttemptsPerMinute?: number | undefined
  /**
   * The treatment of requests over plain HTTP, by `req.secure` of Express, but not of requests that come from the machine itself.
   * `'refuse'` answers all of them with the same 403, with a key or without. `'revoke'` besides revokes the key that came along.
   * Behind a proxy, set `trust proxy` first: otherwise, every request seems to come over plain HTTP.
   *
   * @default 'allow'
   */
  insecureTransport?: 'allow' | 'refuse' | 'revoke' | undefined
  /**
   * For how many seconds clients may use nothing but HTTPS (`max-age` of `Strict-Transport-Security`, RFC 6797). Guards, the
   * strategy and the routers then send it with each answer over HTTPS, unless the app has sent it.
   */
  strictTransportSecurity?: number | undefined
  /**
   * How many exposed keys all processes together revoke in a minute; `Infinity` for any number. Further keys are suspended, which
   * refuses them as well. The event `exposure_limit_reached` reports that.
   *
   * @default 100
   */
  maxExposedPerMinute?: number | undefined
  /**
   * Secrets under which keys are hashed (HMAC), at least 32 random bytes each. A copy of the database then verifies no key, and
   * made-up keys cost no query. New keys use the first secret; verification accepts all of them.
   *
   * @default [] (hashes are unkeyed)
   */
  secrets?: readonly (string | Uint8Array)[] | undefined
  /**
   * Accepts keys from the time before the app had `secrets`.
   *
   * @default false
   */
  acceptUnkeyed?: boolean | undefined
  /** A second header that may carry a key, for example `X-API-Key`. */
  header?: string | undefined
  /**
   * The `realm` of challenges (RFC 9110, section 11.5).
   *
   * @default 'api'
   */
  realm?: string | undefined
  /**
   * Origins besides the app's own whose pages may change keys, for example `https://console.example.com` or
   * `capacitor://localhost`; or a function that decides. It is not asked about the origin `null`.
   *
   * @default []
   */
  trustedOrigins?: TrustedOrigins<Req> | undefined
  /**
   * The most milliseconds after a change for which a process may use the old state of a key. A revoked key is refused
   * everywhere by then, and as a rule within milliseconds. From 100 to 600,000. Each process asks the database for
   * changes three times as often.
   *
   * @default 1_000
   */
  maxStalenessMs?: number | undefined
  /**
   * How many milliseconds longer known good keys pass while the database is unavailable. Adds to `maxStalenessMs`. At most
   * 3,600,000.
   *
   * @default 0
   */
  outageGraceMs?: number | undefined
  /**
   * How many keys are cached at most. Each takes about 450 bytes, and its metadata. Counts of uses that are not written yet have room
   * for twice as many keys and hours, and for 20,000 at least.
   *
   * @default 100_000
   */
  cacheSize?: number | undefined
  /**
   * How many milliseconds `lastUsedAt` may be behind. This saves writes: all processes together write a key in use once in that
   * time. Each process writes its counts of uses as often, and once a minute at least. At most 86,400,000.
   *
   * @default 60_000
   */
  lastUsedResolutionMs?: number | undefined
  /**
   * Receives changes at once, by LISTEN on a connection of its own to the database of `sequelize`. Give another address of that
   * database if a pooler in transaction mode stands in between. With `false`, changes are seen within the bound only.
   *
   * @default true
   */
  listen?: boolean | string | undefined
  /**
   * Has the server prepare lookups and changes. Set it to `false` for poolers that cannot keep prepared statements.
   *
   * @default true
   */
  preparedStatements?: boolean | undefined
  /** Answers refusals in the app's own format. `error` carries `code`, `status`, `headers` and `expose`. May be async. */
  onRefusal?:
    | ((error: ApiKeysError, req: Req, res: Res, next: (error?: unknown) => void) => unknown)
    | undefined
}

/** The options of any app, before they were checked. */
export type AnyOptions = ApiKeysOptions<
  string,
  SignedInUser,
  UserIdType,
  { type: UserIdType },
  true,
  string,
  string,
  IncomingMessage,
  ServerResponse
> &
  PrefixOptions<never>

/** The options that say with what keys begin. */
export type PrefixOptions<Environment extends string> = [Environment] extends [never]
  ? {
      /**
       * The beginning of every plain-text key, by which people and secret scanners recognize it: 2 to 16 characters, lower-case
       * letters, digits and underscores, for example `acme` or `acme_live`.
       */
      keyPrefix: string
      acceptedEnvironments?: 'There are no environments to accept'
    }
  : {
      keyPrefix?: 'Each of the environments has a prefix'
      /** The environments whose keys pass a guard, or a call, that names none. At least one. */
      acceptedEnvironments: readonly NoInfer<Environment>[]
    }

/** The options of an environment. */
export interface EnvironmentOptions {
  /** The beginning of every plain-text key of the environment. */
  prefix: string
  /**
   * The prefixes that keys of the environment had before.
   *
   * @default []
   */
  formerPrefixes?: readonly string[] | undefined
  /** How often each key of the environment may be used. They replace limits of the app with the same names, and `null` removes one. */
  limits?: LimitOverrides | undefined
}
