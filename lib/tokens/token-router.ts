import { Router, type NextFunction, type Request, type Response } from 'express'

import { ApiKeysError } from '../errors'
import { createAnswers, ensureError, type Answers } from '../http/answer'
import type { Authenticator } from '../http/authentication'
import { createPermissionCheck, type Demand } from '../http/demand'
import { createGuards, type Guard, type GuardParts } from '../http/guards'
import {
  awaitedHandler,
  insecureHandler,
  otherMethodsHandler,
  refusalHandler,
} from '../http/router'
import { isCrossSite } from '../http/same-origin'
import type { Settings } from '../read-options'
import { createTakeClientSecret, type ClientSecretParts } from './client-secret'
import { createIntrospect, type IntrospectionParts } from './introspection'
import { sendOAuthError } from './oauth-error'
import { readTokenOptions } from './options'
import { createRevoke, type RevocationParts } from './revocation'

export interface TokenParts
  extends Omit<GuardParts, 'answers'>, IntrospectionParts, RevocationParts, ClientSecretParts {
  authenticator: Authenticator
  settings: Settings
  verification: IntrospectionParts['verification'] & RevocationParts['verification']
}

const posts = otherMethodsHandler(['post'])

/** Makes the router of the endpoints at which OAuth clients introspect and revoke tokens (RFC 7662, RFC 7009). */
export function createTokenRouter(parts: TokenParts, given: unknown): Guard {
  const { authenticator, settings } = parts
  const { introspect, revoke } = readTokenOptions(given)
  const answers = createAnswers(settings, sendOAuthError)
  const takeClientSecret = createTakeClientSecret(parts)
  const clientsWithSecret = new WeakSet<Request>()
  const router = Router()

  function apiKeysClientHandler(req: Request, _res: Response, next: NextFunction) {
    if (takeClientSecret(req)) clientsWithSecret.add(req)
    next()
  }

  /** Refuses pages of other sites, for which a browser sends the Basic credentials that it has kept. */
  function apiKeysSameOriginHandler(req: Request, _res: Response, next: NextFunction) {
    if (!clientsWithSecret.has(req)) return next()
    isCrossSite(req, settings.trustedOrigins).then(
      (isRefused) => next(isRefused ? new ApiKeysError('cross_site_request') : undefined),
      (error: unknown) => next(ensureError(error)),
    )
  }

  /** Makes the guard of a route, whose refusals fit the way in which the client authenticates. */
  function createClientGuard(permission: Demand) {
    // It throws for a demand that breaks the rules, and names this function.
    createPermissionCheck('tokenRouter', permission, settings.permissions)
    const guardWith = (answers: Answers) =>
      createGuards({ ...parts, answers }).requirePermission(permission)
    const byToken = guardWith(answers)
    const bySecret = guardWith(createAnswers(settings, sendOAuthError, 'Basic'))

    return function apiKeysClientGuard(req: Request, res: Response, next: NextFunction) {
      if (clientsWithSecret.has(req)) bySecret(req, res, next)
      else byToken(req, res, next)
    }
  }

  if (introspect) {
    router
      .route('/introspect')
      .all(apiKeysClientHandler, insecureHandler(authenticator))
      .post(
        apiKeysSameOriginHandler,
        createClientGuard(introspect.permission),
        awaitedHandler(createIntrospect(parts, introspect)),
      )
      .all(posts)
  }
  if (revoke) {
    router
      .route('/revoke')
      .all(apiKeysClientHandler, insecureHandler(authenticator))
      .post(awaitedHandler(createRevoke(parts)))
      .all(posts)
  }
  router.use(refusalHandler(answers))
  // The app uses a router as a middleware, whose type needs no types of Express.
  return router as unknown as Guard
}
