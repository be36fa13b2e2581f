import { hash } from 'node:crypto'

import { ApiKeysError } from '../errors'
import { nextStatus } from '../keys/states'
import { toStoredHash, type Digest } from '../keys/secret'
import type { ApiKeyRecord } from '../keys/record'
import type { Circumstances, Parts } from './calls'
import { changeKey } from './change-key'
import type { Decision, ReadKey } from './key-changes'

/**
 * Revokes the key whose current secret was shown. An old secret in its grace period ends, and so does a secret that waits for its first
 * use: the key goes on with its current one. A secret that works no longer changes nothing, because it proves nothing.
 */
export async function revokeSecret(
  parts: Parts,
  id: string,
  digests: readonly Digest[],
  circumstances: Circumstances,
): Promise<void> {
  const shown = new Set(digests.map((digest) => hash('sha256', toStoredHash(digest))))

  function decide(key: ApiKeyRecord, read: ReadKey): Decision {
    if (shown.has(read.hashDigest)) {
      return { action: 'revoked', changes: { status: nextStatus('revoke', key) } }
    }
    if (key.status === 'REVOKED') return { action: 'rotation_ended', changes: {} }
    const { previousHashDigest: previous, pendingHashDigest: pending } = read
    const changes = {
      ...(previous !== null && shown.has(previous) && { previousSecret: null }),
      ...(pending !== null && shown.has(pending) && { pendingRotation: null }),
    }
    return { action: 'rotation_ended', changes }
  }

  try {
    await changeKey(parts, { id, circumstances, decide }, { isUrgent: true })
  } catch (error) {
    // A key that is gone needs no revocation.
    if (!(error instanceof ApiKeysError) || error.code !== 'api_key_not_found') throw error
  }
}
