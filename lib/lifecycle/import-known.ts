import { hash } from 'node:crypto'

import type { Tables } from '../../models/tables'
import type { Run } from '../database/query'
import type { ImportedRow } from './import-keys'

/** Returns the hashes that a row has, under each secret of the app. */
export function hashesOf({ stored }: ImportedRow): string[] {
  return [stored.hash, ...stored.others]
}

/** Returns the ids of the keys that were imported before, by the places of their rows. */
export async function findKnown(
  { keys, retiredSecrets }: Tables,
  run: Run,
  rows: readonly ImportedRow[],
) {
  const places = new Map<string, number[]>()
  for (const row of rows) {
    for (const each of hashesOf(row)) places.set(each, [...(places.get(each) ?? []), row.place])
  }
  const known = new Map<number, string>()
  if (places.size === 0) return known
  const found = await run(
    `SELECT key.hash, key.id::text AS id FROM ${keys} AS key WHERE key.hash = ANY ($1::text[])
      UNION ALL
     SELECT old.hash, old.api_key_id::text FROM ${retiredSecrets} AS old WHERE old.hash = ANY ($1::text[])`,
    [[...places.keys()]],
  )
  for (const { hash: name, id } of found) {
    for (const place of places.get(name ?? '') ?? []) known.set(place, id ?? '')
  }
  return known
}

/**
 * Returns the hashes of keys that were imported before, and were revoked when they were deleted, as by pruning or erasing. The other system
 * may still have them. The trail has the digests of hashes.
 */
export async function findGone({ events }: Tables, run: Run, rows: readonly ImportedRow[]) {
  if (rows.length === 0) return new Set()
  const hashes = new Map(
    rows.flatMap((row) => hashesOf(row).map((text) => [hash('sha256', text), text] as const)),
  )
  const found = await run(
    `SELECT imported.after ->> 'hashDigest' AS digest FROM ${events} AS imported
      WHERE imported.action = 'imported' AND imported.after ->> 'hashDigest' = ANY ($1::text[])
        AND EXISTS (
          SELECT FROM ${events} AS deleted
           WHERE deleted.api_key_id = imported.api_key_id AND deleted.action = 'deleted' AND deleted.before ->> 'status' = 'REVOKED'
        )`,
    [[...hashes.keys()]],
  )
  return new Set(found.map(({ digest }) => hashes.get(digest ?? '')))
}
