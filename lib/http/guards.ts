import type { IncomingMessage, ServerResponse } from 'node:http'

import { ApiKeysError, type LimitState } from '../errors'
import type { MaybePromise } from '../options'
import type { Settings } from '../read-options'
import { checkResource, type GuardConditions } from '../verification/guard-conditions'
import { acceptanceOf, type VerifiedApiKey } from '../verification/verified-key'
import type { Answers } from './answer'
import { withAuthInfo } from './auth-info'
import type { Authenticator } from './authentication'
import type { Accepted, Authentication } from './caller'
import type { Check, DecisionLog } from './decision-log'
import { createPermissionCheck, type Demand, type PermissionCheck } from './demand'
import {
  checkCost,
  checkOptions,
  refuseOther,
  refuseRequest,
  type AuthenticateOptions,
  type GuardOptions,
  type RequestOptions,
} from './guard-options'
import type { RateLimits } from './rate-limits'
import type { GuardedRequest } from './request'

/**
 * A middleware of the library. It demands nothing of the types of a route, so that `req.params` and `req.body` keep their types
 * behind it, with the types of Express 4 and of Express 5.
 */
export type Guard = (req: IncomingMessage, res: ServerResponse, next: Next) => void

type Next = (error?: unknown) => void

/** The parts of the library that guards use. */
export interface GuardParts {
  authenticator: Authenticator
  rateLimits: RateLimits
  answers: Answers
  decisionLog: DecisionLog
  settings: Pick<Settings, 'environments' | 'permissions' | 'resources' | 'currentUser'>
}

/** Makes the guards of an app, and the same checks without a middleware. */
export function createGuards(parts: GuardParts) {
  return { ...createMiddlewares(parts), ...createCalls(parts) }
}

/** Makes the check of one guard: the key, the conditions of the guard on it, then the limits. */
function createCheck(
  parts: GuardParts,
  conditions: GuardConditions,
  options: AuthenticateOptions,
): Check {
  const { authenticator, rateLimits, settings } = parts
  const { optional, orSignedIn, cost = 1 } = options

  function decide(
    req: GuardedRequest,
    authentication: Authentication,
  ): MaybePromise<ApiKeysError | null> {
    if (authentication.kind !== 'accepted') {
      const { kind, error } = authentication
      if (kind === 'refused') return error
      if (optional === true) return null
      return orSignedIn === true ? unlessSignedIn(req, error) : error
    }

    const { key, caller } = authentication
    const error = caller.meet(conditions, key)
    if (error) return error

    if (key.row.policy.limits.length > 0) {
      const refusal = rateLimits.countRequest(authentication, cost)
      if (refusal instanceof Promise)
        return refusal.then((refusal) => refusal ?? pass(authentication))
      if (refusal) return refusal
    }
    return pass(authentication)
  }

  function pass(accepted: Accepted): null {
    authenticator.reportVerified(accepted)
    return null
  }

  async function unlessSignedIn(req: GuardedRequest, error: ApiKeysError) {
    // The key of another instance may have put its owner on the request, who has not signed in.
    if (authenticator.carriesKey(req)) return error
    return (await settings.currentUser?.(req)) ? null : error
  }

  return function check(req, res) {
    const authentication = authenticator.authenticate(req, res)
    return authentication instanceof Promise
      ? authentication.then((authentication) => decide(req, authentication))
      : decide(req, authentication)
  }
}

function createMiddlewares(parts: GuardParts) {
  const { authenticator, answers, decisionLog, settings } = parts

  /** With a cached key, the guard ends without a promise or a closure. */
  function createGuard(
    name: string,
    demand: unknown,
    refusePermissions: PermissionCheck,
    options: AuthenticateOptions<string, string>,
  ): Guard {
    if (options.orSignedIn === true && !settings.currentUser) {
      throw new TypeError(`${name}: orSignedIn needs the option currentUser of createApiKeys`)
    }
    checkResource(name, options.resource, 'function', settings.resources)
    // The functions of the app are asked with the requests that Express passes to the guard.
    const resource = options.resource as GuardConditions['resource']
    const environments = settings.environments.acceptedBy(name, options.environment)
    const check = decisionLog.follow(
      createCheck(parts, { environments, refusePermissions, resource }, options),
      describeDemand(name, demand),
    )

    function guard(req: GuardedRequest, res: ServerResponse, next: Next) {
      let refusal: ReturnType<Check>
      try {
        refusal = check(req, res)
      } catch (error) {
        // A function of the app may throw anything. With `undefined`, Express would go on.
        return deny(error, req, res, next)
      }

      if (refusal === null) next()
      else if (refusal instanceof Promise) finishLater(refusal, req, res, next)
      else deny(refusal, req, res, next)
    }
    // Stack traces of the app, and tracers, show the name.
    const middleware = options.mcp === true ? withAuthInfo(guard, authenticator) : guard
    return Object.defineProperty(middleware, 'name', { value: `${name}Guard` })
  }

  function finishLater(
    refusal: Promise<ApiKeysError | null>,
    req: GuardedRequest,
    res: ServerResponse,
    next: Next,
  ) {
    refusal
      .then((error) => (error ? deny(error, req, res, next) : next()))
      .catch((error: unknown) => deny(error, req, res, next))
  }

  function deny(failure: unknown, req: GuardedRequest, res: ServerResponse, next: Next) {
    authenticator.reportDenied(req, failure)
    answers.refuse(failure, req, res, next)
  }

  return {
    requirePermission(demand: Demand, options: GuardOptions<string, string> = {}): Guard {
      const name = 'requirePermission'
      refuseRequest(name, demand)
      const check = createPermissionCheck(name, demand, settings.permissions)
      checkOptions(name, options, ['orSignedIn', 'cost', 'mcp', 'resource', 'environment'])
      return createGuard(name, demand, check, options)
    },

    authenticate(options: AuthenticateOptions<string, string> = {}): Guard {
      const name = 'authenticate'
      refuseRequest(name, options)
      checkOptions(name, options, [
        'optional',
        'orSignedIn',
        'cost',
        'mcp',
        'resource',
        'environment',
      ])
      // It demands nothing, unless it is told to.
      const { resource = null } = options
      return createGuard(name, undefined, demandNothing, { ...options, resource })
    },

    // It takes no arguments. If the app has not called it, Express passes a request.
    maskKeys(...given: readonly unknown[]): Guard {
      refuseRequest('maskKeys', given[0])
      return function maskKeysMiddleware(req, _res, next) {
        authenticator.mask(req)
        next()
      }
    },
  }
}

function createCalls(parts: GuardParts) {
  const { authenticator, rateLimits, answers, decisionLog, settings } = parts

  function acceptedOf(req: object, caller: string): Accepted {
    refuseOther(caller, req)
    const accepted = authenticator.recall(req)?.accepted
    if (accepted) return accepted
    throw new TypeError(
      `${caller}: this request has no API key. Put requirePermission() or authenticate() before the handler.`,
    )
  }

  return {
    async authenticateRequest(
      req: IncomingMessage,
      options: RequestOptions<string, string, string> = {},
    ): Promise<VerifiedApiKey> {
      const name = 'authenticateRequest'
      const { environments } = settings
      refuseOther(name, req)
      checkOptions(name, options, ['permissions', 'cost', 'res', 'resource', 'environment'])
      const { permissions = [], cost, res, resource } = options
      checkResource(name, resource, 'object', settings.resources)
      // Without permissions it demands nothing, like `authenticate`.
      const demandsNothing = isEmpty(permissions)
      const named = resource === undefined && demandsNothing ? null : resource
      const conditions = {
        environments: environments.acceptedBy(name, options.environment),
        refusePermissions: demandsNothing
          ? demandNothing
          : createPermissionCheck(name, permissions, settings.permissions),
        resource: named && (() => named),
      }

      try {
        const check = decisionLog.follow(
          createCheck(parts, conditions, { cost }),
          describeDemand(name, permissions),
        )
        const error = await check(req, res)
        if (error) throw error
        return acceptedOf(req, name).key.apiKey
      } catch (error) {
        authenticator.reportDenied(req, error)
        throw error instanceof ApiKeysError ? answers.withChallenge(error) : error
      }
    },

    getApiKey(req: object): VerifiedApiKey {
      return acceptedOf(req, 'getApiKey').key.apiKey
    },

    async consume(subject: object, cost = 1): Promise<readonly LimitState[]> {
      checkCost('consume', cost, 1)
      if (typeof subject !== 'object' || subject === null) {
        throw new TypeError('consume: takes a request or the apiKey of a verdict')
      }
      const verified = acceptanceOf(subject)
      if (verified) return rateLimits.consume(verified, cost, undefined)

      const { key, caller } = acceptedOf(subject, 'consume')
      return rateLimits.consume(key, cost, caller.response)
    },

    hasPermission(apiKey: { readonly permissions: readonly string[] }, demand: Demand): boolean {
      if (!Array.isArray(Object(apiKey).permissions)) {
        throw new TypeError('hasPermission: takes a key, which has permissions')
      }
      const check = createPermissionCheck('hasPermission', demand, settings.permissions)
      const held = acceptanceOf(apiKey)?.permissions
      return check(held ?? settings.permissions.heldBy(apiKey.permissions)) === null
    },
  }
}

const demandNothing: PermissionCheck = () => null

/** Returns the text by which a decision log names a guard and its demand. */
function describeDemand(name: string, demand: unknown): string {
  return `${name}(${demand === undefined ? '' : JSON.stringify(demand)})`
}

function isEmpty(demand: Demand): boolean {
  return Array.isArray(demand) && demand.length === 0
}
