import { gatheredColumns } from './change-log-triggers'
import { gatherAgainChangesOf, gatherChangesOf } from './gathered-columns'
import { defineMigration } from './migration'
import { addColumns } from './names'

/** Adds the limits that a key has instead of the app's; NULL for the app's. `json`, as it is for metadata. */
export const addApiKeyLimits = defineMigration('0006-add-api-key-limits', (names) => {
  const keys = names.table('api_keys')

  return {
    up: `
      ${addColumns(
        keys,
        'limits',
        `
        ADD COLUMN limits json CHECK (
          json_typeof(limits) = 'object' AND octet_length(limits::text) <= 4096
        )`,
      )}
      ${gatherChangesOf(names, gatheredColumns.withLimits)}
    `,
    down: `
      DROP TRIGGER IF EXISTS api_key_gather_update ON ${keys};
      ALTER TABLE IF EXISTS ${keys} DROP COLUMN IF EXISTS limits;
      ${gatherAgainChangesOf(names, gatheredColumns.withRotation)}
    `,
  }
})
