import type { Moment } from '../database/clock'
import type { Digest } from '../keys/secret'

/** How many hashes of no key are cached. Without `secrets`, every client can make any number of them. */
const maxUnknown = 10_000

/**
 * Makes a map of the hashes that the last look-ups found to belong to no key. It holds at least half of its maximum.
 */
export function createUnknownHashes() {
  let newer = new Map<Digest, Moment>()
  let older = new Map<Digest, Moment>()

  return {
    get size() {
      return newer.size + older.size
    },

    get: (digest: Digest): Moment | undefined => newer.get(digest) ?? older.get(digest),

    set(digest: Digest, askedAt: Moment) {
      if (newer.size >= maxUnknown / 2) {
        older = newer
        newer = new Map()
      }
      newer.set(digest, askedAt)
    },

    delete(digest: Digest) {
      newer.delete(digest)
      older.delete(digest)
    },

    clear() {
      newer = new Map()
      older = new Map()
    },
  }
}
