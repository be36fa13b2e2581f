import { Router, type NextFunction, type Request, type Response } from 'express'

import { ApiKeysError, MethodNotAllowedError } from '../errors'
import type { Owner } from '../keys/owner'
import type { ApiKeyRecord } from '../keys/record'
import type { RouteCommands, UncheckedLifecycle } from '../lifecycle/commands'
import type { Parsers } from '../keys/input'
import type { MaybePromise, SignedInUser } from '../options'
import type { Settings } from '../read-options'
import { createAdmission, isSafe } from './admission'
import { ensureError, type Answers } from './answer'
import type { Authenticator } from './authentication'
import type { Guard } from './guards'
import { readJsonBody } from './json-body'

/** The parts of the library that routes use. */
export interface RouterParts {
  lifecycle: UncheckedLifecycle
  routeCommands: RouteCommands
  parse: Parsers
  authenticator: Authenticator
  /** Asks the app for the permissions of an owner; `undefined` if every owner may give all permissions. */
  grantable: ((owner: Owner) => Promise<readonly string[]>) | undefined
  answers: Answers
  settings: Settings
}

/** A request that is admitted to its route. */
export interface Call {
  req: Request
  res: Response
  /** The user who is signed in. */
  userId: UserId
  /** The id of the key in the path; empty if there is none. */
  keyId: string
  /** The parameters of the query. */
  query: Record<string, unknown>
  /** The JSON of the body; `{}` for none. */
  body: unknown
}

type UserId = string | number

type Method = 'get' | 'post' | 'put' | 'patch' | 'delete'

/**
 * The handlers of each path and method. A returned value is sent as JSON. A thrown refusal is answered, and all other errors are
 * passed on to the app.
 */
export type Routes = Record<string, Partial<Record<Method, (call: Call) => Promise<unknown>>>>

/** The paths whose bodies may be larger than others. */
const pathsOfManyKeys = new Set(['/batch', '/revoke-many'])

/** The parts of a router besides its routes. */
interface RouterHooks {
  /** Refuses a request of a signed-in user who may not enter. */
  enter?(req: Request, user: SignedInUser, isChange: boolean): Promise<void>
  /** Returns what to answer in place of an error. */
  explain?(error: unknown): unknown
}

/** Makes a router: it admits requests, reads their input, calls the handlers and sends what they return. */
export function createRouter(
  parts: RouterParts,
  findUser: (req: Request) => MaybePromise<SignedInUser | null | undefined>,
  routes: Routes,
  { enter, explain = (error) => error }: RouterHooks = {},
): Guard {
  const admit = createAdmission(parts, findUser)
  const refuseInsecure = insecureHandler(parts.authenticator)

  // `currentUser` may need a parameter of the path at which the app mounts the router.
  const router = Router({ mergeParams: true })

  for (const [path, handlers] of Object.entries(routes)) {
    const route = router.route(path)
    route.all(refuseInsecure)
    const limit = pathsOfManyKeys.has(path) ? 'manyKeys' : 'usual'
    for (const [method, handle] of Object.entries(handlers)) {
      route[method as Method](async function apiKeysHandler(req, res, next) {
        try {
          res.set('Cache-Control', 'no-store')
          const keyId = takeKeyId(req)
          const { user, userId } = await admit(req)
          await enter?.(req, user, !isSafe(req))
          if (!isSafe(req)) refuseIfMatch(req)
          const body = isSafe(req) ? {} : await readJsonBody(req, res, limit)
          sendJson(res, await handle({ req, res, userId, keyId, query: queryOf(req), body }))
        } catch (error) {
          next(ensureError(explain(error)))
        }
      })
    }
    route.all(otherMethodsHandler(Object.keys(handlers)))
  }

  router.use(function apiKeysErrorHandler(
    error: unknown,
    req: Request,
    res: Response,
    next: NextFunction,
  ) {
    const failure = isUndecodable(error) ? new ApiKeysError('api_key_not_found') : error
    parts.answers.refuse(failure, req, res, next)
  })
  // The app uses a router as a middleware, whose type needs no types of Express.
  return router as unknown as Guard
}

/** Makes the handler that refuses requests over plain HTTP, before all else. */
export function insecureHandler(authenticator: Pick<Authenticator, 'refuseInsecure'>) {
  return function apiKeysTransportHandler(req: Request, res: Response, next: NextFunction) {
    const error = authenticator.refuseInsecure(req, res)
    if (error) next(error)
    else next()
  }
}

/** Makes the handler of a route without a session. It passes failures on, because Express 4 does not wait for handlers. */
export function awaitedHandler(handle: (req: Request, res: Response) => Promise<void>) {
  return function apiKeysAwaitedHandler(req: Request, res: Response, next: NextFunction) {
    res.set('Cache-Control', 'no-store')
    handle(req, res).catch((error: unknown) => next(ensureError(error)))
  }
}

/** Makes the handler that answers the refusals of a router. */
export function refusalHandler(answers: Answers) {
  return function apiKeysErrorHandler(
    error: unknown,
    req: Request,
    res: Response,
    next: NextFunction,
  ) {
    answers.refuse(error, req, res, next)
  }
}

/** The name of the id in paths. No app has a parameter of this name in the path at which it mounts a router. */
export const keyIdName = 'idOfExpressApiKey'

/** Takes the id of the key out of the parameters, so that functions of the app find only the parameters of their own path. */
export function takeKeyId(req: Request): string {
  const { [keyIdName]: id, ...params } = req.params
  req.params = params
  return String(id ?? '')
}

/** True if Express could not decode the id, so that there is no such key. A `URIError` of the app has no status. */
export function isUndecodable(error: unknown): boolean {
  return error instanceof URIError && 'status' in error
}

/**
 * Returns the query of a request. It leaves out `_`, which pages add to get past caches, and the parameters that links
 * carry for statistics. All other parameters count, because a mistyped filter must not show more than was asked for.
 */
function queryOf(req: Request): Record<string, unknown> {
  const query: Request['query'] = req.query
  return Object.fromEntries(
    Object.entries(query).filter(([name]) => name !== '_' && !name.startsWith('utm_')),
  )
}

/** Makes the handler that answers the methods which a path does not have. */
export function otherMethodsHandler(methods: string[]) {
  const allowed = [...methods, ...(methods.includes('get') ? ['head'] : []), 'options'].map(
    (method) => method.toUpperCase(),
  )

  return function apiKeysOtherMethodsHandler(req: Request, res: Response, next: NextFunction) {
    if (req.method !== 'OPTIONS') return next(new MethodNotAllowedError(allowed))

    res.set('Allow', allowed.join(', ')).status(204).end()
  }
}

/**
 * Answers have no ETag, because a record changes with each use of its key, and a list with each key. A validator in `If-Match`
 * therefore comes from elsewhere, and matches nothing here (RFC 9110, section 13.1.1).
 */
function refuseIfMatch(req: Request) {
  const validators = req.headers['if-match']
  if (validators !== undefined && validators.trim() !== '*') {
    throw new ApiKeysError('precondition_failed')
  }
}

/** Sends JSON without Express, which would add an ETag. */
export function sendJson(res: Response, body: unknown) {
  const text = JSON.stringify(body)

  res.setHeader('Content-Type', 'application/json; charset=utf-8')
  res.setHeader('Content-Length', Buffer.byteLength(text))
  res.end(text)
}

/** Answers a call with 201 and the location of a key, once the key is created. Resolves to the body to send. */
export async function created<Body extends { apiKey: ApiKeyRecord }>(
  { req, res }: Call,
  creation: Promise<Body>,
): Promise<Body> {
  const body = await creation
  res.status(201).setHeader('Location', `${selfOf(req)}/${body.apiKey.id}`)
  return body
}

/**
 * Returns the path of a request relative to itself (RFC 9110, section 10.2.2), without a slash at its end. A full path
 * could be wrong, because a proxy may have removed a prefix.
 */
function selfOf({ originalUrl }: Request): string {
  const [path = ''] = originalUrl.split(/[?#]/)
  const last = path.slice(path.lastIndexOf('/') + 1)
  return last === '' ? '.' : `./${last}`
}
