import type { Request, Router } from 'express'

import { ApiKeysError } from '../errors'
import type { ChangeOptions } from '../lifecycle/types'
import { addressOf, createKeyRoutes } from './key-routes'
import { queryOf } from './query'
import { created, createRouter, type Caller, type RouterParts } from './router'

/** Makes the router with which administrators manage everyone's keys. */
export function createAdminRouter(parts: RouterParts): Router {
  const { lifecycle, parse, settings } = parts
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
      async get({ req }) {
        return lifecycle.list(queryOf(req))
      },
      async post({ req, res, userId, body }) {
        return created(req, res, await lifecycle.create(body, asAdmin({ req, userId })))
      },
    },
    '/revoke-all': {
      async post({ req, userId, body }) {
        const { userId: owner, dryRun, ...explanation } = parse.revokeAll(body)
        const options = {
          ...asAdmin({ req, userId }),
          ...parse.everywhere(queryOf(req)),
          ...explanation,
        }
        const { keys } = dryRun
          ? await lifecycle.countRevocable(owner)
          : await lifecycle.revokeAll(owner, options)
        return { revoked: keys }
      },
    },
    '/revoke-unused': {
      async post({ req, userId, body }) {
        const { userId: owner, reason, ...rest } = parse.revokeUnused(body)
        const criteria = { ...rest, ...(owner !== undefined && { userId: owner }) }
        const options = {
          ...asAdmin({ req, userId }),
          ...parse.everywhere(queryOf(req)),
          reason,
        }
        const { keys } = await lifecycle.revokeUnused(criteria, options)
        return { revoked: keys }
      },
    },
    '/prune': {
      async post({ req, userId, body }) {
        const { revokedKeys, events, usage, dryRun, reason } = parse.housekeeping(body)
        const options = { ...asAdmin({ req, userId }), reason }
        return {
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
        }
      },
    },
    '/events': {
      async get({ req }) {
        return lifecycle.events(queryOf(req))
      },
    },
    '/permissions': {
      async get({ req }) {
        return parts.listPermissions(parse.anyOwner(queryOf(req)).userId)
      },
    },
    '/usage': {
      async get({ req }) {
        return lifecycle.totalUsage(queryOf(req))
      },
    },
    '/audit-head': {
      async get() {
        return lifecycle.auditHead()
      },
    },
    '/audit-verification': {
      async post({ body }) {
        return lifecycle.verifyAuditTrail(parse.auditVerification(body))
      },
    },
    ...createKeyRoutes(parts, parse.everywhere, { optionsOf: asAdmin, shownTo: (event) => event }),
  })
}

function asAdmin({ req, userId }: Caller): ChangeOptions {
  return { actor: { type: 'admin', id: userId }, ...addressOf(req) }
}
