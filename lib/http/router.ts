import { Router, type NextFunction, type Request, type Response } from 'express'

import { ApiKeysError, MethodNotAllowedError } from '../errors'
import type { ApiKeyRecord } from '../keys/record'
import type { ChangeOptions, UncheckedLifecycle } from '../keys/lifecycle'
import { parseInput, type Rules } from '../keys/rules'
import type { Settings, SignedInUser } from '../options'
import type { Authenticator } from './authentication'
import { readJsonBody } from './json-body'
import type { Refuse } from './refuse'
import { isCrossSite } from './same-origin'

interface RouterParts {
  lifecycle: UncheckedLifecycle
  rules: Rules
  authenticator: Authenticator
  refuse: Refuse
  settings: Pick<Settings, 'currentUser' | 'isAdmin' | 'trustedOrigins'>
}

interface Call {
  req: Request
  res: Response
  /** Whoever is signed in. */
  user: SignedInUser
  /** The JSON that came along; `{}` for none. */
  body: unknown
}

type Method = 'get' | 'post' | 'put' | 'patch' | 'delete'

/** For every path, what its methods do. What a handler throws is refused, or passed on to the app. */
type Routes = Record<string, Partial<Record<Method, (call: Call) => Promise<unknown>>>>

/** Makes the router with which users manage their own keys. */
export function createOwnerRouter(parts: RouterParts): Router {
  const { lifecycle, rules, settings } = parts
  const { currentUser } = settings
  if (!currentUser) throw new TypeError('router: needs the option currentUser of createApiKeys')

  return createRouter(parts, currentUser, {
    '/': {
      async get({ req, res, user }) {
        const filter = parseInput(rules.ownList, { ...req.query })
        res.json(await lifecycle.list({ ...filter, userId: user.id }))
      },
      async post({ req, res, user, body }) {
        const apiKey = { ...parseInput(rules.newKey, body), userId: user.id }
        sendCreated(
          req,
          res,
          await lifecycle.create(apiKey, { actor: { type: 'user', id: user.id } }),
        )
      },
    },
    ...keyRoutes(parts, (user) => ({ userId: user.id })),
  })
}

/** Makes the router with which administrators manage everyone's keys. */
export function createAdminRouter(parts: RouterParts): Router {
  const { lifecycle, rules, settings } = parts
  const { currentUser, isAdmin } = settings
  if (!currentUser)
    throw new TypeError('adminRouter: needs the option currentUser of createApiKeys')
  if (!isAdmin) throw new TypeError('adminRouter: needs the option isAdmin of createApiKeys')

  async function currentAdmin(req: Request) {
    const user = await currentUser?.(req)
    if (user && !(await isAdmin?.(user))) throw new ApiKeysError('not_an_admin')
    return user
  }

  return createRouter(parts, currentAdmin, {
    '/': {
      async get({ req, res }) {
        res.json(await lifecycle.list({ ...req.query }))
      },
      async post({ req, res, user, body }) {
        sendCreated(req, res, await lifecycle.create(body, asAdmin(user)))
      },
    },
    '/revoke-all': {
      async post({ res, user, body }) {
        const { userId, ...explanation } = parseInput(rules.revokeAll, body)
        res.json({
          revoked: await lifecycle.revokeAll(userId, { ...asAdmin(user), ...explanation }),
        })
      },
    },
    '/events': {
      async get({ req, res }) {
        res.json(await lifecycle.events({ ...req.query }))
      },
    },
    ...keyRoutes(parts, asAdmin),
  })
}

function asAdmin({ id }: SignedInUser): ChangeOptions {
  return { actor: { type: 'admin', id } }
}

/** The routes of one key, the same for owners and administrators but for whose keys there are. */
function keyRoutes(
  { lifecycle, rules }: RouterParts,
  optionsOf: (user: SignedInUser) => ChangeOptions,
): Routes {
  function transition(name: 'suspend' | 'reactivate' | 'revoke') {
    return async function transit({ req, res, user, body }: Call) {
      const explanation = parseInput(rules.explanation, body)
      res.json(await lifecycle[name](idOf(req), { ...optionsOf(user), ...explanation }))
    }
  }

  return {
    '/:id': {
      async get({ req, res, user }) {
        res.json(await lifecycle.get(idOf(req), optionsOf(user)))
      },
      async patch({ req, res, user, body }) {
        res.json(await lifecycle.update(idOf(req), body, optionsOf(user)))
      },
      delete: transition('revoke'),
    },
    '/:id/permissions': {
      async put({ req, res, user, body }) {
        const { permissions } = parseInput(rules.permissionSet, body)
        res.json(await lifecycle.setPermissions(idOf(req), permissions, optionsOf(user)))
      },
    },
    '/:id/suspend': { post: transition('suspend') },
    '/:id/reactivate': { post: transition('reactivate') },
    '/:id/events': {
      async get({ req, res, user }) {
        const { id } = await lifecycle.get(idOf(req), optionsOf(user))
        const page = parseInput(rules.eventPage, { ...req.query })
        res.json(await lifecycle.events({ ...page, apiKeyId: id }))
      },
    },
  }
}

function createRouter(
  { authenticator, refuse, settings }: RouterParts,
  findUser: NonNullable<Settings['currentUser']>,
  routes: Routes,
): Router {
  /** A key never manages keys: whoever finds one must not be able to make more. */
  async function admit(req: Request): Promise<SignedInUser> {
    if (authenticator.carriesKey(req)) throw new ApiKeysError('api_key_not_allowed')
    if (!isSafe(req) && isCrossSite(req, settings.trustedOrigins)) {
      throw new ApiKeysError('cross_site_request')
    }
    const user = await findUser(req)
    if (!user) throw new ApiKeysError('not_signed_in')
    return user
  }

  const router = Router()

  for (const [path, handlers] of Object.entries(routes)) {
    const route = router.route(path)
    for (const [method, handle] of Object.entries(handlers)) {
      route[method as Method](async function apiKeysHandler(req, res, next) {
        try {
          res.set('Cache-Control', 'no-store')
          const user = await admit(req)
          const body = isSafe(req) ? {} : await readJsonBody(req, res)
          await handle({ req, res, user, body })
        } catch (error) {
          next(error)
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
    // Express could not decode the id, and so there is no such key.
    refuse(
      error instanceof URIError ? new ApiKeysError('api_key_not_found') : error,
      req,
      res,
      next,
    )
  })
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

function idOf(req: Request): string {
  return String(req.params.id)
}

function sendCreated(
  req: Request,
  res: Response,
  created: { apiKey: ApiKeyRecord; plainTextKey: string },
) {
  res.status(201).location(`${req.baseUrl}/${created.apiKey.id}`).json(created)
}
