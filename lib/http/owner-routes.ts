import type { Guard } from './guards'
import { idempotencyKeyOf } from './idempotency-key'
import { addressOf, createKeyRoutes, listPermissions, shownToOwner, type Role } from './key-routes'
import { created, createRouter, type RouterParts } from './router'

/** Makes the router with which users manage their own keys. */
export function createOwnerRouter(parts: RouterParts): Guard {
  const { routeCommands, parse, settings } = parts
  if (!settings.currentUser) {
    throw new TypeError('router: needs the option currentUser of createApiKeys')
  }

  const owner: Role = {
    parseRestriction: parse.notEverywhere('is for administrators'),
    optionsOf: (call) => ({ userId: call.userId, ...addressOf(call) }),
    shownTo: ({ userId }, event) => shownToOwner(userId, event),
  }

  return createRouter(parts, settings.currentUser, {
    '/': {
      get: ({ query, userId }) => routeCommands.listOwn(userId, query),
      async post(call) {
        const { userId, body } = call
        const actor = { type: 'user', id: userId } as const
        const options = { actor, ...addressOf(call), ...idempotencyKeyOf(call) }
        return created(call, routeCommands.createOwn(userId, body, options))
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
