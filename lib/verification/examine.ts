import { momentOf } from '../database/clock'
import { within } from '../database/time-limit'
import { ApiKeysError } from '../errors'
import { asSent, type Digest, type SecretFormat } from '../keys/secret'
import { leastPatienceMs, maxAttempts } from './ask-database'
import { isStillUnknown, mayAnswer, mayUseKey, type CachedKey } from './cache'
import { isIdle, noteOwnUses, type OwnUses } from './decide'
import {
  createExamineImported,
  type ExamineImportedParts,
  type Read,
  type Reading,
  type Sender,
} from './examine-imported'
import type { Memory } from './memory'
import type { Holding } from './verified-key'

/** The facts about a plain-text key by which a verification decides. */
export interface Examination {
  /**
   * The hashes of the text as a key of the app, first that of the row. A key with a salt also has the hash that it gets at its first use,
   * which may come at any moment. Empty if the text is no key of the app.
   */
  digests: readonly Digest[]
  /** The row of the key; `null` if no key has the hash. */
  key: CachedKey | null
  /** The other system whose keys have the form of the text; `null` for a text of the form of our keys, or of no key. */
  source: string | null
  /** The time at which the facts hold, in milliseconds since 1970. */
  wall: number
}

interface ExamineParts extends ExamineImportedParts {
  format: SecretFormat
  memory: Memory
  usage: OwnUses['usage']
}

/** Makes the functions that read a key as a verification reads it. They count no use, and report nothing. */
export function createExamine({ format, memory, usage, attempts, imports }: ExamineParts) {
  const { clock, ownerPermissions } = memory
  const { read, readCached } = createReads(memory, usage)

  async function examineOwn(plainTextKey: string, read: Read): Promise<Examination> {
    const digest = format.parse(asSent(plainTextKey))
    const key = digest === null ? null : await read(digest)
    return { digests: digest === null ? [] : [digest], key, source: null, wall: clock.wall() }
  }

  const examineImported = createExamineImported({ memory, attempts, imports })

  async function examineBy(plainTextKey: string, reading: Reading) {
    // A text with our marker and our length is ours alone.
    return !imports || format.hasLength(asSent(plainTextKey))
      ? examineOwn(plainTextKey, reading.read)
      : examineImported(plainTextKey, reading)
  }

  return {
    /**
     * Reads the facts about a plain-text key, ours or imported. Rejects with `database_unavailable`. If anyone may have sent the key, its
     * sender is given. Rejects with `too_many_lookups` if the sender has sent too many texts that look like keys with a salt.
     */
    examine: (plainTextKey: string, sender: Sender = {}) =>
      examineBy(plainTextKey, { read, sender, way: 'in line' }),

    /** Returns the same facts, from the cache while a verification may use it. */
    inspect: (plainTextKey: string) =>
      examineBy(plainTextKey, { read: readCached, sender: {}, way: 'at once' }),

    /**
     * Reads the facts about a key that anyone may send, ours or imported, and counts made-up keys for their address. Rejects with
     * `too_many_lookups` if the address has sent too many of them, and every client could have made the key. What changes nothing may
     * read from the cache, while a verification may use it.
     */
    async locate(
      plainTextKey: string,
      caller: Sender,
      from: 'database' | 'cache' = 'database',
    ): Promise<Examination> {
      const sent = asSent(plainTextKey)
      const readFrom = from === 'cache' ? readCached : read
      if (imports && !format.hasLength(sent)) {
        return examineImported(plainTextKey, { read: readFrom, sender: caller, way: 'at once' })
      }
      const digest = format.parse(sent)
      const isForgeable = digest !== null && format.isForgeable(sent, digest)
      if (isForgeable && !attempts.mayLookUp(caller)) throw new ApiKeysError('too_many_lookups')
      const facts = await examineOwn(plainTextKey, readFrom)
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

/** Makes the two ways to read a key: from the database, and from the cache while a verification may use it. */
function createReads(memory: Memory, usage: OwnUses['usage']) {
  const { cache, clock, feed, loader } = memory

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
    // Other processes may have used a key that seems idle.
    if (cached !== undefined && !(cached && seemsIdle(cached))) return cached
    const key = await read(digest)
    if (key) seemsIdle(key)
    return key
  }

  /** True if neither the row of a key nor the notes of this process have a use that is late enough. */
  function seemsIdle(key: CachedKey): boolean {
    if (!isIdle(key, clock.wall())) return false
    noteOwnUses(key, { usage, memory })
    return isIdle(key, clock.wall())
  }

  return { read, readCached }
}
