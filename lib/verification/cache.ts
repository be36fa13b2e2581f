import type { Status } from '../../models/api-key'
import { isWithin, type Moment } from '../database/clock'
import type { ChangeFeed } from '../freshness/change-feed'
import { isLive } from '../freshness/lease'
import type { AddressList } from '../keys/addresses'
import type { NamedLimit } from '../keys/limits'
import type { PermissionSet } from '../keys/permissions'
import type { Bindings } from '../keys/resources'
import type { Digest } from '../keys/secret'
import type { KeyReading } from './lookup'
import type { CachedOwner } from './owners'
import { createUnknownHashes } from './unknown-hashes'
import type { Account, LimitedKey } from '../limits/memory'
import type { RecordedKey } from '../usage/recorder'

/** A row of the table of keys, read at a moment. */
export interface KeyRow {
  readonly digest: Digest
  readonly id: string
  /** One object for all cached keys of an owner. */
  readonly owner: CachedOwner
  readonly name: string
  /** With all that they imply. */
  readonly permissions: PermissionSet
  readonly status: Status
  /** Milliseconds since 1970; `null` for a key that does not expire. */
  readonly expiresAtMs: number | null
  /** When it expires, by `expiresAtMs` or because it was not used; `Infinity` if it does not. */
  readonly endsAtMs: number
  /** The last use that the database has; `null` for a key that was never used. */
  readonly lastUsedAtMs: number | null
  /** Until when this secret of the key works, in milliseconds since 1970; `null` for the current one. */
  readonly worksUntilMs: number | null
  /** True if this secret waits for its first use. Such a row is not cached. */
  readonly isPending: boolean
  /** The environment; `null` in an app without environments. */
  readonly environment: string | null
  readonly policy: KeyPolicy
}

/** The environment of a key whose row names another environment than the start of its secret. No app has this name. */
export const misplaced = ''

/** Bounds that only some keys have. It is an object of its own, because most keys share one. */
export interface KeyPolicy {
  /** The addresses from which the key works; `null` for all addresses. */
  readonly allowedIps: AddressList | null
  /** JSON, because parsed metadata can take twenty times the room. */
  readonly metadata: string
  /** How often the key may be used. */
  readonly limits: readonly NamedLimit[]
  /** The resources for which the key may be used. */
  readonly bindings: Bindings
}

/** When an answer was asked for, and if changes of it are reported. All rows of one reading share one. */
export interface Freshness extends Moment {
  /** True while the feed reports every change of the answer. */
  isFollowed: boolean
}

/** Makes the freshness of an answer that was asked for at a moment. All have one shape, because each request reads one. */
export function freshnessOf({ monotonic, wall }: Moment, isFollowed: boolean): Freshness {
  return { monotonic, wall, isFollowed }
}

/**
 * A cached key: its row, and the notes of the parts of this process. It is one object, because there may be a million
 * keys and each request would look up the rest.
 */
export class CachedKey implements KeyRow, LimitedKey, RecordedKey {
  readonly digest: Digest
  readonly id: string
  readonly owner: CachedOwner
  readonly name: string
  readonly permissions: PermissionSet
  readonly status: Status
  readonly expiresAtMs: number | null
  /** It goes up if this process notes a use. */
  endsAtMs: number
  readonly worksUntilMs: number | null
  readonly isPending: boolean
  readonly environment: string | null
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

  /** The fingerprint of the last text that was this key; `undefined` for a key of ours. */
  fingerprint: string | undefined = undefined

  constructor(
    row: KeyRow,
    readonly freshness: Freshness,
  ) {
    this.digest = row.digest
    this.id = row.id
    this.owner = row.owner
    this.name = row.name
    this.permissions = row.permissions
    this.status = row.status
    this.expiresAtMs = row.expiresAtMs
    this.endsAtMs = row.endsAtMs
    this.worksUntilMs = row.worksUntilMs
    this.isPending = row.isPending
    this.environment = row.environment
    this.policy = row.policy
    this.lastUsedAtMs = row.lastUsedAtMs ?? -Infinity
  }
}

export type KeyCache = ReturnType<typeof createKeyCache>

/**
 * Caches keys by their hash, and the hashes that no key has. When it is full, it evicts a key that was not used for long.
 */
export function createKeyCache(maxKeys: number) {
  const keys = new Map<Digest, CachedKey>()
  /** By the id of a key, the first of its secrets that are cached. */
  const firsts = new Map<string, CachedKey>()
  /** The keys of other systems, by the fingerprints of their texts. */
  const byFingerprint = new Map<string, CachedKey>()
  const unknown = createUnknownHashes()
  const findUnused = createEviction(keys)

  function drop({ digest, owner, fingerprint }: CachedKey) {
    keys.delete(digest)
    owner.keys--
    if (fingerprint !== undefined) byFingerprint.delete(fingerprint)
  }

  function remove(key: CachedKey) {
    const { id } = key
    drop(key)
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

    /** Returns, for a use, the key whose last text has a fingerprint. */
    useFingerprint(fingerprint: string): CachedKey | undefined {
      const key = byFingerprint.get(fingerprint)
      if (key) key.wasUsed = true
      return key
    },

    /** Notes the fingerprint of a text that is a cached key. Of the texts that are one key, the last counts. */
    noteFingerprint(fingerprint: string, key: CachedKey) {
      if (key.fingerprint !== undefined) byFingerprint.delete(key.fingerprint)
      key.fingerprint = fingerprint
      byFingerprint.set(fingerprint, key)
    },

    set(key: CachedKey) {
      const { digest, id } = key
      const known = keys.get(digest)
      if (known) remove(known)
      if (keys.size >= maxKeys) makeRoom()
      keys.set(digest, key)
      key.owner.keys++
      key.sibling = firsts.get(id)
      firsts.set(id, key)
    },

    /** Returns the time of the look-up that found no key for a hash; `undefined` if there is none. */
    unknownSince: unknown.get,

    setUnknown: unknown.set,

    /** Evicts a key by its id, with all of its secrets. */
    evict(id: string) {
      for (let key = firsts.get(id); key; key = key.sibling) drop(key)
      firsts.delete(id)
    },

    /** Evicts a hash that now belongs to a key. */
    evictUnknown: unknown.delete,

    evictAllUnknown: unknown.clear,

    evictAll() {
      for (const { owner } of keys.values()) owner.keys = 0
      keys.clear()
      byFingerprint.clear()
      firsts.clear()
      unknown.clear()
    },
  }
}

/** How many values are passed over in a row because they were used. */
const maxPassedOver = 100

/**
 * Makes the function that returns the value of a map to evict: a value that was not used for long. The algorithm is
 * CLOCK, an approximation of LRU that costs a hit only a flag. It returns `undefined` if the map is empty.
 */
export function createEviction<Value extends { wasUsed: boolean }>(
  map: ReadonlyMap<unknown, Value>,
) {
  /**
   * Goes round the map and keeps its place, because a new iterator would step over all values that were evicted. It begins when it is
   * needed, because an iterator keeps memory that the map has outgrown.
   */
  let hand: Iterator<Value> | undefined

  return function findUnused(): Value | undefined {
    for (let passed = 0; map.size > 0;) {
      hand ??= map.values()
      const { value, done } = hand.next()
      if (done === true) {
        hand = undefined
      } else if (value.wasUsed && passed < maxPassedOver) {
        value.wasUsed = false
        passed++
      } else {
        return value
      }
    }
    return undefined
  }
}

/** True if a cached key may be used at a moment. */
export function mayUseKey(
  { owner, freshness }: Pick<CachedKey, 'owner' | 'freshness'>,
  feed: Pick<ChangeFeed, 'lease' | 'maxStalenessMs'>,
  monotonic: number,
  wall: number,
): boolean {
  return !owner.isForgotten && mayUse(freshness, feed, monotonic, wall)
}

/**
 * True if a row may be used at a moment: either the process holds a lease and the feed reports every change of the row, or the row
 * was asked for within the bound. The same holds for what `grantable` answered.
 */
export function mayUse(
  freshness: Freshness,
  feed: Pick<ChangeFeed, 'lease' | 'maxStalenessMs'>,
  monotonic: number,
  wall: number,
): boolean {
  return (
    (freshness.isFollowed && isLive(feed.lease, monotonic, wall)) ||
    isWithin(freshness, feed.maxStalenessMs, monotonic, wall)
  )
}

/**
 * True if a hash that a look-up has not found may still count as unknown. The log does not report each new key. So
 * neither a poll nor an outage extends this time, which begins when the look-up was sent.
 */
export function isStillUnknown(
  askedAt: Moment | undefined,
  { lease, maxStalenessMs }: Pick<ChangeFeed, 'lease' | 'maxStalenessMs'>,
  monotonic: number,
  wall: number,
): boolean {
  if (askedAt === undefined || lease.grantedAt === null) return false
  return (
    isWithin(askedAt, maxStalenessMs, monotonic, wall) &&
    isWithin(lease.grantedAt, maxStalenessMs, monotonic, wall)
  )
}

/**
 * Compares the entry that a reading saw with the entry up to which the feed has reported all changes. A reading from
 * before that entry may lack a change that will not be reported again. An entry that the feed has not applied, or
 * triggers that it does not know, may be lost in a failover before the feed reports them. Such rows may be used within
 * the bound, but are not followed.
 */
export function placeOf(
  { newest, triggers }: Pick<KeyReading, 'newest' | 'triggers'>,
  { lease }: Pick<ChangeFeed, 'lease'>,
): 'older' | 'same' | 'unconfirmed' {
  const { applied } = lease
  if (!applied || newest.revision > applied.revision) return 'unconfirmed'
  if (newest.mark !== applied.mark) return 'older'
  return triggers === lease.triggers ? 'same' : 'unconfirmed'
}

/**
 * True if a row that is not in the cache may answer one question. While the log moves on all the time, each row is old when it
 * arrives. Such a row may answer a retry. If the process asked for the row before the question came, the row may not answer, because
 * it may lack a change that was known when the question came.
 */
export function mayAnswer(
  { freshness, isOld }: { freshness: Freshness; isOld: boolean },
  { askedAt, isRetry }: { askedAt: number; isRetry: boolean },
  feed: Pick<ChangeFeed, 'maxStalenessMs'>,
  { monotonic, wall }: Moment,
): boolean {
  if (isOld && (!isRetry || freshness.monotonic < askedAt)) return false
  return isWithin(freshness, feed.maxStalenessMs, monotonic, wall)
}
