import type { Request } from 'express'
import { Strategy as BearerStrategy } from 'passport-http-bearer'

import type { Authentication, Authenticator } from './authentication'
import { andThen } from './maybe-promise'
import { toRefusal } from './problems'
import { toError } from './refuse'

/** Our strategy as Passport sees it. */
export interface ApiKeyStrategy {
  readonly name: 'api-key'
  authenticate(req: Request, options?: unknown): void
}

/** What Passport adds to a strategy for each request. */
interface Actions {
  success(user: object, info: object): void
  fail(challenge: string | undefined, status: number): void
  error(error: Error): void
}

interface StrategyParts {
  authenticator: Authenticator
  realm: string
}

/** The Passport strategy. Authenticate by its name: `passport.authenticate('api-key')`. */
export function createStrategy({ authenticator, realm }: StrategyParts): ApiKeyStrategy {
  /** Tells Passport what came of a request. */
  function report(req: Request, authentication: Authentication, { success, fail }: Actions) {
    if (authentication.kind !== 'accepted') {
      const { status, headers } = toRefusal(authentication.error, realm)
      return fail(headers['WWW-Authenticate'], status)
    }

    const { user, apiKey } = authentication
    withoutSession(req, user)
    success(user, { scope: [...apiKey.permissions] })
  }

  return new (class ApiKeyStrategy extends BearerStrategy<() => void> {
    override readonly name = 'api-key'

    constructor() {
      // The stock strategy also reads keys from body and query; `authenticate` replaces it, and this with it.
      super(() => {})
    }

    override authenticate(req: Request) {
      // Taken at once: Passport binds them to the request just before this call, and, where an app passes the
      // strategy instead of its name, replaces them at the next one.
      // The types know of no such members.
      const { success, fail, error } = this as unknown as Actions
      const actions = { success, fail, error }

      const reported = andThen(authenticator.authenticate(req), (authentication) =>
        report(req, authentication, actions),
      )
      if (reported instanceof Promise) {
        reported.catch((failure: unknown) => error(toError(failure, realm)))
      }
    }
  })()
}

/** Passport's `logIn`. Its options may be left out. */
type LogIn = (user: object, ...rest: [options: object, done: Done] | [done: Done]) => void

type Done = (error?: unknown) => void

/**
 * Keeps Passport from turning a key into a signed-in browser session, as it does on routes without
 * `{ session: false }`, and callbacks of the app do: logging this user in starts none, as long as the request lasts.
 */
function withoutSession(req: Request, keyUser: object) {
  // As JavaScript calls it: the declared overloads cannot be passed on.
  const { logIn } = req as unknown as { logIn: LogIn }

  const logInWithoutSession: LogIn = (user, ...rest) => {
    if (user !== keyUser) return logIn.call(req, user, ...rest)

    const [options, done] = rest.length === 1 ? [{}, rest[0]] : rest
    logIn.call(req, user, { ...options, session: false }, done)
  }
  Object.assign(req, { logIn: logInWithoutSession, login: logInWithoutSession })
}
