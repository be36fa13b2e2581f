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

/** How many bytes a digest has, and how many bytes its function takes at once. */
const functions = {
  sha1: { length: 20, block: 64 },
  sha256: { length: 32, block: 64 },
  sha512: { length: 64, block: 128 },
} as const

type HashFunction = keyof typeof functions

/**
 * HMAC of the key under a secret of the other system.
 *
 * @example
 * hmac('sha512', process.env.API_TOKEN_SALT).hex
 */
export function hmac(algorithm: HashFunction, secret: string | Uint8Array): EncodedDigest {
  return encoded(functions[algorithm].length, preparedHmac(algorithm, secret))
}

/** The longest text, in characters, that has room beside the prepared key. Each takes up to three bytes. */
const longestPrepared = 512

/**
 * HMAC(key, text) = H(key ⊕ opad, H(key ⊕ ipad, text)), RFC 2104. It is spelled out because two hashes over prepared inputs take half the
 * time of Node's `createHmac`.
 */
function preparedHmac(algorithm: HashFunction, secret: string | Uint8Array): KeyDigest['of'] {
  const { length, block } = functions[algorithm]
  const given = Buffer.from(secret)
  const key = given.length > block ? createHash(algorithm).update(given).digest() : given
  const inner = padded(key, 0x36, block, 3 * longestPrepared)
  const outer = padded(key, 0x5c, block, length)
  const room = new Float64Array(inner.buffer, block)
  const inputs: Buffer[] = []

  return function hmacOf(text) {
    if (text.length > longestPrepared) {
      return createHmac(algorithm, secret).update(text).digest('binary')
    }
    const written = inner.write(text, block)
    const input = (inputs[written] ??= inner.subarray(0, block + written))
    const digest = hash(algorithm, input, 'binary')
    // Otherwise, a dump of an idle process would hold the last key.
    for (let at = 0; 8 * at < written; at++) room[at] = 0
    outer.write(digest, block, 'latin1')
    return hash(algorithm, outer, 'binary')
  }
}

/** Returns the key, each byte exclusive-or'ed with `pad`, in a block of its own, and room behind it. */
function padded(key: Buffer, pad: number, block: number, room: number): Buffer<ArrayBuffer> {
  const input = Buffer.from(new ArrayBuffer(block + room))
  key.copy(input)
  for (let at = 0; at < block; at++) input.writeUInt8(input.readUInt8(at) ^ pad, at)
  return input
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
  let all = ''
  for (const text of texts) all += `${text.length}:${text}`
  return hash('sha256', all, 'binary')
}
