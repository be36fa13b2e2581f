import { addressOf, listPermissions } from '../http/key-routes'
import type { ChangeOptions, IssueOptions } from '../lifecycle/types'
import type { Owner } from '../keys/owner'
import type { DescribedPermission } from '../keys/permissions'
import type { ApiKeyRecord } from '../keys/record'
import { ownerIn, ownerOf } from './admin/owner-input'
import type { Call, ConsoleParts } from './router'

/** Returns the options with which a call reaches the functions that read and change keys. An administrator reaches all keys. */
export function optionsOf(call: Call): ChangeOptions {
  const { owner, mayGive } = call.member
  const actor = { type: owner ? 'user' : 'admin', id: call.userId } as const
  return { ...(owner && { owner }), actor, ...(mayGive && { mayGive }), ...addressOf(call) }
}

/** Creates a key of the owner whose keys the user manages, or of the owner whom an administrator names. */
export async function createKey(
  { lifecycle, routeCommands }: ConsoleParts,
  call: Call,
  apiKey: object,
  options: IssueOptions,
) {
  const { owner } = call.member
  if (owner) return routeCommands.createOwn(owner, apiKey, options)
  return lifecycle.create({ ...apiKey, owner: ownerOf(ownerIn(call)) }, options)
}

/** Returns the permissions that a user may give to keys of an owner. Without an owner, these are all permissions of the app. */
export async function permissionsFor(
  parts: ConsoleParts,
  { member }: Call,
  owner: Owner | undefined = member.owner,
) {
  const { mayGive } = member
  const { permissions } = await listPermissions(parts, owner)
  if (!mayGive) return permissions
  const held = parts.settings.permissions.heldBy(mayGive)
  return permissions.filter(({ name }) => held.has(name))
}

/** True if a key may do more than a user may give, so that the user may neither have its secret nor let it work again. */
export function exceeds(
  apiKey: ApiKeyRecord,
  { mayGive }: Call['member'],
  { settings }: ConsoleParts,
) {
  if (!mayGive) return false
  const held = settings.permissions.heldBy(mayGive)
  return apiKey.permissions.some((name) => !held.has(name))
}

/** Returns the words of the app for its permissions, by their names. */
export function describe(permissions: readonly DescribedPermission[]): ReadonlyMap<string, string> {
  return new Map(permissions.map(({ name, description }) => [name, description ?? name]))
}
