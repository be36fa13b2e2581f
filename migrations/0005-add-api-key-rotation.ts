import { literal } from '../models/names'
import { gatheredColumns } from './change-log-triggers'
import { isOneOf, replaceChecks } from './event-checks'
import { gatherAgainChangesOf, gatherChangesOf } from './gathered-columns'
import { defineMigration } from './migration'
import { addColumns, unless } from './names'

const firstActions = [
  'created',
  'updated',
  'permissions_changed',
  'suspended',
  'reactivated',
  'revoked',
]

/**
 * Lets a key have a new secret while the one before works on for a while. What lets that one work stands in the row of
 * the key, so that there are never more than two. The table of retired secrets recognises every secret that a key has had;
 * by itself, it lets nobody in.
 */
export const addApiKeyRotation = defineMigration('0005-add-api-key-rotation', (names) => {
  const [keys, events, retired, keepUnique, forgetRetired] = [
    names.table('api_keys'),
    names.table('api_key_events'),
    names.table('api_key_retired_secrets'),
    names.table('api_key_keep_hashes_unique'),
    names.table('api_key_forget_retired_secrets'),
  ]
  const asOwner = 'LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp'

  /** Has the trail take these actions and no others. The index is found by what it is of, as its name is Postgres's. */
  const allow = (actions: readonly string[]) => `
    ${replaceChecks(events, ['action'], isOneOf('action', actions))}
    DO $allow$
      DECLARE
        name text;
      BEGIN
        FOR name IN
          SELECT indexrelid::regclass::text FROM pg_catalog.pg_index
           WHERE indrelid = to_regclass(${literal(events)})
             AND pg_get_expr(indpred, indrelid) LIKE '%retired_secret_used%'
        LOOP
          EXECUTE 'DROP INDEX ' || name;
        END LOOP;
      END
    $allow$;`

  return {
    up: `
      ${names.createTable(
        'api_key_retired_secrets',
        `
      CREATE TABLE ${retired} (
        hash text PRIMARY KEY CHECK (hash ~ '^[0-9a-f]{64}$'),
        api_key_id uuid NOT NULL,
        retired_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
        UNIQUE (api_key_id, hash)
      );`,
      )}
      ${addColumns(
        keys,
        'previous_hash',
        `
        ADD COLUMN previous_hash text,
        ADD COLUMN previous_secret_id text CHECK (previous_secret_id ~ '^[0-9a-f]{16}$'),
        ADD COLUMN previous_prefix text,
        ADD COLUMN previous_postfix text,
        ADD COLUMN previous_works_until timestamptz(3),
        ADD COLUMN previous_last_used_at timestamptz(3),
        ADD CHECK (
          num_nulls(previous_hash, previous_prefix, previous_postfix, previous_works_until) IN (0, 4)
          AND (previous_hash IS NOT NULL OR (previous_secret_id IS NULL AND previous_last_used_at IS NULL))
        )`,
      )}
      ${unless(
        `EXISTS (
          SELECT FROM pg_catalog.pg_constraint
           WHERE conrelid = ${literal(keys)}::regclass AND confrelid = ${literal(retired)}::regclass
        )`,
        // Old secrets that are not retired stop working, because nothing would recognise them later.
        `
        UPDATE ${keys}
           SET previous_hash = NULL, previous_secret_id = NULL, previous_prefix = NULL,
               previous_postfix = NULL, previous_works_until = NULL,
               previous_last_used_at = NULL
         WHERE previous_hash IS NOT NULL
           AND (id, previous_hash) NOT IN (SELECT api_key_id, hash FROM ${retired});
        ALTER TABLE ${keys}
          ADD FOREIGN KEY (id, previous_hash) REFERENCES ${retired} (api_key_id, hash);`,
      )}

      CREATE OR REPLACE FUNCTION ${keepUnique}() RETURNS trigger ${asOwner} AS $unique$
        BEGIN
          IF TG_LEVEL = 'ROW' THEN
            PERFORM FROM ${retired} AS secret WHERE secret.hash = NEW.hash;
          ELSE
            PERFORM FROM added JOIN ${keys} AS key USING (hash) JOIN ${retired} AS secret USING (hash);
          END IF;
          IF FOUND THEN
            RAISE unique_violation USING MESSAGE = 'express-api-keys: a hash is current and retired';
          END IF;
          RETURN NULL;
        END
      $unique$;
      CREATE OR REPLACE FUNCTION ${forgetRetired}() RETURNS trigger ${asOwner} AS $forget$
        BEGIN
          IF TG_OP = 'DELETE' THEN
            DELETE FROM ${retired} AS secret WHERE secret.api_key_id = OLD.id;
          ELSE
            DELETE FROM ${retired};
          END IF;
          RETURN NULL;
        END
      $forget$;
      REVOKE EXECUTE ON FUNCTION ${keepUnique}(), ${forgetRetired}() FROM PUBLIC;
      DROP TRIGGER IF EXISTS api_key_keep_hashes_unique_insert ON ${keys};
      DROP TRIGGER IF EXISTS api_key_keep_hashes_unique_update ON ${keys};
      DROP TRIGGER IF EXISTS api_key_keep_hashes_unique_insert ON ${retired};
      DROP TRIGGER IF EXISTS api_key_keep_hashes_unique_update ON ${retired};
      DROP TRIGGER IF EXISTS api_key_forget_retired_row ON ${keys};
      DROP TRIGGER IF EXISTS api_key_forget_retired_all ON ${keys};
      -- After the statement, as a rotation moves a hash from one table to the other in one.
      CREATE TRIGGER api_key_keep_hashes_unique_insert AFTER INSERT ON ${keys}
        REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION ${keepUnique}();
      CREATE TRIGGER api_key_keep_hashes_unique_update AFTER UPDATE ON ${keys}
        FOR EACH ROW WHEN (OLD.hash IS DISTINCT FROM NEW.hash) EXECUTE FUNCTION ${keepUnique}();
      CREATE TRIGGER api_key_keep_hashes_unique_insert AFTER INSERT ON ${retired}
        REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION ${keepUnique}();
      CREATE TRIGGER api_key_keep_hashes_unique_update AFTER UPDATE ON ${retired}
        REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION ${keepUnique}();
      CREATE TRIGGER api_key_forget_retired_row AFTER DELETE ON ${keys}
        FOR EACH ROW EXECUTE FUNCTION ${forgetRetired}();
      CREATE TRIGGER api_key_forget_retired_all AFTER TRUNCATE ON ${keys}
        FOR EACH STATEMENT EXECUTE FUNCTION ${forgetRetired}();

      ${gatherChangesOf(names, gatheredColumns.withRotation)}

      ${allow([...firstActions, 'rotated', 'rotation_ended', 'retired_secret_used'])}
      CREATE UNIQUE INDEX ON ${events} (api_key_id, date_trunc('hour', created_at AT TIME ZONE 'UTC'))
        WHERE action = 'retired_secret_used';
    `,
    // The trail keeps what it has: what came before is not held against the constraint.
    down: `
      DROP TRIGGER IF EXISTS api_key_gather_update ON ${keys};
      DROP FUNCTION IF EXISTS ${keepUnique}(), ${forgetRetired}() CASCADE;
      ALTER TABLE IF EXISTS ${keys}
        DROP COLUMN IF EXISTS previous_hash,
        DROP COLUMN IF EXISTS previous_secret_id,
        DROP COLUMN IF EXISTS previous_prefix,
        DROP COLUMN IF EXISTS previous_postfix,
        DROP COLUMN IF EXISTS previous_works_until,
        DROP COLUMN IF EXISTS previous_last_used_at;
      DROP TABLE IF EXISTS ${retired};
      ${gatherAgainChangesOf(names, gatheredColumns.withPolicies)}
      ${allow(firstActions)}
    `,
  }
})
