import { addressOf } from '../http/key-routes'
import type { ChangeOptions } from '../lifecycle/types'
import type { UserOwner } from '../keys/owner'
import type { DescribedPermission } from '../keys/permissions'
import { keyId, type Call } from './router'

/** Returns the options with which the call of an owner reaches the functions that read and change keys. */
export function asOwner(call: Call): ChangeOptions & { owner: UserOwner } {
  const owner: UserOwner = { type: 'user', id: call.userId }
  return { owner, actor: owner, ...addressOf(call) }
}

/** Returns the id of the key that a call is about. */
export function idOf({ req }: Call): string {
  return String(req.params[keyId])
}

/** Returns the words of the app for its permissions, by their names. */
export function describe(permissions: readonly DescribedPermission[]): ReadonlyMap<string, string> {
  return new Map(permissions.map(({ name, description }) => [name, description ?? name]))
}
