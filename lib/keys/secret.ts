import { createHmac, getFips, hash, hkdfSync, randomBytes } from 'node:crypto'

import { hmacSha256, sha256, type Digest, type Hash, type Hashes } from './sha256'

export type { Digest }

/*
 * A plain-text key is
 *
 *   agpt_7Qm3...43 characters...XkpT09sLq2
 *   name body                     check
 *
 * The body is drawn uniformly from base62 (43 characters, 256 bits). One digest of `name_body` serves twice: its first
 * 47 bits, in 8 characters of base62, are the check; all of it is the hash under which the key is stored.
 */

const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const bodyLength = 43
const checkLength = 8
const shownLength = 6

/** What the database holds of a plain-text key. */
export interface StoredSecret {
  /** HMAC-SHA-256 under one of the app's secrets, else SHA-256; 64 hexadecimal characters. */
  hash: string
  /** Which of the app's secrets keyed the hash; `null` for none. */
  secretId: string | null
}

/** A new plain-text key and what is kept of it. The plain text itself goes to its owner and nowhere else. */
export interface MintedSecret extends StoredSecret {
  plainTextKey: string
  /** The start that lists show: the name and 6 characters of the body. */
  prefix: string
  /** The end that lists show: the check. */
  postfix: string
}

/** A plain-text key as it was sent: what a text ends in, from one of its characters on. */
export interface SentKey {
  readonly text: string
  readonly start: number
}

/** A plain-text key that was sent without anything before it. */
export function asSent(plainTextKey: string): SentKey {
  return { text: plainTextKey, start: 0 }
}

/** Makes and reads the plain-text keys of one app. */
export interface SecretFormat {
  /** What every one of them begins with, such as `agpt_`. */
  marker: string
  mint(): MintedSecret
  /**
   * Reads a plain-text key: its shape (name, length, alphabet), then its check. Returns its digest, or `null` for a
   * string that was never minted here: forged where the app has secrets, mistyped or cut off where not.
   */
  parse(sent: SentKey): Digest | null
  /** Whether anybody can make such a key: its check was made without a secret. */
  isForgeable(sent: SentKey, digest: Digest): boolean
  /** The ids of the app's secrets in their order, and `null` where unkeyed hashes are accepted. */
  secretIds: readonly (string | null)[]
}

/** The hash as the database holds it. */
export function toStoredHash(digest: Digest): string {
  return Buffer.from(digest, 'latin1').toString('hex')
}

/** The digest of a hash as the database holds it. */
export function fromStoredHash(stored: string): Digest {
  return Buffer.from(stored, 'hex').toString('latin1')
}

interface Hasher {
  secretId: string | null
  digest: Hash
}

interface SecretFormatOptions {
  keyPrefix: string
  secrets: readonly (string | Uint8Array)[]
  acceptUnkeyed: boolean
  hashes?: Hashes
}

/** For where nothing but a validated module may hash. */
export const opensslHashes: Hashes = {
  sha256: (text, start, end) => hash('sha256', text.slice(start, end), 'binary'),
  hmacSha256: (key) => (text, start, end) =>
    createHmac('sha256', key).update(text.slice(start, end)).digest('binary'),
}

/** The first of `secrets` mints, all of them verify. Without any, hashes are unkeyed. */
export function createSecretFormat(options: SecretFormatOptions): SecretFormat {
  const { keyPrefix, secrets, acceptUnkeyed } = options
  const { hashes = getFips() === 1 ? opensslHashes : { sha256, hmacSha256 } } = options
  const marker = `${keyPrefix}_`
  const signedLength = marker.length + bodyLength
  const length = signedLength + checkLength

  const unkeyedHasher: Hasher = { secretId: null, digest: hashes.sha256 }
  // HKDF (RFC 5869) derives what is needed, so that a secret may also serve the app elsewhere, for sessions say.
  const keyed = secrets.map((secret): Hasher => ({
    secretId: derive(secret, 'id', 8).toString('hex'),
    digest: hashes.hmacSha256(derive(secret, 'hash', 32)),
  }))
  const [minter = unkeyedHasher] = keyed
  const hashers = keyed.length === 0 || acceptUnkeyed ? [...keyed, unkeyedHasher] : keyed

  return {
    marker,

    mint() {
      const signed = marker + drawBody()
      const digest = minter.digest(signed, 0, signedLength)
      const check = formatCheck(checkOf(digest))

      return {
        plainTextKey: signed + check,
        hash: toStoredHash(digest),
        secretId: minter.secretId,
        prefix: signed.slice(0, marker.length + shownLength),
        postfix: check,
      }
    },

    parse({ text, start }) {
      if (text.length - start !== length || !text.startsWith(marker, start)) return null
      const signedEnd = start + signedLength
      for (let at = start + marker.length; at < signedEnd; at++) {
        if (valueAt(text, at) === -1) return null
      }
      const check = readCheck(text, signedEnd)

      for (const hasher of hashers) {
        const digest = hasher.digest(text, start, signedEnd)
        // Numbers below 2^47 compare in constant time, whichever of their digits differ.
        if (checkOf(digest) === check) return digest
      }
      return null
    },

    isForgeable({ text, start }, digest) {
      if (!hashers.includes(unkeyedHasher)) return false
      return unkeyedHasher.digest(text, start, start + signedLength) === digest
    },

    secretIds: hashers.map(({ secretId }) => secretId),
  }
}

/** Derives a key of its own for each purpose from one of the app's secrets. */
export function derive(secret: string | Uint8Array, purpose: string, length: number): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, '', `express-api-keys v1 ${purpose}`, length))
}

/** Draws from the operating system and leaves out what would favour some characters (256 is not a multiple of 62). */
function drawBody(): string {
  const fair = 256 - (256 % alphabet.length)
  let body = ''

  while (body.length < bodyLength) {
    for (const byte of randomBytes(bodyLength)) {
      if (byte < fair && body.length < bodyLength) body += alphabet.charAt(byte % alphabet.length)
    }
  }
  return body
}

/** The first 47 bits. */
function checkOf(digest: Digest): number {
  const high = (digest.charCodeAt(0) << 16) | (digest.charCodeAt(1) << 8) | digest.charCodeAt(2)
  const low = (digest.charCodeAt(3) << 16) | (digest.charCodeAt(4) << 8) | digest.charCodeAt(5)
  return high * 2 ** 23 + (low >> 1)
}

function formatCheck(check: number): string {
  let rest = check
  let text = ''

  for (let at = 0; at < checkLength; at++) {
    text = alphabet.charAt(rest % alphabet.length) + text
    rest = Math.floor(rest / alphabet.length)
  }
  return text
}

/** Returns a number that no digest has where a character is not of the alphabet. */
function readCheck(text: string, from: number): number {
  let check = 0

  for (let at = from; at < from + checkLength; at++) {
    const value = valueAt(text, at)
    if (value === -1) return -1
    check = check * alphabet.length + value
  }
  return check
}

const values = new Int8Array(128).fill(-1)
for (const [value, character] of alphabet.split('').entries())
  values[character.charCodeAt(0)] = value

function valueAt(text: string, at: number): number {
  return values[text.charCodeAt(at)] ?? -1
}
