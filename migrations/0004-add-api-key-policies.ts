import { gatheredColumns } from './change-log-triggers'
import { gatherAgainChangesOf, gatherChangesOf } from './gathered-columns'
import { defineMigration } from './migration'
import { addColumns } from './names'

/**
 * Adds what a key may be bound to: the addresses that it works from, and what the app keeps with it. Metadata is `json`
 * and not `jsonb`, whose text can be far longer than what was stored, so that its size can be held to a limit.
 */
export const addApiKeyPolicies = defineMigration('0004-add-api-key-policies', (names) => {
  const keys = names.table('api_keys')

  return {
    up: `
      ${addColumns(
        keys,
        'allowed_ips',
        `
        ADD COLUMN allowed_ips text[] CHECK (
          cardinality(allowed_ips) BETWEEN 1 AND 100
          AND array_ndims(allowed_ips) = 1
          AND array_position(allowed_ips, NULL) IS NULL
        ),
        ADD COLUMN metadata json NOT NULL DEFAULT '{}' CHECK (
          json_typeof(metadata) = 'object' AND octet_length(metadata::text) <= 4096
        )`,
      )}
      ${gatherChangesOf(names, gatheredColumns.withPolicies)}
    `,
    down: `
      DROP TRIGGER IF EXISTS api_key_gather_update ON ${keys};
      ALTER TABLE IF EXISTS ${keys} DROP COLUMN IF EXISTS allowed_ips, DROP COLUMN IF EXISTS metadata;
      ${gatherAgainChangesOf(names, gatheredColumns.first)}
    `,
  }
})
