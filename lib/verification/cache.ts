import type { Status } from '../../models/api-key'
import type { AddressList } from '../keys/addresses'
import type { NamedLimit } from '../keys/limits'
import type { Digest } from '../keys/secret'
import { createEviction } from './eviction'
import type { Freshness } from './may-use'
import type { Account, LimitedKey } from '../limits/memory'
import type { RecordedKey } from '../usage/recorder'

/** A row of the table of keys, as it was read at a moment. */
export interface KeyRow {
  readonly digest: Digest
  readonly id: string
  readonly userId: string | number
  readonly name: string
  readonly permissions: readonly string[]
  readonly status: Status
  /** Milliseconds since 1970; `null` for a key that does not expire. */
  readonly expiresAtMs: number | null
  /** The last use that the database has; `null` for a key that was never used. */
  readonly lastUsedAtMs: number | null
  /** Until when this secret of the key works, in milliseconds since 1970; `null` for the current one. */
  readonly worksUntilMs: number | null
  readonly policy: KeyPolicy
}

/** Bounds that only some keys have. It is an object of its own, because most keys share one. */
export interface KeyPolicy {
  /** The addresses from which the key works; `null` for all addresses. */
  readonly allowedIps: AddressList | null
  /** JSON, because parsed metadata can take twenty times the room. */
  readonly metadata: string
  /** How often the key may be used. */
  readonly limits: readonly NamedLimit[]
}

/**
 * A cached key: its row, and what the parts of this process keep with it. It is one object, because there may be a million keys
 * and each request would look up the rest.
 */
export class CachedKey implements KeyRow, LimitedKey, RecordedKey {
  readonly digest: Digest
  readonly id: string
  readonly userId: string | number
  readonly name: string
  readonly permissions: readonly string[]
  readonly status: Status
  readonly expiresAtMs: number | null
  readonly worksUntilMs: number | null
  readonly policy: KeyPolicy

  /** True if it was used since room was last made. */
  wasUsed = false

  /** The last use that was noted, and its address. Usage keeps it here. */
  lastUsedAtMs: number
  lastUsedFrom: string | null = null
  /** The uses that count towards its limits. */
  account: Account | undefined = undefined

  /** The hour, since 1970, of the uses that are counted and not written. Usage keeps it here. */
  hour = -1
  verified = 0
  /** The time of the first of these uses, by the monotonic clock. */
  countedSinceSeconds = 0

  /** Another secret of the same key. */
  sibling: CachedKey | undefined = undefined

  constructor(
    row: KeyRow,
    readonly freshness: Freshness,
  ) {
    this.digest = row.digest
    this.id = row.id
    this.userId = row.userId
    this.name = row.name
    this.permissions = row.permissions
    this.status = row.status
    this.expiresAtMs = row.expiresAtMs
    this.worksUntilMs = row.worksUntilMs
    this.policy = row.policy
    this.lastUsedAtMs = row.lastUsedAtMs ?? -Infinity
  }
}

export type KeyCache = ReturnType<typeof createKeyCache>

/** How many hashes of no key are cached. Without `secrets`, anyone can make any number of them. */
const maxUnknown = 10_000

/**
 * Caches keys by their hash, and the hashes that no key has. When it is full, it evicts a key that was not used for long.
 */
export function createKeyCache(maxKeys: number) {
  const keys = new Map<Digest, CachedKey>()
  /** By the id of a key, the first of its secrets that are cached. */
  const firsts = new Map<string, CachedKey>()
  const unknown = createHashSet(maxUnknown)
  const findUnused = createEviction(keys)

  function remove(key: CachedKey) {
    const { digest, id } = key
    keys.delete(digest)
    const first = firsts.get(id)
    if (first === key) {
      if (key.sibling) firsts.set(id, key.sibling)
      else firsts.delete(id)
    }
    for (let other = first; other; other = other.sibling) {
      if (other.sibling === key) other.sibling = key.sibling
    }
  }

  function makeRoom() {
    const unused = findUnused()
    if (unused) remove(unused)
  }

  return {
    maxKeys,

    get size() {
      return keys.size
    },

    get unknownSize() {
      return unknown.size
    },

    get(digest: Digest): CachedKey | undefined {
      return keys.get(digest)
    },

    /** Returns a key for a use. A key that was used stays when room is made. */
    use(digest: Digest): CachedKey | undefined {
      const key = keys.get(digest)
      if (key) key.wasUsed = true
      return key
    },

    set(key: CachedKey) {
      const { digest, id } = key
      const known = keys.get(digest)
      if (known) remove(known)
      if (keys.size >= maxKeys) makeRoom()
      keys.set(digest, key)
      key.sibling = firsts.get(id)
      firsts.set(id, key)
    },

    /** True if a hash is known to belong to no key. */
    isUnknown: unknown.has,

    setUnknown: unknown.add,

    /** Evicts a key by its id, with all of its secrets. */
    evict(id: string) {
      for (let key = firsts.get(id); key; key = key.sibling) keys.delete(key.digest)
      firsts.delete(id)
    },

    evictUnknown: unknown.clear,

    evictAll() {
      keys.clear()
      firsts.clear()
      unknown.clear()
    },
  }
}

/** Makes a set of the hashes that were added last: at least half of the most that it holds. */
function createHashSet(maxSize: number) {
  let newer = new Set<Digest>()
  let older = new Set<Digest>()

  return {
    get size() {
      return newer.size + older.size
    },

    has: (digest: Digest): boolean => newer.has(digest) || older.has(digest),

    add(digest: Digest) {
      if (newer.size >= maxSize / 2) {
        older = newer
        newer = new Set()
      }
      newer.add(digest)
    },

    clear() {
      newer = new Set()
      older = new Set()
    },
  }
}
