import type { InvalidReason } from '../errors'
import type { SecretFormat } from '../keys/secret'
import { isExpired } from '../keys/states'
import type { Lookup, UsableKey } from './lookup'

/** What a request or a call may know of the key it came with. Frozen. */
export interface VerifiedApiKey<Permission extends string = string, UserId = string | number> {
  readonly id: string
  readonly userId: UserId
  readonly name: string
  readonly permissions: readonly Permission[]
  readonly expiresAt: Date | null
}

export type Verdict<Permission extends string = string, UserId = string | number> =
  | { valid: true; apiKey: VerifiedApiKey<Permission, UserId> }
  | { valid: false; code: InvalidReason }

export type Verify = (plainTextKey: string) => Promise<Verdict>

interface VerifierParts {
  format: SecretFormat
  findByHash: Lookup
  noteUse(id: string): void
}

/** Accepts a key that was minted here, is in the database, is active and has not expired; every time anew. */
export function createVerifier({ format, findByHash, noteUse }: VerifierParts): Verify {
  return async function verify(plainTextKey) {
    const secret = typeof plainTextKey === 'string' ? format.parse(plainTextKey) : null
    if (!secret) return { valid: false, code: 'malformed' }

    const verdict = judge(await findByHash(secret.hash), Date.now())
    if (verdict.valid) noteUse(verdict.apiKey.id)
    return verdict
  }
}

function judge(key: UsableKey | null, now: number): Verdict {
  if (!key) return { valid: false, code: 'unknown' }
  if (key.status === 'REVOKED') return { valid: false, code: 'revoked' }
  if (key.status === 'SUSPENDED') return { valid: false, code: 'suspended' }
  if (isExpired(key, now)) return { valid: false, code: 'expired' }

  const { id, userId, name, permissions, expiresAt } = key
  return {
    valid: true,
    apiKey: Object.freeze({ id, userId, name, permissions: Object.freeze(permissions), expiresAt }),
  }
}
