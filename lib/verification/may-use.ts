import { isWithin, type Moment } from '../database/clock'
import type { ChangeFeed } from '../freshness/change-feed'
import { isLive } from '../freshness/lease'
import type { KeyReading } from './lookup'

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
 * Compares what a reading saw of the log with the entry up to which the feed has reported all changes. A reading from before that
 * entry may lack a change that will not be reported again. An entry that the feed has not applied, or triggers that it does not
 * know, may be lost in a failover before the feed reports them. Such rows may be used within the bound, but are not followed.
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
 * arrives. A row may then answer a retry, unless it was asked for before the question: it may lack a change that was known by then.
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
