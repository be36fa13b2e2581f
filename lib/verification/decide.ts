import { isWithin } from '../database/clock'
import type { Digest } from '../keys/secret'
import type { UsageRecorder } from '../usage/recorder'
import { isStillUnknown, mayUseKey, misplaced, type CachedKey, type KeyRow } from './cache'
import type { Memory } from './memory'
import { refuse, refuseUnknown, type KeyFault, type RefusalParts, type Refused } from './refuse'
import { Acceptance, type KeyCaller, type MakeSignal } from './verified-key'

/** A verdict, before the app's object of the key is made. */
export type Decision = Acceptance | Refused

/** The parts that decide about a key. */
export interface DecidingParts extends RefusalParts {
  memory: Memory
  usage: RefusalParts['usage'] & Pick<UsageRecorder, 'noteUse' | 'lastUseOf'>
  makeSignal: MakeSignal
}

/** Returns why the row of a key does not allow a use; `null` if it does. Without a row, no key has the hash (condition 3). */
export function faultOf(
  row: KeyRow | null,
  wall: number,
  caller: Pick<KeyCaller, 'ip'>,
): KeyFault | null {
  if (!row) return 'unknown'
  return (
    faultOfStatus(row) ??
    faultOfExpiry(row, wall) ??
    faultOfSecret(row, wall) ??
    faultOfEnvironment(row) ??
    faultOfAddress(row, caller)
  )
}

/** Condition 4: its status is ACTIVE, and its owner is not suspended. */
export function faultOfStatus({ status }: KeyRow): KeyFault | null {
  if (status === 'ACTIVE') return null
  return status === 'REVOKED' ? 'revoked' : 'suspended'
}

/** Condition 5: it is not expired. It expires with the millisecond that `expiresAt` names, or after so long without a use. */
export function faultOfExpiry({ endsAtMs }: KeyRow, wall: number): KeyFault | null {
  return endsAtMs <= wall ? 'expired' : null
}

/** Condition 3: the hash is the hash of its current secret, or of an old secret in its grace period. */
export function faultOfSecret({ worksUntilMs }: KeyRow, wall: number): KeyFault | null {
  return worksUntilMs !== null && worksUntilMs <= wall ? 'retired' : null
}

/** Returns when a secret of a key stops working however much it is used, in milliseconds since 1970; `Infinity` if it does not. */
export function lastEndOf({ expiresAtMs, worksUntilMs }: KeyRow): number {
  return Math.min(expiresAtMs ?? Infinity, worksUntilMs ?? Infinity)
}

/** Returns when a secret of a key stops working without a further use, in milliseconds since 1970; `Infinity` if it does not. */
export function endOf({ endsAtMs, worksUntilMs }: KeyRow): number {
  return Math.min(endsAtMs, worksUntilMs ?? Infinity)
}

/** Condition 11: its row and the start of its secret name one environment. */
export function faultOfEnvironment({ environment }: KeyRow): KeyFault | null {
  return environment === misplaced ? 'environment_mismatch' : null
}

/** Condition 7: it has no addresses, or one of them covers the client's. The address of a caller is read only if it matters. */
export function faultOfAddress(
  { policy: { allowedIps } }: KeyRow,
  caller: Pick<KeyCaller, 'ip'>,
): KeyFault | null {
  return allowedIps === null || allowedIps.includes(caller.ip) ? null : 'address_not_allowed'
}

/** Decides from the cache; `undefined` if the database has to be asked. */
export function decideFromCache(
  digest: Digest,
  caller: KeyCaller,
  key: CachedKey | undefined,
  parts: DecidingParts,
): Decision | undefined {
  const { cache, clock, feed } = parts.memory
  const monotonic = clock.monotonic()
  const wall = clock.wall()

  if (key === undefined) {
    if (!isStillUnknown(cache.unknownSince(digest), feed, monotonic, wall)) return undefined
  } else if (!mayUseKey(key, feed, monotonic, wall)) {
    return undefined
  }
  feed.noteUse(monotonic)
  return decide(key, wall, caller, parts)
}

/** Decides about a key; `undefined` if it seems idle, and other processes may have used it since its row was read. */
export function decide(
  key: CachedKey | undefined,
  wall: number,
  caller: KeyCaller,
  parts: DecidingParts,
): Decision | undefined {
  const { usage, makeSignal } = parts
  if (key === undefined) return refuseUnknown(caller, parts)

  let fault = faultOf(key, wall, caller)
  if (fault === 'expired' && isIdle(key, wall)) {
    noteOwnUses(key, parts)
    fault = faultOf(key, wall, caller)
    if (fault === 'expired' && !isRecent(key, wall, parts)) return undefined
  }
  if (fault !== null) return refuse(key, fault, wall, caller, parts)

  usage.countUse(key, wall, caller)
  usage.noteUse(key, wall, caller)
  return new Acceptance(key, key.permissions, caller, makeSignal)
}

/** Decides about a key that was just read. If its secret waits for its first use, the use is reported. */
export function decideLoaded(
  key: CachedKey | undefined,
  wall: number,
  caller: KeyCaller,
  parts: DecidingParts,
): Decision | undefined {
  const decision = decide(key, wall, caller, parts)
  if (key?.isPending === true && decision?.valid === true) {
    parts.memory.pendingUses.note({ id: key.id, digest: key.digest, address: caller.ip ?? null })
  }
  return decision
}

/** True if a key has expired, and not because of its `expiresAt`. */
export function isIdle({ expiresAtMs, endsAtMs }: CachedKey, wall: number): boolean {
  return endsAtMs <= wall && (expiresAtMs === null || expiresAtMs > wall)
}

/** The parts that know of the last uses of keys. */
export interface OwnUses {
  usage: Pick<UsageRecorder, 'lastUseOf'>
  memory: Pick<Memory, 'idleMs'>
}

/**
 * Lets an idle key expire later if this process has used it since its row was read. Uses of another of its secrets count as well. They
 * are in the object of that secret, and here as long as they are not written.
 */
export function noteOwnUses(key: CachedKey, { usage, memory }: OwnUses) {
  const lastMs = Math.max(key.lastUsedAtMs, usage.lastUseOf(key.id)?.atMs ?? -Infinity)
  const idleAtMs = Math.max(key.endsAtMs, lastMs + memory.idleMs)
  key.endsAtMs = Math.min(key.expiresAtMs ?? Infinity, idleAtMs)
}

/**
 * True if the row of an idle key was read within the bound. The log does not report uses, so an older row may lack the uses of other
 * processes. A caller that keeps sending an idle key costs one look-up per process and bound.
 */
function isRecent({ freshness }: CachedKey, wall: number, { memory }: DecidingParts): boolean {
  const { clock, feed } = memory
  return isWithin(freshness, feed.maxStalenessMs, clock.monotonic(), wall)
}
