import type { Tables } from './tables'

/** SQL that is true if a request of this time is still known by its idempotency key. */
export function isKnownSql(createdAt: string): string {
  return `(${createdAt} >= clock_timestamp() - interval '24 hours')`
}

/** The columns of a request that the library writes before the key is made. */
export const claimColumns = ['scope', 'key', 'part', 'body']

/**
 * SQL that claims requests, and returns the ids of the keys for which that succeeded. It selects from rows `claim`, which are rows of the
 * table of requests with the `id` of a key. It waits for a request with the same idempotency key that is not committed.
 */
export function claimSql({ requests }: Tables, from: string): string {
  return `
      INSERT INTO ${requests} AS known (scope, key, part, body, api_key_ids)
      SELECT claim.scope, claim.key, claim.part, claim.body, ARRAY[claim.id] ${from}
       ORDER BY claim.scope, claim.key, claim.part
          ON CONFLICT (scope, key, part) DO UPDATE
         SET body = excluded.body, api_key_ids = excluded.api_key_ids, created_at = excluded.created_at
       WHERE NOT ${isKnownSql('known.created_at')}
      RETURNING known.api_key_ids[1] AS id`
}
