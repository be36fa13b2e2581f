import { nameOfOwner, type Owner } from '../keys/owner'

/** An owner, as all cached keys of the owner have it. */
export type CachedOwner = Owner & {
  /** The owner in the form that the app gets. Frozen. */
  readonly shown: Owner
  /** The id if all keys of the app are users', else `undefined`. */
  readonly userId: string | number | undefined
  readonly name: string
  /** How many cached keys have this object. */
  keys: number
  /** True once the owner has changed. From then on, none of these keys is used from the cache. */
  isForgotten: boolean
}

/** How many owners are passed over in a row because they have cached keys. */
const maxPassedOver = 1_000

export type OwnerCache = ReturnType<typeof createOwnerCache>

/**
 * Caches one object for each owner of keys. So a change of an owner reaches all cached keys of the owner by one write, however many
 * keys there are. It holds twice as many owners as there may be keys, so that it always finds an owner without cached keys to evict.
 */
export function createOwnerCache(maxKeys: number, isUsersOnly = true) {
  const owners = new Map<string, CachedOwner>()
  /** Goes round the map and keeps its place, so that it does not pass the same owners again and again. */
  let hand: Iterator<CachedOwner> | undefined

  /** A key that is not in the cache may have the object still, so that it counts as changed. */
  function forget(owner: CachedOwner) {
    owner.isForgotten = true
    owners.delete(owner.name)
  }

  function makeRoom() {
    for (let passed = 0; owners.size >= 2 * maxKeys;) {
      hand ??= owners.values()
      const { value, done } = hand.next()
      if (done === true) hand = undefined
      else if (value.keys === 0 || ++passed > maxPassedOver) forget(value)
    }
  }

  return {
    get size() {
      return owners.size
    },

    /** Returns the object of an owner, for a key that was read. */
    of(owner: Owner): CachedOwner {
      const name = nameOfOwner(owner)
      const known = owners.get(name)
      if (known) return known

      makeRoom()
      // Not by a spread, because each copy would have a shape of its own, and each request reads one.
      const { type, id } = owner
      // Type and id are those of one owner.
      const shown = Object.freeze({ type, id } as Owner)
      const userId = isUsersOnly ? id : undefined
      const cached = { type, id, shown, userId, name, keys: 0, isForgotten: false } as CachedOwner
      owners.set(name, cached)
      return cached
    },

    /** Forgets an owner who has changed, with all cached keys of the owner. */
    forget(name: string) {
      const owner = owners.get(name)
      if (owner) forget(owner)
    },

    forgetAll() {
      for (const owner of owners.values()) owner.isForgotten = true
      owners.clear()
      hand = undefined
    },
  }
}
