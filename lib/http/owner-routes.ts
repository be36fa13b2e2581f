import type { Guard } from './guards'
import { addressOf, createKeyRoutes, listPermissions, type Role } from './key-routes'
import { created, createRouter, type RouterParts } from './router'

/** Makes the router with which users manage their own keys. */
export function createOwnerRouter(parts: RouterParts): Guard {
  const { lifecycle, parse, settings } = parts
  if (!settings.currentUser) {
    throw new TypeError('router: needs the option currentUser of createApiKeys')
  }

  const owner: Role = {
    parseRestriction: parse.notEverywhere('is for administrators'),
    optionsOf: (call) => ({ userId: call.userId, ...addressOf(call) }),
    /** The address of an administrator and the role of the database are not shown to the owner. */
    shownTo({ userId }, event) {
      const { actorType, actorId, address } = event
      const isOwn = actorType === 'user' && actorId === String(userId)
      return {
        ...event,
        actorId: actorType === 'database' ? null : actorId,
        address: isOwn ? address : null,
      }
    },
  }

  return createRouter(parts, settings.currentUser, {
    '/': {
      async get({ query, userId }) {
        // This refuses what only administrators may ask for. The lifecycle parses the filter itself.
        parse.ownList(query)
        return lifecycle.list({ ...query, userId })
      },
      async post(call) {
        const apiKey = { ...parse.newKey(call.body), userId: call.userId }
        const actor = { type: 'user', id: call.userId } as const
        return created(call, await lifecycle.create(apiKey, { actor, ...addressOf(call) }))
      },
    },
    '/permissions': {
      async get({ query, userId }) {
        parse.nothing(query)
        return listPermissions(parts, userId)
      },
    },
    ...createKeyRoutes(parts, owner),
  })
}
