import type { Transaction } from 'sequelize'

import type { Background } from '../database/background'
import type { Clock, ServerClock } from '../database/clock'
import type { Observed } from '../database/observed'
import type { OwnChanges } from '../database/own-changes'
import { afterCommit } from '../database/query'
import { longestLimitMs } from '../database/time-limit'
import { createChangeFeed } from '../freshness/change-feed'
import type { ChangeLogReader } from '../freshness/change-log'
import type { Emitter } from '../keys/emitter'
import type { Grantable } from '../keys/grantable'
import { nameOfOwner, type Owner } from '../keys/owner'
import { createKnownImports, type KnownImportsParts } from './known-imports'
import { fromStoredHash } from '../keys/secret'
import { createKeyCache } from './cache'
import { createLoader } from './loader'
import type { Lookup } from './lookup'
import { createOwnerPermissions } from './owner-permissions'
import type { OwnerCache } from './owners'
import { createPendingUses } from './pending-uses'
import type { Settings } from '../read-options'

interface MemoryParts extends Pick<
  Settings,
  'cacheSize' | 'maxStalenessMs' | 'outageGraceMs' | 'grantableMaxAgeMs' | 'permissions' | 'idleMs'
> {
  background: Background
  observed: Observed
  clock: Clock
  log: Pick<ChangeLogReader, 'read' | 'register' | 'prune'>
  lookUp: Lookup
  owners: OwnerCache
  /** `undefined` in an app without imported keys. */
  importing: Omit<KnownImportsParts, 'background' | 'clock' | 'feed'> | undefined
  /** How long the first answer of the database is waited for. */
  firstAnswerLimitMs: number
  grantable: Grantable | undefined
  emitter: Pick<Emitter, 'emit'>
  /** Called when a standby answered a look-up. */
  onStandby(): void
}

export type Memory = ReturnType<typeof createMemory>

/**
 * Makes the parts that a process needs to verify keys from memory: the cache of keys, the permissions of their owners,
 * the feed that reports changes of both, and the loader that fills the cache.
 */
export function createMemory(parts: MemoryParts) {
  const { clock, grantable, idleMs } = parts
  const cache = createKeyCache(parts.cacheSize)
  const feed = createChangeFeed(parts)
  const loader = createLoader({ ...parts, feed, cache })
  const knownImports = parts.importing && createKnownImports({ ...parts, ...parts.importing, feed })
  const ownerPermissions =
    grantable &&
    createOwnerPermissions({
      ...parts,
      grantable,
      feed,
      maxOwners: parts.cacheSize,
      maxAgeMs: parts.grantableMaxAgeMs,
    })

  /** Forgets all that is known of an owner: the grant, and the rows. */
  function forgetOwner(name: string) {
    parts.owners.forget(name)
    ownerPermissions?.evict(name)
  }

  feed.listen({
    onChanges(ids) {
      for (const id of ids) cache.evict(id)
    },
    onOwnerChanges(names) {
      for (const name of names) forgetOwner(name)
    },
    onNew: () => cache.evictAllUnknown(),
    onGap() {
      cache.evictAll()
      parts.owners.forgetAll()
      ownerPermissions?.evictAll()
    },
    onStop: () => loader.cancel(),
  })

  const pendingUses = createPendingUses()
  return {
    clock,
    cache,
    feed,
    loader,
    knownImports,
    ownerPermissions,
    pendingUses,
    idleMs,
    forgetOwner,
  }
}

interface RefreshParts {
  memory: Memory
  changeLog: Pick<ChangeLogReader, 'find' | 'remove' | 'reportOwnerChange'>
  ownChanges: OwnChanges
  serverClock: ServerClock
}

/** Makes the functions that bring this process up to date with a change of its own, before the caller is answered. */
export function createRefresh({ memory, changeLog, ownChanges, serverClock }: RefreshParts) {
  const { cache, feed, loader, knownImports, forgetOwner } = memory

  feed.listen({
    onEntries(xids) {
      const { applied, gaps, clockOffsetMs } = feed.lease
      ownChanges.follow(xids, { revision: applied?.revision ?? null, gaps })
      serverClock.set(clockOffsetMs ?? 0)
    },
  })

  /** Evicts the cache if the log that was read since then lacks a change that this process has committed. */
  async function confirmOwnChanges() {
    const missing = ownChanges.takeMissing(feed.lease.grantedAt?.monotonic ?? -Infinity)
    if (missing.length === 0) return

    feed.beginAnew()
    const xids = missing.map(({ xid }) => xid)
    const found = await changeLog.find(xids, longestLimitMs(feed.maxStalenessMs))
    const misplaced = missing.flatMap((change) => {
      const revision = found.get(change.xid)
      return revision !== undefined && ownChanges.isMisplaced(change, revision) ? [revision] : []
    })
    // Other processes have passed over the entry as well.
    if (misplaced.length > 0) await changeLog.remove(misplaced)
    await feed.pollAnew()
  }

  /** Reads the change back from the log. If that fails, evicts the rows that the change may have made old. */
  async function refresh(evict: () => void) {
    try {
      await feed.pollAnew()
      if (feed.lease.state === 'following') return await confirmOwnChanges()
    } catch {
      // The change is committed, even if it cannot be read back. A process that verifies no keys opens no connection for it.
    }
    ownChanges.clear()
    feed.noteGap()
    evict()
  }

  async function refreshIn(transaction: Transaction | undefined, evict: () => void) {
    if (transaction) afterCommit(transaction, () => refresh(evict))
    else await refresh(evict)
  }

  return {
    /**
     * Notes the hash of a key that was added, or that the transaction of the caller adds when it ends. From then on this process
     * accepts the key. Other processes accept it within the bound, because the log does not report it.
     */
    added(storedHash: string, transaction: Transaction | undefined) {
      const digest = fromStoredHash(storedHash)
      function note() {
        cache.evictUnknown(digest)
        loader.noteAdded(digest)
      }
      if (transaction) afterCommit(transaction, note)
      else note()
    },

    /** Notes the hash of an imported key, of a transaction that has committed. */
    imported(storedHash: string, salted: { source: string; locator: string } | null) {
      const digest = fromStoredHash(storedHash)
      cache.evictUnknown(digest)
      loader.noteAdded(digest)
      knownImports?.add(storedHash, salted)
    },

    /** Refreshes the cache after a key, or any number of keys, was changed, or when the transaction of the caller ends. */
    async changed(ids: readonly string[] | 'all', transaction: Transaction | undefined) {
      await refreshIn(transaction, () => {
        if (ids === 'all') cache.evictAll()
        // The caller may have written an id in upper case.
        else for (const id of ids) cache.evict(id.toLowerCase())
        cache.evictAllUnknown()
      })
    },

    /** Refreshes the cache after an owner was suspended or reactivated, or when the transaction of the caller ends. */
    async suspensionChanged(name: string, transaction: Transaction | undefined) {
      await refreshIn(transaction, () => forgetOwner(name))
    },

    /** Reports to all processes that an owner has changed: to this process now, or when the transaction of the caller ends. */
    async ownerChanged(owner: Owner, transaction: Transaction | undefined) {
      await changeLog.reportOwnerChange(owner, transaction)
      await refreshIn(transaction, () => forgetOwner(nameOfOwner(owner)))
    },
  }
}
