import type { Tables } from '../../models/tables'
import { hourMs, type Clock } from '../database/clock'
import { isSameOwner, type Owner } from '../keys/owner'
import type { Write, Writer } from '../database/writer'
import { countsSql } from './usage-sql'

/**
 * A secret of a key, with the uses that are counted but not written: in the object itself, so that a request searches
 * no map.
 */
export interface CountedKey {
  readonly id: string
  readonly owner: Owner
  /** The hour of these uses, since 1970. */
  hour: number
  verified: number
  /** When the first of them was, by the monotonic clock. */
  countedSinceSeconds: number
}

/** A request, or a call, that came with a key, and its notes. */
export interface KeyUse {
  /** The address that the key came from; `null` if it cannot be read, `undefined` if a call does not say. */
  readonly ip?: string | null | undefined
  /** The hour since 1970 in which the use is counted as accepted. */
  countedInHour?: number | undefined
  /** True once the use of a good key was refused. */
  wasRefused?: boolean
}

/** Uses of a key within an hour. Each counts as verified, and once more if it was refused afterwards. */
export interface Tally {
  readonly id: string
  readonly owner: Owner
  /** The hour since 1970, UTC. */
  readonly hour: number
  readonly verified: number
  readonly denied: number
  readonly rateLimited: number
}

/** The numbers of uses that were refused after the key was verified: by a permission, an address, an owner or a limit. */
type Refusals = Pick<Tally, 'denied' | 'rateLimited'>

/** Counts that are written together, once. */
export interface Batch {
  /** Batches of one process are numbered from 1 on. */
  readonly number: number
  readonly tallies: readonly Tally[]
  isWritten: boolean
}

interface CountsParts {
  writer: Pick<Writer, 'writeLater'>
  tables: Tables
  clock: Pick<Clock, 'monotonic'>
  /** Names this process in the table of the processes that write usage. */
  writerId: string
  /** How long counts wait at most. */
  longestMs: number
  /** How many counts may wait. Each is of one key and hour. */
  maxCounts: number
  /** How many counts are written in one statement. */
  batchSize: number
}

/** The counts that this process has not written. */
interface Counts extends CountsParts {
  /** The keys that have counts, by their ids, the oldest counts first. One of a key's secrets has the counts of all. */
  readonly counting: Map<string, CountedKey>
  /** The refused uses of these keys, by the keys' ids. */
  readonly refusals: Map<string, Refusals>
  /** Counts of hours that are over. No use is added to them. */
  readonly finished: Tally[]
  /** The last batch. Until it is known to be written, it is written again, unchanged, before the next batch. */
  batch: Batch
  /** The number of uses that were not counted, because there was no room for more counts. */
  dropped: number
}

const noRefusals: Refusals = { denied: 0, rateLimited: 0 }

/** Counts how often keys are used, by the hours of the wall clock in UTC. */
export function createCounts(parts: CountsParts) {
  const counts: Counts = {
    ...parts,
    counting: new Map(),
    refusals: new Map(),
    finished: [],
    batch: { number: 0, tallies: [], isWritten: true },
    dropped: 0,
  }

  return {
    get pending() {
      return pendingOf(counts)
    },

    get dropped() {
      return counts.dropped
    },

    /** The number of times that `take` must be called until it has taken all counts. */
    get rounds() {
      const { counting, finished, batch, batchSize } = counts
      return Math.ceil((counting.size + finished.length) / batchSize) + (batch.isWritten ? 0 : 1)
    },

    /** The number of the last batch, and of the last batch that is known to be written. */
    get batches() {
      const { number, isWritten } = counts.batch
      return { begun: number, written: isWritten ? number : number - 1 }
    },

    /** True if more than a part of the room for counts is taken. */
    isTaken: (part: number) => isTaken(counts, part),

    /** Counts a use of a good key. */
    count(key: CountedKey, wall: number, use: KeyUse) {
      const hour = Math.floor(wall / hourMs)
      const isCounting = key.verified > 0 && key.hour === hour
      if (!isCounting && !startCounting(counts, key, hour)) return

      key.verified++
      use.countedInHour = hour
    },

    /** Moves a use from accepted to refused, at most once. */
    refuse({ id, owner }: Pick<CountedKey, 'id' | 'owner'>, use: KeyUse, kind: keyof Refusals) {
      use.wasRefused = true
      const { countedInHour: hour } = use
      if (hour === undefined) return

      use.countedInHour = undefined
      const { counting, refusals, finished, writer } = counts
      const key = counting.get(id)
      if (key?.hour === hour && isSameOwner(key.owner, owner)) {
        const known = refusals.get(id) ?? noRefusals
        refusals.set(id, { ...known, [kind]: known[kind] + 1 })
      } else if (hasRoom(counts)) {
        finished.push({ id, owner, hour, verified: 0, ...noRefusals, [kind]: 1 })
        writer.writeLater()
      }
    },

    /** Returns the counts of a key that are missing from the batches of this process up to a number. */
    countsOf(id: string, seenBatch: number): Tally[] {
      const { counting, finished, batch } = counts
      const key = counting.get(id)
      const last = batch.number > seenBatch ? batch.tallies : []
      const others = [...finished, ...last].filter((tally) => tally.id === id)
      return key ? [tallyOf(counts, key), ...others] : others
    },

    /** Takes the counts to be written that are due, or all counts, and the counts of some keys. */
    take(isFlush: boolean, ids: Iterable<string>): Write[] {
      if (counts.batch.isWritten) {
        const tallies = takeTallies(counts, isFlush, ids)
        if (tallies.length === 0) return []
        counts.batch = { number: counts.batch.number + 1, tallies, isWritten: false }
      }
      const { batch, tables, writerId } = counts
      // After a failure, the batch may have been written all the same, if only the answer was lost.
      return [
        { sql: countsSql(tables, writerId, batch), onWritten: () => (batch.isWritten = true) },
      ]
    },
  }
}

function pendingOf({ counting, finished, batch }: Counts): number {
  return counting.size + finished.length + (batch.isWritten ? 0 : batch.tallies.length)
}

/** True if more than a part of the room for counts is taken. */
function isTaken({ counting, finished, maxCounts }: Counts, part: number): boolean {
  return counting.size + finished.length > part * maxCounts
}

function hasRoom(counts: Counts): boolean {
  if (pendingOf(counts) < counts.maxCounts) return true
  counts.dropped++
  return false
}

function nowSeconds({ clock }: Counts): number {
  return Math.floor(clock.monotonic() / 1000)
}

/** Gives the counts of this hour to a secret of a key. Returns true if there is room for them. */
function startCounting(counts: Counts, key: CountedKey, hour: number): boolean {
  const { counting, finished, writer } = counts
  const current = counting.get(key.id)
  if (current?.hour === hour && isSameOwner(current.owner, key.owner)) {
    if (current !== key) handOver(counts, current, key)
    return true
  }
  if (current) finished.push(take(counts, current))
  if (!hasRoom(counts)) return false

  key.hour = hour
  key.countedSinceSeconds = nowSeconds(counts)
  counting.set(key.id, key)
  writer.writeLater()
  return true
}

function handOver({ counting }: Counts, from: CountedKey, to: CountedKey) {
  to.hour = from.hour
  to.verified = from.verified
  to.countedSinceSeconds = from.countedSinceSeconds
  from.verified = 0
  // The key keeps its place in the order.
  counting.set(to.id, to)
}

function tallyOf({ refusals }: Counts, { id, owner, hour, verified }: CountedKey): Tally {
  return { id, owner, hour, verified, ...(refusals.get(id) ?? noRefusals) }
}

function take(counts: Counts, key: CountedKey): Tally {
  const tally = tallyOf(counts, key)
  key.verified = 0
  counts.counting.delete(key.id)
  counts.refusals.delete(key.id)
  return tally
}

/** Takes the counts that are due, or all counts, and then the counts of some keys. */
function takeTallies(counts: Counts, isAllDue: boolean, ids: Iterable<string>): Tally[] {
  const { counting, finished, batchSize, longestMs } = counts
  const tallies = finished.splice(0, batchSize)
  const dueSeconds = nowSeconds(counts) - longestMs / 1000
  for (const key of counting.values()) {
    const isDue = isAllDue || key.countedSinceSeconds <= dueSeconds || isTaken(counts, 1 / 2)
    if (tallies.length === batchSize || !isDue) break
    tallies.push(take(counts, key))
  }
  for (const id of ids) {
    const key = counting.get(id)
    if (key && tallies.length < batchSize) tallies.push(take(counts, key))
  }
  return tallies
}
