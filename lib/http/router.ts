import { Router, type NextFunction, type Request, type Response } from 'express'

import { ApiKeysError, MethodNotAllowedError } from '../errors'
import type { ApiKeyEvent } from '../keys/audit'
import type { ApiKeyRecord } from '../keys/record'
import type { ChangeOptions, UncheckedLifecycle } from '../keys/lifecycle'
import { parseInput, type Rules } from '../keys/rules'
import type { MaybePromise, Settings } from '../options'
import type { Authenticator } from './authentication'
import { readJsonBody } from './json-body'
import { ensureError, type Refuse } from './refuse'
import { clientAddressOf, type SignedInUser } from './request'
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
  /** Who is signed in. */
  userId: UserId
  /** The JSON that came along; `{}` for none. */
  body: unknown
}

type Caller = Pick<Call, 'req' | 'userId'>

type UserId = string | number

type Method = 'get' | 'post' | 'put' | 'patch' | 'delete'

/** For every path, what its methods do. What a handler throws is refused, or passed on to the app. */
type Routes = Record<string, Partial<Record<Method, (call: Call) => Promise<unknown>>>>

/** Makes the router with which users manage their own keys. */
export function createOwnerRouter(parts: RouterParts): Router {
  const { lifecycle, rules, settings } = parts
  if (!settings.currentUser) {
    throw new TypeError('router: needs the option currentUser of createApiKeys')
  }

  return createRouter(parts, settings.currentUser, {
    '/': {
      async get({ req, res, userId }) {
        const filter = { ...req.query }
        // For what an owner may ask for. The lifecycle reads the filter itself, and so it goes on as it came.
        parseInput(rules.ownList, filter)
        res.json(await lifecycle.list({ ...filter, userId }))
      },
      async post({ req, res, userId, body }) {
        const apiKey = { ...parseInput(rules.newKey, body), userId }
        const actor = { type: 'user', id: userId } as const
        const created = await lifecycle.create(apiKey, { actor, ...addressOf(req) })
        sendCreated(req, res, created)
      },
    },
    ...keyRoutes(parts, rules.ownQuery, owner),
  })
}

/** Makes the router with which administrators manage everyone's keys. */
export function createAdminRouter(parts: RouterParts): Router {
  const { lifecycle, rules, settings } = parts
  const { currentUser, isAdmin } = settings
  if (!currentUser || !isAdmin) {
    throw new TypeError('adminRouter: needs the options currentUser and isAdmin of createApiKeys')
  }

  async function currentAdmin(req: Request) {
    const user = await currentUser?.(req)
    if (user && (await isAdmin?.(user)) !== true) throw new ApiKeysError('not_an_admin')
    return user
  }

  return createRouter(parts, currentAdmin, {
    '/': {
      async get({ req, res }) {
        res.json(await lifecycle.list({ ...req.query }))
      },
      async post({ req, res, userId, body }) {
        sendCreated(req, res, await lifecycle.create(body, asAdmin({ req, userId })))
      },
    },
    '/revoke-all': {
      async post({ req, res, userId, body }) {
        const { userId: owner, dryRun, ...explanation } = parseInput(rules.revokeAll, body)
        const options = {
          ...asAdmin({ req, userId }),
          ...parseInput(rules.adminQuery, req.query),
          ...explanation,
        }
        const revoked = dryRun
          ? await lifecycle.countRevocable(owner)
          : await lifecycle.revokeAll(owner, options)
        res.json({ revoked })
      },
    },
    '/revoke-unused': {
      async post({ req, res, userId, body }) {
        const { userId: owner, reason, ...rest } = parseInput(rules.revokeUnused, body)
        const criteria = { ...rest, ...(owner !== undefined && { userId: owner }) }
        const options = {
          ...asAdmin({ req, userId }),
          ...parseInput(rules.adminQuery, req.query),
          reason,
        }
        const { keys } = await lifecycle.revokeUnused(criteria, options)
        res.json({ revoked: keys })
      },
    },
    '/prune': {
      async post({ req, res, userId, body }) {
        const { revokedKeys, events, usage, dryRun, reason } = parseInput(rules.housekeeping, body)
        const options = { ...asAdmin({ req, userId }), reason }
        res.json({
          ...(revokedKeys !== undefined && {
            revokedKeys: (
              await lifecycle.pruneRevoked({ olderThanDays: revokedKeys, dryRun }, options)
            ).keys,
          }),
          ...(events !== undefined && {
            events: (await lifecycle.pruneAuditTrail({ olderThanDays: events, dryRun })).events,
          }),
          ...(usage !== undefined && {
            usage: (await lifecycle.pruneUsage({ olderThanDays: usage, dryRun })).hours,
          }),
        })
      },
    },
    '/events': {
      async get({ req, res }) {
        res.json(await lifecycle.events({ ...req.query }))
      },
    },
    '/usage': {
      async get({ req, res }) {
        res.json(await lifecycle.totalUsage({ ...req.query }))
      },
    },
    '/audit-head': {
      async get({ res }) {
        res.json(await lifecycle.auditHead())
      },
    },
    '/audit-verification': {
      async post({ res, body }) {
        res.json(await lifecycle.verifyAuditTrail(parseInput(rules.auditVerification, body)))
      },
    },
    ...keyRoutes(parts, rules.adminQuery, { optionsOf: asAdmin, shownTo: (event) => event }),
  })
}

function asAdmin({ req, userId }: Caller): ChangeOptions {
  return { actor: { type: 'admin', id: userId }, ...addressOf(req) }
}

function addressOf(req: Request): Pick<ChangeOptions, 'address'> {
  const address = clientAddressOf(req)
  return address === null ? {} : { address }
}

/** Who manages keys: what comes with what they ask for, and what they see of an entry of the audit trail. */
interface Reader {
  optionsOf(caller: Caller): ChangeOptions
  shownTo(event: ApiKeyEvent, userId: UserId): ApiKeyEvent
}

/** From where an administrator comes, and by what role the database is reached, is no business of an owner's. */
const owner: Reader = {
  optionsOf: ({ req, userId }) => ({ userId, ...addressOf(req) }),
  shownTo(event, userId) {
    const { actorType, actorId, address } = event
    const isOwn = actorType === 'user' && actorId === String(userId)
    return {
      ...event,
      actorId: actorType === 'database' ? null : actorId,
      address: isOwn ? address : null,
    }
  },
}

/** The routes of one key, the same for owners and administrators but for whose keys there are. */
function keyRoutes(
  { lifecycle, rules }: RouterParts,
  restrictQuery: Rules['adminQuery'] | Rules['ownQuery'],
  { optionsOf, shownTo }: Reader,
): Routes {
  function restriction(name: 'suspend' | 'revoke' | 'endRotation') {
    return async function restrict({ req, res, userId, body }: Call) {
      const query = parseInput(restrictQuery, req.query)
      const explanation = parseInput(rules.explanation, body)
      res.json(
        await lifecycle[name](idOf(req), {
          ...optionsOf({ req, userId }),
          ...query,
          ...explanation,
        }),
      )
    }
  }

  return {
    '/:id': {
      async get({ req, res, userId }) {
        res.json(await lifecycle.get(idOf(req), optionsOf({ req, userId })))
      },
      async patch({ req, res, userId, body }) {
        parseInput(rules.changeQuery, req.query)
        res.json(await lifecycle.update(idOf(req), body, optionsOf({ req, userId })))
      },
      delete: restriction('revoke'),
    },
    '/:id/permissions': {
      async put({ req, res, userId, body }) {
        const query = parseInput(restrictQuery, req.query)
        const { permissions } = parseInput(rules.permissionSet, body)
        const options = { ...optionsOf({ req, userId }), ...query }
        res.json(await lifecycle.setPermissions(idOf(req), permissions, options))
      },
    },
    '/:id/suspend': { post: restriction('suspend') },
    '/:id/reactivate': {
      async post({ req, res, userId, body }) {
        parseInput(rules.changeQuery, req.query)
        const explanation = parseInput(rules.explanation, body)
        res.json(
          await lifecycle.reactivate(idOf(req), { ...optionsOf({ req, userId }), ...explanation }),
        )
      },
    },
    '/:id/rotate': {
      async post({ req, res, userId, body }) {
        parseInput(rules.rotationQuery, req.query)
        const input = parseInput(rules.rotationWish, body)
        res.json(await lifecycle.rotate(idOf(req), { ...optionsOf({ req, userId }), ...input }))
      },
    },
    '/:id/rotation': { delete: restriction('endRotation') },
    '/:id/events': {
      async get({ req, res, userId }) {
        const { id } = await lifecycle.get(idOf(req), optionsOf({ req, userId }))
        const page = { ...req.query }
        parseInput(rules.eventPage, page)
        const { events, nextCursor } = await lifecycle.events({ ...page, apiKeyId: id })
        res.json({ events: events.map((event) => shownTo(event, userId)), nextCursor })
      },
    },
    '/:id/usage': {
      async get({ req, res, userId }) {
        res.json(await lifecycle.usage(idOf(req), { ...req.query }, optionsOf({ req, userId })))
      },
    },
  }
}

function createRouter(
  { authenticator, refuse, rules, settings }: RouterParts,
  findUser: (req: Request) => MaybePromise<SignedInUser | null | undefined>,
  routes: Routes,
): Router {
  /** A key never manages keys: whoever finds one must not be able to make more. */
  async function admit(req: Request): Promise<UserId> {
    if (authenticator.carriesKey(req)) throw new ApiKeysError('api_key_not_allowed')
    if (!isSafe(req) && isCrossSite(req, settings.trustedOrigins)) {
      throw new ApiKeysError('cross_site_request')
    }
    const user = await findUser(req)
    if (!user) throw new ApiKeysError('not_signed_in')

    const { data: userId } = rules.userId.safeParse(user.id)
    if (userId === undefined) {
      throw new TypeError(
        'createApiKeys: currentUser returned a user whose id is not of users.type',
      )
    }
    return userId
  }

  const router = Router()

  for (const [path, handlers] of Object.entries(routes)) {
    const route = router.route(path)
    for (const [method, handle] of Object.entries(handlers)) {
      route[method as Method](async function apiKeysHandler(req, res, next) {
        try {
          res.set('Cache-Control', 'no-store')
          const userId = await admit(req)
          const body = isSafe(req) ? {} : await readJsonBody(req, res)
          await handle({ req, res, userId, body })
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
    refuse(isUndecodable(error) ? new ApiKeysError('api_key_not_found') : error, req, res, next)
  })
}

/** Whether Express could not decode the id, so that there is no such key. A `URIError` of the app has no status. */
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
