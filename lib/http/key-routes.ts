import type { ApiKeyEvent } from '../audit/list-entries'
import { readGranted } from '../keys/grantable'
import type { Owner } from '../keys/owner'
import type { DescribedPermission } from '../keys/permissions'
import type { ChangeOptions } from '../lifecycle/types'
import { idempotencyKeyOf } from './idempotency-key'
import { clientAddressOf } from './request'
import { keyIdName, type Call, type RouterParts, type Routes } from './router'

/** The role in which a user manages keys: the owner of the keys, or an administrator. */
export interface Role {
  /** Parses the query of a change that restricts a key. */
  parseRestriction(query: unknown): { everywhere?: boolean }
  /** Returns the options with which a call reaches the lifecycle. */
  optionsOf(call: Call): ChangeOptions
  /** Returns an entry of the audit trail as the role may see it. */
  shownTo(call: Call, event: ApiKeyEvent): ApiKeyEvent
}

/** Returns the address of the client, for the audit trail. */
export function addressOf({ req }: Pick<Call, 'req'>): Pick<ChangeOptions, 'address'> {
  const address = clientAddressOf(req)
  return address === null ? {} : { address }
}

/** Lists the app's permissions, or the permissions that an owner may give to a key. */
export async function listPermissions(
  { grantable, settings }: RouterParts,
  owner: Owner | undefined,
): Promise<{ permissions: readonly DescribedPermission[] }> {
  const { described, heldBy } = settings.permissions
  if (!grantable || !owner) return { permissions: described }

  const held = heldBy(readGranted(await grantable(owner)))
  return { permissions: described.filter(({ name }) => held.has(name)) }
}

/** Returns an entry as the owner may see it: without the address of an administrator, and without the role of the database. */
export function shownToOwner(userId: string | number, event: ApiKeyEvent): ApiKeyEvent {
  const { actorType, actorId, address } = event
  const isOwn = actorType === 'user' && actorId === String(userId)
  return {
    ...event,
    actorId: actorType === 'database' ? null : actorId,
    address: isOwn ? address : null,
  }
}

export const keyPath = `/:${keyIdName}`

/** Returns the routes of one key. Owners and administrators have the same, each for the keys that they may manage. */
export function createKeyRoutes(
  { lifecycle, routeCommands, parse }: RouterParts,
  role: Role,
): Routes {
  const { parseRestriction, optionsOf, shownTo } = role
  const parseChange = parse.notEverywhere('is not for this')
  const parseRotation = parse.notEverywhere('is not for this: use it to end the rotation')

  function restriction(name: 'suspend' | 'revoke' | 'endRotation') {
    return async function restrict(call: Call) {
      const query = parseRestriction(call.query)
      const explanation = parse.explanation(call.body)
      return lifecycle[name](call.keyId, { ...optionsOf(call), ...query, ...explanation })
    }
  }

  return {
    [keyPath]: {
      get: (call) => lifecycle.get(call.keyId, optionsOf(call)),
      async patch(call) {
        parseChange(call.query)
        return lifecycle.update(call.keyId, call.body, optionsOf(call))
      },
      delete: restriction('revoke'),
    },
    [`${keyPath}/permissions`]: {
      async put(call) {
        const query = parseRestriction(call.query)
        const { permissions } = parse.permissionSet(call.body)
        return lifecycle.setPermissions(call.keyId, permissions, { ...optionsOf(call), ...query })
      },
    },
    [`${keyPath}/suspend`]: { post: restriction('suspend') },
    [`${keyPath}/reactivate`]: {
      async post(call) {
        parseChange(call.query)
        const explanation = parse.explanation(call.body)
        return lifecycle.reactivate(call.keyId, { ...optionsOf(call), ...explanation })
      },
    },
    [`${keyPath}/rotate`]: {
      async post(call) {
        parseRotation(call.query)
        const wish = { ...parse.rotationWish(call.body), ...idempotencyKeyOf(call) }
        return lifecycle.rotate(call.keyId, { ...optionsOf(call), ...wish })
      },
    },
    [`${keyPath}/rotation`]: { delete: restriction('endRotation') },
    [`${keyPath}/events`]: {
      async get(call) {
        const page = await routeCommands.eventsOf(call.keyId, call.query, optionsOf(call))
        return { ...page, events: page.events.map((event) => shownTo(call, event)) }
      },
    },
    [`${keyPath}/usage`]: {
      get: (call) => lifecycle.usage(call.keyId, call.query, optionsOf(call)),
    },
  }
}
