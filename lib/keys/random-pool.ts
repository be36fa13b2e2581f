import { randomFillSync } from 'node:crypto'

/** How often the bytes of a pool are drawn before the system is asked for more. */
const draws = 128

/**
 * Creates a function that draws so many random bytes, for values that are no secrets. Bytes for many values are drawn at once, because the
 * system takes as long for few bytes as for many. The bytes of a value are overwritten later.
 */
export function createRandomPool(length: number): () => Buffer {
  const pool = Buffer.allocUnsafeSlow(draws * length)
  let used = pool.length

  return function draw() {
    if (used === pool.length) {
      randomFillSync(pool)
      used = 0
    }
    used += length
    return pool.subarray(used - length, used)
  }
}
