import type { Request } from 'express'
import { Strategy as BearerStrategy } from 'passport-http-bearer'

import { ApiKeysError, InvalidApiKeyError } from '../errors'
import type { Authentication, Authenticator } from './authentication'
import { toRefusal } from './problems'

/** Our strategy as Passport sees it. */
export interface ApiKeyStrategy {
  readonly name: 'api-key'
  authenticate(req: Request, options?: unknown): void
}

/** What Passport adds to a strategy for each request. */
interface Actions {
  success(user: object, info: object): void
  fail(challenge: string | undefined, status: number): void
  error(error: unknown): void
}

/** Passport's request, which gets its `logIn` before a strategy runs. */
type LogIn = (user: object, options: object, done: (error?: unknown) => void) => void

interface StrategyParts {
  authenticator: Authenticator
  realm: string
}

/** The Passport strategy. Authenticate by its name: `passport.authenticate('api-key')`. */
export function createStrategy({ authenticator, realm }: StrategyParts): ApiKeyStrategy {
  return new (class ApiKeyStrategy extends BearerStrategy<() => void> {
    override readonly name = 'api-key'

    constructor() {
      // The stock strategy also reads keys from body and query; `authenticate` replaces it, and this with it.
      super(() => {})
    }

    override authenticate(req: Request) {
      // Taken at once: Passport binds them to the request just before this call, and, where an app passes the
      // strategy instead of its name, replaces them at the next one.
      const { success, fail, error } = this as unknown as Actions

      authenticator.authenticate(req).then(
        (authentication) => {
          if (authentication.kind !== 'accepted') {
            const { status, headers } = toRefusal(errorOf(authentication), realm)
            return fail.call(this, headers['WWW-Authenticate'], status)
          }
          const { user, apiKey } = authentication
          withoutLogIn(req, () => success.call(this, user, { scope: [...apiKey.permissions] }))
        },
        (failure: unknown) =>
          error.call(this, failure instanceof ApiKeysError ? toRefusal(failure, realm) : failure),
      )
    }
  })()
}

function errorOf(authentication: Exclude<Authentication, { kind: 'accepted' }>): ApiKeysError {
  if (authentication.kind === 'refused') return authentication.error
  return authentication.isForeign
    ? new InvalidApiKeyError('malformed')
    : new ApiKeysError('missing_credential')
}

/**
 * Keeps Passport from turning a key into a signed-in browser session, as it does on routes without
 * `{ session: false }`: the next `req.logIn` starts none.
 */
function withoutLogIn(req: Request, succeed: () => void) {
  const passportRequest = req as { logIn: LogIn }
  const { logIn } = passportRequest

  passportRequest.logIn = function logInWithoutSession(user, options, done) {
    passportRequest.logIn = logIn
    logIn.call(req, user, { ...options, session: false }, done)
  }
  succeed()
}
