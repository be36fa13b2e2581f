import { ApiKeysError, type InvalidReason } from '../errors'
import { isOutage } from '../keys/database'
import type { Digest, SecretFormat } from '../keys/secret'
import type { CachedKey, KeyCache, KeyRow } from './cache'
import type { ChangeFeed } from './change-feed'
import { isWithin, type Clock } from './clock'
import type { Fill, Fills } from './fills'
import { longestLimitMs, within } from './time-limit'
import type { UsageRecorder } from './usage'
import { AcceptedKey, type Bearer, type MakeSignal, type VerifiedApiKey } from './verified-api-key'

export type Verdict<Permission extends string = string, UserId = string | number> =
  | { valid: true; apiKey: VerifiedApiKey<Permission, UserId> }
  | { valid: false; code: InvalidReason }

export type { VerifiedApiKey }

export type Verifier = ReturnType<typeof createVerifier>

interface VerifierParts {
  format: SecretFormat
  cache: KeyCache
  feed: ChangeFeed
  fills: Fills
  usage: Pick<UsageRecorder, 'noteUse' | 'noteRetiredUse'>
  makeSignal: MakeSignal
  clock: Clock
  maxStalenessMs: number
}

/** How often it is tried to find out about a key: a connection may be dead, a row older than what is known of the log. */
const maxAttempts = 3

/** How long somebody waits at least for a database that does not answer. */
const leastPatienceMs = 1_000

/** Accepts a key that was minted here, is in the database, is active and has not expired. */
export function createVerifier(parts: VerifierParts) {
  const { format, cache, feed, fills, usage, makeSignal, clock, maxStalenessMs } = parts
  const patienceMs = Math.max(longestLimitMs(maxStalenessMs), leastPatienceMs)
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
    return decide(key?.row ?? null, key, wall, bearer)
  }

  /** Whether a row is not older than it may be: the feed tells of its changes, or it was read only just now. */
  function mayUse(key: CachedKey, monotonic: number, wall: number): boolean {
    return (
      (key.isFollowed && feed.isLive(monotonic, wall)) ||
      isWithin(key.readAt, maxStalenessMs, monotonic, wall)
    )
  }

  function decide(
    row: KeyRow | null,
    key: CachedKey | undefined,
    wall: number,
    bearer: Bearer,
  ): Verdict {
    const reason = judge(row, wall, bearer)
    if (row && reason === 'retired') noteRetiredUse(row.id, key, wall, bearer)
    if (!row || reason) return verdicts[reason ?? 'unknown']

    if (key) {
      if (wall >= key.noteFromMs) key.noteFromMs = usage.noteUse(row.id, wall)
    } else {
      usage.noteUse(row.id, wall)
    }
    return { valid: true, apiKey: new AcceptedKey(row, bearer, makeSignal) }
  }

  /** Somebody may have got hold of an old secret. Once an hour is enough to know. */
  function noteRetiredUse(id: string, key: CachedKey | undefined, wall: number, bearer: Bearer) {
    if (key) {
      if (wall < key.noteRetiredFromMs) return
      key.noteRetiredFromMs = startOfNextHour(wall)
    }
    usage.noteRetiredUse(id, bearer.ip)
  }

  /** Asks the database, and again where the answer came too late or from before what is known of the log. */
  async function ask(digest: Digest, bearer: Bearer): Promise<Verdict> {
    const { stops } = feed
    for (let attempt = 1; ; attempt++) {
      const verdict = await attemptOnce(digest, bearer, attempt).catch((error: unknown) => {
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

  async function attemptOnce(
    digest: Digest,
    bearer: Bearer,
    attempt: number,
  ): Promise<Verdict | undefined> {
    feed.wake()
    // One poll makes good again all that is remembered.
    if (attempt > 1 || !feed.isLive(clock.monotonic(), clock.wall())) await feed.poll()
    const remembered = recall(digest, bearer)
    if (remembered) return remembered

    const fill = await fills.fill(digest)
    const filled = recall(digest, bearer)
    if (filled) return filled
    const isUsable = isFresh(fill) && (!fill.isOld || attempt > 1)
    return isUsable ? decide(fill.row, undefined, clock.wall(), bearer) : undefined
  }

  function isFresh({ sentAt }: Fill): boolean {
    return isWithin(sentAt, maxStalenessMs, clock.monotonic(), clock.wall())
  }

  return {
    /** Says whether a key is good: at once where it is remembered, else once the database has answered. */
    verify(plainTextKey: string, bearer: Bearer): Verdict | Promise<Verdict> {
      const digest = typeof plainTextKey === 'string' ? format.parse(plainTextKey) : null
      if (digest === null) return verdicts.malformed

      const verdict = recall(digest, bearer, cache.use(digest))
      if (verdict !== undefined) {
        hits++
        return verdict
      }
      misses++
      return within({ limitMs: patienceMs, isAwaited: true }, ask(digest, bearer))
    },

    get hits() {
      return hits
    },

    get misses() {
      return misses
    },
  }
}

const hourMs = 3_600_000

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
} satisfies Record<InvalidReason, Verdict>

function refused(code: InvalidReason): Verdict {
  return Object.freeze({ valid: false, code })
}

/** Returns why a key is not good at a moment; `null` if it is. */
export function judge(row: KeyRow | null, wall: number, bearer: Bearer): InvalidReason | null {
  if (!row) return 'unknown'
  if (row.status !== 'ACTIVE') return row.status === 'REVOKED' ? 'revoked' : 'suspended'
  // From the millisecond that it names.
  if (row.expiresAtMs !== null && row.expiresAtMs <= wall) return 'expired'
  if (row.worksUntilMs !== null && row.worksUntilMs <= wall) return 'retired'
  const { allowedIps } = row.policy
  return allowedIps === null || allowedIps.includes(bearer.ip) ? null : 'address_not_allowed'
}
