interface Evictable {
  /** Whether it was asked for since room was last made. */
  wasUsed: boolean
}

/** How many are passed over in a row at most because they were used. */
const maxPassedOver = 100

/**
 * Makes the function that says which value of a map goes when room is to be made: one that was not used for long (CLOCK, an
 * approximation of LRU that costs a hit nothing but a flag). `undefined` for a map that is empty.
 */
export function createEviction<Value extends Evictable>(map: ReadonlyMap<unknown, Value>) {
  /**
   * Goes round the map. Keeps its place, as finding the first value anew would walk over all that are gone. Not begun before
   * it is needed: an iterator holds on to what a map has outgrown since.
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
