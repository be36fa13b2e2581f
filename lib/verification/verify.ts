import { warn } from '../../models/warnings'
import { ApiKeysError, type InvalidReason } from '../errors'
import type { RetiredUses } from '../audit/retired-uses'
import { isOutage } from '../database/failures'
import type { Emitter } from '../keys/emitter'
import type { Digest, SecretFormat, SentKey } from '../keys/secret'
import type { CachedKey, KeyCache, KeyRow } from './cache'
import type { ChangeFeed } from '../freshness/change-feed'
import { hourMs, isWithin, momentOf, type Clock } from '../database/clock'
import type { FailedAttempts } from './failed-attempts'
import type { Fill, Fills } from './loader'
import { within } from '../database/time-limit'
import type { UsageRecorder } from '../usage/recorder'
import { AcceptedKey, type Bearer, type MakeSignal, type VerifiedApiKey } from './verified-key'

export type Verdict<Permission extends string = string, UserId = string | number> =
  | { valid: true; apiKey: VerifiedApiKey<Permission, UserId> }
  | {
      valid: false
      code: InvalidReason
      /** With `too_many_attempts`: when it may be tried again. */
      retryAfterSeconds?: number
    }

export type Verifier = ReturnType<typeof createVerifier>

interface VerifierParts {
  format: SecretFormat
  cache: KeyCache
  feed: ChangeFeed
  fills: Fills
  usage: Pick<UsageRecorder, 'noteUse' | 'countUse' | 'noteDenied'>
  retiredUses: RetiredUses
  attempts: FailedAttempts
  emitter: Pick<Emitter, 'emit'>
  makeSignal: MakeSignal
  clock: Clock
  maxStalenessMs: number
  /** Called once, when a key has the right shape, and its check is of no secret that the app has. */
  onUnknownSecret(): void
}

/** How often it is tried to find out about a key: a connection may be dead, a row older than what is known of the log. */
const maxAttempts = 3

/** How long somebody waits at least for a database that does not answer. */
const leastPatienceMs = 1_000

/** What is to be found out. */
interface Question {
  sent: SentKey
  digest: Digest
  bearer: Bearer
  /** By the monotonic clock. */
  askedAt: number
}

/** Accepts a key that was minted here, is in the database, is active and has not expired. */
export function createVerifier(parts: VerifierParts) {
  const { format, cache, feed, fills, usage, retiredUses, attempts, makeSignal, clock } = parts
  const { emitter, maxStalenessMs, onUnknownSecret } = parts
  let isSecretDoubted = false
  /** From when on the use of a secret that works no more is worth noting. */
  const noteRetiredFromMs = new WeakMap<CachedKey, number>()
  let hits = 0
  let misses = 0

  /** Decides from what is remembered, at once; `undefined` where the database has to be asked. */
  function recall(
    digest: Digest,
    bearer: Bearer,
    key: CachedKey | undefined = cache.get(digest),
  ): Verdict | undefined {
    const monotonic = clock.monotonic()
    const wall = clock.wall()

    if (key === undefined) {
      if (!cache.isUnknown(digest) || !feed.isLive(monotonic, wall)) return undefined
    } else if (!mayUse(key, monotonic, wall)) {
      return undefined
    }
    feed.noteUse(monotonic)
    return decide(key, wall, bearer)
  }

  /** Whether a row is not older than it may be: the feed tells of its changes, or it was read only just now. */
  function mayUse({ freshness }: CachedKey, monotonic: number, wall: number): boolean {
    return (
      (freshness.isFollowed && feed.isLive(monotonic, wall)) ||
      isWithin(freshness, maxStalenessMs, monotonic, wall)
    )
  }

  function decide(key: CachedKey | undefined, wall: number, bearer: Bearer): Verdict {
    if (!key) {
      attempts.note(bearer)
      return verdicts.unknown
    }

    const reason = judge(key, wall, bearer)
    if (reason) bearer.refused = key
    if (reason === 'retired') noteRetiredUse(key, wall, bearer)
    if (reason === 'address_not_allowed') return refuseAddress(key, wall, bearer)
    if (reason) return verdicts[reason]

    usage.countUse(key, wall, bearer)
    usage.noteUse(key, wall, bearer)
    const apiKey = new AcceptedKey(key, key.permissions, { bearer, makeSignal })
    return { valid: true, apiKey }
  }

  function refuseMalformed(sent: SentKey, bearer: Bearer): Verdict {
    if (!isSecretDoubted && format.hasShape(sent)) {
      isSecretDoubted = true
      onUnknownSecret()
    }
    const waitMs = attempts.note(bearer)
    if (waitMs === 0) return verdicts.malformed
    return {
      valid: false,
      code: 'too_many_attempts',
      retryAfterSeconds: Math.ceil(waitMs / 1_000),
    }
  }

  /** Somebody may have got hold of an old secret. Once an hour is enough to know. */
  function noteRetiredUse(key: CachedKey, wall: number, bearer: Bearer) {
    if (wall < (noteRetiredFromMs.get(key) ?? -Infinity)) return

    noteRetiredFromMs.set(key, startOfNextHour(wall))
    retiredUses.note(key, bearer.ip ?? null)
    emitter.emit('retired_secret_used', { apiKeyId: key.id })
  }

  /** The key is good, and whoever has it may not use it there: its owner wants to know. */
  function refuseAddress(key: CachedKey, wall: number, bearer: Bearer): Verdict {
    if (bearer.ip === undefined || bearer.ip === null) {
      warn(
        'API_KEYS_ADDRESS_UNKNOWN',
        "A key with allowedIps was refused because the address of the client is not known. Behind a proxy, set Express's `trust proxy`; give it to verify() as { ip }.",
      )
    }
    usage.countUse(key, wall, bearer)
    usage.noteDenied(key, bearer)
    return verdicts.address_not_allowed
  }

  async function answer(question: Question): Promise<Verdict> {
    try {
      const limitMs = Math.max(feed.patienceMs(), leastPatienceMs)
      return await within({ limitMs, isAwaited: true }, ask(question))
    } catch (error) {
      const isOfDatabase = !(error instanceof ApiKeysError) || isOutage(error)
      if (isOfDatabase) emitter.emit('unavailable', { error, address: question.bearer.ip ?? null })
      throw error
    }
  }

  /** Asks the database, and again where the answer came too late or from before what is known of the log. */
  async function ask(question: Question): Promise<Verdict> {
    const { digest, bearer } = question
    const { stops } = feed
    for (let attempt = 1; ; attempt++) {
      const verdict = await attemptOnce(question, attempt).catch((error: unknown) => {
        // What was known to be good may pass for a while, where the app says so.
        const remembered = recall(digest, bearer)
        if (remembered) return remembered
        const isWorthAnother = attempt < maxAttempts && isOutage(error) && feed.stops === stops
        if (!isWorthAnother) throw error
        return undefined
      })
      if (verdict) return verdict
      if (attempt === maxAttempts) throw new ApiKeysError('database_unavailable')
    }
  }

  async function attemptOnce(question: Question, attempt: number): Promise<Verdict | undefined> {
    const { digest, bearer } = question
    feed.wake()
    // One poll makes good again all that is remembered.
    if (attempt > 1 || !feed.isLive(clock.monotonic(), clock.wall())) await feed.poll()
    const remembered = recall(digest, bearer)
    if (remembered) return remembered

    refuseOneTooMany(question)
    const fill = await fills.fill(digest)
    const filled = recall(digest, bearer)
    if (filled) return filled
    if (!isUsable(fill, question, attempt)) return undefined
    return decide(fill.key ?? undefined, clock.wall(), bearer)
  }

  /** Where anybody can make what is looked up, an address that fails too often is not looked up for all the time. */
  function refuseOneTooMany({ sent, digest, bearer }: Question) {
    if (fills.isAwaited(digest) || attempts.mayLookUp(bearer)) return
    if (format.isForgeable(sent, digest)) throw new ApiKeysError('too_many_lookups')
  }

  /**
   * Whether a row may be used for one answer. Where the log goes on all the time, any row is old when it arrives; but one
   * that was asked for before the question may lack what was known by then.
   */
  function isUsable({ sentAt, isOld }: Fill, { askedAt }: Question, attempt: number): boolean {
    if (isOld && (attempt === 1 || sentAt.monotonic < askedAt)) return false

    return isWithin(sentAt, maxStalenessMs, clock.monotonic(), clock.wall())
  }

  return {
    /** Says whether a key is good: at once where it is remembered, else once the database has answered. */
    verify(sent: SentKey, bearer: Bearer): Verdict | Promise<Verdict> {
      const digest = format.parse(sent)
      if (digest === null) return refuseMalformed(sent, bearer)

      const verdict = recall(digest, bearer, cache.use(digest))
      if (verdict !== undefined) {
        hits++
        return verdict
      }
      misses++
      const question = { sent, digest, bearer, askedAt: clock.monotonic() }
      return answer(question)
    },

    /** Whether a key that was accepted a moment ago would be again, by what is remembered. It is no further use of it. */
    confirms(apiKey: AcceptedKey): boolean {
      const row = AcceptedKey.rowOf(apiKey)
      const { monotonic, wall } = momentOf(clock)
      const key = cache.get(row.digest)
      const isRemembered = key === row && mayUse(key, monotonic, wall)
      return isRemembered && judge(row, wall, AcceptedKey.bearerOf(apiKey)) === null
    },

    get hits() {
      return hits
    },

    get misses() {
      return misses
    },
  }
}

function startOfNextHour(wall: number): number {
  return wall - (wall % hourMs) + hourMs
}

const verdicts = {
  malformed: refused('malformed'),
  unknown: refused('unknown'),
  revoked: refused('revoked'),
  suspended: refused('suspended'),
  expired: refused('expired'),
  retired: refused('retired'),
  address_not_allowed: refused('address_not_allowed'),
} satisfies Record<'malformed' | Judgement, Verdict>

function refused(code: InvalidReason): Verdict {
  return Object.freeze({ valid: false, code })
}

/** What may be wrong with a key. */
type Judgement = Exclude<InvalidReason, 'malformed' | 'too_many_attempts'>

/** Returns why a key is not good at a moment; `null` if it is. */
export function judge(row: KeyRow | null, wall: number, bearer: Bearer): Judgement | null {
  if (!row) return 'unknown'
  if (row.status !== 'ACTIVE') return row.status === 'REVOKED' ? 'revoked' : 'suspended'
  // From the millisecond that it names.
  if (row.expiresAtMs !== null && row.expiresAtMs <= wall) return 'expired'
  if (row.worksUntilMs !== null && row.worksUntilMs <= wall) return 'retired'
  const { allowedIps } = row.policy
  return allowedIps === null || allowedIps.includes(bearer.ip) ? null : 'address_not_allowed'
}
