import { momentOf } from '../database/clock'
import { isOutage } from '../database/failures'
import { within } from '../database/time-limit'
import { ApiKeysError } from '../errors'
import type { AnyApp, App, EnvironmentOption, If } from '../keys/app'
import type { Closable } from '../keys/closable'
import type { RequestedResources } from '../keys/resources'
import type { Digest, SecretFormat, SentKey } from '../keys/secret'
import type { UsageRecorder } from '../usage/recorder'
import {
  isStillUnknown,
  mayAnswer,
  mayUse,
  mayUseKey,
  misplaced,
  type CachedKey,
  type KeyRow,
} from './cache'
import type { Memory } from './memory'
import { answerLimitMs, type OwnerPermissions } from './owner-permissions'
import {
  refuse,
  refuseMalformed,
  refuseUnknown,
  type KeyFault,
  type RefusalParts,
  type Refused,
} from './refuse'
import { Acceptance, type KeyCaller, type MakeSignal, type VerifiedApiKey } from './verified-key'

/** The options of `verify`. */
export type VerifyOptions<
  Environment extends string = never,
  Resource extends string = never,
> = VerifyBasics &
  EnvironmentOption<Environment> &
  If<Resource, { resource?: RequestedResources<Resource> | null | undefined }>

interface VerifyBasics {
  /**
   * The `signal` of the key is kept until this ends: a response, a request, a socket, a WebSocket, or another event emitter that emits
   * `close`, `finish` or `disconnect`. Without it, the signal is kept until it aborts.
   */
  until?: Closable
  /** The address that the key came from. Without it, a key with `allowedIps` is refused. */
  ip?: string | undefined
}

export type Verdict<A extends App = AnyApp> = { valid: true; apiKey: VerifiedApiKey<A> } | Refused

/** The same, before the app's object of the key is made. */
export type Decision = Acceptance | Refused

export type Verifier = ReturnType<typeof createVerifier>

interface VerifierParts extends RefusalParts {
  format: SecretFormat
  memory: Memory
  usage: RefusalParts['usage'] & Pick<UsageRecorder, 'noteUse'>
  makeSignal: MakeSignal
}

/** A key that the database is asked for. */
interface Question {
  sent: SentKey
  digest: Digest
  caller: KeyCaller
  /** By the monotonic clock. */
  askedAt: number
}

/** How often the database or the app is asked: a connection may be dead, and an answer may be older than a reported change. */
export const maxAttempts = 3

/** How long a request waits at least for a database that does not answer. */
export const leastPatienceMs = 1_000

/**
 * Makes `verify`, which accepts a key if and only if it meets the eleven conditions in the README of this folder. The
 * conditions on the key are below, by their numbers. The conditions on the request (1, 6, 9, 10, a part of 11, and the permissions that a route
 * demands) are in `lib/http`.
 */
export function createVerifier(parts: VerifierParts) {
  const { format, memory } = parts
  const { cache, clock, ownerPermissions } = memory
  /** How many keys were cached, and how many were not. */
  const counts = { hits: 0, misses: 0 }

  return {
    /** Says if a key is good: at once if the key and what its owner may do are cached, else once they are read. */
    verify(sent: SentKey, caller: KeyCaller): Decision | Promise<Decision> {
      // 2. It has the shape, length and alphabet of a key, and its check is right.
      const digest = format.parse(sent)
      if (digest === null) return refuseMalformed(sent, caller, parts)

      // 3, 4, 5 and 7. Its hash was in the database within the bound, and its row allows the use: see `faultOf`.
      const decision = decideFromCache(digest, caller, cache.use(digest), parts)
      if (decision === undefined) {
        counts.misses++
        return verifyUncached({ sent, digest, caller, askedAt: clock.monotonic() }, parts)
      }
      counts.hits++

      // 8. It holds the permissions that its owner holds as well.
      return ownerPermissions === undefined ? decision : limitToOwner(decision, sent, parts)
    },

    counts,
  }
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
function decideFromCache(
  digest: Digest,
  caller: KeyCaller,
  key: CachedKey | undefined,
  parts: VerifierParts,
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

function decide(
  key: CachedKey | undefined,
  wall: number,
  caller: KeyCaller,
  parts: VerifierParts,
): Decision {
  const { usage, makeSignal } = parts
  if (key === undefined) return refuseUnknown(caller, parts)

  const fault = faultOf(key, wall, caller)
  if (fault !== null) return refuse(key, fault, wall, caller, parts)

  usage.countUse(key, wall, caller)
  usage.noteUse(key, wall, caller)
  return new Acceptance(key, key.permissions, caller, makeSignal)
}

/** Condition 8: leaves an accepted key the permissions that its owner holds as well. */
function limitToOwner(
  decision: Decision,
  sent: SentKey,
  parts: VerifierParts,
): Decision | Promise<Decision> {
  const { ownerPermissions, clock } = parts.memory
  if (ownerPermissions === undefined || !decision.valid) return decision

  const held = ownerPermissions.get(decision.row.owner, clock.monotonic(), clock.wall())
  if (held) return decision.narrow(ownerPermissions.inBoth(decision.permissions, held.permissions))
  const asking = askForOwner(ownerPermissions, decision, sent, parts)
  return within({ limitMs: answerLimitMs, isAwaited: true }, asking)
}

/** Asks the app for the owner's permissions, and asks again if the owner was changed in between. */
async function askForOwner(
  ownerPermissions: OwnerPermissions,
  accepted: Acceptance,
  sent: SentKey,
  parts: VerifierParts,
): Promise<Decision> {
  const { cache, clock, feed } = parts.memory
  const { caller } = accepted
  let key = accepted
  for (let attempt = 1; attempt <= maxAttempts; attempt++) {
    const { owner } = key.row
    // Another request may have asked since.
    const known = ownerPermissions.get(owner, clock.monotonic(), clock.wall())
    const held = known ?? (await ownerPermissions.ask(owner))
    // The key may have changed in between as well.
    if (!isStillGood(key, parts)) {
      const { digest } = key.row
      const again =
        decideFromCache(digest, caller, cache.use(digest), parts) ??
        (await askDatabase({ sent, digest, caller, askedAt: clock.monotonic() }, parts))
      if (!again.valid) return again
      key = again
    }
    const { monotonic, wall } = momentOf(clock)
    const isRecent = held.freshness.isFollowed || attempt > 1
    const isOwner = held.owner.name === key.row.owner.name
    if (isRecent && isOwner && mayUse(held.freshness, feed, monotonic, wall)) {
      return key.narrow(ownerPermissions.inBoth(key.permissions, held.permissions))
    }
  }
  throw new ApiKeysError('database_unavailable')
}

/** True if the cache says that a key which was accepted a moment ago is still good. It counts no further use of the key. */
function isStillGood({ row, caller }: Acceptance, { memory }: VerifierParts): boolean {
  const { cache, clock, feed } = memory
  const { monotonic, wall } = momentOf(clock)
  const key = cache.get(row.digest)
  if (key !== row || !mayUseKey(key, feed, monotonic, wall)) return false
  return faultOf(row, wall, caller) === null
}

async function verifyUncached(question: Question, parts: VerifierParts): Promise<Decision> {
  return limitToOwner(await askDatabase(question, parts), question.sent, parts)
}

async function askDatabase(question: Question, parts: VerifierParts): Promise<Decision> {
  const { emitter, memory } = parts
  try {
    const limitMs = Math.max(memory.feed.patienceMs(), leastPatienceMs)
    return await within({ limitMs, isAwaited: true }, askUntilAnswered(question, parts))
  } catch (error) {
    const isOfDatabase = !(error instanceof ApiKeysError) || isOutage(error)
    if (isOfDatabase) emitter.emit('unavailable', { error, address: question.caller.ip ?? null })
    throw error
  }
}

/** Asks the database, and again if the answer came too late, or may lack a change that was reported. */
async function askUntilAnswered(question: Question, parts: VerifierParts): Promise<Decision> {
  const { digest, caller } = question
  const { cache, feed } = parts.memory
  const { stops } = feed
  for (let attempt = 1; ; attempt++) {
    const decision = await askOnce(question, attempt, parts).catch((error: unknown) => {
      // If the app has set `outageGraceMs`, keys that were good may be used a while longer.
      const cached = decideFromCache(digest, caller, cache.get(digest), parts)
      if (cached) return cached
      const isWorthAnother = attempt < maxAttempts && isOutage(error) && feed.stops === stops
      if (!isWorthAnother) throw error
      return undefined
    })
    if (decision) return decision
    if (attempt === maxAttempts) throw new ApiKeysError('database_unavailable')
  }
}

async function askOnce(
  { sent, digest, caller, askedAt }: Question,
  attempt: number,
  parts: VerifierParts,
): Promise<Decision | undefined> {
  const { cache, clock, feed, loader } = parts.memory
  feed.noteUse(clock.monotonic())
  // One poll renews the lease, so that all cached keys may be used again.
  if (attempt > 1 || !feed.isLive(clock.monotonic(), clock.wall())) await feed.poll()
  const cached = decideFromCache(digest, caller, cache.get(digest), parts)
  if (cached) return cached

  // Without secrets, every client can forge a key that needs a look-up. An address that fails too often gets only a
  // few.
  if (!loader.isAwaited(digest) && !parts.attempts.mayLookUp(caller)) {
    if (parts.format.isForgeable(sent, digest)) throw new ApiKeysError('too_many_lookups')
  }
  const loaded = await loader.load(digest)
  const cachedNow = decideFromCache(digest, caller, cache.get(digest), parts)
  if (cachedNow) return cachedNow
  const now = momentOf(clock)
  if (!mayAnswer(loaded, { askedAt, isRetry: attempt > 1 }, feed, now)) return undefined
  return decide(loaded.key ?? undefined, now.wall, caller, parts)
}
