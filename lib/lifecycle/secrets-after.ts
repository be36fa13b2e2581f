import { hash } from 'node:crypto'

import type { KeyState } from '../audit/trail'
import type { ApiKeyRecord } from '../keys/record'
import type { MintedSecret } from '../keys/secret'

type Secret = Omit<MintedSecret, 'plainTextKey'>

/** Returns what the trail has of a secret that waits for its first use, after a change. */
export function pendingAfter(
  { pendingHashDigest }: KeyState,
  pending: Secret | undefined,
  pendingRotation: ApiKeyRecord['pendingRotation'] | undefined,
) {
  if (pending) return { pendingHashDigest: hash('sha256', pending.hash) }
  return { pendingHashDigest: pendingRotation === null ? null : pendingHashDigest }
}

/** Returns what the trail has of the current secret of a key, and of the one before, after a change. */
export function secretsAfter(
  read: KeyState,
  secret: Secret | undefined,
  previousSecret: ApiKeyRecord['previousSecret'] | undefined,
) {
  const current = secret
    ? { prefix: secret.prefix, hashDigest: hash('sha256', secret.hash) }
    : { prefix: read.prefix, hashDigest: read.hashDigest }
  if (previousSecret === null) return { ...current, previousPrefix: null, previousHashDigest: null }
  const { previousPrefix, previousHashDigest } = read
  if (!secret || !previousSecret) return { ...current, previousPrefix, previousHashDigest }
  return { ...current, previousPrefix: read.prefix, previousHashDigest: read.hashDigest }
}
