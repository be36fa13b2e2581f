import { warn } from '../../models/warnings'
import { isWithin, type Clock, type Moment } from '../database/clock'
import { isOutage } from '../database/failures'
import type { LogReading, Position } from './change-log'
import type { Settings } from '../read-options'

/** Takes the reports of the feed that it needs, in the order in which things happened. */
export interface FeedListener {
  /** Reports keys that were changed. */
  onChanges?(ids: readonly string[]): void
  /** Reports the names of owners who were suspended or reactivated, or whose permissions may have changed. */
  onOwnerChanges?(names: readonly string[]): void
  /** Reports that SQL has added keys, or that keys have new hashes. Keys that the library creates are not reported. */
  onNew?(): void
  /** Reports that SQL has added keys, or that keys were imported. */
  onAdded?(): void
  /** Reports the transactions whose entries were read. */
  onEntries?(xids: readonly string[]): void
  /** Reports that anything may have changed: nothing that was read before may be used any longer. */
  onGap?(): void
  /** Reports that the log cannot be relied on at the moment. */
  onDoubt?(): void
  /** Reports that the process begins to follow the log, and that it stops. */
  onStart?(): void
  onStop?(): void
  /** Reports that the database did not answer, or that a standby did. Other connections may be no better. */
  onOutage?(): void
  /** Reports that the database did not answer, and never has. */
  onNeverReached?(error: unknown): void
  /** True if the log has to be followed although no key is verified, for example for a signal that may have to abort. */
  isNeeded?(): boolean
}

/** The state of the feed. */
export type FeedState =
  /** No key is verified. */
  | 'idle'
  /** The first answer is under way. */
  | 'starting'
  /** Changes arrive. The cache may be used. */
  | 'following'
  /** The database cannot be reached, or does not answer in time. */
  | 'unreachable'
  /** The server is a standby. Nothing that it says is relied on. */
  | 'standby'
  /** Logical replication feeds the table of keys, and may lag behind. Nothing that the server says is relied on. */
  | 'subscriber'
  /** A trigger that logs changes is missing, disabled or altered. Each key is read again within the bound. */
  | 'untrusted'

/** The state of a process and the log: the part that it has read, and how long it may rely on that part. */
export interface Lease extends Pick<Settings, 'maxStalenessMs' | 'outageGraceMs'> {
  clock: Clock
  report(reportTo: (listener: FeedListener) => void): void
  /** True as long as the process follows the log. */
  isActive: boolean
  /** When the poll was sent that granted the lease; `null` if there is none. */
  grantedAt: Moment | null
  lengthMs: number
  state: FeedState
  /** True once the database has answered since the process began to follow the log. */
  isAnswered: boolean
  /** Why the last poll failed; `null` if it succeeded. */
  failure: unknown
  /** The newest entry that was applied; `null` before the first. */
  applied: Position | null
  /** The version of the triggers at that time. */
  triggers: string | null
  clockOffsetMs: number | null
  /** How many times changes may have been missed. */
  gaps: number
}

const inactive = {
  isActive: false,
  grantedAt: null,
  lengthMs: 0,
  state: 'starting',
  isAnswered: false,
  failure: null,
} as const

/** Returns a lease that no poll has granted yet. */
export function createLease(
  parts: Pick<Lease, 'maxStalenessMs' | 'outageGraceMs' | 'clock' | 'report'>,
): Lease {
  return { ...parts, ...inactive, applied: null, triggers: null, clockOffsetMs: null, gaps: 0 }
}

/**
 * True if the cache may be used: both clocks agree that the lease is not over. `mayUse` in verification/cache.ts
 * applies this to a row.
 */
export function isLive({ grantedAt, lengthMs }: Lease, monotonic: number, wall: number): boolean {
  return grantedAt !== null && isWithin(grantedAt, lengthMs, monotonic, wall)
}

/**
 * Applies the reading of a poll. A reading that can be relied on grants a lease from the moment when the poll was sent.
 */
export function applyReading(lease: Lease, reading: LogReading) {
  const { clock, report } = lease
  lease.isAnswered = true
  lease.failure = null
  lease.clockOffsetMs = reading.serverMs - clock.wall()
  lease.state = stateOf(reading)
  // A lease that was granted before goes on, without grace, because it rests on the state at that time.
  lease.lengthMs = lease.maxStalenessMs
  // Another connection may lead to the primary.
  if (reading.isStandby) report((listener) => listener.onOutage?.())
  if (reading.isSubscriber) {
    // Changes that replication brings are not in the log.
    lease.triggers = null
    warnOfSubscriber()
  }
  if (lease.state !== 'following') return report((listener) => listener.onDoubt?.())

  reportChanges(lease, reading)
  lease.applied = reading.newest
  lease.triggers = reading.triggers
  lease.grantedAt = reading.sentAt
  report((listener) => listener.onEntries?.(reading.xids))
}

/** Reports the changes since the last reading; a gap if it was another log, or says too much. */
function reportChanges(lease: Lease, reading: LogReading) {
  const { continues, triggers, changedIds, changedOwners, hasNew, hasAdded } = reading
  if (!continues || triggers !== lease.triggers || changedIds === null) return reportGap(lease)

  const { report } = lease
  if (changedIds.length > 0) report((listener) => listener.onChanges?.(changedIds))
  if (changedOwners.length > 0) report((listener) => listener.onOwnerChanges?.(changedOwners))
  if (hasNew) report((listener) => listener.onNew?.())
  if (hasAdded) report((listener) => listener.onAdded?.())
}

/** Notes that a poll has failed. If the database is unreachable, keys that were good may be accepted for `outageGraceMs` longer. */
export function noteFailure(lease: Lease, error: unknown) {
  const { maxStalenessMs, outageGraceMs, report } = lease
  lease.state = 'unreachable'
  lease.failure = error
  if (!isOutage(error)) return

  if (!lease.applied) report((listener) => listener.onNeverReached?.(error))
  lease.lengthMs = maxStalenessMs + outageGraceMs
  report((listener) => listener.onOutage?.())
}

/** Ends a lease, because the process no longer follows the log. */
export function endLease(lease: Lease) {
  Object.assign(lease, inactive)
}

/** Ends a lease, and applies nothing before the whole log was read again. */
export function beginAnew(lease: Lease) {
  lease.applied = null
  lease.grantedAt = null
  reportGap(lease)
}

function reportGap(lease: Lease) {
  lease.gaps++
  lease.report((listener) => listener.onGap?.())
}

/** Returns the state of the feed, for reports of health. */
export function healthOf(lease: Lease, now: Moment) {
  const { grantedAt, lengthMs } = lease
  const ageMs = grantedAt && now.monotonic - grantedAt.monotonic
  const isLeased = isLive(lease, now.monotonic, now.wall)
  return {
    lease: { isLive: isLeased, remainingMs: isLeased && ageMs !== null ? lengthMs - ageMs : 0 },
    feed: lease.isActive ? lease.state : 'idle',
    revision: lease.applied?.revision ?? null,
    lagMs: ageMs,
    failure: lease.failure,
    clockOffsetMs: lease.clockOffsetMs,
  }
}

function stateOf({ isStandby, isSubscriber, ...reading }: LogReading): FeedState {
  if (isStandby) return 'standby'
  if (isSubscriber) return 'subscriber'
  const isReliable = reading.triggers !== null && reading.isRegistered && reading.newest !== null
  return isReliable ? 'following' : 'untrusted'
}

function warnOfSubscriber() {
  warn(
    'API_KEYS_SUBSCRIBER',
    'Logical replication feeds the table of keys and may lag behind, so that no key is accepted. Drop the subscription ' +
      'when the app moves to this database.',
  )
}
