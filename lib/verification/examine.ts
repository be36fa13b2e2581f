import { momentOf } from '../database/clock'
import { within } from '../database/time-limit'
import { ApiKeysError } from '../errors'
import { signedText, type AcceptedSource, type ImportedKeys } from '../importing/imported-keys'
import { asSent, type Digest, type SecretFormat } from '../keys/secret'
import { mayAnswer, type CachedKey } from './cache'
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

interface ExamineParts {
  format: SecretFormat
  memory: Memory
  attempts: FailedAttempts
  /** The parts for the keys of other systems; `undefined` in an app without imported keys. */
  imports: { imported: ImportedKeys; saltedKeys: SaltedKeys } | undefined
}

/** How many keys with a salt may wait for their values: those of a report. */
const mostWaiting = 1_000

/**
 * Makes the functions that read a key from the database as a verification reads it. They count no use, and no failed attempt. They
 * report nothing.
 */
export function createExamine({ format, memory, attempts, imports }: ExamineParts) {
  const { clock, feed, loader, ownerPermissions } = memory
  const inLine = createLine()

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

  async function inTime<Result>(work: Promise<Result>): Promise<Result> {
    const limitMs = Math.max(feed.patienceMs(), leastPatienceMs)
    return within({ limitMs, isAwaited: true }, work)
  }

  async function examineOwn(plainTextKey: string): Promise<Examination> {
    const digest = format.parse(asSent(plainTextKey))
    const key = digest === null ? null : await inTime(readKey(digest))
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

  async function examineImported(text: string, caller: Sender): Promise<Examination> {
    let source: string | null = null
    for (const accepted of imports?.imported.all ?? []) {
      if (!imports?.imported.accepts(accepted, text)) continue
      source ??= accepted.source.name
      for (const digest of await hashesOf(accepted, text, caller)) {
        const key = await inTime(readKey(digest))
        if (key) return { digest, key, source: accepted.source.name, wall: clock.wall() }
      }
    }
    return { digest: null, key: null, source, wall: clock.wall() }
  }

  return {
    /**
     * Reads the facts about a plain-text key, ours or imported. Rejects with `database_unavailable`. If anyone may have sent the key, its
     * sender is given. Rejects with `too_many_lookups` if the sender has sent too many texts that look like keys with a salt.
     */
    async examine(plainTextKey: string, sender: Sender = {}): Promise<Examination> {
      // A text with our marker and our length is ours alone.
      return !imports || format.hasLength(asSent(plainTextKey))
        ? examineOwn(plainTextKey)
        : examineImported(plainTextKey, sender)
    },

    /**
     * Reads the facts about a key that anyone may send, and counts made-up keys for their address. Rejects with `too_many_lookups` if the
     * address has sent too many of them, and every client could have made the key.
     */
    async locate(plainTextKey: string, caller: Sender): Promise<Examination> {
      const sent = asSent(plainTextKey)
      const digest = format.parse(sent)
      const isForgeable = digest !== null && format.isForgeable(sent, digest)
      if (isForgeable && !attempts.mayLookUp(caller)) throw new ApiKeysError('too_many_lookups')
      const facts = await examineOwn(plainTextKey)
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
