import { momentOf } from '../database/clock'
import { within } from '../database/time-limit'
import { ApiKeysError } from '../errors'
import { asSent, type Digest, type SecretFormat } from '../keys/secret'
import { mayAnswer, type CachedKey } from './cache'
import type { FailedAttempts } from './failed-attempts'
import type { Memory } from './memory'
import type { Holding, KeyCaller } from './verified-key'
import { leastPatienceMs, maxAttempts } from './verify'

/** The facts about a plain-text key by which a verification decides. */
export interface Examination {
  /** `null` if the text is no key of the app. */
  digest: Digest | null
  /** The row of the key; `null` if no key has the hash. */
  key: CachedKey | null
  /** The time at which the facts hold, in milliseconds since 1970. */
  wall: number
}

interface ExamineParts {
  format: SecretFormat
  memory: Memory
  attempts: FailedAttempts
}

/**
 * Makes the functions that read a key from the database as a verification reads it. They count no use, and no failed attempt. They
 * report nothing.
 */
export function createExamine({ format, memory, attempts }: ExamineParts) {
  const { clock, feed, loader, ownerPermissions } = memory

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

  async function examine(plainTextKey: string): Promise<Examination> {
    const digest = format.parse(asSent(plainTextKey))
    const limitMs = Math.max(feed.patienceMs(), leastPatienceMs)
    const key = digest === null ? null : await within({ limitMs, isAwaited: true }, readKey(digest))
    return { digest, key, wall: clock.wall() }
  }

  return {
    /** Reads the facts about a plain-text key. Rejects with `database_unavailable`. */
    examine,

    /**
     * Reads the facts about a key that anyone may send, and counts made-up keys for their address. Rejects with `too_many_lookups` if the
     * address has sent too many of them, and every client could have made the key.
     */
    async locate(plainTextKey: string, caller: Pick<KeyCaller, 'ip'>): Promise<Examination> {
      const sent = asSent(plainTextKey)
      const digest = format.parse(sent)
      const isForgeable = digest !== null && format.isForgeable(sent, digest)
      if (isForgeable && !attempts.mayLookUp(caller)) throw new ApiKeysError('too_many_lookups')
      const facts = await examine(plainTextKey)
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
