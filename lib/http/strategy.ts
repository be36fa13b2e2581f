import type { IncomingMessage } from 'node:http'

import { Strategy as BearerStrategy } from 'passport-http-bearer'

import type { ApiKeysError } from '../errors'
import { setFields } from '../limits/fields'
import type { MaybePromise } from '../options'
import type { Settings } from '../read-options'
import type { GuardConditions } from '../verification/guard-conditions'
import type { Answers } from './answer'
import type { Authenticator } from './authentication'
import type { Accepted, Authentication } from './caller'
import type { RateLimits } from './rate-limits'
import type { DecisionLog } from './decision-log'
import type { GuardedRequest } from './request'

/** The strategy as Passport sees it. */
export interface ApiKeyStrategy {
  readonly name: 'api-key'
  authenticate(req: IncomingMessage, options?: unknown): void
}

/** The functions that Passport adds to a strategy for each request. */
interface Actions {
  success(user: object, info: object): void
  fail(challenge: string | undefined, status: number): void
  error(error: Error): void
}

interface StrategyParts {
  authenticator: Authenticator
  rateLimits: RateLimits
  answers: Answers
  decisionLog: DecisionLog
  settings: Pick<Settings, 'environments'>
}

/** Makes the Passport strategy. Authenticate by its name: `passport.authenticate('api-key')`. */
export function createStrategy(parts: StrategyParts): ApiKeyStrategy {
  const { authenticator, rateLimits, answers, decisionLog, settings } = parts
  const conditionsOf = (options: { environment?: unknown } = {}): GuardConditions => ({
    environments: settings.environments.acceptedBy('passport.authenticate', options.environment),
    refusePermissions: () => null,
    resource: null,
  })
  const usual = conditionsOf()

  /** Counts a request with a key as one use of the key. A guard may count more. */
  function count(
    req: IncomingMessage,
    authentication: Authentication,
    conditions: GuardConditions,
  ): MaybePromise<Authentication> {
    if (authentication.kind === 'refused') authenticator.reportDenied(req, authentication.error)
    if (authentication.kind !== 'accepted') return authentication

    const refusal = authentication.caller.meet(conditions, authentication.key)
    if (refusal) return settle(req, authentication, refusal, authenticator)
    const { limits } = authentication.key.row.policy
    const error = limits.length === 0 ? null : rateLimits.countRequest(authentication, 1)
    return error instanceof Promise
      ? error.then((error) => settle(req, authentication, error, authenticator))
      : settle(req, authentication, error, authenticator)
  }

  /** Reports the result of a request to Passport. */
  function report(
    req: GuardedRequest,
    authentication: Authentication,
    { success, fail, startsSession }: Actions & { startsSession: boolean },
  ) {
    const refusal = authentication.kind === 'accepted' ? null : authentication.error
    if (decisionLog.enabled) decisionLog.print(req, 'passport.authenticate()', refusal)
    if (authentication.kind !== 'accepted') {
      const { status, headers } = answers.withChallenge(authentication.error)
      // Passport takes only the challenge and the status from a failure.
      const { 'WWW-Authenticate': challenge, ...others } = headers
      if (status === 429) setFields(req.res, others)
      return fail(challenge, status)
    }

    const { key } = authentication
    // Passport needs an object. It has no id, because code that reads `req.user.id` would take the id of an organization for a user's.
    authentication.user ??= { owner: key.row.owner.shown }
    const { user } = authentication
    // If the app has sessions, a callback of the app may start one all the same.
    if (startsSession || 'session' in req) withoutSession(req, user)
    success(user, { scope: key.permissions.names })
  }

  return new (class ApiKeyStrategy extends BearerStrategy<() => void> {
    override readonly name = 'api-key'

    constructor() {
      // The stock strategy calls this function, and also reads keys from body and query. `authenticate` replaces all of that.
      super(() => {})
    }

    override authenticate(
      req: IncomingMessage,
      options?: { session?: boolean; environment?: unknown },
    ) {
      // Passport binds these to the request just before this call. If an app passes the strategy instead of its name, Passport
      // replaces them at the next request, and so they are read at once. The types do not declare them.
      const { success, fail, error } = this as unknown as Actions
      const startsSession = options?.session !== false
      const actions = { success, fail, error, startsSession }
      const conditions = options?.environment === undefined ? usual : conditionsOf(options)

      const authentication = authenticator.authenticate(req)
      const counted =
        authentication instanceof Promise
          ? authentication.then((authentication) => count(req, authentication, conditions))
          : count(req, authentication, conditions)
      if (!(counted instanceof Promise)) return report(req, counted, actions)

      counted
        .then((authentication) => report(req, authentication, actions))
        .catch((failure: unknown) => {
          authenticator.reportDenied(req, failure)
          error(answers.toError(failure))
        })
    }
  })()
}

/** Passport's `logIn`. Its options may be left out. */
type LogIn = (user: object, ...rest: [options: object, done: Done] | [done: Done]) => void

type Done = (error?: unknown) => void

const keyLogIn = Symbol('express-api-keys.logIn')

/** A request as JavaScript sees it: the declared overloads of `logIn` cannot be passed on. */
interface LogInRequest {
  logIn: LogIn
  login: LogIn
  /** The user of the key that it came with, and the function that logged users in before. */
  [keyLogIn]?: { user: object; logIn: LogIn }
}

/**
 * Keeps Passport from turning a key into a signed-in browser session. Passport does that on routes without `{ session:
 * false }`, and callbacks of the app may do it. As long as the request lasts, a login of this user starts no session.
 */
function withoutSession(req: IncomingMessage, user: object) {
  const request = req as unknown as LogInRequest
  request[keyLogIn] = { user, logIn: request[keyLogIn]?.logIn ?? request.logIn }
  request.logIn = logInWithoutSession
  request.login = logInWithoutSession
}

function logInWithoutSession(
  this: LogInRequest,
  user: object,
  ...rest: [options: object, done: Done] | [done: Done]
) {
  const known = this[keyLogIn]
  if (!known) throw new TypeError('logIn: call it as a method of the request')
  if (user !== known.user) return known.logIn.call(this, user, ...rest)

  const [options, done] = rest.length === 1 ? [{}, rest[0]] : rest
  known.logIn.call(this, user, { ...options, session: false }, done)
}

function settle(
  req: IncomingMessage,
  accepted: Accepted,
  error: ApiKeysError | null,
  authenticator: Authenticator,
): Authentication {
  if (!error) {
    authenticator.reportVerified(accepted)
    return accepted
  }
  authenticator.reportDenied(req, error)
  // Another strategy, or a callback of the app, may let the request go on.
  return accepted.caller.reject(error)
}
