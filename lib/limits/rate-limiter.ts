import { warn } from '../../models/warnings'
import { ApiKeysError, type LimitState } from '../errors'
import { causeOf } from '../database/failures'
import type { Emitter } from '../keys/emitter'
import type { Clock } from '../database/clock'
import { createMemoryCounters, type Consumption, type Use } from './memory'
import { createRedisCounters, type RedisCounters } from './redis'
import { within } from '../database/time-limit'
import type { Settings } from '../read-options'

/** Counts uses of keys against their limits. */
export type RateLimiter = ReturnType<typeof createRateLimiter>

interface RateLimiterParts extends Pick<Settings, 'redis' | 'onLimiterOutage' | 'cacheSize'> {
  emitter: Pick<Emitter, 'emit'>
  clock: Clock
}

/** How long a server of Redis may take to answer, and how long it gets no requests after it took longer. */
const redisLimitMs = 1_000
const restMs = 1_000

interface Outage {
  error: unknown
  /** The time until which it gets no requests, by the monotonic clock. */
  endsAt: number
}

/** Counts the uses of keys: in this process, or in a Redis that all processes share. */
export function createRateLimiter(parts: RateLimiterParts) {
  const { redis, onLimiterOutage, emitter, clock } = parts
  const here = createMemoryCounters(clock, 2 * parts.cacheSize)
  const counters = redis && createRedisCounters(redis)
  /** The servers that do not answer. A server of a cluster that hangs must not keep the other servers from counting. */
  const outages = new Map<string | number, Outage>()

  async function askRedis(use: Use, counters: RedisCounters) {
    const server = counters.serverOf(use.key)
    const outage = outages.get(server)
    if (outage) {
      const now = clock.monotonic()
      if (now < outage.endsAt) return giveUp(use, outage.error)
      // This request probes the server and may hang. All other requests fail at once until it returns.
      outage.endsAt = now + redisLimitMs + restMs
    }

    try {
      const consumption = await within({ limitMs: redisLimitMs }, counters.consume(use))
      outages.delete(server)
      return consumption
    } catch (failure) {
      const error = causeOf(failure)
      // If a server hangs, every further request would wait as long. An error that comes in time keeps no request waiting.
      const hangs = failure instanceof ApiKeysError
      if (hangs) outages.set(server, { error, endsAt: clock.monotonic() + restMs })
      else outages.delete(server)
      if (counters.isClosed) warnOfClosedClient()
      return giveUp(use, error)
    }
  }

  function giveUp({ key: { id } }: Use, cause: unknown): Consumption {
    const isAllowed = onLimiterOutage === 'allow'
    emitter.emit('limiter_unavailable', { apiKeyId: id, isAllowed, error: cause })
    if (!isAllowed) throw new ApiKeysError('limiter_unavailable', { cause })
    return { isAllowed, limits: [] }
  }

  return {
    /**
     * Counts a use of a key towards all of its limits, or towards none if a limit does not allow it. Returns at once if
     * the counts are in this process. Rejects with `limiter_unavailable` if Redis is unavailable and `onLimiterOutage`
     * is `'refuse'`.
     */
    consume(use: Use): Consumption | Promise<Consumption> {
      return counters ? askRedis(use, counters) : here.consume(use)
    },

    /** Returns the state of the limits of a key, and counts nothing. Rejects with `limiter_unavailable` like `consume`. */
    async read(use: Pick<Use, 'key' | 'limits'>): Promise<readonly LimitState[]> {
      return counters ? (await askRedis({ ...use, cost: 0 }, counters)).limits : here.read(use)
    },
  }
}

function warnOfClosedClient() {
  warn(
    'API_KEYS_REDIS_NOT_CONNECTED',
    'The client in the option redis is not connected, so no use of a key with limits can be counted. Connect it before the app listens (`await redis.connect()`), and close it after the last request.',
  )
}
