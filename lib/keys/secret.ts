import { createHmac, hash, hkdfSync, randomBytes } from 'node:crypto'

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

/** Makes and reads the plain-text keys of one app. */
export interface SecretFormat {
  /** What every one of them begins with, such as `agpt_`. */
  marker: string
  mint(): MintedSecret
  /**
   * Reads a plain-text key: its shape (name, length, alphabet), then its check. Returns what to look it up by, or
   * `null` for a string that was never minted here: forged where the app has secrets, mistyped or cut off where not.
   */
  parse(plainTextKey: string): StoredSecret | null
}

interface Hasher {
  secretId: string | null
  hash(text: string): string
}

interface SecretFormatOptions {
  keyPrefix: string
  secrets: readonly (string | Uint8Array)[]
  acceptUnkeyed: boolean
}

/** The first of `secrets` mints, all of them verify. Without any, hashes are unkeyed. */
export function createSecretFormat(options: SecretFormatOptions): SecretFormat {
  const { keyPrefix, secrets, acceptUnkeyed } = options
  const marker = `${keyPrefix}_`
  const bodyEnd = marker.length + bodyLength
  const length = bodyEnd + checkLength

  const keyed = secrets.map(keyedHasher)
  const [minter = unkeyedHasher] = keyed
  const hashers = keyed.length === 0 || acceptUnkeyed ? [...keyed, unkeyedHasher] : keyed

  return {
    marker,

    mint() {
      const signed = marker + drawBody()
      const digest = minter.hash(signed)
      const check = formatCheck(checkOf(digest))

      return {
        plainTextKey: signed + check,
        hash: digest,
        secretId: minter.secretId,
        prefix: signed.slice(0, marker.length + shownLength),
        postfix: check,
      }
    },

    parse(plainTextKey) {
      if (plainTextKey.length !== length || !plainTextKey.startsWith(marker)) return null
      for (let at = marker.length; at < bodyEnd; at++) {
        if (valueAt(plainTextKey, at) === -1) return null
      }
      const check = readCheck(plainTextKey, bodyEnd)

      const signed = plainTextKey.slice(0, bodyEnd)
      for (const { secretId, hash } of hashers) {
        const digest = hash(signed)
        // Numbers below 2^47 compare in constant time, whichever of their digits differ.
        if (checkOf(digest) === check) return { hash: digest, secretId }
      }
      return null
    },
  }
}

const unkeyedHasher: Hasher = {
  secretId: null,
  hash: (text) => hash('sha256', text, 'hex'),
}

/** Derives what it needs with HKDF (RFC 5869), so that a secret may also serve the app elsewhere, for sessions say. */
function keyedHasher(secret: string | Uint8Array): Hasher {
  const key = derive(secret, 'hash', 32)
  const secretId = derive(secret, 'id', 8).toString('hex')

  return {
    secretId,
    hash: (text) => createHmac('sha256', key).update(text).digest('hex'),
  }
}

function derive(secret: string | Uint8Array, purpose: string, length: number): Buffer {
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

function checkOf(digest: string): number {
  return Math.floor(Number.parseInt(digest.slice(0, 12), 16) / 2)
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
