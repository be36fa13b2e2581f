import type { Tables } from '../../models/tables'
import type { Run } from '../database/query'
import type { ImportedRow } from './import-keys'

/**
 * Returns the ids of the keys that were imported before, by the places of their rows. The id is empty for a key that was revoked when it was
 * deleted, as by pruning or erasing: the other system may still have it, and the trail has the digest of its hash.
 */
export async function findKnown(tables: Tables, run: Run, rows: readonly ImportedRow[]) {
  const { keys, retiredSecrets, events } = tables
  const places = new Map<string, number[]>()
  for (const { place, stored } of rows) {
    for (const hash of [stored.hash, ...stored.others]) {
      places.set(hash, [...(places.get(hash) ?? []), place])
    }
  }
  const found = await run(
    `SELECT given.hash, '' AS id FROM unnest($1::text[]) AS given (hash) JOIN ${events} AS imported
         ON imported.action = 'imported' AND imported.after ->> 'hashDigest' = encode(sha256(given.hash::bytea), 'hex')
      WHERE EXISTS (
        SELECT FROM ${events} AS deleted
         WHERE deleted.api_key_id = imported.api_key_id AND deleted.action = 'deleted' AND deleted.before ->> 'status' = 'REVOKED'
      )
      UNION ALL
     SELECT key.hash, key.id::text FROM ${keys} AS key WHERE key.hash = ANY ($1::text[])
      UNION ALL
     SELECT old.hash, old.api_key_id::text FROM ${retiredSecrets} AS old WHERE old.hash = ANY ($1::text[])
      ORDER BY id`,
    [[...places.keys()]],
  )
  return new Map(
    found.flatMap(({ hash, id }) =>
      (places.get(hash ?? '') ?? []).map((place) => [place, id ?? ''] as const),
    ),
  )
}
