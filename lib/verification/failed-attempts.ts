import { groupOf } from '../keys/addresses'
import type { Clock } from '../database/clock'
import type { KeyCaller } from './verified-key'

export type FailedAttempts = ReturnType<typeof createFailedAttempts>

interface FailedAttemptsParts {
  clock: Clock
  /** How many may fail per address and minute; `Infinity` for any number. */
  maxFailedAttemptsPerMinute: number
}

interface Attempts {
  failed: number
  endsAt: number
  lookups: number
  lookupsEndAt: number
}

/** How many addresses are counted. Further ones evict the address that failed first. */
const maxAddresses = 10_000

const windowMs = 60_000

/** The look-ups per second of an address that fails too often, if every client can make a key that needs a look-up. */
const maxLookups = 10
const lookupWindowMs = 1_000

/**
 * Counts, per address, the requests with something that is not a key. A good key is always accepted, because many clients
 * may share an address.
 */
export function createFailedAttempts({ clock, maxFailedAttemptsPerMinute }: FailedAttemptsParts) {
  const addresses = new Map<string, Attempts>()
  /** The addresses in their order. It is kept, because a new iterator would step over all that were evicted. */
  let oldest = addresses.keys()

  function attemptsOf(address: string | null, now: number): Attempts | undefined {
    const attempts = addresses.get(groupOf(address))
    return attempts && attempts.endsAt > now ? attempts : undefined
  }

  function dropOldest() {
    let next = oldest.next()
    if (next.done === true) {
      oldest = addresses.keys()
      next = oldest.next()
    }
    if (next.done !== true) addresses.delete(next.value)
  }

  function begin(address: string | null, now: number): Attempts {
    const group = groupOf(address)
    addresses.delete(group)
    if (addresses.size >= maxAddresses) dropOldest()

    const attempts = { failed: 0, endsAt: now + windowMs, lookups: 0, lookupsEndAt: -Infinity }
    addresses.set(group, attempts)
    return attempts
  }

  return {
    /** Notes a failed attempt. Returns for how many milliseconds its address is refused; 0 if it has not failed too often. */
    note(caller: Pick<KeyCaller, 'ip'>): number {
      if (maxFailedAttemptsPerMinute === Infinity) return 0
      const { ip: address } = caller
      if (address === undefined) return 0

      const now = clock.monotonic()
      const attempts = attemptsOf(address, now) ?? begin(address, now)
      attempts.failed++
      return attempts.failed > maxFailedAttemptsPerMinute ? attempts.endsAt - now : 0
    },

    /** True if a key that every client can make may be looked up: always, unless its address has failed too often. */
    mayLookUp({ ip: address }: Pick<KeyCaller, 'ip'>): boolean {
      if (address === undefined) return true

      const now = clock.monotonic()
      const attempts = attemptsOf(address, now)
      if (!attempts || attempts.failed <= maxFailedAttemptsPerMinute) return true

      if (attempts.lookupsEndAt <= now) {
        attempts.lookupsEndAt = now + lookupWindowMs
        attempts.lookups = 0
      }
      attempts.lookups++
      return attempts.lookups <= maxLookups
    },
  }
}
