import type { Digest } from '../keys/secret'
import { setImmediate, type Background } from '../database/background'
import { ApiKeysError } from '../errors'
import { CachedKey, type KeyCache } from './cache'
import type { ChangeFeed } from '../freshness/change-feed'
import { isWithin, momentOf, type Clock, type Moment } from '../database/clock'
import type { KeyReading, Lookup } from './lookup'
import { leastLimitMs, longestLimitMs } from '../database/time-limit'

/** What came of reading one key. */
export interface Fill {
  /** `null` where no key has the hash. */
  key: CachedKey | null
  sentAt: Moment
  /** Whether the log is known to have gone on since, so that the key may have changed. */
  isOld: boolean
}

export type Fills = ReturnType<typeof createFills>

interface FillsParts {
  background: Pick<Background, 'run'>
  lookUp: Lookup
  feed: Pick<ChangeFeed, 'lease' | 'isLive' | 'patienceMs' | 'catchUp'>
  cache: KeyCache
  clock: Clock
  maxStalenessMs: number
  /** Called when what answered is a standby. */
  onStandby(): void
}

interface Flight {
  digests: Set<Digest>
  /** When it was sent, or will be at the earliest. */
  startedAt: Moment
  result: Promise<Map<Digest, Fill>>
  isCancelled: boolean
}

/** How many keys are read in one query. */
const maxDigests = 500

/** How long the answer of a probe is waited for at least. */
const leastProbeMs = 1_000

/**
 * Reads keys that are not remembered: one key once, however many ask for it, and many keys that are asked for at about
 * the same time in one query. One query is under way at a time; what is asked for meanwhile is the next.
 */
export function createFills(parts: FillsParts) {
  const { background, lookUp, feed, cache, clock, maxStalenessMs, onStandby } = parts
  let underWay: Flight | undefined
  const waiting: Flight[] = []
  /** Why the last look-up failed, and when; `null` if it succeeded. */
  let failure: { error: unknown; at: Moment } | null = null

  async function fly(flight: Flight): Promise<Map<Digest, Fill>> {
    if (flight.isCancelled) throw new ApiKeysError('database_unavailable')

    waiting.splice(waiting.indexOf(flight), 1)
    underWay = flight
    flight.startedAt = momentOf(clock)
    const { gaps } = feed.lease
    try {
      return judge(await read([...flight.digests], limitMs()), flight, gaps)
    } finally {
      underWay = undefined
    }
  }

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

  /** As long as there is a lease, the database is there: a connection that hangs is given up for another one in time. */
  function limitMs(): number {
    const longestMs = feed.patienceMs()
    const isThere = feed.isLive(clock.monotonic(), clock.wall())
    return isThere ? Math.max(longestMs / 3, leastLimitMs) : longestMs
  }

  /** Says what the reading is worth, and remembers what may be remembered. */
  function judge(reading: KeyReading, { digests }: Flight, gaps: number) {
    // No barrier waits for a bound that is not registered.
    if (!reading.isRegistered) throw new ApiKeysError('database_unavailable')

    const { sentAt, rows } = reading
    const place = placeOf(reading)
    const isOld = gaps !== feed.lease.gaps || place === 'older'
    const isFollowed = place === 'same'
    if (place === 'unconfirmed') feed.catchUp()
    const freshness = { ...sentAt, isFollowed }
    const fills = new Map<Digest, Fill>()
    for (const digest of digests) {
      const row = rows.get(digest)
      const key = row ? new CachedKey(row, freshness) : null
      fills.set(digest, { key, sentAt, isOld })
      if (isOld) continue

      if (key) cache.set(key)
      else if (isFollowed) cache.setUnknown(digest)
    }
    return fills
  }

  /**
   * Compares what a reading saw of the log with the entry up to which the feed has told of all changes. Of an older one the
   * reading may lack a change that will not be told again. A newer one, and triggers that are not as the feed knows them,
   * may get lost in a failover without the feed ever having told of them, so that what was read may be used for a while,
   * but not followed.
   */
  function placeOf({ newest, triggers }: KeyReading): 'older' | 'same' | 'unconfirmed' {
    const { applied } = feed.lease
    if (!applied || newest.revision > applied.revision) return 'unconfirmed'
    if (newest.mark !== applied.mark) return 'older'
    return triggers === feed.lease.triggers ? 'same' : 'unconfirmed'
  }

  function startFlight(): Flight {
    const previous = waiting.at(-1)?.result ?? underWay?.result
    const digests = new Set<Digest>()
    const flight: Flight = {
      digests,
      startedAt: momentOf(clock),
      isCancelled: false,
      // In a later turn, so that what is asked for in this one comes along.
      result: background.run(() =>
        Promise.resolve(previous)
          .catch(() => {})
          .then(() => nextTurn())
          .then(() => fly(flight)),
      ),
    }
    waiting.push(flight)
    return flight
  }

  /** Whether what comes of a flight may be used by somebody who asks now. */
  function mayJoin({ startedAt }: Flight): boolean {
    return isWithin(startedAt, maxStalenessMs, clock.monotonic(), clock.wall())
  }

  return {
    /** Finds out whether keys can be looked up, by a look-up of none. */
    async probe() {
      await read([], Math.max(longestLimitMs(maxStalenessMs), leastProbeMs))
    },

    get failure() {
      return failure
    },

    /** Has what is not under way yet fail. */
    cancel() {
      for (const flight of waiting.splice(0)) flight.isCancelled = true
    },

    /** Whether somebody waits for it already. */
    isAwaited(digest: Digest): boolean {
      return (
        underWay?.digests.has(digest) === true || waiting.some(({ digests }) => digests.has(digest))
      )
    },

    async fill(digest: Digest): Promise<Fill> {
      let flight = underWay
      if (!flight?.digests.has(digest) || !mayJoin(flight)) {
        flight = waiting.find(({ digests }) => digests.has(digest) || digests.size < maxDigests)
        flight ??= startFlight()
        flight.digests.add(digest)
      }
      const fills = await flight.result
      const fill = fills.get(digest)
      if (!fill) throw new Error('express-api-keys: a key was not read')
      return fill
    },
  }
}

/** Says why a reading is not used: a standby and a subscriber may lag behind. */
function faultOf(reading: KeyReading | null): string | null {
  if (!reading) return 'the log of changes is empty'
  if (reading.isStandby) return 'the server is a standby'
  return reading.isSubscriber ? 'logical replication feeds the table of keys' : null
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve)
  })
}
