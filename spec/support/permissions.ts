import { createPermissions, type PermissionSet } from '../../lib/keys/permissions'

/** The permissions of an app that has a list of names. */
export function permissionsOf(names: readonly string[]) {
  return createPermissions(names.map((name) => ({ name, description: null, implies: [] })))
}

/** All of these permissions, as a key holds them. */
export function allOf(names: readonly string[]): PermissionSet {
  return permissionsOf(names).heldBy(names)
}
