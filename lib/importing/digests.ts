import { createHash, createHmac, hash } from 'node:crypto'

/** How a system turns a key, or a part of it, into the value that it stores. */
export interface KeyDigest {
  /** Returns the digest of a text, a character for each byte. */
  of(text: string): string
  /** Returns the digest that a stored text stands for, in the same form; `null` if the text is no such digest. */
  read(stored: string): string | null
}

type Encoding = 'hex' | 'base64' | 'base64url'

/** A digest by the ways in which systems write its bytes. */
export type EncodedDigest = Readonly<Record<Encoding, KeyDigest>>

/** SHA-256 of the key. */
export const sha256 = encoded(32, (text) => hash('sha256', text, 'binary'))

/** SHA-512 of the key. */
export const sha512 = encoded(64, (text) => hash('sha512', text, 'binary'))

const lengths = { sha1: 20, sha256: 32, sha512: 64 } as const

/**
 * HMAC of the key under a secret of the other system.
 *
 * @example
 * hmac('sha512', process.env.API_TOKEN_SALT).hex
 */
export function hmac(algorithm: keyof typeof lengths, secret: string | Uint8Array): EncodedDigest {
  return encoded(lengths[algorithm], (text) =>
    createHmac(algorithm, secret).update(text).digest('binary'),
  )
}

/** Keys that a system stores as they are. Of these keys, the import stores digests alone. */
export const plain: KeyDigest = { of: sha256.hex.of, read: sha256.hex.of }

/** A digest of the text and a fixed end, which some systems add to all keys. */
export function withSuffix(digest: EncodedDigest, suffix: string): EncodedDigest {
  const { hex, base64, base64url } = digest
  const end = ({ of, read }: KeyDigest): KeyDigest => ({ of: (text) => of(text + suffix), read })
  return { hex: end(hex), base64: end(base64), base64url: end(base64url) }
}

const shapes: Readonly<Record<Encoding, RegExp>> = {
  hex: /^[0-9a-fA-F]*$/,
  base64: /^[A-Za-z0-9+/]*={0,2}$/,
  base64url: /^[\w-]*={0,2}$/,
}

function encoded(length: number, of: KeyDigest['of']): EncodedDigest {
  const as = (encoding: Encoding): KeyDigest => ({
    of,
    read(stored) {
      // 3 bytes take 4 characters of base64.
      if (stored.length > 2 * length || !shapes[encoding].test(stored)) return null
      const bytes = Buffer.from(stored, encoding)
      return bytes.length === length ? bytes.toString('latin1') : null
    },
  })
  return { hex: as('hex'), base64: as('base64'), base64url: as('base64url') }
}

/** Returns SHA-256 of some texts, none of which can pass for the end of the text before it. */
export function digestOfAll(...texts: readonly string[]): string {
  const digest = createHash('sha256')
  for (const text of texts) digest.update(`${text.length}:`).update(text)
  return digest.digest('binary')
}
