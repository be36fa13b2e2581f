import { momentOf } from '../database/clock'
import { within } from '../database/time-limit'
import { ApiKeysError } from '../errors'
import type { AnyApp, App, EnvironmentOption, If } from '../keys/app'
import type { Closable } from '../keys/closable'
import type { RequestedResources } from '../keys/resources'
import { signedText, type AcceptedSource, type ImportedKeys } from '../importing/imported-keys'
import type { Digest, SentKey } from '../keys/secret'
import { askDatabase, maxAttempts, type AskingParts, type Question } from './ask-database'
import { mayUse, mayUseKey } from './cache'
import { decideFromCache, faultOf, type Decision } from './decide'
import { answerLimitMs, type OwnerPermissions } from './owner-permissions'
import { refuseMalformed, type Refused } from './refuse'
import type { SaltedKeys } from './salted-keys'
import { newHashesOf, type createUpgrade, type NewHash } from './upgrade'
import type { Acceptance, KeyCaller, VerifiedApiKey } from './verified-key'

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
  /** The address that the key came from. Without it, a key with `allowedIps` is refused, and a bad key is no failed attempt. */
  ip?: string | undefined
}

export type Verdict<A extends App = AnyApp> = { valid: true; apiKey: VerifiedApiKey<A> } | Refused

export type Verifier = ReturnType<typeof createVerifier>

interface VerifierParts extends AskingParts {
  /** The parts for the keys of other systems; `undefined` in an app without imported keys. */
  imports:
    | {
        imported: ImportedKeys
        saltedKeys: SaltedKeys
        upgradeSoon: ReturnType<typeof createUpgrade>
      }
    | undefined
}

/** A key of another system, as one of the sources reads it. */
interface ImportedCandidate {
  accepted: AcceptedSource
  /** The hashes that it may have, under the secrets of the app, the first secret first. */
  digests: readonly NewHash[]
  /** True if it may have a salt. */
  isSalted: boolean
}

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
      if (digest === null)
        return parts.imports === undefined
          ? refuseMalformed(sent, caller, parts)
          : verifyImported(sent, caller, parts, counts)

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

/** Decides about a text that is no key of ours, and may be an imported key. What has our marker and our length is ours alone. */
function verifyImported(
  sent: SentKey,
  caller: KeyCaller,
  parts: VerifierParts,
  counts: { hits: number; misses: number },
): Decision | Promise<Decision> {
  const { imports, format, memory } = parts
  const { cache, clock, feed, knownImports: known } = memory
  if (imports === undefined || known === undefined || format.hasLength(sent)) {
    return refuseMalformed(sent, caller, parts)
  }
  const { all, hasShapeOf, fingerprintOf } = imports.imported
  const key = sent.text.slice(sent.start)
  let candidates: ImportedCandidate[] | undefined
  let fingerprint: string | undefined
  for (const accepted of all) {
    if (!hasShapeOf(accepted, key)) continue
    // Nearly all texts are cached keys that were used before: nothing is made for them that only other texts need.
    if (fingerprint === undefined) {
      fingerprint = fingerprintOf(key)
      const cached = cache.useFingerprint(fingerprint)
      const decision = cached && decideFromCache(cached.digest, caller, cached, parts)
      if (decision) {
        counts.hits++
        return limitToOwner(decision, sent, parts)
      }
    }
    let digests: NewHash[] | undefined
    const text = signedText(accepted.source, key)
    for (const hasher of accepted.hashersOf(text.length)) {
      const digest = hasher.digest(text)
      const cached = cache.use(digest)
      const decision = cached && decideFromCache(digest, caller, cached, parts)
      if (decision) {
        cache.noteFingerprint(fingerprint, cached)
        counts.hits++
        return limitToOwner(decision, sent, parts)
      }
      if (known.mayHave(digest)) (digests ??= []).push({ digest, secretId: hasher.secretId })
    }
    // The refusal relies on the feed, which has to go on.
    feed.noteUse(clock.monotonic())
    if (accepted.source.check?.(key) === false) continue
    const isSalted = imports.saltedKeys.mayHave(accepted, key)
    if (isSalted) digests = newHashesOf(accepted, text)
    if (digests) (candidates ??= []).push({ accepted, digests, isSalted })
  }
  if (!candidates) return refuseMalformed(sent, caller, parts)
  counts.misses++
  return verifyUncachedImport(candidates, { sent, key, caller }, parts)
}

/** Asks the database about each hash that an imported key may have, until one of them is there. Only all of them fail. */
async function verifyUncachedImport(
  candidates: readonly ImportedCandidate[],
  { sent, key, caller }: { sent: SentKey; key: string; caller: KeyCaller },
  parts: VerifierParts,
): Promise<Decision> {
  const { imports, memory } = parts
  const askedAt = memory.clock.monotonic()
  const uncounted = { ...parts, attempts: { ...parts.attempts, note: () => 0 } }
  const ask = async (digest: Digest) => {
    const question = { sent, digest, caller, askedAt, isForgeable: true }
    const decision = await askDatabase(question, uncounted)
    return !decision.valid && decision.code === 'unknown' ? undefined : decision
  }
  for (const { accepted, digests, isSalted } of candidates) {
    const [next] = digests
    const found = next && isSalted && imports?.saltedKeys.foundOf(next.digest, memory.cache)
    const cached = found && decideFromCache(found.digest, caller, found, parts)
    if (cached) return limitToOwner(cached, sent, parts)
    for (const { digest } of digests) {
      const decision = await ask(digest)
      if (decision) return limitToOwner(decision, sent, parts)
    }
    if (!imports || !isSalted || !next) continue
    for (const digest of await imports.saltedKeys.find(accepted, key, next.digest, caller)) {
      const decision = await ask(digest)
      if (!decision) continue
      if (decision.valid) imports.upgradeSoon(decision.row, next, caller.ip ?? null)
      return limitToOwner(decision, sent, parts)
    }
  }
  return refuseMalformed(sent, caller, parts)
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
