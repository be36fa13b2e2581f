import type { UserOwner } from '../keys/owner'
import type { Guard } from './guards'
import { idempotencyKeyOf } from './idempotency-key'
import { addressOf, createKeyRoutes, listPermissions, shownToOwner, type Role } from './key-routes'
import { created, createRouter, type Call, type RouterParts } from './router'

/** Makes the router with which users manage their own keys. */
export function createOwnerRouter(parts: RouterParts): Guard {
  const { routeCommands, parse, settings } = parts
  if (!settings.currentUser) {
    throw new TypeError('router: needs the option currentUser of createApiKeys')
  }

  const owner: Role = {
    parseRestriction: parse.notEverywhere('is for administrators'),
    optionsOf: (call) => ({ owner: userOf(call), ...addressOf(call) }),
    shownTo: ({ userId }, event) => shownToOwner(userId, event),
  }

  return createRouter(parts, settings.currentUser, {
    '/': {
      get: (call) => routeCommands.listOwn(userOf(call), call.query),
      async post(call) {
        const owner = userOf(call)
        const options = { actor: owner, ...addressOf(call), ...idempotencyKeyOf(call) }
        return created(call, routeCommands.createOwn(owner, call.body, options))
      },
    },
    '/permissions': {
      async get(call) {
        parse.nothing(call.query)
        return listPermissions(parts, userOf(call))
      },
    },
    ...createKeyRoutes(parts, owner),
  })
}

/** Returns the signed-in user as the owner of keys. */
function userOf({ userId }: Call): UserOwner {
  return { type: 'user', id: userId }
}
