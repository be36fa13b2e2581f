import { systemClock } from '../database/clock'
import { within } from '../database/time-limit'
import { TooManyReportsError } from '../errors'
import { groupOf } from '../keys/addresses'
import { createRedisCounters } from '../limits/redis'
import type { Settings } from '../read-options'

const hourMs = 3_600_000

/** How many addresses a process counts. Further ones evict the address that called first. */
const maxAddresses = 10_000

/** How long Redis may take. A report must not wait for it. */
const redisLimitMs = 1_000

interface CallLimitOptions {
  /** Names the calls among all that processes with the same Redis count. */
  name: string
  /** How many calls an address may make in an hour. */
  most: number
  redis: Settings['redis']
  /** By a monotonic clock, in milliseconds. */
  now?: () => number
}

/**
 * Makes the function that counts the calls of an address in an hour, and rejects above the most. All processes with the same Redis count
 * together. Without Redis, or while it is away, each process counts for itself, because no report of a leak may be lost for a count.
 */
export function createCallLimit(options: CallLimitOptions) {
  const { name, most, redis, now = systemClock.monotonic } = options
  const counters = redis && createRedisCounters(redis)
  const limit = { name: 'calls', limit: most, windowSeconds: hourMs / 1_000 }
  const addresses = new Map<string, { calls: number; endsAt: number }>()

  function countHere(group: string) {
    const at = now()
    let counted = addresses.get(group)
    if (!counted || counted.endsAt <= at) {
      addresses.delete(group)
      const [oldest = ''] = addresses.keys()
      if (addresses.size >= maxAddresses) addresses.delete(oldest)
      counted = { calls: 0, endsAt: at + hourMs }
      addresses.set(group, counted)
    }
    counted.calls++
    return { isAllowed: counted.calls <= most, resetMs: counted.endsAt - at }
  }

  async function countInRedis(group: string) {
    const use = { key: { id: `${name} ${group}` }, limits: [limit], cost: 1 }
    const counting = counters?.consume(use)
    const counted = counting && (await within({ limitMs: redisLimitMs }, counting))
    return (
      counted && { isAllowed: counted.isAllowed, resetMs: counted.limits[0]?.resetMs ?? hourMs }
    )
  }

  return async function countCall(address: string | null): Promise<void> {
    const group = groupOf(address)
    const counted = (await countInRedis(group).catch(() => undefined)) ?? countHere(group)
    if (!counted.isAllowed) throw new TooManyReportsError(Math.ceil(counted.resetMs / 1_000))
  }
}

/** Limits the calls of an address that fail, and no others. */
export type FailureLimit = ReturnType<typeof createFailureLimit>

/** Makes the limit of calls that fail. An address above it is refused before anything is read, until its hour is over. */
export function createFailureLimit(options: CallLimitOptions) {
  const { now = systemClock.monotonic } = options
  const countCall = createCallLimit(options)
  const refusedUntil = new Map<string, number>()

  return {
    /** Throws if an address has had too many failures. */
    refuseIfMany(address: string | null) {
      const restMs = (refusedUntil.get(groupOf(address)) ?? 0) - now()
      if (restMs > 0) throw new TooManyReportsError(Math.ceil(restMs / 1_000))
    },

    /** Counts a failure. Rejects above the most. */
    async countFailure(address: string | null): Promise<void> {
      try {
        await countCall(address)
      } catch (error) {
        if (error instanceof TooManyReportsError) {
          const [oldest = ''] = refusedUntil.keys()
          if (refusedUntil.size >= maxAddresses) refusedUntil.delete(oldest)
          refusedUntil.set(groupOf(address), now() + error.retryAfterSeconds * 1_000)
        }
        throw error
      }
    },
  }
}
