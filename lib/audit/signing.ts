import { createHash, createHmac, timingSafeEqual } from 'node:crypto'

import { derive } from '../keys/secret'

/** A signature, and the secret of the app that made it. */
export interface Signature {
  /** HMAC-SHA-256, or SHA-256 if there is no secret; 64 hexadecimal characters. */
  mac: string
  /** `null` if no secret was used. */
  secretId: string | null
}

/** `unknown` for the signature of a secret that the app does not have, or no longer has. */
export type SignatureCheck = 'valid' | 'invalid' | 'unknown'

/** The kinds of text that are signed. The signature of one kind is not valid for another. */
type Purpose = 'entry' | 'seal' | 'head' | 'exported head' | 'origin'

/** Signs the texts of the audit trail, and checks their signatures. */
export type Signer = ReturnType<typeof createSigner>

type SignerOptions = { secrets: readonly (string | Uint8Array)[]; acceptUnkeyed: boolean }

/**
 * Creates the signer of the audit trail. It signs with the first of `secrets` and accepts signatures of all of them. Without
 * secrets, signatures are plain hashes, which anyone can compute.
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
    /** True if there are secrets. */
    isKeyed: keyed.length > 0,
    /** True if signatures without a secret are valid although there are secrets. */
    acceptUnkeyed,
    /** The id of the secret that signs. */
    secretId: first.secretId,

    sign(purpose: Purpose, text: string): Signature {
      return { mac: first.digest(`${purpose}\n${text}`), secretId: first.secretId }
    },

    /** Signs with a secret of the app; `null` if the app does not have it. */
    signAs(secretId: string | null, purpose: Purpose, text: string): string | null {
      const signer = all.find((one) => one.secretId === secretId)
      return signer ? signer.digest(`${purpose}\n${text}`) : null
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

/** The given text comes from tables that other roles may write to, so it may be anything. */
function isEqual(digest: string, given: unknown): boolean {
  if (typeof given !== 'string' || !/^[0-9a-f]{64}$/.test(given)) return false
  return timingSafeEqual(Buffer.from(digest), Buffer.from(given))
}
