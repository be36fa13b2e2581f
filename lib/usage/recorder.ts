import { randomUUID } from 'node:crypto'

import type { Tables } from '../../models/tables'
import type { Clock } from '../database/clock'
import type { Writer } from '../database/writer'
import { createCounts, type CountedKey, type KeyUse } from './counts'
import { createLastUses, type UsedKey } from './last-uses'
import type { Settings } from '../read-options'

/** Notes and counts uses. */
export type UsageRecorder = ReturnType<typeof createUsageRecorder>

/** A secret of a key, with everything that usage keeps of it. */
export interface RecordedKey extends CountedKey, UsedKey {}

interface UsageRecorderParts extends Pick<Settings, 'lastUsedResolutionMs' | 'cacheSize'> {
  writer: Pick<Writer, 'add' | 'writeLater'>
  tables: Tables
  clock: Pick<Clock, 'monotonic'>
}

/** The state of counting. */
export interface UsageHealth {
  /** The number of counts that are not in the database yet. Each is of one key and hour. */
  pending: number
  /** The number of uses that were not counted, because there was no room for more counts. */
  dropped: number
}

/** The most keys in one statement, and the most last uses in it if there are many counts. */
const maxKeys = 5_000
const fewKeys = 500

/** The least number of keys that there is room for. */
const leastKeys = 10_000

/** How long counts wait at most, so that a process that is killed loses few. */
const longestCountMs = 60_000

/** Notes in memory when and how often keys are used, and gives the notes to the writer. */
export function createUsageRecorder(parts: UsageRecorderParts) {
  const { writer, tables, clock, lastUsedResolutionMs, cacheSize } = parts
  // Twice, because a key in use has counts of two hours when a new hour begins.
  const maxCounts = 2 * Math.max(cacheSize, leastKeys)
  const writerId = randomUUID()
  const lastUses = createLastUses({
    writer,
    tables,
    resolutionMs: lastUsedResolutionMs,
    maxKeys: maxCounts,
  })
  const counts = createCounts({
    writer,
    tables,
    clock,
    writerId,
    longestMs: Math.min(lastUsedResolutionMs, longestCountMs),
    maxCounts,
    batchSize: maxKeys,
  })

  writer.add({
    get size() {
      return lastUses.size + counts.pending
    },
    get rounds() {
      return Math.max(Math.ceil(lastUses.size / maxKeys), counts.rounds)
    },
    get isUrgent() {
      return counts.isTaken(3 / 4)
    },
    take(isFlush) {
      // Last uses take several times as long to write as counts. They must not hold up counts that soon find no room.
      const uses = lastUses.take(counts.isTaken(1 / 2) && !isFlush ? fewKeys : maxKeys)
      return [...uses, ...counts.take(isFlush, lastUses.idsBeingWritten())]
    },
  })

  return {
    /** Names this process in the table of the processes that write usage. */
    writerId,
    noteUse: lastUses.note,
    lastUseOf: lastUses.lastUseOf,
    countUse: counts.count,
    countsOf: counts.countsOf,

    /** The number of batches so far, and the number of batches that are known to be written. */
    get batches() {
      return counts.batches
    },

    /** Moves a use from accepted to denied: the key is good, but not for this. */
    noteDenied(apiKey: Pick<CountedKey, 'id' | 'owner'>, use: KeyUse) {
      counts.refuse(apiKey, use, 'denied')
    },

    /** Moves a use from accepted to refused by a limit. */
    noteRateLimited(apiKey: Pick<CountedKey, 'id' | 'owner'>, use: KeyUse) {
      counts.refuse(apiKey, use, 'rateLimited')
    },

    /** Returns the state of counting. */
    health(): UsageHealth {
      return { pending: counts.pending, dropped: counts.dropped }
    },
  }
}
