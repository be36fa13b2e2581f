import { RateLimiterRedis, type RateLimiterRes } from 'rate-limiter-flexible'

import { ApiKeysError, type LimitState } from '../errors'
import type { Emitter } from '../keys/emitter'
import type { NamedLimit } from '../keys/limits'
import type { Clock } from './clock'
import { within } from './time-limit'

/** What came of a use. One that is not allowed is not counted. */
export interface Consumption {
  isAllowed: boolean
  limits: readonly LimitState[]
}

/** A use of a key, and what it is held against. */
export interface Use {
  id: string
  limits: readonly NamedLimit[]
  /** How many uses it counts for. */
  cost: number
}

export type RateLimiter = ReturnType<typeof createRateLimiter>

/** A client of `ioredis`, or of `redis` from version 4, for one server or a cluster. */
export type RedisClient = object

interface RateLimiterParts {
  redis: RedisClient | undefined
  onLimiterOutage: 'refuse' | 'allow'
  emitter: Pick<Emitter, 'emit'>
  clock: Clock
}

/** How long Redis may take for an answer, and how long nobody waits for one after it took longer. */
const redisLimitMs = 1_000
const restMs = 1_000

/** Counts the uses of keys: in this process, or in a Redis that a fleet shares. */
export function createRateLimiter(parts: RateLimiterParts) {
  const { redis, onLimiterOutage, emitter, clock } = parts
  const consumeHere = createMemoryCounters(clock)
  const consumeThere = redis && createRedisCounters(redis)
  let outage: { error: unknown; endsAt: number } | undefined

  async function askRedis(use: Use, consume: (use: Use) => Promise<Consumption>) {
    if (outage && clock.monotonic() < outage.endsAt) return giveUp(use, outage.error)

    try {
      const consumption = await within({ limitMs: redisLimitMs }, consume(use))
      outage = undefined
      return consumption
    } catch (error) {
      // Of those who wait for one that hangs, each would wait as long.
      outage = { error, endsAt: clock.monotonic() + restMs }
      return giveUp(use, error)
    }
  }

  function giveUp({ id }: Use, cause: unknown): Consumption {
    const isAllowed = onLimiterOutage === 'allow'
    emitter.emit('limiter_unavailable', { apiKeyId: id, isAllowed, error: cause })
    if (!isAllowed) throw new ApiKeysError('limiter_unavailable', { cause })
    return { isAllowed, limits: [] }
  }

  return {
    /**
     * Counts a use of a key towards all of its limits, or towards none if one does not allow it. At once where the counts
     * are in this process. Rejects with `limiter_unavailable` where Redis is away and the app wants that.
     */
    consume(use: Use): Consumption | Promise<Consumption> {
      return consumeThere ? askRedis(use, consumeThere) : consumeHere(use)
    },
  }
}

interface Window {
  readonly name: string
  readonly windowSeconds: number
  /** On the monotonic clock. */
  endsAt: number
  used: number
}

/**
 * Counts in this process. Not with the memory of `rate-limiter-flexible`: it sets a timer for each window, which for more
 * than 24.8 days fires at once, and cannot count towards several limits or none.
 */
function createMemoryCounters(clock: Clock) {
  const keys = new Map<string, Window[]>()
  /** Goes round the keys, and takes out those whose windows are all over: two for each that comes in. */
  let hand = keys.entries()

  function sweep(now: number) {
    for (let looked = 0; looked < 2; looked++) {
      const { value, done } = hand.next()
      if (done === true) {
        hand = keys.entries()
        return
      }
      const [id, windows] = value
      if (windows.every(({ endsAt }) => endsAt <= now)) keys.delete(id)
    }
  }

  function windowsOf(id: string, now: number): Window[] {
    const known = keys.get(id)
    if (known) return known

    sweep(now)
    const windows: Window[] = []
    keys.set(id, windows)
    return windows
  }

  function windowOf(windows: Window[], { name, windowSeconds }: NamedLimit, now: number): Window {
    const known = windows.find(
      (window) => window.name === name && window.windowSeconds === windowSeconds,
    )
    const window = known ?? { name, windowSeconds, endsAt: -Infinity, used: 0 }
    if (!known) windows.push(window)
    if (window.endsAt <= now) {
      window.endsAt = now + windowSeconds * 1_000
      window.used = 0
    }
    return window
  }

  return function consume({ id, limits, cost }: Use): Consumption {
    // Whole, so that what was added comes out again when it is taken off.
    const now = Math.floor(clock.monotonic())
    const known = windowsOf(id, now)
    const windows = limits.map((limit) => windowOf(known, limit, now))

    const isAllowed = limits.every(({ limit }, place) => usedOf(windows[place]) + cost <= limit)
    if (isAllowed) for (const window of windows) window.used += cost
    return {
      isAllowed,
      limits: limits.map((limit, place) => {
        const window = windows[place]
        return stateOf(limit, usedOf(window), (window?.endsAt ?? now) - now)
      }),
    }
  }
}

function usedOf(window: Window | undefined): number {
  return window?.used ?? 0
}

/**
 * Counts in Redis. What would be too much is not counted, but where several come at once: each limit is kept even so, and
 * fewer uses than allowed may pass.
 */
function createRedisCounters(client: RedisClient) {
  const limiter = new RateLimiterRedis({
    storeClient: client,
    useRedisPackage: !('defineCommand' in client),
    keyPrefix: 'express-api-keys',
    // Which limit and window it is comes with each use.
    points: 1,
    duration: 1,
  })

  return async function consume({ id, limits, cost }: Use): Promise<Consumption> {
    // In a cluster, what stands in braces has the counters of one key on one server.
    const keys = limits.map(({ name, windowSeconds }) => `{${id}}:${name}:${windowSeconds}`)
    const readAll = (answers: (RateLimiterRes | null)[]) =>
      limits.map((limit, place) => {
        const answer = answers[place]
        const used = answer?.consumedPoints ?? 0
        const resetMs = Math.max(answer?.msBeforeNext ?? limit.windowSeconds * 1_000, 0)
        return { used, limit, state: stateOf(limit, used, resetMs) }
      })

    // One use of one limit that is too much takes nothing from others.
    if (limits.length > 1 || cost > 1) {
      const before = readAll(await Promise.all(keys.map((key) => limiter.get(key))))
      if (before.some(({ used, limit }) => used + cost > limit.limit)) {
        return { isAllowed: false, limits: before.map(({ state }) => state) }
      }
    }
    const counts = keys.map((key, place) => {
      const customDuration = limits[place]?.windowSeconds ?? 1
      return limiter.penalty(key, cost, { customDuration })
    })
    const after = readAll(await Promise.all(counts))
    return {
      isAllowed: after.every(({ used, limit }) => used <= limit.limit),
      limits: after.map(({ state }) => state),
    }
  }
}

function stateOf(limit: NamedLimit, used: number, resetMs: number): LimitState {
  const { name, windowSeconds } = limit
  const remaining = Math.max(limit.limit - used, 0)
  return { name, limit: limit.limit, windowSeconds, remaining, resetMs }
}
