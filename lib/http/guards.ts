import type { IncomingMessage, ServerResponse } from 'node:http'

import { ApiKeysError, MissingPermissionError, type LimitState } from '../errors'
import type { Settings } from '../read-options'
import { AcceptedKey, type VerifiedApiKey } from '../verification/verified-key'
import type { Answers } from './answer'
import {
  checkCost,
  checkOptions,
  checkPermissionNames,
  refuseRequest,
  type AuthenticateOptions,
  type GuardOptions,
  type RequestOptions,
} from './guard-options'
import { createInquiry, type InquiryParts } from './inquiry'
import type { GuardedRequest } from './request'
import type { Accepted, Demand } from './request-memory'

/**
 * A middleware of ours. It asks nothing of the types of a route, so that behind it `req.params`, `req.body` and the
 * like keep theirs, under the types of Express 4 as well as 5.
 */
export type Guard = (req: IncomingMessage, res: ServerResponse, next: Next) => void

type Next = (error?: unknown) => void

export interface Guards<Permission extends string = string, UserId = string | number> {
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
}

interface GuardParts extends InquiryParts {
  answers: Answers
  settings: Pick<Settings, 'permissions' | 'currentUser'>
}

export function createGuards(parts: GuardParts): Guards {
  const { authenticator, charges, answers, settings } = parts

  /** With a key that is remembered, the guard ends without a promise or a closure. */
  function createGuard(caller: string, demand: Demand, options: AuthenticateOptions): Guard {
    if (options.orSignedIn === true && !settings.currentUser) {
      throw new TypeError(`${caller}: orSignedIn needs the option currentUser of createApiKeys`)
    }
    const inquire = createInquiry(parts, demand, options)

    return function guard(req, res, next) {
      const decision = inquire(req, res)

      if (decision === null) next()
      else if (decision instanceof Promise) decideLater(decision, req, res, next)
      else deny(decision, req, res, next)
    }
  }

  function decideLater(
    decision: Promise<ApiKeysError | null>,
    req: GuardedRequest,
    res: ServerResponse,
    next: Next,
  ) {
    decision
      .then((error) => (error ? deny(error, req, res, next) : next()))
      .catch((error: unknown) => deny(error, req, res, next))
  }

  const deny: Answers['refuse'] = (failure, req, res, next) => {
    authenticator.reportDenied(req, failure)
    answers.refuse(failure, req, res, next)
  }

  function getApiKey(req: object): VerifiedApiKey {
    return acceptedOf(req).apiKey
  }

  function acceptedOf(req: object): Accepted {
    const accepted = authenticator.recall(req)?.accepted
    if (accepted) return accepted
    throw new TypeError(
      'getApiKey: this request has no API key. Put requirePermission() or authenticate() before the handler.',
    )
  }

  return {
    requirePermission(permission, options = {}) {
      refuseRequest('requirePermission', permission)
      const needed = [permission].flat()
      checkPermissionNames('requirePermission', needed, settings.permissions)
      checkOptions('requirePermission', options, ['orSignedIn', 'cost'])
      const guard = createGuard('requirePermission', (apiKey) => lacksSome(apiKey, needed), options)

      return function requirePermissionGuard(req, res, next) {
        guard(req, res, next)
      }
    },

    requireAnyPermission(permissions, options = {}) {
      refuseRequest('requireAnyPermission', permissions)
      if (!Array.isArray(permissions)) {
        throw new TypeError('requireAnyPermission: takes a list of permissions')
      }
      const needed = [...permissions]
      checkPermissionNames('requireAnyPermission', needed, settings.permissions)
      checkOptions('requireAnyPermission', options, ['orSignedIn', 'cost'])
      const guard = createGuard(
        'requireAnyPermission',
        (apiKey) => lacksAll(apiKey, needed),
        options,
      )

      return function requireAnyPermissionGuard(req, res, next) {
        guard(req, res, next)
      }
    },

    authenticate(options = {}) {
      refuseRequest('authenticate', options)
      checkOptions('authenticate', options, ['orSignedIn', 'optional', 'cost'])
      const guard = createGuard('authenticate', () => null, options)

      return function authenticateGuard(req, res, next) {
        guard(req, res, next)
      }
    },

    async authenticateRequest(req, options = {}) {
      checkOptions('authenticateRequest', options, ['permissions', 'cost', 'res'])
      const { permissions = [], cost, res } = options
      const needed = [permissions].flat()
      if (needed.length > 0) {
        checkPermissionNames('authenticateRequest', needed, settings.permissions)
      }

      try {
        const inquire = createInquiry(parts, (apiKey) => lacksSome(apiKey, needed), { cost })
        const error = await inquire(req, res)
        if (error) throw error
        return getApiKey(req)
      } catch (error) {
        authenticator.reportDenied(req, error)
        throw error instanceof ApiKeysError ? answers.withChallenge(error) : error
      }
    },

    // It takes no arguments. Express hands it a request if the app forgot to call it.
    maskKeys(...given: readonly unknown[]) {
      refuseRequest('maskKeys', given[0])
      return function maskKeysMiddleware(req, _res, next) {
        authenticator.mask(req)
        next()
      }
    },

    getApiKey,

    async consume(subject, cost = 1) {
      checkCost('consume', cost, 1)
      if (typeof subject !== 'object' || subject === null) {
        throw new TypeError('consume: takes a request or the apiKey of a verdict')
      }
      if (AcceptedKey.isOne(subject)) return charges.consume(subject, cost, undefined)

      const { apiKey, bearer } = acceptedOf(subject)
      return charges.consume(apiKey, cost, bearer.response)
    },

    hasPermission(apiKey, permission) {
      const needed = [permission].flat()
      checkPermissionNames('hasPermission', needed, settings.permissions)

      return lacksSome(apiKey, needed) === null
    },
  }
}

function lacksSome(
  { permissions }: Pick<VerifiedApiKey, 'permissions'>,
  needed: readonly string[],
): ApiKeysError | null {
  const missing = needed.filter((permission) => !permissions.includes(permission))
  return missing.length > 0 ? new MissingPermissionError(needed, missing) : null
}

function lacksAll({ permissions }: VerifiedApiKey, needed: readonly string[]): ApiKeysError | null {
  const hasOne = needed.some((permission) => permissions.includes(permission))
  return hasOne ? null : new MissingPermissionError(needed, needed)
}
