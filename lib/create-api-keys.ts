import { migrate } from '../migrations'
import { asGuest } from '../models/guest'
import type { UserIdType } from '../models/storage-options'
import { tablesOf } from '../models/tables'
import { createBackground } from './database/background'
import { createAnswers } from './http/answer'
import { createAdminRouter } from './http/admin-router'
import { createAuthenticator } from './http/authentication'
import { createCredentialReader } from './http/credentials'
import { refuseRequest } from './http/guard-options'
import { createGuards, type Guard, type Guards } from './http/guards'
import { createOwnerRouter } from './http/owner-router'
import { createPermissionList } from './http/permission-list'
import { createCharges } from './http/rate-limits'
import { redactionPathsOf } from './http/redaction'
import { createStrategy, type ApiKeyStrategy } from './http/strategy'
import { createAudit } from './audit/trail'
import { createExpiryNotices } from './lifecycle/expiry-notices'
import { createEmitter, type ApiKeyNotices, type Listener } from './keys/emitter'
import { createLifecycle } from './lifecycle/commands'
import type { Lifecycle } from './lifecycle/types'
import { createOwnChanges } from './database/own-changes'
import { createParsers } from './keys/input'
import { createSecretFormat } from './keys/secret'
import { createSigner } from './audit/signing'
import { createInTurn } from './database/turns'
import { createUsageStore } from './usage/report'
import { migrating } from './database/migrating'
import type {
  AnyOptions,
  ApiKeysOptions,
  AppRequest,
  AppResponse,
  SignedInUser,
  UserIdOf,
} from './options'
import { readOptions } from './read-options'
import { createAsking } from './verification/ask-grantable'
import { systemClock } from './database/clock'
import type { Health } from './verification/health'
import { createVerification, type HealthQuestion } from './verification/verification'
import type { Closable } from './keys/closable'
import type { Verdict } from './verification/verify'

/** API keys for one app: routers, guards, a Passport strategy, and the same without HTTP. */
export interface ApiKeys<Permission extends string = string, UserId = string | number>
  extends Lifecycle<Permission, UserId>, Guards<Permission, UserId> {
  /**
   * Makes the router with which signed-in users manage their own keys.
   *
   * @example
   * app.use('/api-keys', apiKeys.router())
   */
  router(): Guard
  /** Makes the router with which administrators manage everyone's keys. It needs the option `isAdmin`. */
  adminRouter(): Guard
  /**
   * The Passport strategy. Authenticate by its name.
   *
   * @example
   * passport.use(apiKeys.strategy)
   * app.get('/graphs', passport.authenticate('api-key'), listGraphs)
   */
  readonly strategy: ApiKeyStrategy
  /**
   * The paths that pino has to redact so that it prints no key: headers that carry a key, and `plainTextKey` of a new key.
   *
   * @example
   * app.use(apiKeys.maskKeys(), pinoHttp({ redact: apiKeys.redactionPaths }))
   */
  readonly redactionPaths: string[]
  /**
   * Says whether a plain-text key is good at this moment, and whose it is. Rejects with `database_unavailable` where the
   * database cannot be asked, and nothing that is remembered may be relied on.
   *
   * The key's `signal` is kept until it aborts, or until `until` ends: a response, a request, a socket, a WebSocket, or another
   * event emitter that emits `close`, `finish` or `disconnect`. Without `ip`, the address that the key came from, a key with
   * `allowedIps` is refused.
   */
  verify(
    plainTextKey: string,
    options?: { until?: Closable; ip?: string | undefined },
  ): Promise<Verdict<Permission, UserId>>
  /**
   * Has a function told of what happens to keys in this process, once it has happened: of changes that other processes
   * make, those tell. A function that fails breaks nothing; `on('error', ...)` hears of it. Returns a function that ends it.
   *
   * @example
   * apiKeys.on('revoked', ({ apiKey, reason }) => mail(apiKey.userId, `${apiKey.name} was revoked: ${reason}`))
   */
  on<Name extends keyof ApiKeyNotices>(
    name: Name,
    listener: Listener<ApiKeyNotices<Permission, UserId>[Name]>,
  ): () => void
  /**
   * Reports the keys that are due to the listeners of `expiring`, and returns how many notices all listeners have taken. A
   * process that lives long does so by itself, every 5 minutes: this is for those that do not, called by a timer of yours. If
   * another process is reporting, it waits up to 5 seconds, and takes over if that process has died.
   */
  announceExpiring(): Promise<number>
  /** How verification in this process is doing. Makes no query, unless it is to count the `livingKeys` or to `probe` the database. */
  health(options?: HealthQuestion): Promise<Health>
  /**
   * Brings the tables up to this version, and adds the foreign key of the option `users` where it is missing. Safe to call at
   * every start, in several processes at once.
   */
  migrate(): Promise<void>
  /**
   * Resolves once the uses of keys so far are in the database, but for keys whose rows somebody else has locked: those
   * follow with the next write.
   */
  flush(): Promise<void>
  /**
   * For when the process ends: writes what is pending, like `flush`, then closes our own connections and lets go of all
   * signals. The app's Sequelize stays open.
   */
  close(): Promise<void>
}

/**
 * Sets up API keys for an app. Nothing is opened or queried before the first call that needs the database.
 *
 * @example
 * const apiKeys = createApiKeys({
 *   sequelize,
 *   keyPrefix: 'acme',
 *   permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'],
 *   currentUser: (req) => req.user,
 * })
 * @throws {TypeError} for options that make no sense
 */
export function createApiKeys<
  const Permission extends string,
  User extends SignedInUser = SignedInUser,
  Type extends UserIdType = 'text',
  Req = AppRequest,
  Res = AppResponse,
>(
  options: ApiKeysOptions<Permission, User, Type, Req, Res> & VisibleNames<Permission>,
): ApiKeys<Permission, UserIdOf<Type>> {
  // Inside, permissions are strings and users have ids: that names and types fit together is checked out here.
  const settings = readOptions(options as unknown as AnyOptions)
  const { storage } = settings
  const { schema, userIdType } = storage
  const background = createBackground()

  const sequelize = asGuest(settings.sequelize)
  const inTurn = createInTurn(sequelize)
  const emitter = createEmitter()
  const signer = createSigner(settings)
  const tables = tablesOf(schema)
  const ownChanges = createOwnChanges(systemClock)
  const audit = createAudit({
    ...settings,
    sequelize,
    inTurn,
    tables,
    userIdType,
    signer,
    emitter,
    ownChanges,
  })
  const format = createSecretFormat(settings)
  const parse = createParsers({ ...settings, userIdType })
  const verification = createVerification({
    ...settings,
    background,
    appSequelize: settings.sequelize,
    sequelize,
    tables,
    signer,
    userIdType,
    format,
    emitter,
    ownChanges,
  })
  const { verify, verifyAlone, rateLimiter, recorder, writer } = verification
  const { health, flush } = verification
  const { noteDenied, noteRateLimited } = recorder
  const grantable =
    settings.grantable &&
    createAsking({
      grantable: settings.grantable,
      onFailure: (userId, error) => emitter.emit('grantable_unavailable', { userId, error }),
      isAwaited: true,
    })
  const usage = createUsageStore({
    ...settings,
    sequelize,
    inTurn,
    tables,
    userIdType,
    recorder,
    writer,
  })
  const lifecycle = createLifecycle({
    ...settings,
    sequelize,
    tables,
    userIdType,
    parse,
    format,
    grantable,
    emitter,
    background,
    inTurn,
    audit,
    usage,
    verification,
  })
  const expiryNotices = createExpiryNotices({
    ...settings,
    sequelize,
    tables,
    background,
    lifecycle,
    emitter,
  })

  const credentials = createCredentialReader({ ...format, header: settings.header })
  const authenticator = createAuthenticator({
    credentials,
    verify,
    noteDenied,
    emitter,
    parse,
    settings,
  })
  const answers = createAnswers(settings)
  const charges = createCharges({ rateLimiter, noteRateLimited, emitter })
  const listPermissions = createPermissionList({ askGrantable: grantable, settings })
  const http = {
    lifecycle,
    parse,
    authenticator,
    listPermissions,
    charges,
    noteDenied,
    answers,
    settings,
  }

  async function close() {
    expiryNotices.stop()
    await verification.close()
  }

  const apiKeys = {
    ...lifecycle,
    ...createGuards(http),
    verify: verifyAlone,
    announceExpiring: expiryNotices.announceExpiring,
    health,
    flush,
    close,
    // To its users a router is a middleware, which asks nothing of the types of Express.
    router: (...given: readonly unknown[]) => {
      refuseRequest('router', given[0])
      return createOwnerRouter(http) as unknown as Guard
    },
    adminRouter: (...given: readonly unknown[]) => {
      refuseRequest('adminRouter', given[0])
      return createAdminRouter(http) as unknown as Guard
    },
    redactionPaths: redactionPathsOf(settings.header),
    strategy: createStrategy({ authenticator, charges, answers }),
    on: (name, listener) => {
      const off = emitter.on(name, listener)
      if (name === 'expiring') expiryNotices.start()
      return off
    },
    migrate: () => migrating(() => migrate(settings.sequelize, storage)),
  } satisfies ApiKeys

  // And out again: at run time the strings are the app's permissions, and ids have the type of its column.
  return apiKeys as unknown as ApiKeys<Permission, UserIdOf<Type>>
}

/** Refuses a `string[]`: with names that the compiler cannot see, no guard would be checked. */
type VisibleNames<Permission extends string> = string extends Permission
  ? { permissions: 'The names must be visible to the compiler: write them here, or add `as const`' }
  : unknown
