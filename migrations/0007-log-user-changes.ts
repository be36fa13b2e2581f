import { changeLogOf } from '../models/change-log'
import { defineMigration } from './migration'
import { addColumns } from './names'

/**
 * Has the log tell of users, too, whose permissions have changed. A row for `api_key_user_changes` is taken down as a change
 * of the transaction that inserts it, and goes no further: the table stays empty. So a trigger on the app's own users or
 * roles can tell of them in plain SQL, and needs no right but the one to insert.
 */
export const logUserChanges = defineMigration(
  '0007-log-user-changes',
  ({ schema, table, createTable }) => {
    const { changes, userChanges, channel } = changeLogOf(schema)
    const gather = table('api_key_gather_user_change')
    // The one of 0003: changes of keys and of users in one transaction are one entry.
    const memo = `${channel}.entry`

    return {
      up: `
        ${addColumns(changes, 'user_id', 'ADD COLUMN user_id text')}
        -- Without a foreign key, so that a user who is deleted can be told of.
        ${createTable('api_key_user_changes', `CREATE TABLE ${userChanges} (user_id text);`)}

        CREATE OR REPLACE FUNCTION ${gather}() RETURNS trigger
          LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $gather$
          DECLARE
            this_transaction text := pg_current_xact_id()::text;
            entry text := current_setting('${memo}', true);
            is_first boolean := split_part(entry, ' ', 1) IS DISTINCT FROM this_transaction;
          BEGIN
            IF is_first THEN
              entry := this_transaction || ' ' || gen_random_uuid();
              PERFORM set_config('${memo}', entry, true);
            END IF;
            -- Nobody in particular is everybody: with neither key nor user, everything is forgotten.
            INSERT INTO ${changes} (mark, user_id, is_new, is_first)
            VALUES (split_part(entry, ' ', 2)::uuid, NEW.user_id, false, is_first);
            RETURN NULL;
          END
        $gather$;
        REVOKE EXECUTE ON FUNCTION ${gather}() FROM PUBLIC;

        DROP TRIGGER IF EXISTS api_key_gather_user ON ${userChanges};
        CREATE TRIGGER api_key_gather_user BEFORE INSERT ON ${userChanges}
          FOR EACH ROW EXECUTE FUNCTION ${gather}();
        ALTER TABLE ${userChanges} ENABLE ALWAYS TRIGGER api_key_gather_user;
      `,
      // Of an entry that is left, nobody knows any more whom it is about: it counts as a change of everything.
      down: `
        DROP TABLE IF EXISTS ${userChanges};
        DROP FUNCTION IF EXISTS ${gather}();
        ALTER TABLE IF EXISTS ${changes} DROP COLUMN IF EXISTS user_id;
      `,
    }
  },
)
