import type { IncomingMessage } from 'node:http'

import type { ConsoleOptions } from './console/options'
import type { LimitState } from './errors'
import type { Demand } from './http/demand'
import type { Explanation, ExplainOptions } from './http/explain'
import type { AuthenticateOptions, GuardOptions, RequestOptions } from './http/guard-options'
import type { Guard } from './http/guards'
import type { AdminRouterOptions, RouterOptions } from './http/access'
import type { ApiKeyStrategy } from './http/strategy'
import type { AnyApp, App } from './keys/app'
import type { ApiKeyNotices, Listener } from './keys/emitter'
import type { LeakRouterOptions } from './leaks/options'
import type { Scanner } from './leaks/scanner-rules'
import type { Lifecycle } from './lifecycle/types'
import type { McpVerifier, McpVerifierOptions } from './tokens/mcp-verifier'
import type { TokenRouterOptions } from './tokens/options'
import type { InstrumentOptions } from './metrics/options'
import type { GuardsOptions, OpenApiDocument, OpenApiOptions } from './openapi/options'
import type { SignedInUser } from './options'
import type { Health, HealthQuestion } from './verification/health'
import type { VerifiedApiKey } from './verification/verified-key'
import type { Verdict, VerifyOptions } from './verification/verify'

/** API keys for one app: guards, routers, a Passport strategy, and functions for use without HTTP. */
export interface ApiKeys<
  A extends App = AnyApp,
  User extends SignedInUser = SignedInUser,
> extends Lifecycle<A> {
  /**
   * Lets a request through only if its API key holds the permissions that it demands (RFC 6750, section 3.1): one, all of a list, or
   * any of several.
   *
   * @example
   * app.post('/graphs/:id/execute', apiKeys.requirePermission('EXECUTE_GRAPH'), executeGraph)
   * @example
   * apiKeys.requirePermission({ any: ['ADMIN', { all: ['READ_GRAPH', 'READ_BLOCK'] }] })
   */
  requirePermission(
    demand: Demand<A['permission']>,
    options?: GuardOptions<A['environment'], A['resource']>,
  ): Guard
  /** Lets a request through only if it carries a good API key, whatever its permissions. */
  authenticate(options?: AuthenticateOptions<A['environment'], A['resource']>): Guard
  /**
   * Authenticates a request without a middleware, for example in GraphQL or tsoa. Resolves to its key, and rejects with the
   * `ApiKeysError` of a guard, which has the `status` and the `headers` of the answer. Without permissions, or with an empty list,
   * it accepts every good key.
   *
   * A request is judged once, by the first call or guard. Later calls with the same request do not notice that the key was
   * revoked. If a request lasts, like that of a WebSocket, watch the `signal` of the key.
   *
   * @example
   * const { userId } = await apiKeys.authenticateRequest(req, { permissions: 'READ_GRAPH' })
   */
  authenticateRequest(
    req: IncomingMessage,
    options?: RequestOptions<A['permission'], A['environment'], A['resource']>,
  ): Promise<VerifiedApiKey<A>>
  /**
   * Makes a middleware that masks the keys in the headers of every request, and judges none. Put it before software that logs
   * requests. Guards behind it know the key all the same.
   *
   * @example
   * app.use(apiKeys.maskKeys(), pinoHttp())
   */
  maskKeys(): Guard
  /**
   * Returns the API key of a request. Call it behind a guard: without a key it throws a `TypeError`.
   *
   * @example
   * const graphs = await Graph.findAll({ where: { userId: apiKeys.getApiKey(req).userId } })
   */
  getApiKey(req: object): VerifiedApiKey<A>
  /**
   * Counts further uses of a key towards its limits, for work that turns out to be more than its guard says. Takes a request
   * behind a guard, or a key that `verify` has accepted, and returns the state of the limits. If the limits do not allow the uses,
   * it counts none and rejects with a `RateLimitedError`: pass the error on to `next`.
   *
   * @example
   * await apiKeys.consume(req, nodes.length)
   */
  consume(subject: object, cost?: number): Promise<readonly LimitState[]>
  /**
   * True if the permissions of a key satisfy a demand, as that of a guard, with all that they imply. The status, the expiry and the
   * owner of the key do not matter.
   */
  hasPermission(
    apiKey: { readonly permissions: readonly string[] },
    demand: Demand<A['permission']>,
  ): boolean
  /**
   * Makes the router with which signed-in users manage their own keys; with `organization`, the router with which members manage the keys
   * of an organization.
   *
   * @example
   * app.use('/api-keys', apiKeys.router())
   * app.use(
   *   '/organizations/:organizationId/api-keys',
   *   apiKeys.router({ organization: (req, user) => membership(req.params.organizationId, user.id) }),
   * )
   */
  router(options?: RouterOptions<A['permission'], User>): Guard
  /** Makes the router with which administrators manage the keys of all users. It needs the option `isAdmin`. */
  adminRouter(options?: AdminRouterOptions): Guard
  /**
   * Returns the OpenAPI 3.1 document of the routers, for example to make a client from it.
   *
   * @example
   * app.get('/openapi.json', (req, res) => res.json(apiKeys.openApi({ servers: [{ url: 'https://api.example.com' }] })))
   */
  openApi(options?: OpenApiOptions): OpenApiDocument
  /**
   * Returns a copy of your own OpenAPI document (3.0 or 3.1) that also says what guards answer. An operation demands a key and its
   * permissions by `security: [{ apiKey: ['READ_GRAPH'] }]`, as swagger-jsdoc, tsoa and zod-to-openapi write it. The copy has the security
   * schemes, and the refusals of guards as answers. Throws a `TypeError` if no operation demands a key, or if one demands a permission that
   * the app does not have.
   *
   * @example
   * app.get('/openapi.json', (req, res) => res.json(apiKeys.documentGuards(document)))
   */
  documentGuards<Document extends object>(document: Document, options?: GuardsOptions): Document
  /**
   * Makes the pages on which signed-in users manage their own keys; with `organization`, the pages on which members manage the keys of an
   * organization; with `admin`, the pages on which administrators manage all keys. They work without JavaScript, and under a strict
   * Content-Security-Policy.
   *
   * @example
   * app.use('/settings/api-keys', apiKeys.console({ title: 'Acme', signIn: '/sign-in' }))
   * app.use('/admin/settings/api-keys', apiKeys.console({ admin: true }))
   */
  console(options?: ConsoleOptions<A['permission'], User>): Guard
  /**
   * Makes the router that takes reports of exposed keys, of GitHub, of GitLab and of everyone, by option. It revokes the keys, marks them
   * so that they are never reactivated, and reports them to the listeners of `exposed`. `GET /status` tells a scanner if a key works.
   *
   * @example
   * app.use('/leaks', apiKeys.leakRouter({ github: true, reports: true }))
   */
  leakRouter(options?: LeakRouterOptions): Guard
  /**
   * Returns the rules by which a secret scanner finds the keys of your app, former and imported ones too: text for a `.gitleaks.toml` or a
   * `.secretlintrc.json`, commands for git-secrets, or the fields of custom patterns of GitHub.
   *
   * @example
   * writeFileSync('.gitleaks.toml', apiKeys.scannerRules('gitleaks'))
   */
  scannerRules(scanner: Scanner): string
  /**
   * Makes the router with the token endpoints of OAuth: `POST /introspect` tells other servers what a key may do (RFC 7662), and `POST /revoke`
   * revokes the key that it is sent (RFC 7009).
   *
   * @example
   * app.use('/oauth', apiKeys.tokenRouter({ introspect: { permission: 'INTROSPECT_KEYS' } }))
   */
  tokenRouter(options?: TokenRouterOptions<A>): Guard
  /**
   * Makes a verifier of keys for `requireBearerAuth` of `@modelcontextprotocol/sdk`, for a server that takes keys beside the tokens of an
   * authorization server. The caller that tools get has no plain-text key. A server that takes keys alone is guarded by
   * `authenticate({ mcp: true })`, which answers with more than the SDK can.
   *
   * @example
   * app.use('/mcp', requireBearerAuth({ verifier: apiKeys.mcpVerifier() }))
   */
  mcpVerifier(options?: McpVerifierOptions<A>): McpVerifier<A>
  /**
   * The Passport strategy. Authenticate by its name.
   *
   * @example
   * passport.use(apiKeys.strategy)
   * app.get('/graphs', passport.authenticate('api-key'), listGraphs)
   */
  readonly strategy: ApiKeyStrategy
  /**
   * The paths that pino has to redact so that it prints no key: the headers that carry a key, and `plainTextKey` of a new key.
   *
   * @example
   * app.use(apiKeys.maskKeys(), pinoHttp({ redact: apiKeys.redactionPaths }))
   */
  readonly redactionPaths: string[]
  /**
   * Verifies a plain-text key, and returns the key or the reason why it is not good. Rejects with `database_unavailable` if the
   * database does not answer and the cache is too old to decide.
   */
  verify(
    plainTextKey: string,
    options?: VerifyOptions<A['environment'], A['resource']>,
  ): Promise<Verdict<A>>
  /**
   * Says for each of the conditions of an accepted key if it holds, by what the database has now, for a request that is supposed. It
   * counts no use, no failed attempt, and nothing towards a limit. Show the answer to operators only, because it tells a revoked key
   * from an unknown key. Rejects with `database_unavailable`.
   *
   * @example
   * const { conditions } = await apiKeys.explain(plainTextKey, { permission: 'READ_GRAPH', ip: '203.0.113.7' })
   * console.table(conditions)
   */
  explain(
    plainTextKey: string,
    options?: ExplainOptions<A['permission'], A['environment'], A['resource']>,
  ): Promise<Explanation<A['owner']>>
  /**
   * Adds a listener for events of this process. A change of a key is reported in the process that made it, once it is committed. A
   * listener that fails breaks nothing, and is reported to the listeners of `error`. Returns a function that removes the listener.
   *
   * @example
   * apiKeys.on('revoked', ({ apiKey, reason }) => mail(apiKey.userId, `${apiKey.name} was revoked: ${reason}`))
   */
  on<Name extends keyof ApiKeyNotices>(
    name: Name,
    listener: Listener<ApiKeyNotices<A>[Name]>,
  ): () => void
  /**
   * Reports the keys that are about to expire to the listeners of `expiring`, and returns how many notices all listeners have
   * taken. A process does so by itself, every 5 minutes. Call this from a timer if your processes do not live that long. If another
   * process is reporting, it waits up to 5 seconds, and takes over if that process has died.
   */
  announceExpiring(): Promise<number>
  /** Returns the state of verification in this process. Only the questions `livingKeys` and `probe` make a query. */
  health(options?: HealthQuestion): Promise<Health>
  /**
   * Reports metrics of this process to the OpenTelemetry of your app, and spans if you ask for them. It needs the package
   * `@opentelemetry/api`, and an SDK that has started. Returns a function that ends the reports.
   *
   * @example
   * apiKeys.instrument()
   */
  instrument(options?: InstrumentOptions): () => void
  /**
   * Brings the tables up to this version, and adds the foreign key of the option `users` if it is missing. It is safe to call at
   * every start, in several processes at once.
   */
  migrate(): Promise<void>
  /**
   * Resolves once the uses of keys so far are in the database. The uses of keys whose rows are locked follow with the next write.
   */
  flush(): Promise<void>
  /**
   * Writes pending uses, like `flush`, then closes the connections of the library and drops all signals. Call it when the process
   * ends. The app's Sequelize stays open.
   */
  close(): Promise<void>
}

/**
 * The API keys of any app. A function can take those of every app by this type. It names each member by itself, because the compiler takes
 * `ApiKeys` of two apps for different types.
 */
export type AnyApiKeys = { [Name in keyof ApiKeys]: ApiKeys[Name] }
