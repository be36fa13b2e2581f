import { setImmediate, type Background } from '../database/background'
import { isWithin, momentOf, type Clock, type Moment } from '../database/clock'
import { leastLimitMs, longestLimitMs } from '../database/time-limit'
import { ApiKeysError } from '../errors'
import type { ChangeFeed } from '../freshness/change-feed'
import type { Digest } from '../keys/secret'
import { CachedKey, freshnessOf, placeOf, type Freshness, type KeyCache } from './cache'
import type { KeyReading, Lookup } from './lookup'

/** A key as it was loaded. */
export interface Loaded {
  /** `null` if no key has the hash. */
  key: CachedKey | null
  freshness: Freshness
  /** True if the log has moved on since the key was read, so that the key may have changed. */
  isOld: boolean
}

/** Keys that are read in one query. */
interface Batch {
  digests: Set<Digest>
  /** The hashes of keys that this process has added since the query was sent. */
  added: Set<Digest>
  /** When the query was sent, or will be at the earliest. */
  startedAt: Moment
  result: Promise<Map<Digest, Loaded>>
  isCancelled: boolean
}

export type Loader = ReturnType<typeof createLoader>

interface LoaderParts {
  background: Pick<Background, 'run'>
  lookUp: Lookup
  feed: ChangeFeed
  cache: KeyCache
  clock: Clock
  /** Called when a standby answered. */
  onStandby(): void
}

/** How many keys are read in one query. */
const maxDigests = 500

/** How long the answer of a probe is waited for at least. */
const leastProbeMs = 1_000

/**
 * Loads keys that are not cached. Requests for one key share one read, and keys that are asked for at about the same
 * time share one query. One query runs at a time. The next query has the keys that were asked for during it.
 */
export function createLoader(parts: LoaderParts) {
  const { background, feed, clock, lookUp, onStandby } = parts
  let running: Batch | undefined
  const waiting: Batch[] = []
  /** Why the last look-up failed, and when; `null` if it succeeded. */
  let failure: { error: unknown; at: Moment } | null = null

  async function read(digests: readonly Digest[], limitMs: number): Promise<KeyReading> {
    try {
      const reading = await lookUp(digests, limitMs)
      // Another connection may lead to the primary.
      if (reading?.isStandby === true) onStandby()
      const fault = faultOf(reading)
      if (!reading || fault !== null) {
        throw new ApiKeysError('database_unavailable', { cause: new Error(String(fault)) })
      }

      failure = null
      return reading
    } catch (error) {
      failure = { error, at: momentOf(clock) }
      throw error
    }
  }

  async function send(batch: Batch): Promise<Map<Digest, Loaded>> {
    if (batch.isCancelled) throw new ApiKeysError('database_unavailable')

    waiting.splice(waiting.indexOf(batch), 1)
    running = batch
    batch.startedAt = momentOf(clock)
    const { gaps } = feed.lease
    try {
      const reading = await read([...batch.digests], limitMsOf(feed, clock))
      return keep(reading, batch, gaps, parts)
    } finally {
      running = undefined
    }
  }

  function startBatch(): Batch {
    const previous = waiting.at(-1)?.result ?? running?.result
    const batch: Batch = {
      digests: new Set(),
      added: new Set(),
      startedAt: momentOf(clock),
      isCancelled: false,
      // In a later turn, so that the keys that are asked for in this turn are in the same query.
      result: background.run(() =>
        Promise.resolve(previous)
          .catch(() => {})
          .then(() => nextTurn())
          .then(() => send(batch)),
      ),
    }
    waiting.push(batch)
    return batch
  }

  return {
    /** Reads a key from the database, and caches it if changes of it will be reported. */
    async load(digest: Digest): Promise<Loaded> {
      let batch = running
      if (!batch?.digests.has(digest) || !mayJoin(batch, parts)) {
        batch = waiting.find(({ digests }) => digests.has(digest) || digests.size < maxDigests)
        batch ??= startBatch()
        batch.digests.add(digest)
      }
      const loaded = (await batch.result).get(digest)
      if (!loaded) throw new Error('express-api-keys: a key was not read')
      return loaded
    },

    /** True if a request waits for the key already. */
    isAwaited(digest: Digest): boolean {
      const batches = running ? [running, ...waiting] : waiting
      return batches.some(({ digests }) => digests.has(digest))
    },

    /**
     * Notes that this process has added a key. A look-up under way may have been sent before that, and miss the key.
     */
    noteAdded(digest: Digest) {
      running?.added.add(digest)
    },

    /** Lets the batches fail that are not sent yet. */
    cancel() {
      for (const batch of waiting.splice(0)) batch.isCancelled = true
    },

    /** Tries out if keys can be looked up, by a look-up of no key. */
    async probe() {
      await read([], Math.max(longestLimitMs(feed.maxStalenessMs), leastProbeMs))
    },

    get failure() {
      return failure
    },
  }
}

/** True if a request of now may use the result of a batch. */
function mayJoin({ startedAt }: Batch, { feed, clock }: LoaderParts): boolean {
  return isWithin(startedAt, feed.maxStalenessMs, clock.monotonic(), clock.wall())
}

/** Returns why a reading is not used. A standby and a subscriber may lag behind. */
function faultOf(reading: KeyReading | null): string | null {
  if (!reading) return 'the log of changes is empty'
  if (reading.isStandby) return 'the server is a standby'
  return reading.isSubscriber ? 'logical replication feeds the table of keys' : null
}

/** A lease says that the database is there. Under a lease, a connection that hangs is given up in time for another one. */
function limitMsOf(feed: ChangeFeed, clock: Clock): number {
  const longestMs = feed.patienceMs()
  const isThere = feed.isLive(clock.monotonic(), clock.wall())
  return isThere ? Math.max(longestMs / 3, leastLimitMs) : longestMs
}

/** Caches the keys of a reading, unless the log has moved on since `gaps` was read and the query was sent. */
function keep(
  reading: KeyReading,
  { digests, added }: Batch,
  gaps: number,
  { feed, cache }: LoaderParts,
): Map<Digest, Loaded> {
  // No call with `everywhere` waits for a bound that is not registered.
  if (!reading.isRegistered) throw new ApiKeysError('database_unavailable')

  const place = placeOf(reading, feed)
  const isOlder = gaps !== feed.lease.gaps || place === 'older'
  if (place === 'unconfirmed') feed.catchUp()
  const freshness = freshnessOf(reading.sentAt, place === 'same')
  const all = new Map<Digest, Loaded>()
  for (const digest of digests) {
    const row = reading.rows.get(digest)
    const key = row ? new CachedKey(row, freshness) : null
    const isOld = isOlder || added.has(digest)
    all.set(digest, { key, freshness, isOld })
    if (isOld) continue

    // A pending secret is read at each use, until one of its uses has made it the current secret.
    if (key?.isPending === true) continue
    if (key) cache.set(key)
    else if (freshness.isFollowed) cache.setUnknown(digest, freshness)
  }
  return all
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve)
  })
}
