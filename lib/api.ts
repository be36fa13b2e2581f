import type { IncomingMessage } from 'node:http'

import type { LimitState } from './errors'
import type { AuthenticateOptions, GuardOptions, RequestOptions } from './http/guard-options'
import type { Guard } from './http/guards'
import type { ApiKeyStrategy } from './http/strategy'
import type { Closable } from './keys/closable'
import type { ApiKeyNotices, Listener } from './keys/emitter'
import type { Lifecycle } from './lifecycle/types'
import type { Health, HealthQuestion } from './verification/health'
import type { VerifiedApiKey } from './verification/verified-key'
import type { Verdict } from './verification/verify'

/** API keys for one app: routers, guards, a Passport strategy, and the same without HTTP. */
export interface ApiKeys<
  Permission extends string = string,
  UserId = string | number,
> extends Lifecycle<Permission, UserId> {
  /**
   * Lets a request through only if its API key holds every permission named (RFC 6750, section 3.1).
   *
   * @example
   * app.post('/graphs/:id/execute', apiKeys.requirePermission('EXECUTE_GRAPH'), executeGraph)
   */
  requirePermission(permission: Permission | readonly Permission[], options?: GuardOptions): Guard
  /** Lets a request through only if its API key holds at least one of the permissions named. */
  requireAnyPermission(permissions: readonly Permission[], options?: GuardOptions): Guard
  /** Lets a request through only if it carries a good API key, whatever its permissions. */
  authenticate(options?: AuthenticateOptions): Guard
  /**
   * Authenticates a request where there is no middleware, as in GraphQL or tsoa. Resolves to its key, and rejects with the
   * `ApiKeysError` that a guard would answer with: `status` and `headers` say how. Without permissions, or with an empty list,
   * it takes every good key.
   *
   * A request is judged once, by the first call or guard. If it lasts, as that of a WebSocket does, watch the `signal` of the
   * key: later calls with the same request do not notice that the key was revoked.
   *
   * @example
   * const { userId } = await apiKeys.authenticateRequest(req, { permissions: 'READ_GRAPH' })
   */
  authenticateRequest(
    req: IncomingMessage,
    options?: RequestOptions<Permission>,
  ): Promise<VerifiedApiKey<Permission, UserId>>
  /**
   * Makes a middleware that masks the keys in the headers of every request, and judges none: put it before what logs
   * requests. Guards behind it know the key all the same.
   *
   * @example
   * app.use(apiKeys.maskKeys(), pinoHttp())
   */
  maskKeys(): Guard
  /**
   * Returns the API key of a request. Throws a `TypeError` where there is none: call it behind a guard.
   *
   * @example
   * const graphs = await Graph.findAll({ where: { userId: apiKeys.getApiKey(req).userId } })
   */
  getApiKey(req: object): VerifiedApiKey<Permission, UserId>
  /**
   * Counts further uses of a key towards its limits: for work that turns out to be more than its guard says. Takes a request
   * behind a guard, or a key that `verify` has accepted; returns where the key stands. Rejects with a `RateLimitedError`
   * where the limits do not allow it, which then is not counted: pass it on to `next`.
   *
   * @example
   * await apiKeys.consume(req, nodes.length)
   */
  consume(subject: object, cost?: number): Promise<readonly LimitState[]>
  /** Whether a key holds all of the permissions named. It says nothing of the key's status or expiry. */
  hasPermission(
    apiKey: { readonly permissions: readonly string[] },
    permission: Permission | readonly Permission[],
  ): boolean
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
