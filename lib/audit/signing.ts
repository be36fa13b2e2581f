import { createHash, createHmac, timingSafeEqual } from 'node:crypto'

import { derive } from '../keys/secret'

/** Says by which of the app's secrets something is vouched for; `null` for none of them. */
export interface Signature {
  /** HMAC-SHA-256, else SHA-256; 64 hexadecimal characters. */
  mac: string
  secretId: string | null
}

/** `unknown` where it is of a secret that the app does not have (any more). */
export type SignatureCheck = 'valid' | 'invalid' | 'unknown'

/** What is signed. A signature of one kind is none of another. */
type Purpose = 'entry' | 'seal' | 'head' | 'checkpoint' | 'exported head'

export type Signer = ReturnType<typeof createSigner>

interface SignerOptions {
  secrets: readonly (string | Uint8Array)[]
  acceptUnkeyed: boolean
}

/**
 * Signs what the audit trail consists of: with the first of `secrets`, and all are accepted. Without any, signatures are
 * plain hashes, which everybody can compute.
 */
export function createSigner({ secrets, acceptUnkeyed }: SignerOptions) {
  const keyed = secrets.map((secret) => {
    const key = derive(secret, 'audit', 32)
    return {
      secretId: derive(secret, 'id', 8).toString('hex'),
      digest: (text: string) => createHmac('sha256', key).update(text).digest('hex'),
    }
  })
  const [first = unkeyed] = keyed
  const all = keyed.length === 0 || acceptUnkeyed ? [...keyed, unkeyed] : keyed

  return {
    /** Whether there are secrets, and whether what was signed without any counts nevertheless. */
    isKeyed: keyed.length > 0,
    acceptUnkeyed,
    /** Of the secret that signs. */
    secretId: first.secretId,

    sign(purpose: Purpose, text: string): Signature {
      return { mac: first.digest(`${purpose}\n${text}`), secretId: first.secretId }
    },

    check(purpose: Purpose, text: string, { mac, secretId }: Signature): SignatureCheck {
      const signer = all.find((one) => one.secretId === secretId)
      if (!signer) return 'unknown'
      return isEqual(signer.digest(`${purpose}\n${text}`), mac) ? 'valid' : 'invalid'
    },
  }
}

const unkeyed = {
  secretId: null,
  digest: (text: string) => createHash('sha256').update(text).digest('hex'),
}

/** What is given comes from tables that others may write to: it may be anything. */
function isEqual(digest: string, given: unknown): boolean {
  if (typeof given !== 'string' || !/^[0-9a-f]{64}$/.test(given)) return false
  return timingSafeEqual(Buffer.from(digest), Buffer.from(given))
}
