import { hash } from 'node:crypto'

import type { KeyState } from '../audit/trail'
import type { ApiKeyRecord } from '../keys/record'
import type { MintedSecret } from '../keys/secret'

/** Returns what the trail has of the two secrets of a key after a change. */
export function secretsAfter(
  read: KeyState,
  secret: Omit<MintedSecret, 'plainTextKey'> | undefined,
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
