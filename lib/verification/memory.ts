import type { Background } from '../database/background'
import type { Clock } from '../database/clock'
import { createChangeFeed } from '../freshness/change-feed'
import type { ChangeLogReader } from '../freshness/change-log'
import type { Emitter } from '../keys/emitter'
import type { Grantable } from '../keys/grantable'
import { createKeyCache } from './cache'
import { createLoader } from './loader'
import type { Lookup } from './lookup'
import { createOwnerPermissions } from './owner-permissions'
import type { Settings } from '../read-options'

interface MemoryParts extends Pick<
  Settings,
  'cacheSize' | 'maxStalenessMs' | 'outageGraceMs' | 'grantableMaxAgeMs' | 'permissions'
> {
  background: Background
  clock: Clock
  log: Pick<ChangeLogReader, 'read' | 'register' | 'prune'>
  lookUp: Lookup
  /** How long the first answer of the database is waited for. */
  firstAnswerLimitMs: number
  grantable: Grantable | undefined
  emitter: Pick<Emitter, 'emit'>
  /** Called when a standby answered a look-up. */
  onStandby(): void
}

export type Memory = ReturnType<typeof createMemory>

/**
 * Makes what a process keeps of the database to verify keys: the cache of keys, what their owners may do, the feed of the changes
 * that make both old, and the loader that fills the cache.
 */
export function createMemory(parts: MemoryParts) {
  const { clock, grantable } = parts
  const cache = createKeyCache(parts.cacheSize)
  const feed = createChangeFeed(parts)
  const loader = createLoader({ ...parts, feed, cache })
  const ownerPermissions =
    grantable &&
    createOwnerPermissions({
      ...parts,
      grantable,
      feed,
      maxUsers: parts.cacheSize,
      maxAgeMs: parts.grantableMaxAgeMs,
    })

  feed.listen({
    onChanges(ids) {
      for (const id of ids) cache.evict(id)
    },
    onUserChanges: (userIds) => ownerPermissions?.evict(userIds),
    onNew: () => cache.evictUnknown(),
    onGap() {
      cache.evictAll()
      ownerPermissions?.evictAll()
    },
    onStop: () => loader.cancel(),
  })

  return { clock, cache, feed, loader, ownerPermissions }
}
