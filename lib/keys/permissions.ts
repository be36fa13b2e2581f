import { createInterner } from './interner'

/** A permission of the app, as pages show it to users. */
export interface DescribedPermission {
  readonly name: string
  /** The text in the option `permissions`; `null` if that is a list of names. */
  readonly description: string | null
  /** All other permissions that a key has with this one. */
  readonly implies: readonly string[]
}

/** A permission, and the names in its `implies`. */
export type GivenPermission = Pick<DescribedPermission, 'name' | 'description' | 'implies'>

/** A list with more names is searched by a `Set`, which takes the same time for any number of names. */
const mostListed = 8

/** Permissions of a key or an owner, with all that they imply. Keys with equal permissions share one. */
export class PermissionSet {
  /** Their names, in the order of the option. Frozen, and made of the app's own texts. */
  readonly names: readonly string[]
  readonly searched: ReadonlySet<string> | undefined
  /** The permissions that other sets have in common with this one. */
  readonly common = new Map<PermissionSet, PermissionSet>()

  constructor(names: readonly string[]) {
    this.names = Object.freeze(names)
    this.searched = names.length > mostListed ? new Set(names) : undefined
  }

  has(name: string): boolean {
    return this.searched === undefined ? this.names.includes(name) : this.searched.has(name)
  }

  hasAll(names: readonly string[]): boolean {
    for (const name of names) if (!this.has(name)) return false
    return true
  }
}

/** How many results a set keeps of what it has in common with others. */
const maxCommon = 1_000

export type Permissions = ReturnType<typeof createPermissions>

/**
 * Creates what knows the permissions of an app: what each implies, and which of them stands for a name of before. `former` has a
 * name of today for each name of before, or `null` if the permission was dropped.
 */
export function createPermissions(
  given: readonly GivenPermission[],
  former: ReadonlyMap<string, string | null> = new Map(),
) {
  const names = given.map(({ name }) => name)
  const implied = new Map(given.map(({ name, implies }) => [name, implies]))
  const closures = new Map(names.map((name) => [name, closureOf(name, implied)]))
  // A name has no space, because a challenge has a list of names.
  const setOf = createInterner((text) => {
    const members = new Set(text.split(' '))
    return new PermissionSet(names.filter((name) => members.has(name)))
  })

  /** Returns the name of today for a name that a key or the app has; `undefined` if no permission has it. */
  function nameOf(name: string): string | undefined {
    return closures.has(name) ? name : (former.get(name) ?? undefined)
  }

  return {
    /** All names, in the order of the option. */
    names,
    described: given.map((permission): DescribedPermission => {
      const { name } = permission
      const implies = names.filter((other) => other !== name && closures.get(name)?.has(other))
      return { ...permission, implies }
    }),
    /** All names that the app has, and had before. */
    known: [...names, ...former.keys()],
    nameOf,

    /** Returns the names of today for names that a key has: each once, without those that stand for nothing. */
    namesOf(stored: readonly string[]): string[] {
      return [...new Set(stored.flatMap((name) => nameOf(name) ?? []))]
    },

    /** Returns the permissions that come with these names: all that they imply. Names that stand for nothing count for nothing. */
    heldBy(stored: readonly string[]): PermissionSet {
      const held = new Set(stored.flatMap((name) => [...(closures.get(nameOf(name) ?? '') ?? [])]))
      return setOf(names.filter((name) => held.has(name)).join(' '))
    },

    /** Returns the permissions that two sets have in common: the first set itself if the second has all of it. */
    inBoth(set: PermissionSet, other: PermissionSet): PermissionSet {
      const known = other.common.get(set)
      if (known) return known

      const common = set.names.filter((name) => other.has(name))
      const result = common.length === set.names.length ? set : setOf(common.join(' '))
      if (other.common.size >= maxCommon) other.common.clear()
      other.common.set(set, result)
      return result
    },

    /** Returns every name by which a key has a permission: its own, the names of before, and what implies it. */
    namesGiving(name: string): string[] {
      const today = nameOf(name)
      if (today === undefined) return [name]
      const giving = (each: string) => closures.get(nameOf(each) ?? '')?.has(today) === true
      return [...names, ...former.keys()].filter(giving)
    },
  }
}

/** Returns a permission with all that it implies, in any number of steps. Permissions may imply one another. */
function closureOf(
  name: string,
  implied: ReadonlyMap<string, readonly string[]>,
): ReadonlySet<string> {
  const closure = new Set([name])
  // A set also visits what is added to it meanwhile.
  for (const member of closure) for (const other of implied.get(member) ?? []) closure.add(other)
  return closure
}
