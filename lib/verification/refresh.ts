import type { Transaction } from 'sequelize'

import { afterCommit } from '../database/query'
import type { OwnChanges } from '../database/own-changes'
import { longestLimitMs } from '../database/time-limit'
import type { ChangeLogReader } from '../freshness/change-log'
import type { Memory } from './memory'

interface RefreshParts {
  memory: Memory
  changeLog: Pick<ChangeLogReader, 'find' | 'remove' | 'reportUserChange'>
  ownChanges: OwnChanges
}

/** Makes the functions that bring this process up to date with a change of its own, before the caller is answered. */
export function createRefresh(parts: RefreshParts) {
  const { memory, changeLog, ownChanges } = parts
  const { cache, feed, ownerPermissions } = memory

  feed.listen({
    onEntries: (xids) =>
      ownChanges.follow(xids, {
        revision: feed.lease.applied?.revision ?? null,
        gaps: feed.lease.gaps,
      }),
  })

  return {
    /** Refreshes the cache after a key, or any number of keys, was changed, or when the transaction of the caller ends. */
    async changed(ids: readonly string[] | 'all', transaction: Transaction | undefined) {
      await refreshIn(transaction, parts, () => {
        if (ids === 'all') cache.evictAll()
        // The caller may have written an id in upper case.
        else for (const id of ids) cache.evict(id.toLowerCase())
        cache.evictUnknown()
      })
    },

    /** Reports to all processes that a user has changed: to this process now, or when the transaction of the caller ends. */
    async userChanged(userId: string | number, transaction: Transaction | undefined) {
      await changeLog.reportUserChange(userId, transaction)
      await refreshIn(transaction, parts, () => ownerPermissions?.evict([userId]))
    },
  }
}

async function refreshIn(
  transaction: Transaction | undefined,
  parts: RefreshParts,
  evict: () => void,
) {
  if (transaction) afterCommit(transaction, () => refresh(parts, evict))
  else await refresh(parts, evict)
}

/** Reads the change back from the log. If that fails, evicts what the change may have made old. */
async function refresh(parts: RefreshParts, evict: () => void) {
  const { feed } = parts.memory
  try {
    await feed.pollAnew()
    if (feed.lease.state === 'following') return await confirmOwnChanges(parts)
  } catch {
    // The change is committed, even if it cannot be read back. A process that verifies no keys opens no connection for it.
  }
  parts.ownChanges.clear()
  feed.noteGap()
  evict()
}

/** Begins anew if the log, as it was read since, lacks a change that this process has committed. */
async function confirmOwnChanges({ memory: { feed }, changeLog, ownChanges }: RefreshParts) {
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
