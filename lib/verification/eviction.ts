interface Evictable {
  /** True if it was used since room was last made. */
  wasUsed: boolean
}

/** How many values are passed over in a row because they were used. */
const maxPassedOver = 100

/**
 * Makes the function that returns the value of a map to evict: a value that was not used for long (CLOCK, an approximation of LRU
 * that costs a hit no more than a flag). It returns `undefined` if the map is empty.
 */
export function createEviction<Value extends Evictable>(map: ReadonlyMap<unknown, Value>) {
  /**
   * Goes round the map and keeps its place, because a new iterator would step over all values that were evicted. It begins when it is
   * needed, because an iterator keeps memory that the map has outgrown.
   */
  let hand: Iterator<Value> | undefined

  return function findUnused(): Value | undefined {
    for (let passed = 0; map.size > 0;) {
      hand ??= map.values()
      const { value, done } = hand.next()
      if (done === true) {
        hand = undefined
      } else if (value.wasUsed && passed < maxPassedOver) {
        value.wasUsed = false
        passed++
      } else {
        return value
      }
    }
    return undefined
  }
}
