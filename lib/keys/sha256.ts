/*
 * SHA-256 (FIPS 180-4) and HMAC (RFC 2104) of short texts, in JavaScript. In a loop OpenSSL is somewhat faster. Behind HTTP,
 * where other code has had the processor's caches since the last key, a call out of JavaScript takes more than twice as
 * long as this, and HMAC is two of them.
 */

/** The 32 bytes of a hash, one character each: half as long as in hexadecimal, which tells where a million are remembered. */
export type Digest = string

/**
 * Returns the hash of a part of a text, of which each character stands for one byte. Takes the whole text, as V8 reads a
 * part of it that was cut off half as fast.
 */
export type Hash = (text: string, start: number, end: number) => Digest

/** What makes the hashes of keys. */
export interface Hashes {
  sha256: Hash
  hmacSha256(key: Uint8Array): Hash
}

const blockLength = 64
const digestLength = 32

/** Eight words of 32 bits. */
type State = Int32Array

const initialState: State = fractionsOfRoots(8, Math.sqrt)
const beginning: Beginning = { state: initialState, length: 0 }
const roundConstants = fractionsOfRoots(64, Math.cbrt)

// Of the one hash that is being made.
const state: State = new Int32Array(8)
const words = new Int32Array(64)
const bytes = Array.from({ length: digestLength }, () => 0)

/** Makes the hash without a key. */
export function sha256(text: string, start: number, end: number): Digest {
  absorb(text, start, end, beginning)
  return digestOfState()
}

/** Takes a key of at most 64 bytes. Its blocks are the same for every text, and made once. */
export function hmacSha256(key: Uint8Array): Hash {
  const inner = beginWith(padded(key, 0x36))
  const outer = beginWith(padded(key, 0x5c))

  return function hmac(text, start, end) {
    absorb(text, start, end, inner)
    words.set(state)
    words.set(endOfDigest, state.length)
    compress(outer.state)
    return digestOfState()
  }
}

/** Returns a block with the key, each byte exclusive-or'ed with `pad`. */
function padded(key: Uint8Array, pad: number): string {
  const block = new Uint8Array(blockLength)
  block.set(key)
  return String.fromCharCode(...block.map((byte) => byte ^ pad))
}

/** The end of a block of which a digest is the beginning, and a block all that came before. */
const endOfDigest = Int32Array.of(0x80000000, 0, 0, 0, 0, 0, 0, (blockLength + digestLength) * 8)

/** What the hash of a text begins with: nothing, or a block of a key. */
interface Beginning {
  state: State
  length: number
}

function beginWith(block: string): Beginning {
  readBlock(block, 0, blockLength)
  compress(initialState)
  return { state: state.slice(), length: blockLength }
}

/** Takes in a text, and the end of the message. */
function absorb(text: string, start: number, end: number, before: Beginning) {
  let from = before.state
  let at = start
  // The length of the message takes eight bytes, the bit before it another one.
  for (; at + blockLength < end + 9; at += blockLength) {
    readBlock(text, at, end)
    compress(from)
    from = state
  }
  readBlock(text, at, end)
  words[15] = (before.length + end - start) * 8
  compress(from)
}

function readBlock(text: string, start: number, end: number) {
  for (let word = 0; word < 16; word++) {
    const at = start + word * 4
    words[word] = at + 4 <= end ? wordAt(text, at) : lastWordAt(text, at, end)
  }
}

function wordAt(text: string, at: number): number {
  return (
    (text.charCodeAt(at) << 24) |
    (text.charCodeAt(at + 1) << 16) |
    (text.charCodeAt(at + 2) << 8) |
    text.charCodeAt(at + 3)
  )
}

/** What is left of a text, a bit behind it, and zeros. */
function lastWordAt(text: string, start: number, end: number): number {
  let word = 0
  for (let at = start; at < start + 4; at++) {
    const byte = at < end ? text.charCodeAt(at) : at === end ? 0x80 : 0
    word = (word << 8) | byte
  }
  return word
}

/** Takes the block that `words` begins with into a state (FIPS 180-4, section 6.2.2). */
function compress(from: State) {
  for (let at = 16; at < 64; at++) {
    const early = wordOf(words, at - 15)
    const late = wordOf(words, at - 2)
    const mixedEarly = rotate(early, 7) ^ rotate(early, 18) ^ (early >>> 3)
    const mixedLate = rotate(late, 17) ^ rotate(late, 19) ^ (late >>> 10)
    words[at] = wordOf(words, at - 16) + mixedEarly + wordOf(words, at - 7) + mixedLate
  }

  let a = wordOf(from, 0)
  let b = wordOf(from, 1)
  let c = wordOf(from, 2)
  let d = wordOf(from, 3)
  let e = wordOf(from, 4)
  let f = wordOf(from, 5)
  let g = wordOf(from, 6)
  let h = wordOf(from, 7)
  for (let round = 0; round < 64; round++) {
    const mixedE = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)
    const chosen = (e & f) ^ (~e & g)
    const sum = (h + mixedE + chosen + wordOf(roundConstants, round) + wordOf(words, round)) | 0
    const mixedA = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)
    const majority = (a & b) ^ (a & c) ^ (b & c)

    h = g
    g = f
    f = e
    e = (d + sum) | 0
    d = c
    c = b
    b = a
    a = (sum + mixedA + majority) | 0
  }
  state[0] = wordOf(from, 0) + a
  state[1] = wordOf(from, 1) + b
  state[2] = wordOf(from, 2) + c
  state[3] = wordOf(from, 3) + d
  state[4] = wordOf(from, 4) + e
  state[5] = wordOf(from, 5) + f
  state[6] = wordOf(from, 6) + g
  state[7] = wordOf(from, 7) + h
}

function wordOf(list: Int32Array, at: number): number {
  return list[at] ?? 0
}

function rotate(word: number, by: number): number {
  return (word >>> by) | (word << (32 - by))
}

function digestOfState(): Digest {
  for (let at = 0; at < 8; at++) {
    const word = wordOf(state, at)
    bytes[4 * at] = word >>> 24
    bytes[4 * at + 1] = (word >>> 16) & 0xff
    bytes[4 * at + 2] = (word >>> 8) & 0xff
    bytes[4 * at + 3] = word & 0xff
  }
  return String.fromCharCode(...bytes)
}

/** The first 32 bits behind the point of a root of each of the first primes (FIPS 180-4, sections 4.2.2 and 5.3.3). */
function fractionsOfRoots(count: number, root: (prime: number) => number): Int32Array {
  const fractions = new Int32Array(count)
  for (let number = 2, found = 0; found < count; number++) {
    if (isPrime(number)) fractions[found++] = Math.floor((root(number) % 1) * 2 ** 32)
  }
  return fractions
}

function isPrime(number: number): boolean {
  for (let divisor = 2; divisor * divisor <= number; divisor++) {
    if (number % divisor === 0) return false
  }
  return true
}
