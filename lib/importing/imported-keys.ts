import { createHashers, toStoredHash, type Hasher } from '../keys/secret'
import { digestOfAll, plain } from './digests'
import { createFingerprint } from './fingerprint'
import { longestMatch } from './pattern'
import type { SaltedValue } from './salted'
import type { ImportRow, ImportSource } from './source'

/** The keys of other systems that an app accepts; `undefined` for an app that accepts none. */
export type ImportedKeys = ReturnType<typeof createImportedKeys>

/** A source, with the hashes of its keys. */
export interface AcceptedSource {
  source: ImportSource
  longest: number
  hashersOf(length: number): readonly [Hasher, ...Hasher[]]
}

/** The hash of a key, as the table has it, and the hashes under the other secrets of the app. */
export interface StoredHash {
  hash: string
  secretId: string | null
  others: string[]
}

interface Options {
  imports: readonly ImportSource[]
  secrets: readonly (string | Uint8Array)[]
  acceptUnkeyed: boolean
}

/**
 * Makes the part that recognizes the keys of other systems. Our hash of such a key is that of its own digest, under the secrets of the app
 * and the name of its source. So it stands in the column of our own hashes, and a stolen database does not verify it.
 */
export function createImportedKeys(options: Options) {
  const all = options.imports.map((source): AcceptedSource => {
    const byLength: (readonly [Hasher, ...Hasher[]])[] = []
    return {
      source,
      longest: longestMatch(source.accepts),
      hashersOf: (length) => (byLength[length] ??= createHashers(options, source.name, length)),
    }
  })
  const longest = Math.max(0, ...all.map((each) => each.longest))
  const byName = new Map(all.map((each) => [each.source.name, each]))

  return {
    byName,
    schemes: [...new Set(all.flatMap(({ source }) => source.schemes ?? []))],
    headers: [
      ...new Set(
        all.flatMap(({ source }) => (source.headers ?? []).map((name) => name.toLowerCase())),
      ),
    ],

    /** The sources, in the order in which they are tried. */
    all,

    fingerprintOf: createFingerprint(),

    /** True if a text has the shape of the keys of a source, whatever its check. */
    hasShapeOf,

    /** True if a source accepts a text as one of its keys. */
    accepts: (accepted: AcceptedSource, text: string) =>
      hasShapeOf(accepted, text) && accepted.source.check?.(text) !== false,

    /** True if a text has the shape of the keys of some source, whatever its check. */
    hasShape(text: string): boolean {
      return text.length <= longest && all.some((each) => hasShapeOf(each, text))
    },
  }
}

function hasShapeOf({ source, longest }: AcceptedSource, text: string): boolean {
  // UTF-8, of which digests are made, does not tell halves of a character apart.
  return text.length <= longest && text.isWellFormed() && source.accepts.test(text)
}

/** Returns the text of a key of a source, of which the hashers of its length make the hash. */
export function signedText(
  { digest, digested, locate, salted }: ImportSource,
  key: string,
): string {
  const own = cut(digest.of(digested === undefined ? key : digested(key)))
  // A digest of the whole key covers what its salt is found by.
  return locate === undefined || salted !== undefined ? own : digestOfAll(locate(key), own)
}

/** Of a long digest, 256 bits are enough, and take less time to hash. */
function cut(digest: string): string {
  return digest.slice(0, 32)
}

/** Returns the text of the value that a salted key has before its first use. */
export function saltedText({ recipe, salt, derived }: SaltedValue): string {
  return digestOfAll('salted', recipe, salt, derived)
}

/** A stored value of a row: our hash of it, and its salt if it has one. */
export interface ReadStored {
  stored: StoredHash
  salted: { locator: string; recipe: string; salt: string } | null
}

/** Reads what another system stores of a key. Returns the fault of the row if it cannot be read. */
export function readStored(accepted: AcceptedSource, row: ImportRow): ReadStored | Fault {
  const { digest, locate, salted } = accepted.source
  const { stored, salt, locator = '' } = row
  if (typeof stored !== 'string' || stored === '')
    return { pointer: '#/stored', message: 'is required' }
  if (locate !== undefined && (typeof locator !== 'string' || !/^[!-~]{1,255}$/.test(locator))) {
    return { pointer: '#/locator', message: 'must have 1 to 255 printable characters of ASCII' }
  }
  const value = salted?.read(stored, salt) ?? null
  if (value !== null) {
    if (!/^[ -~]{1,255}$/.test(value.salt)) {
      return { pointer: '#/salt', message: 'must have 1 to 255 printable characters of ASCII' }
    }
    const { recipe } = value
    return {
      stored: hashOf(accepted, saltedText(value)),
      salted: { locator, recipe, salt: value.salt },
    }
  }
  if (digest === plain && !hasShapeOf(accepted, stored)) {
    return { pointer: '#/stored', message: 'is no key that this source accepts' }
  }
  const own = digest.read(stored)
  if (own === null) return { pointer: '#/stored', message: 'is not what this source stores' }
  const isBound = locate !== undefined && salted === undefined
  return {
    stored: hashOf(accepted, isBound ? digestOfAll(locator, cut(own)) : cut(own)),
    salted: null,
  }
}

interface Fault {
  pointer: string
  message: string
}

function hashOf(accepted: AcceptedSource, text: string): StoredHash {
  const [first, ...others] = accepted.hashersOf(text.length)
  return {
    hash: toStoredHash(first.digest(text)),
    secretId: first.secretId,
    others: others.map((hasher) => toStoredHash(hasher.digest(text))),
  }
}
