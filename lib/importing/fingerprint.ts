import { hash, randomBytes } from 'node:crypto'

/**
 * Makes the function that returns the fingerprint of a well-formed text: SHA-256 of random bytes of this process and the text. By it, a
 * cached key of another system is found without the digest of that system, which may take several times as long.
 */
export function createFingerprint(): (text: string) => string {
  const salt = randomBytes(32).toString('hex')
  return (text) => hash('sha256', salt + text, 'binary')
}
