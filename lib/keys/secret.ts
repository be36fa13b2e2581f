import { hash, hkdfSync, randomBytes } from 'node:crypto'

/*
 * A plain-text key is
 *
 *   agpt_7Qm3...43 characters...XkpT09sLq2
 *   name body                     check
 *
 * The body is drawn uniformly from base62 (43 characters, 256 bits). One digest of `name_body` serves twice: its first
 * 47 bits, in 8 characters of base62, are the check; all of it is the hash under which the key is stored.
 *
 * The last underscore ends the name, because body and check have none. So one name may be the start of another.
 */

const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const bodyLength = 43
const checkLength = 8
/** The number of characters of the body that lists show. */
export const shownLength = 6
const secretLength = bodyLength + checkLength
/** Matches the body and the check of a key. */
export const secretSyntax = `[0-9A-Za-z]{${secretLength}}`

/** A new plain-text key, and the stored parts. The plain text goes to its owner and nowhere else. */
export type MintedSecret = ReturnType<SecretFormat['mint']>

/**
 * A plain-text key as it was sent: the end of a text, from its character `start` on. It is not cut off, because V8 reads the
 * characters of a slice half as fast.
 */
export interface SentKey {
  readonly text: string
  readonly start: number
}

/** Returns a plain-text key that was sent with nothing before it. */
export function asSent(plainTextKey: string): SentKey {
  return { text: plainTextKey, start: 0 }
}

/** Makes and reads the plain-text keys of one app. */
export type SecretFormat = ReturnType<typeof createSecretFormat>

/**
 * The 32 bytes of a hash, a character each. The text of the database is longer, which matters in a cache of a million
 * keys.
 */
export type Digest = string

/** Returns a hash as the database holds it. */
export function toStoredHash(digest: Digest): string {
  return Buffer.from(digest, 'latin1').toString('hex')
}

/** Returns the digest of a hash that the database holds. */
export function fromStoredHash(stored: string): Digest {
  return Buffer.from(stored, 'hex').toString('latin1')
}

export interface Hasher {
  /** The id of the app's secret that keys the hashes; `null` for none. */
  secretId: string | null
  /** HMAC-SHA-256 under that secret, else SHA-256. */
  digest(text: string): Digest
}

/** The keys with one prefix. The hashers are of its own, because their inputs are prepared for one length. */
interface Form {
  keyPrefix: string
  /** The start of every such key, for example `agpt_`. */
  marker: string
  signedLength: number
  length: number
  hashers: readonly Hasher[]
}

interface SecretFormatOptions extends HashingOptions {
  keyPrefixes: readonly string[]
}

interface HashingOptions {
  secrets: readonly (string | Uint8Array)[]
  acceptUnkeyed: boolean
}

/**
 * Creates the format of an app's keys. The first of `secrets` mints, and all verify. Without secrets, hashes are unkeyed. Keys with any
 * of the prefixes verify.
 */
export function createSecretFormat({ keyPrefixes, secrets, acceptUnkeyed }: SecretFormatOptions) {
  const isUnkeyed = secrets.length === 0 || acceptUnkeyed
  const hashKeys = secrets.map((secret) => deriveHashKey(secret))
  // The longest name comes first, because its marker may begin with the marker of another.
  const forms = keyPrefixes
    .map((keyPrefix) => formOf(keyPrefix, hashKeys, isUnkeyed))
    .toSorted((a, b) => b.length - a.length)
  const shape = new RegExp(`^(?:${keyPrefixes.join('|')})_${secretSyntax}$`)

  return {
    /** The starts of keys, the longest first. */
    markers: forms.map(({ marker }) => marker),
    /** Draws a new key with one of the prefixes. */
    mint(keyPrefix: string) {
      const form = forms.find((form) => form.keyPrefix === keyPrefix)
      const [minter] = form?.hashers ?? []
      if (!form || !minter) throw new TypeError(`express-api-keys: no key begins with ${keyPrefix}`)
      const signed = form.marker + drawBody()
      const digest = minter.digest(signed)
      const check = formatCheck(checkOf(digest))

      return {
        plainTextKey: signed + check,
        hash: toStoredHash(digest),
        secretId: minter.secretId,
        /** The start that lists show: the name and 6 characters of the body. */
        prefix: signed.slice(0, form.marker.length + shownLength),
        /** The end that lists show: the check. */
        postfix: check,
      }
    },

    /**
     * Reads a plain-text key: its shape (name, length, alphabet), then its check. Returns its digest, or `null` for a text that
     * this app never minted. If the app has secrets, such a text may be forged. Otherwise it was mistyped or cut off.
     */
    parse({ text, start }: SentKey): Digest | null {
      // The rest is no function of its own: with the call, reading a key took a twentieth longer.
      const form = formOfText(forms, text, start)
      if (form === undefined) return null
      const { marker, signedLength, hashers } = form
      const signedEnd = start + signedLength
      for (let at = start + marker.length; at < signedEnd; at++) {
        if (valueAt(text, at) === -1) return null
      }
      const check = readCheck(text, signedEnd)

      const signed = text.slice(start, signedEnd)
      for (const hasher of hashers) {
        const digest = hasher.digest(signed)
        // Numbers below 2^47 compare in constant time, whatever digits differ.
        if (checkOf(digest) === check) return digest
      }
      return null
    },

    /** Returns the end of the marker that a text has at a place; -1 if it has none there. */
    markerEndAt(text: string, start: number): number {
      for (const { marker } of forms) {
        if (text.startsWith(marker, start)) return start + marker.length
      }
      return -1
    },

    /** True if a text has the marker and the length of a key. */
    hasLength: ({ text, start }: SentKey) => formOfText(forms, text, start) !== undefined,

    /** True if a text has the shape of a key, whatever its check. */
    hasShape({ text, start }: SentKey): boolean {
      return shape.test(text.slice(start))
    },

    /** True if every client can make such a key, because its check needs no secret. */
    isForgeable({ text, start }: SentKey, digest: Digest): boolean {
      return isUnkeyed && unkeyedHasher.digest(text.slice(start, -checkLength)) === digest
    },

    /** The ids of the app's secrets in their order, and `null` if unkeyed hashes are accepted. */
    secretIds: [...hashKeys.map(({ secretId }) => secretId), ...(isUnkeyed ? [null] : [])],
  }
}

/** The rest of the name of a key with a longer name, behind a marker of ours with which the name begins. */
const longerNameSyntax = '[a-z0-9_]{0,14}[a-z0-9]_'
const longerName = new RegExp(`^${longerNameSyntax}${secretSyntax}$`)

/**
 * Returns the end of the name of a key that has a longer name than the marker that ends at `markerEnd`, for example `acme_live` beside
 * `acme`; -1 if the text is no such key. It belongs to another instance.
 */
export function longerNameEnd(text: string, markerEnd: number): number {
  const end = text.length - secretLength
  return end > markerEnd && longerName.test(text.slice(markerEnd)) ? end : -1
}

/** Makes the pattern of text that begins as keys do, up to the part of it that lists show. */
export function shownPattern({ markers }: Pick<SecretFormat, 'markers'>, inToken: string): string {
  const longer = `(?:${longerNameSyntax}(?=${secretSyntax}(?!${inToken})))?`
  return `(?:${markers.join('|')})${longer}${inToken}{0,${shownLength}}`
}

/** Ends a mask. No key holds it. */
export const ellipsis = '...'

/** Makes the function that masks the keys in a text down to what lists show of them. */
export function createKeyMask(format: Pick<SecretFormat, 'markers'>) {
  const inKey = '[0-9A-Za-z]'
  const keys = new RegExp(`(${shownPattern(format, inKey)})${inKey}*`, 'g')
  return (text: string) => text.replace(keys, `$1${ellipsis}`)
}

function formOf(keyPrefix: string, hashKeys: readonly HashKey[], isUnkeyed: boolean): Form {
  const marker = `${keyPrefix}_`
  const signedLength = marker.length + bodyLength
  const keyed = hashKeys.map((hashKey) => keyedHasher(hashKey, signedLength))
  const hashers = isUnkeyed ? [...keyed, unkeyedHasher] : keyed
  return { keyPrefix, marker, signedLength, length: signedLength + checkLength, hashers }
}

/** Returns the form whose marker and length a text has; `undefined` if the text is no key. */
function formOfText(forms: readonly Form[], text: string, start: number): Form | undefined {
  const length = text.length - start
  for (const form of forms) {
    if (length === form.length && text.startsWith(form.marker, start)) return form
  }
  return undefined
}

const unkeyedHasher: Hasher = {
  secretId: null,
  digest: (text) => hash('sha256', text, 'binary'),
}

const blockLength = 64
const digestLength = 32

/** Makes the hashers of texts that are no keys of ours, with one length and a purpose of their own. The first hashes, and all verify. */
export function createHashers(
  { secrets, acceptUnkeyed }: HashingOptions,
  purpose: string,
  length: number,
): readonly [Hasher, ...Hasher[]] {
  const unkeyed: Hasher = {
    secretId: null,
    digest: (text) => hash('sha256', `express-api-keys v1 ${purpose}\0${text}`, 'binary'),
  }
  const [first, ...others] = secrets.map((secret) =>
    keyedHasher(deriveHashKey(secret, `hash of ${purpose}`), length),
  )
  if (!first) return [unkeyed]
  return acceptUnkeyed ? [first, ...others, unkeyed] : [first, ...others]
}

/** The key of hashes, and the id of the secret from which it is derived. */
type HashKey = ReturnType<typeof deriveHashKey>

/**
 * Derives the key of hashes from a secret by HKDF (RFC 5869). So the app may use the secret elsewhere, for example for sessions.
 */
function deriveHashKey(secret: string | Uint8Array, purpose = 'hash') {
  return {
    key: derive(secret, purpose, digestLength),
    secretId: derive(secret, 'id', 8).toString('hex'),
  }
}

/**
 * Creates a hasher for texts of one length.
 *
 * HMAC(key, text) = H(key ⊕ opad, H(key ⊕ ipad, text)), RFC 2104. It is spelled out because two hashes over prepared inputs
 * take half the time of Node's `createHmac`.
 */
function keyedHasher({ key, secretId }: HashKey, textLength: number): Hasher {
  const inner = padded(key, 0x36, textLength)
  const outer = padded(key, 0x5c, digestLength)
  const room = new Float64Array(inner.buffer, blockLength)

  return {
    secretId,
    digest(text) {
      inner.write(text, blockLength, 'latin1')
      const innerDigest = hash('sha256', inner, 'binary')
      // Otherwise, a dump of an idle process would hold the last key.
      for (let at = 0; at < room.length; at++) room[at] = 0
      outer.write(innerDigest, blockLength, 'latin1')
      return hash('sha256', outer, 'binary')
    },
  }
}

/**
 * Returns the key, each byte exclusive-or'ed with `pad`, in a block of its own, and room for the text. The memory ends at a
 * multiple of 8 bytes, so that the room can be overwritten 8 bytes at a time. `fill` would take ten times as long.
 */
function padded(key: Buffer, pad: number, length: number): Buffer<ArrayBuffer> {
  const memory = new ArrayBuffer(blockLength + 8 * Math.ceil(length / 8))
  const input = Buffer.from(memory, 0, blockLength + length)
  key.copy(input)
  for (let at = 0; at < blockLength; at++) input.writeUInt8(input.readUInt8(at) ^ pad, at)
  return input
}

/** Derives a key of its own for each purpose from one of the app's secrets. */
export function derive(secret: string | Uint8Array, purpose: string, length: number): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, '', `express-api-keys v1 ${purpose}`, length))
}

/** Draws bytes from the operating system. It skips the highest bytes, because 256 is not a multiple of 62. */
function drawBody(): string {
  const fair = 256 - (256 % alphabet.length)
  const body = Buffer.allocUnsafeSlow(bodyLength)
  let length = 0

  while (length < bodyLength) {
    for (const byte of randomBytes(bodyLength)) {
      if (byte < fair && length < bodyLength) {
        body[length++] = alphabet.charCodeAt(byte % alphabet.length)
      }
    }
  }
  return body.toString('latin1')
}

/** Returns the first 47 bits of a digest. */
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

/** Reads a check. Returns -1, which no digest has, if a character is not in the alphabet. */
function readCheck(text: string, from: number): number {
  let check = 0

  for (let at = from; at < from + checkLength; at++) {
    const value = valueAt(text, at)
    if (value === -1) return -1
    check = check * alphabet.length + value
  }
  return check
}

const values = Int8Array.from({ length: 128 }, (_, code) =>
  alphabet.indexOf(String.fromCharCode(code)),
)

function valueAt(text: string, at: number): number {
  return values[text.charCodeAt(at)] ?? -1
}
