import { systemClock } from '../database/clock'
import { TooManyReportsError } from '../errors'
import { groupOf } from '../keys/addresses'

const hourMs = 3_600_000

/** How many addresses are counted. Further ones evict the address that called first. */
const maxAddresses = 10_000

/** Makes the function that counts the calls of an address in an hour, and throws above the most. Each process counts for itself. */
export function createCallLimit(most: number, now = systemClock.monotonic) {
  const addresses = new Map<string, { calls: number; endsAt: number }>()

  return function countCall(address: string | null) {
    const group = groupOf(address)
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
    if (counted.calls > most) {
      throw new TooManyReportsError(Math.ceil((counted.endsAt - at) / 1_000))
    }
  }
}
