import type { IncomingMessage, ServerResponse } from 'node:http'

import type { NextFunction, Request, Response } from 'express'

import { ApiKeysError, InvalidApiKeyError, MissingPermissionError } from '../errors'
import { checkPermissionNames, type Settings } from '../options'
import type { VerifiedApiKey } from '../verification/verifier'
import type { Authentication, Authenticator } from './authentication'
import type { Refuse } from './refuse'

/**
 * A middleware of ours. It asks nothing of the types of a route, so that behind it `req.params`, `req.body` and the
 * like keep theirs, under the types of Express 4 as well as 5.
 */
export type Guard = (
  req: IncomingMessage,
  res: ServerResponse,
  next: (error?: unknown) => void,
) => void

export interface GuardOptions {
  /**
   * Also lets a request through that carries no key and for which `currentUser(req)` has someone: for routes that both
   * programs and the app's own pages call. Protect those against cross-site requests as any that trust a cookie.
   *
   * @default false
   */
  orSignedIn?: boolean | undefined
}

export interface AuthenticateOptions extends GuardOptions {
  /**
   * Lets a request through that carries no key of ours: nothing, or a token that the app understands.
   *
   * @default false
   */
  optional?: boolean | undefined
}

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
   * Returns the API key of a request. Throws a `TypeError` where there is none: call it behind a guard.
   *
   * @example
   * const graphs = await Graph.findAll({ where: { userId: apiKeys.getApiKey(req).userId } })
   */
  getApiKey(req: object): VerifiedApiKey<Permission, UserId>
}

interface GuardParts {
  authenticator: Authenticator
  refuse: Refuse
  settings: Pick<Settings, 'permissions' | 'currentUser'>
}

/** Says what a key lacks; `null` if it may pass. */
type Judge = (apiKey: VerifiedApiKey) => ApiKeysError | null

export function createGuards({ authenticator, refuse, settings }: GuardParts): Guards {
  /** Answers what a guard decides: it passes on `null`, and refuses with an error. */
  async function decide(
    req: Request,
    judge: Judge,
    options: AuthenticateOptions,
  ): Promise<ApiKeysError | null> {
    const authentication = await authenticator.authenticate(req)
    switch (authentication.kind) {
      case 'accepted':
        return judge(authentication.apiKey)
      case 'refused':
        return authentication.error
      case 'absent':
        return (await mayPassWithoutKey(req, options)) ? null : refusalOf(authentication)
    }
  }

  async function mayPassWithoutKey(req: Request, { optional, orSignedIn }: AuthenticateOptions) {
    if (optional) return true
    return orSignedIn === true && Boolean(await settings.currentUser?.(req))
  }

  function admit(
    req: IncomingMessage,
    res: ServerResponse,
    next: NextFunction,
    judge: Judge,
    options: AuthenticateOptions,
  ) {
    // Express hands its own request and response to every middleware.
    const request = req as Request
    const response = res as Response

    decide(request, judge, options).then(
      (error) => (error ? refuse(error, request, response, next) : next()),
      (error: unknown) => refuse(error, request, response, next),
    )
  }

  return {
    requirePermission(permission, options = {}) {
      const needed = [permission].flat()
      checkPermissionNames('requirePermission', needed, settings.permissions)
      checkGuardOptions('requirePermission', options, settings)

      return function requirePermissionGuard(req, res, next) {
        admit(req, res, next, (apiKey) => lacksSome(apiKey, needed), options)
      }
    },

    requireAnyPermission(permissions, options = {}) {
      const needed = [...permissions]
      checkPermissionNames('requireAnyPermission', needed, settings.permissions)
      checkGuardOptions('requireAnyPermission', options, settings)

      return function requireAnyPermissionGuard(req, res, next) {
        admit(req, res, next, (apiKey) => lacksAll(apiKey, needed), options)
      }
    },

    authenticate(options = {}) {
      checkGuardOptions('authenticate', options, settings)

      return function authenticateGuard(req, res, next) {
        admit(req, res, next, () => null, options)
      }
    },

    getApiKey(req) {
      const { apiKey } = req as Request
      if (!apiKey) {
        throw new TypeError(
          'getApiKey: this request has no API key. Put requirePermission() or authenticate() before the handler.',
        )
      }
      return apiKey
    },
  }
}

function refusalOf({ isForeign }: Authentication & { kind: 'absent' }): ApiKeysError {
  return isForeign ? new InvalidApiKeyError('malformed') : new ApiKeysError('missing_credential')
}

function lacksSome(
  { permissions }: VerifiedApiKey,
  needed: readonly string[],
): ApiKeysError | null {
  const missing = needed.filter((permission) => !permissions.includes(permission))
  return missing.length > 0 ? new MissingPermissionError(needed, missing) : null
}

function lacksAll({ permissions }: VerifiedApiKey, needed: readonly string[]): ApiKeysError | null {
  const hasOne = needed.some((permission) => permissions.includes(permission))
  return hasOne ? null : new MissingPermissionError(needed, needed)
}

function checkGuardOptions(
  caller: string,
  options: GuardOptions,
  { currentUser }: GuardParts['settings'],
) {
  if (options.orSignedIn && !currentUser) {
    throw new TypeError(`${caller}: orSignedIn needs the option currentUser of createApiKeys`)
  }
}
