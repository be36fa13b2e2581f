import { createRandomPool } from './random-pool'

/** The time of the last id, and how many ids there were at that time. */
let lastMs = 0
let counter = 0

const bytes = Buffer.alloc(16)
const drawRandom = createRandomPool(8)

/**
 * Returns a new id of a key: a UUID of version 7 (RFC 9562). Ids of a process go up. So lists, which compare ids if two keys were
 * created in one millisecond, have keys in the order of their creation.
 */
export function newId(): string {
  const now = Date.now()
  if (now > lastMs) {
    lastMs = now
    counter = 0
  } else if (++counter === 4_096) {
    lastMs++
    counter = 0
  }
  drawRandom().copy(bytes, 8)
  bytes.writeUIntBE(lastMs, 0, 6)
  bytes.writeUInt16BE(0x7000 | counter, 6)
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80
  const hex = bytes.toString('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
}
