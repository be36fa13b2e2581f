import type { Owner, UserOwner } from '../keys/owner'
import type { ChangeOptions } from '../lifecycle/types'
import type { OpenApiOption } from './access'
import { documentRoute } from './document-route'
import type { Guard } from './guards'
import { idempotencyKeyOf } from './idempotency-key'
import { addressOf, createKeyRoutes, listPermissions, shownToOwner, type Role } from './key-routes'
import { created, createRouter, type Call, type RouterParts, type Routes } from './router'

/** The owner whose keys a user manages, and the options with which a call reaches the lifecycle. */
interface Ownership {
  ownerOf(call: Call): Owner
  /** Returns the permissions that the user may give to keys; `undefined` for all that the owner may give. */
  mayGiveOf(call: Call): readonly string[] | undefined
  optionsOf(call: Call): ChangeOptions
}

/** Makes the router with which users manage their own keys. */
export function createOwnerRouter(parts: RouterParts, openApi: OpenApiOption | undefined): Guard {
  const { settings } = parts
  if (!settings.currentUser) {
    throw new TypeError('router: needs the option currentUser of createApiKeys')
  }

  const routes = createOwnedRoutes(parts, {
    ownerOf: userOf,
    mayGiveOf: () => undefined,
    optionsOf: (call) => ({ owner: userOf(call), actor: userOf(call), ...addressOf(call) }),
  })
  return createRouter(parts, settings.currentUser, {
    ...documentRoute(parts, 'router', openApi),
    ...routes,
  })
}

/** Returns the routes for the keys of one owner. */
export function createOwnedRoutes(
  parts: RouterParts,
  { ownerOf, mayGiveOf, optionsOf }: Ownership,
): Routes {
  const { routeCommands, parse, settings } = parts
  const role: Role = {
    parseRestriction: parse.notEverywhere('is for administrators'),
    optionsOf,
    shownTo: ({ userId }, event) => shownToOwner(userId, event),
  }

  return {
    '/': {
      get: (call) => routeCommands.listOwn(ownerOf(call), call.query),
      async post(call) {
        // The options have the owner, too: a request that is sent twice must not show a key that has another owner by now.
        const options = { ...optionsOf(call), ...idempotencyKeyOf(call) }
        return created(call, routeCommands.createOwn(ownerOf(call), call.body, options))
      },
    },
    '/permissions': {
      async get(call) {
        parse.nothing(call.query)
        const { permissions } = await listPermissions(parts, ownerOf(call))
        const mayGive = mayGiveOf(call)
        if (!mayGive) return { permissions }
        const held = settings.permissions.heldBy(mayGive)
        return { permissions: permissions.filter(({ name }) => held.has(name)) }
      },
    },
    ...createKeyRoutes(parts, role),
  }
}

/** Returns the signed-in user as the owner of keys. */
function userOf({ userId }: Call): UserOwner {
  return { type: 'user', id: userId }
}
