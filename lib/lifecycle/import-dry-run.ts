import type { Change } from '../audit/trail'
import { nameOfOwner } from '../keys/owner'
import type { ApiKeyRecord } from '../keys/record'
import { isExpired } from '../keys/states'
import { worseOf, worseState } from './import-changes'
import type { DraftedBatch } from './import-drafts'
import type { ImportedRow, ImportedState } from './import-keys'

/** A row, and the change that it has made. */
export interface MadeOfRow {
  row: ImportedRow
  change: Change
}

type KeptKey = Pick<ApiKeyRecord, 'owner' | 'status' | 'expiresAt'>

/**
 * Notes what the batches of a dry run have made. The database has taken it back, and the batches after them have to count with it. It takes
 * about a third of a kilobyte for each key.
 */
export function createDryRun() {
  /** The keys that were imported or changed, by their hashes. */
  const kept = new Map<string, KeptKey>()
  /** How many more living keys owners have now, by the names of the owners. */
  const living = new Map<string, number>()

  function keep(name: string, before: KeptKey | undefined, after: KeptKey) {
    const owner = nameOfOwner(after.owner)
    const difference = Number(isLiving(after)) - Number(before !== undefined && isLiving(before))
    living.set(owner, livingOf(owner) + difference)
    kept.set(name, { owner: after.owner, status: after.status, expiresAt: after.expiresAt })
  }

  function isOther({ stored }: ImportedRow) {
    return !kept.has(stored.hash)
  }

  /** Returns how many more living keys an owner has than the database says. */
  function livingOf(owner: string): number {
    return living.get(owner) ?? 0
  }

  return {
    livingOf,

    /** Returns a batch without the keys of batches before. */
    withoutKept({ rows, known, drafts }: DraftedBatch): DraftedBatch {
      return { rows: rows.filter(isOther), known, drafts: drafts.filter(({ row }) => isOther(row)) }
    },

    /** Notes what a batch has made. Returns how many keys of batches before its rows would change again. */
    note(rows: readonly ImportedRow[], made: readonly MadeOfRow[]): number {
      const again = new Map<string, ImportedRow>()
      for (const row of rows) {
        const { hash } = row.stored
        if (kept.has(hash)) again.set(hash, worseOf(again.get(hash) ?? row, row))
      }
      let changed = 0
      for (const [hash, { state }] of again) {
        const before = kept.get(hash)
        const changes = before && worseState(before, state)
        if (!changes) continue
        keep(hash, before, { ...before, ...changes })
        changed++
      }
      for (const { row, change } of made) {
        const { record } = change.after ?? change.before
        keep(row.stored.hash, change.before?.record, record)
      }
      return changed
    },
  }
}

/** True if a key counts as one of its owner's. The clock of verification decides which keys have expired. */
export function isLiving(key: Pick<ImportedState, 'status' | 'expiresAt'>): boolean {
  return key.status !== 'REVOKED' && !isExpired(key, Date.now())
}
