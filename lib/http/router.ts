import { Router, type NextFunction, type Request, type Response } from 'express'

import { ApiKeysError, MethodNotAllowedError } from '../errors'
import type { ApiKeyRecord } from '../keys/record'
import type { UncheckedLifecycle } from '../lifecycle/commands'
import type { Parsers } from '../keys/input'
import type { MaybePromise, SignedInUser } from '../options'
import type { Settings } from '../read-options'
import { ensureError, type Answers } from './answer'
import type { Authenticator } from './authentication'
import { readJsonBody } from './json-body'
import type { ListPermissions } from './permission-list'
import { isCrossSite } from './same-origin'

export interface RouterParts {
  lifecycle: UncheckedLifecycle
  parse: Parsers
  authenticator: Authenticator
  listPermissions: ListPermissions
  answers: Answers
  settings: Pick<Settings, 'currentUser' | 'isAdmin' | 'trustedOrigins'>
}

export interface Call {
  req: Request
  res: Response
  /** Who is signed in. */
  userId: UserId
  /** The JSON that came along; `{}` for none. */
  body: unknown
}

export type Caller = Pick<Call, 'req' | 'userId'>

export type UserId = string | number

type Method = 'get' | 'post' | 'put' | 'patch' | 'delete'

/**
 * For every path, what its methods do. What a handler returns is sent as JSON; what it throws is refused, or passed on to the
 * app.
 */
export type Routes = Record<string, Partial<Record<Method, (call: Call) => Promise<unknown>>>>

/** Makes a router of routes: says who may use them, reads what comes along and sends what they return. */
export function createRouter(
  { authenticator, answers, parse, settings }: RouterParts,
  findUser: (req: Request) => MaybePromise<SignedInUser | null | undefined>,
  routes: Routes,
): Router {
  /** A key never manages keys: whoever finds one must not be able to make more. */
  async function admit(req: Request): Promise<UserId> {
    if (authenticator.carriesKey(req)) throw new ApiKeysError('api_key_not_allowed')
    if (!isSafe(req) && (await isCrossSite(req, settings.trustedOrigins))) {
      throw new ApiKeysError('cross_site_request')
    }
    const user = await findUser(req)
    if (!user) throw new ApiKeysError('not_signed_in')

    const userId = parse.readUserId(user.id)
    if (userId === undefined) {
      throw new TypeError(
        'createApiKeys: currentUser returned a user whose id is not of users.type',
      )
    }
    if (!isSafe(req)) refuseIfMatch(req)
    return userId
  }

  // `currentUser` may need what the path has that the app mounts the router at.
  const router = Router({ mergeParams: true })

  for (const [path, handlers] of Object.entries(routes)) {
    const route = router.route(path)
    for (const [method, handle] of Object.entries(handlers)) {
      route[method as Method](async function apiKeysHandler(req, res, next) {
        try {
          res.set('Cache-Control', 'no-store')
          const userId = await admit(req)
          const body = isSafe(req) ? {} : await readJsonBody(req, res)
          sendJson(res, await handle({ req, res, userId, body }))
        } catch (error) {
          next(ensureError(error))
        }
      })
    }
    route.all(otherMethodsHandler(Object.keys(handlers)))
  }

  return router.use(function apiKeysErrorHandler(
    error: unknown,
    req: Request,
    res: Response,
    next: NextFunction,
  ) {
    const failure = isUndecodable(error) ? new ApiKeysError('api_key_not_found') : error
    answers.refuse(failure, req, res, next)
  })
}

/** True if Express could not decode the id, so that there is no such key. A `URIError` of the app has no status. */
function isUndecodable(error: unknown): boolean {
  return error instanceof URIError && 'status' in error
}

function isSafe({ method }: Request): boolean {
  return method === 'GET' || method === 'HEAD'
}

function otherMethodsHandler(methods: string[]) {
  const allowed = [...methods, ...(methods.includes('get') ? ['head'] : []), 'options'].map(
    (method) => method.toUpperCase(),
  )

  return function apiKeysOtherMethodsHandler(req: Request, res: Response, next: NextFunction) {
    if (req.method !== 'OPTIONS') return next(new MethodNotAllowedError(allowed))

    res.set('Allow', allowed.join(', ')).status(204).end()
  }
}

/**
 * Answers carry no ETag: a record changes with each use of its key, and lists with each key. So a validator comes from
 * elsewhere, and what it stands for is not there (RFC 9110, section 13.1.1).
 */
function refuseIfMatch(req: Request) {
  const validators = req.headers['if-match']
  if (validators !== undefined && validators.trim() !== '*') {
    throw new ApiKeysError('precondition_failed')
  }
}

/** Not by Express, which adds an ETag. */
function sendJson(res: Response, body: unknown) {
  const text = JSON.stringify(body)

  res.setHeader('Content-Type', 'application/json; charset=utf-8')
  res.setHeader('Content-Length', Buffer.byteLength(text))
  res.end(text)
}

/** Says of a response that a key was created, and returns what it is to send. */
export function created<Body extends { apiKey: ApiKeyRecord }>(
  req: Request,
  res: Response,
  body: Body,
): Body {
  res.status(201).setHeader('Location', `${selfOf(req)}/${body.apiKey.id}`)
  return body
}

/**
 * Returns the path of a request relative to itself (RFC 9110, section 10.2.2), without a slash at its end. A proxy may have
 * taken a prefix away of which the app knows nothing.
 */
function selfOf({ originalUrl }: Request): string {
  const [path = ''] = originalUrl.split(/[?#]/)
  const last = path.slice(path.lastIndexOf('/') + 1)
  return last === '' ? '.' : `./${last}`
}
