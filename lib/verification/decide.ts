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
  usage: RefusalParts['usage'] & Pick<UsageRecorder, 'noteUse'>
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

/** Condition 5: it is not expired. It expires with the millisecond that `expiresAt` names. */
export function faultOfExpiry({ expiresAtMs }: KeyRow, wall: number): KeyFault | null {
  return expiresAtMs !== null && expiresAtMs <= wall ? 'expired' : null
}

/** Condition 3: the hash is the hash of its current secret, or of an old secret in its grace period. */
export function faultOfSecret({ worksUntilMs }: KeyRow, wall: number): KeyFault | null {
  return worksUntilMs !== null && worksUntilMs <= wall ? 'retired' : null
}

/** Returns when a secret of a key stops working, in milliseconds since 1970; `Infinity` if it does not. */
export function endOf({ expiresAtMs, worksUntilMs }: KeyRow): number {
  return Math.min(expiresAtMs ?? Infinity, worksUntilMs ?? Infinity)
}

/** Condition 11: its row and the start of its secret name one environment. */
export function faultOfEnvironment({ environment }: KeyRow): KeyFault | null {
  return environment === misplaced ? 'environment_mismatch' : null
}

/** Condition 7: it has no addresses, or one of them covers the client's. */
export function faultOfAddress(
  { policy: { allowedIps } }: KeyRow,
  { ip }: Pick<KeyCaller, 'ip'>,
): KeyFault | null {
  return allowedIps === null || allowedIps.includes(ip) ? null : 'address_not_allowed'
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

export function decide(
  key: CachedKey | undefined,
  wall: number,
  caller: KeyCaller,
  parts: DecidingParts,
): Decision {
  const { usage, makeSignal } = parts
  if (key === undefined) return refuseUnknown(caller, parts)

  const fault = faultOf(key, wall, caller)
  if (fault !== null) return refuse(key, fault, wall, caller, parts)

  usage.countUse(key, wall, caller)
  usage.noteUse(key, wall, caller)
  return new Acceptance(key, key.permissions, caller, makeSignal)
}
