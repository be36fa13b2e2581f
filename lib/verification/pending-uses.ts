import type { Digest } from '../keys/secret'

/** An accepted use of a secret that waits for its first use. */
export interface PendingUse {
  /** The id of the key. */
  id: string
  digest: Digest
  /** The address of the client; `null` if it is not known. */
  address: string | null
}

/** Reports the uses of pending secrets to the floor above, which changes keys. Such a secret is never cached, so that each use is seen. */
export function createPendingUses() {
  let listener: ((use: PendingUse) => void) | undefined

  return {
    listen(next: (use: PendingUse) => void) {
      listener = next
    },

    note: (use: PendingUse) => listener?.(use),
  }
}
