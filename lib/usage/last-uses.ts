import type { Tables } from '../../models/tables'
import type { Write, Writer } from '../database/writer'
import type { Owner } from '../keys/owner'
import type { LastUse } from '../keys/record'
import type { Digest } from '../keys/secret'
import type { KeyUse } from './counts'
import { lastUsesSql } from './usage-sql'

/** A secret of a key, with its last noted use in the object itself, so that a request searches no map. */
export interface UsedKey {
  readonly id: string
  readonly owner: Owner
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

/**
 * Notes when and from where keys were used. A last use is written only if the last use in the database is older than the
 * resolution, so that many processes together write no more than one process.
 */
export function createLastUses({ writer, tables, resolutionMs, maxKeys }: LastUsesParts) {
  /** The secrets of each key that were used, by the id of the key, the last used secret last: a key in rotation has two. */
  const noted = new Map<string, readonly UsedKey[]>()
  let beingWritten: ReadonlyMap<string, readonly UsedKey[]> = new Map()

  /** Puts uses back that were not written. A later use may have been noted since then. */
  function putBack(ids: Iterable<string>) {
    for (const id of ids) {
      noted.set(id, merge(beingWritten.get(id) ?? [], noted.get(id) ?? []))
    }
    beingWritten = new Map()
  }

  return {
    get size() {
      return noted.size
    },

    /** Returns the ids of the keys whose last use is being written. */
    idsBeingWritten: () => beingWritten.keys(),

    /** Notes a use if the last use that was noted is older than the resolution. */
    note(key: UsedKey, wall: number, use: KeyUse) {
      if (wall < key.lastUsedAtMs + resolutionMs) return
      const others = noted.get(key.id)
      // If there is no room, the next use of the key is noted instead.
      if (noted.size >= maxKeys && !others) return

      key.lastUsedAtMs = wall
      key.lastUsedFrom = use.ip ?? null
      noted.set(key.id, merge(others ?? [], [key]))
      writer.writeLater()
    },

    /**
     * Returns the last use of a key that was noted and may not be written yet. Records of keys show it: lifecycle/store.ts asks for
     * it, and keys/record.ts puts it into the record.
     */
    lastUseOf(id: string): LastUse | undefined {
      const secrets = noted.get(id) ?? beingWritten.get(id)
      const last = secrets?.at(-1)
      if (!last) return undefined

      const previous = secrets?.findLast(({ worksUntilMs }) => worksUntilMs !== null)
      const previousAtMs = previous?.lastUsedAtMs ?? null
      const { lastUsedAtMs: atMs, lastUsedFrom: from, owner } = last
      return { atMs, from, owner, previousAtMs }
    },

    /** Takes the last uses of at most this number of keys, to write them. */
    take(most: number): Write[] {
      const taken = new Map<string, readonly UsedKey[]>()
      for (const [id, secrets] of noted) {
        if (taken.size === most) break
        taken.set(id, secrets)
        noted.delete(id)
      }
      if (taken.size === 0) return []

      beingWritten = taken
      return [
        {
          sql: lastUsesSql(tables, [...taken.values()].flat(), resolutionMs),
          onWritten: (rows) => putBack(rows.map(({ id }) => String(id))),
          onFailure: () => putBack(taken.keys()),
        },
      ]
    },
  }
}

/** Returns the secrets of both lists. Secrets of the newer list come last, and replace the same secrets of the older list. */
function merge(older: readonly UsedKey[], newer: readonly UsedKey[]): readonly UsedKey[] {
  const others = older.filter(({ digest }) => newer.every((secret) => secret.digest !== digest))
  return [...others, ...newer]
}
