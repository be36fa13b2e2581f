import { Router } from 'express'

import { createAnswers } from '../http/answer'
import type { Authenticator } from '../http/authentication'
import { createPermissionCheck } from '../http/demand'
import { createGuards, type Guard, type GuardParts } from '../http/guards'
import {
  awaitedHandler,
  insecureHandler,
  otherMethodsHandler,
  refusalHandler,
} from '../http/router'
import type { Settings } from '../read-options'
import { createIntrospect, type IntrospectionParts } from './introspection'
import { sendOAuthError } from './oauth-error'
import { readTokenOptions } from './options'
import { createRevoke, type RevocationParts } from './revocation'

export interface TokenParts
  extends Omit<GuardParts, 'answers'>, IntrospectionParts, RevocationParts {
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
  const router = Router()

  if (introspect) {
    const { permission } = introspect
    // It throws for a demand that breaks the rules, and names this function.
    createPermissionCheck('tokenRouter', permission, settings.permissions)
    const { requirePermission } = createGuards({ ...parts, answers })
    // The type of a guard demands nothing of requests.
    const guard = requirePermission(permission) as never
    const handle = createIntrospect(parts, introspect)
    router
      .route('/introspect')
      .all(insecureHandler(authenticator))
      .post(guard, awaitedHandler(handle))
      .all(posts)
  }
  if (revoke) {
    const handle = createRevoke(parts)
    router
      .route('/revoke')
      .all(insecureHandler(authenticator))
      .post(awaitedHandler(handle))
      .all(posts)
  }
  router.use(refusalHandler(answers))
  // The app uses a router as a middleware, whose type needs no types of Express.
  return router as unknown as Guard
}
