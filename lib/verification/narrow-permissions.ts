import { AcceptedKey } from './verified-key'

/** Permissions that many users have in common. */
export interface PermissionSet {
  /** Returns which of a key's permissions are in the set: the same list if all of them are. */
  narrow(permissions: readonly string[]): readonly string[]
}

/** How many lists of a key's permissions a set keeps the result for. */
const maxNarrowed = 1_000

/** Makes a set that narrows each list of permissions once: keys with the same permissions share one list. */
export function createPermissionSet(names: readonly string[]): PermissionSet {
  const narrowed = new Map<readonly string[], readonly string[]>()

  return {
    narrow(permissions) {
      const known = narrowed.get(permissions)
      if (known) return known

      const held = permissions.filter((permission) => names.includes(permission))
      const result = held.length === permissions.length ? permissions : Object.freeze(held)
      if (narrowed.size >= maxNarrowed) narrowed.clear()
      narrowed.set(permissions, result)
      return result
    },
  }
}

export const noPermissions = createPermissionSet([])

/** Returns an accepted key with those of its permissions that are in a set. */
export function narrow(apiKey: AcceptedKey, set: PermissionSet): AcceptedKey {
  const held = set.narrow(apiKey.permissions)
  return held === apiKey.permissions
    ? apiKey
    : AcceptedKey.again(apiKey, AcceptedKey.rowOf(apiKey), held)
}
