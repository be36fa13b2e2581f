import { addressOf, listPermissions } from '../http/key-routes'
import type { Member } from '../http/member'
import type { ChangeOptions } from '../lifecycle/types'
import type { Owner } from '../keys/owner'
import type { DescribedPermission } from '../keys/permissions'
import type { ApiKeyRecord } from '../keys/record'
import type { Call, ConsoleParts } from './router'

/** Returns the options with which the call of an owner reaches the functions that read and change keys. */
export function asOwner(call: Call): ChangeOptions & { owner: Owner } {
  const { owner, mayGive } = call.member
  const actor = { type: 'user', id: call.userId } as const
  return { owner, actor, ...(mayGive && { mayGive }), ...addressOf(call) }
}

/** Returns the permissions that a user may give to keys of the owner. */
export async function permissionsFor(parts: ConsoleParts, { member }: Call) {
  const { owner, mayGive } = member
  const { permissions } = await listPermissions(parts, owner)
  if (!mayGive) return permissions
  const held = parts.settings.permissions.heldBy(mayGive)
  return permissions.filter(({ name }) => held.has(name))
}

/** True if a key may do more than a user may give, so that the user may neither have its secret nor let it work again. */
export function exceeds(apiKey: ApiKeyRecord, { mayGive }: Member, { settings }: ConsoleParts) {
  if (!mayGive) return false
  const held = settings.permissions.heldBy(mayGive)
  return apiKey.permissions.some((name) => !held.has(name))
}

/** Returns the words of the app for its permissions, by their names. */
export function describe(permissions: readonly DescribedPermission[]): ReadonlyMap<string, string> {
  return new Map(permissions.map(({ name, description }) => [name, description ?? name]))
}
