import { momentOf } from '../database/clock'
import { within } from '../database/time-limit'
import { ApiKeysError } from '../errors'
import { signedText, type AcceptedSource, type ImportedKeys } from '../importing/imported-keys'
import { asSent, type Digest, type SecretFormat } from '../keys/secret'
import { isStillUnknown, mayAnswer, mayUseKey, type CachedKey } from './cache'
import type { FailedAttempts } from './failed-attempts'
import type { Memory } from './memory'
import type { SaltedKeys } from './salted-keys'
import type { Holding, KeyCaller } from './verified-key'
import { leastPatienceMs, maxAttempts } from './verify'

/** The facts about a plain-text key by which a verification decides. */
export interface Examination {
  /** `null` if the text is no key of the app. */
  digest: Digest | null
  /** The row of the key; `null` if no key has the hash. */
  key: CachedKey | null
  /** The other system whose keys have the form of the text; `null` for a text of the form of our keys, or of no key. */
  source: string | null
  /** The time at which the facts hold, in milliseconds since 1970. */
  wall: number
}

/** The address that a key came from. Without one, nothing counts against it. */
type Sender = Pick<KeyCaller, 'ip'>

/** Returns the key that has a hash; `null` if there is none. */
type Read = (digest: Digest) => Promise<CachedKey | null>

interface ExamineParts {
  format: SecretFormat
  memory: Memory
  attempts: FailedAttempts
  /** The parts for the keys of other systems; `undefined` in an app without imported keys. */
  imports: { imported: ImportedKeys; saltedKeys: SaltedKeys } | undefined
}

/** How many keys with a salt may wait for their values: those of a report. */
const mostWaiting = 1_000

/** Makes the functions that read a key as a verification reads it. They count no use, and report nothing. */
export function createExamine({ format, memory, attempts, imports }: ExamineParts) {
  const { clock, ownerPermissions } = memory
  const { read, readCached } = createReads(memory)
  const inLine = createLine()

  async function examineOwn(plainTextKey: string, read: Read): Promise<Examination> {
    const digest = format.parse(asSent(plainTextKey))
    const key = digest === null ? null : await read(digest)
    return { digest, key, source: null, wall: clock.wall() }
  }

  /** Returns the hashes that a text has as the key of a source. Those of a key with a salt take a tenth of a second. */
  async function hashesOf(
    accepted: AcceptedSource,
    text: string,
    caller: Sender,
  ): Promise<Digest[]> {
    const signed = signedText(accepted.source, text)
    const [next, ...others] = accepted
      .hashersOf(signed.length)
      .map((hasher) => hasher.digest(signed))
    if (next === undefined) return []
    const isSalted = imports?.saltedKeys.mayHave(accepted, text) === true
    const salted = isSalted
      ? await inLine(() => imports.saltedKeys.find(accepted, text, next, caller))
      : []
    // Such a text has cost time, and is no key.
    if (isSalted && salted.length === 0) attempts.note(caller)
    return [next, ...others, ...salted]
  }

  async function examineImported(text: string, read: Read, caller: Sender): Promise<Examination> {
    let source: string | null = null
    for (const accepted of imports?.imported.all ?? []) {
      if (!imports?.imported.accepts(accepted, text)) continue
      source ??= accepted.source.name
      for (const digest of await hashesOf(accepted, text, caller)) {
        const key = await read(digest)
        if (key) return { digest, key, source: accepted.source.name, wall: clock.wall() }
      }
    }
    return { digest: null, key: null, source, wall: clock.wall() }
  }

  async function examineBy(plainTextKey: string, read: Read, sender: Sender) {
    // A text with our marker and our length is ours alone.
    return !imports || format.hasLength(asSent(plainTextKey))
      ? examineOwn(plainTextKey, read)
      : examineImported(plainTextKey, read, sender)
  }

  return {
    /**
     * Reads the facts about a plain-text key, ours or imported. Rejects with `database_unavailable`. If anyone may have sent the key, its
     * sender is given. Rejects with `too_many_lookups` if the sender has sent too many texts that look like keys with a salt.
     */
    examine: (plainTextKey: string, sender: Sender = {}) => examineBy(plainTextKey, read, sender),

    /** Returns the same facts, from the cache while a verification may use it. */
    inspect: (plainTextKey: string) => examineBy(plainTextKey, readCached, {}),

    /**
     * Reads the facts about a key that anyone may send, and counts made-up keys for their address. Rejects with `too_many_lookups` if the
     * address has sent too many of them, and every client could have made the key.
     */
    async locate(plainTextKey: string, caller: Sender): Promise<Examination> {
      const sent = asSent(plainTextKey)
      const digest = format.parse(sent)
      const isForgeable = digest !== null && format.isForgeable(sent, digest)
      if (isForgeable && !attempts.mayLookUp(caller)) throw new ApiKeysError('too_many_lookups')
      const facts = await examineOwn(plainTextKey, read)
      if (isForgeable && !facts.key) attempts.note(caller)
      return facts
    },

    /** Returns a key with the permissions that its owner holds as well. Rejects if the app does not say which these are. */
    async holdingOf(row: CachedKey): Promise<Holding> {
      const permissions = ownerPermissions ? await ownerPermissions.readHeld(row) : row.permissions
      return { row, permissions }
    },
  }
}

/** Makes the function that runs pieces of work one after the other, so that a long report leaves room for the requests that need some. */
function createLine() {
  let last: Promise<unknown> = Promise.resolve()
  let waiting = 0

  return async function inLine<Result>(work: () => Promise<Result>): Promise<Result> {
    if (waiting >= mostWaiting) throw new ApiKeysError('too_many_lookups')
    waiting++
    const result = last.then(work)
    last = result.catch(() => {}).finally(() => waiting--)
    return result
  }
}

/** Makes the two ways to read a key: from the database, and from the cache while a verification may use it. */
function createReads({ cache, clock, feed, loader }: Memory) {
  async function readKey(digest: Digest): Promise<CachedKey | null> {
    const askedAt = clock.monotonic()
    for (let attempt = 1; attempt <= maxAttempts; attempt++) {
      feed.noteUse(clock.monotonic())
      if (attempt > 1 || !feed.isLive(clock.monotonic(), clock.wall())) await feed.poll()
      const loaded = await loader.load(digest)
      if (mayAnswer(loaded, { askedAt, isRetry: attempt > 1 }, feed, momentOf(clock))) {
        return loaded.key
      }
    }
    throw new ApiKeysError('database_unavailable')
  }

  /** Reads a key from the database. */
  const read: Read = async (digest) => {
    const limitMs = Math.max(feed.patienceMs(), leastPatienceMs)
    return within({ limitMs, isAwaited: true }, readKey(digest))
  }

  /** Returns a key as it is cached; `undefined` if the database has to be asked. */
  function cachedKey(digest: Digest): CachedKey | null | undefined {
    const { monotonic, wall } = momentOf(clock)
    const key = cache.use(digest)
    const isUsable = key
      ? mayUseKey(key, feed, monotonic, wall)
      : isStillUnknown(cache.unknownSince(digest), feed, monotonic, wall)
    if (!isUsable) return undefined
    feed.noteUse(monotonic)
    return key ?? null
  }

  /** Returns a key from the cache, else from the database. */
  const readCached: Read = async (digest) => {
    const cached = cachedKey(digest)
    if (cached !== undefined) return cached
    try {
      return await read(digest)
    } catch (error) {
      // If the app has set `outageGraceMs`, keys that were good may be used a while longer.
      const key = cachedKey(digest)
      if (key === undefined) throw error
      return key
    }
  }

  return { read, readCached }
}
