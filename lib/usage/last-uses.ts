import type { Tables } from '../../models/tables'
import type { Write, Writer } from '../database/writer'
import type { LastUse } from '../keys/record'
import type { Digest } from '../keys/secret'
import type { KeyUse } from './counts'
import { lastUsesSql } from './usage-sql'

/** A secret of a key, with its last use as far as it was noted: in the object itself, so that a request makes no lookup. */
export interface UsedKey {
  readonly id: string
  readonly digest: Digest
  readonly worksUntilMs: number | null
  lastUsedAtMs: number
  lastUsedFrom: string | null
}

interface LastUsesParts {
  writer: Pick<Writer, 'writeLater'>
  tables: Tables
  /** The shortest time between two uses of a key that are both written. */
  resolutionMs: number
  /** How many keys may wait. */
  maxKeys: number
}

const nothing: ReadonlyMap<string, UsedKey> = new Map()

/**
 * Notes when and from where keys were used. A last use is written only if the one in the database is older than the resolution,
 * so that many processes together write no more than one.
 */
export function createLastUses({ writer, tables, resolutionMs, maxKeys }: LastUsesParts) {
  /** The keys whose last use is to be written, by their ids. */
  const noted = new Map<string, UsedKey>()
  /** The same for another secret of such a key that was used before: in the grace period of a rotation, both are in use. */
  const notedBefore = new Map<string, UsedKey>()
  let beingWritten = nothing

  return {
    get size() {
      return noted.size
    },

    /** Returns the ids of the keys whose last use is being written. */
    idsBeingWritten: () => beingWritten.keys(),

    /** Notes a use if the last one that was noted is older than the resolution. */
    note(key: UsedKey, wall: number, use: KeyUse) {
      if (wall < key.lastUsedAtMs + resolutionMs) return
      // If there is no room, the next use of the key is noted instead.
      if (noted.size >= maxKeys && !noted.has(key.id)) return

      key.lastUsedAtMs = wall
      key.lastUsedFrom = use.ip ?? null
      const other = noted.get(key.id)
      if (other && other.digest !== key.digest) notedBefore.set(key.id, other)
      noted.set(key.id, key)
      writer.writeLater()
    },

    /** Returns the last use of a key that was noted and may not be written yet. */
    lastUseOf(id: string): LastUse | undefined {
      const key = noted.get(id) ?? beingWritten.get(id)
      if (!key) return undefined

      const previous = [key, notedBefore.get(id)].find((used) => used && used.worksUntilMs !== null)
      const previousAtMs = previous?.lastUsedAtMs ?? null
      return { atMs: key.lastUsedAtMs, from: key.lastUsedFrom, previousAtMs }
    },

    /** Takes the last uses of so many keys to be written. */
    take(most: number): Write[] {
      if (noted.size === 0) return []

      const uses = new Map<string, UsedKey>()
      const usesBefore = new Map<string, UsedKey>()
      for (const [id, key] of noted) {
        if (uses.size === most) break
        move(key, noted, uses)
        move(notedBefore.get(id), notedBefore, usesBefore)
      }
      beingWritten = uses

      const putBack = (ids: Iterable<string>) => {
        beingWritten = nothing
        for (const id of ids) {
          const [key, before] = [uses.get(id), usesBefore.get(id)]
          // A later use may have been noted meanwhile.
          if (key && !noted.has(id)) noted.set(id, key)
          if (before && !notedBefore.has(id)) notedBefore.set(id, before)
        }
      }
      return [
        {
          sql: lastUsesSql(tables, [...uses.values(), ...usesBefore.values()], resolutionMs),
          onWritten: (rows) => putBack(rows.map(({ id }) => String(id))),
          onFailure: () => putBack(uses.keys()),
        },
      ]
    },
  }
}

function move(key: UsedKey | undefined, from: Map<string, UsedKey>, to: Map<string, UsedKey>) {
  if (key && from.delete(key.id)) to.set(key.id, key)
}
