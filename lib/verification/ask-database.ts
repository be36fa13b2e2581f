import { momentOf } from '../database/clock'
import { isOutage } from '../database/failures'
import type { Observed } from '../database/observed'
import { within } from '../database/time-limit'
import { ApiKeysError } from '../errors'
import type { Digest, SecretFormat, SentKey } from '../keys/secret'
import { mayAnswer } from './cache'
import { decideFromCache, decideLoaded, type DecidingParts, type Decision } from './decide'
import type { KeyCaller } from './verified-key'

/** The parts that decide about a key which is not cached. */
export interface AskingParts extends DecidingParts {
  format: SecretFormat
  observed: Observed
}

/** A key that the database is asked for. */
export interface Question {
  sent: SentKey
  digest: Digest
  caller: KeyCaller
  /** By the monotonic clock. */
  askedAt: number
  /** True if every client can make such a key. */
  isForgeable?: boolean
}

/** How often the database or the app is asked: a connection may be dead, and an answer may be older than a reported change. */
export const maxAttempts = 3

/** How long a request waits at least for a database that does not answer. */
export const leastPatienceMs = 1_000

/** Decides about a key that is not cached. */
export async function askDatabase(question: Question, parts: AskingParts): Promise<Decision> {
  const { emitter, memory } = parts
  try {
    const limitMs = Math.max(memory.feed.patienceMs(), leastPatienceMs)
    return await parts.observed.run('lookup', () =>
      within({ limitMs, isAwaited: true }, askUntilAnswered(question, parts)),
    )
  } catch (error) {
    const isOfDatabase = !(error instanceof ApiKeysError) || isOutage(error)
    if (isOfDatabase) emitter.emit('unavailable', { error, address: question.caller.ip ?? null })
    throw error
  }
}

/** Asks the database, and again if the answer came too late, or may lack a change that was reported. */
async function askUntilAnswered(question: Question, parts: AskingParts): Promise<Decision> {
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
  { sent, digest, caller, askedAt, isForgeable = false }: Question,
  attempt: number,
  parts: AskingParts,
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
    if (isForgeable || parts.format.isForgeable(sent, digest))
      throw new ApiKeysError('too_many_lookups')
  }
  const loaded = await loader.load(digest)
  const cachedNow = decideFromCache(digest, caller, cache.get(digest), parts)
  if (cachedNow) return cachedNow
  const now = momentOf(clock)
  if (!mayAnswer(loaded, { askedAt, isRetry: attempt > 1 }, feed, now)) return undefined
  return decideLoaded(loaded.key ?? undefined, now.wall, caller, parts)
}
