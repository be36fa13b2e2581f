import { defineMigration } from './migration'
import { hasIndexWhere, unless } from './names'

/** Creates the notices of keys that are about to expire, which one process reports at a time, and an index to find those keys. */
export const createApiKeyExpiryNotices = defineMigration(
  '0010-create-api-key-expiry-notices',
  ({ table, createTable }) => ({
    up: `
      ${createTable(
        'api_key_expiry_notices',
        `
      CREATE TABLE ${table('api_key_expiry_notices')} (
        api_key_id uuid,
        expires_at timestamptz(3),
        days_left integer,
        -- Until when a process may take to report it; NULL once all listeners have succeeded.
        claimed_until timestamptz(3),
        PRIMARY KEY (api_key_id, expires_at, days_left)
      );`,
      )}
      ${unless(
        hasIndexWhere(table('api_keys'), 'expires_at IS NOT NULL'),
        `
      CREATE INDEX ON ${table('api_keys')} (left(prefix, -7), expires_at)
        WHERE expires_at IS NOT NULL;`,
      )}
    `,
    down: `
      DROP TABLE IF EXISTS ${table('api_key_expiry_notices')};
      DO $drop$
        DECLARE
          keys regclass := to_regclass('${table('api_keys').replaceAll("'", "''")}');
          name text;
        BEGIN
          FOR name IN
            SELECT indexrelid::regclass::text FROM pg_catalog.pg_index
             WHERE indrelid = keys AND pg_get_expr(indpred, indrelid) LIKE '%expires_at IS NOT NULL%'
          LOOP
            EXECUTE 'DROP INDEX ' || name;
          END LOOP;
        END
      $drop$;
    `,
  }),
)
