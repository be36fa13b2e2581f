import { changeLogOf } from '../models/change-log'
import { defineMigration } from './migration'
import { unless } from './names'

/**
 * Creates the log of changes, from which every process learns which of the keys that it remembers have changed. It is
 * written by triggers, in the transaction that makes the change, so that changes made by hand, by a cascade or by
 * TRUNCATE count too.
 *
 * What changes is gathered as it happens, without a lock. The first change of a transaction also queues a deferred
 * trigger, which numbers the transaction when it commits: under a lock, so that the order of the numbers is the order
 * of the commits, and so late that an open transaction keeps nobody waiting. The lock is on a row that is never
 * updated: an updated one would make transactions of the app fail at REPEATABLE READ and SERIALIZABLE.
 */
export const createApiKeyChangeLog = defineMigration(
  '0003-create-api-key-change-log',
  ({ schema, table, createTable }) => {
    const { revisions, changes, lock, bounds, channel } = changeLogOf(schema)
    const keys = table('api_keys')
    const [gather, number, keepOne] = [
      table('api_key_gather_change'),
      table('api_key_number_changes'),
      table('api_key_keep_a_revision'),
    ]
    // Which transaction has begun an entry, and its mark, for as long as the transaction lasts.
    const memo = `${channel}.entry`
    // Whoever may change a key may log it. A name that somebody else puts in the way is not found.
    const asOwner = 'LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp'
    const takeLock = `
      PERFORM 1 FROM ${lock} FOR UPDATE;
      IF NOT FOUND THEN
        RAISE EXCEPTION 'express-api-keys: the row of % is missing', '${lock.replaceAll("'", "''")}'
          USING HINT = 'Insert it again, with its default.';
      END IF;`

    return {
      up: `
        ${createTable(
          'api_key_revisions',
          `
        CREATE TABLE ${revisions} (
          revision bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
          mark uuid NOT NULL DEFAULT gen_random_uuid(),
          created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp()
        );
        CREATE INDEX ON ${revisions} (created_at);`,
        )}
        ${createTable(
          'api_key_changes',
          `
        CREATE TABLE ${changes} (
          mark uuid NOT NULL,
          key_id uuid,
          is_new boolean NOT NULL,
          is_first boolean NOT NULL
        );
        CREATE INDEX ON ${changes} (mark);`,
        )}
        ${createTable(
          'api_key_log_lock',
          `CREATE TABLE ${lock} (is_the_one boolean PRIMARY KEY DEFAULT true CHECK (is_the_one));`,
        )}
        ${createTable(
          'api_key_bounds',
          `
        CREATE TABLE ${bounds} (
          bound_ms bigint PRIMARY KEY CHECK (bound_ms > 0),
          registered_at timestamptz(3) NOT NULL
        );`,
        )}
        INSERT INTO ${lock} DEFAULT VALUES ON CONFLICT DO NOTHING;

        CREATE OR REPLACE FUNCTION ${gather}() RETURNS trigger ${asOwner} AS $gather$
          DECLARE
            this_transaction text := pg_current_xact_id()::text;
            entry text := current_setting('${memo}', true);
            is_first boolean := split_part(entry, ' ', 1) IS DISTINCT FROM this_transaction;
            changed uuid;
            is_new boolean := false;
          BEGIN
            IF is_first THEN
              entry := this_transaction || ' ' || gen_random_uuid();
              PERFORM set_config('${memo}', entry, true);
            END IF;
            IF TG_OP = 'INSERT' THEN
              changed := NEW.id;
              is_new := true;
            ELSIF TG_OP = 'UPDATE' THEN
              changed := OLD.id;
              is_new := (OLD.id, OLD.hash) IS DISTINCT FROM (NEW.id, NEW.hash);
            ELSIF TG_OP = 'DELETE' THEN
              changed := OLD.id;
            END IF;
            INSERT INTO ${changes} (mark, key_id, is_new, is_first)
            VALUES (split_part(entry, ' ', 2)::uuid, changed, is_new, is_first);
            RETURN NULL;
          END
        $gather$;

        CREATE OR REPLACE FUNCTION ${number}() RETURNS trigger ${asOwner} AS $number$
          BEGIN
            ${takeLock}
            INSERT INTO ${revisions} (mark) VALUES (NEW.mark);
            -- Changes that follow in this transaction, as after SET CONSTRAINTS, begin an entry of their own.
            PERFORM set_config('${memo}', '', true);
            IF current_setting('synchronous_commit') IN ('off', 'local', 'remote_write') THEN
              PERFORM set_config('synchronous_commit', 'on', true);
            END IF;
            PERFORM pg_notify('${channel}', '');
            RETURN NULL;
          END
        $number$;

        CREATE OR REPLACE FUNCTION ${keepOne}() RETURNS trigger ${asOwner} AS $keep$
          BEGIN
            ${takeLock}
            IF NOT EXISTS (SELECT FROM ${revisions}) THEN
              INSERT INTO ${revisions} DEFAULT VALUES;
            END IF;
            RETURN NULL;
          END
        $keep$;

        -- Whoever could put them on a table of their own could keep everybody waiting for the lock.
        REVOKE EXECUTE ON FUNCTION ${gather}(), ${number}(), ${keepOne}() FROM PUBLIC;

        DROP TRIGGER IF EXISTS api_key_gather_row ON ${keys};
        DROP TRIGGER IF EXISTS api_key_gather_update ON ${keys};
        DROP TRIGGER IF EXISTS api_key_gather_truncate ON ${keys};
        DROP TRIGGER IF EXISTS api_key_number ON ${changes};
        DROP TRIGGER IF EXISTS api_key_keep_a_revision ON ${revisions};
        CREATE TRIGGER api_key_gather_row AFTER INSERT OR DELETE ON ${keys}
          FOR EACH ROW EXECUTE FUNCTION ${gather}();
        CREATE TRIGGER api_key_gather_update AFTER UPDATE ON ${keys}
          FOR EACH ROW WHEN (
            (OLD.id, OLD.user_id, OLD.name, OLD.hash, OLD.permissions, OLD.status, OLD.expires_at)
            IS DISTINCT FROM
            (NEW.id, NEW.user_id, NEW.name, NEW.hash, NEW.permissions, NEW.status, NEW.expires_at)
          ) EXECUTE FUNCTION ${gather}();
        CREATE TRIGGER api_key_gather_truncate AFTER TRUNCATE ON ${keys}
          FOR EACH STATEMENT EXECUTE FUNCTION ${gather}();
        CREATE CONSTRAINT TRIGGER api_key_number AFTER INSERT ON ${changes}
          DEFERRABLE INITIALLY DEFERRED
          FOR EACH ROW WHEN (NEW.is_first) EXECUTE FUNCTION ${number}();
        CREATE TRIGGER api_key_keep_a_revision AFTER DELETE OR TRUNCATE ON ${revisions}
          FOR EACH STATEMENT EXECUTE FUNCTION ${keepOne}();

        -- Also where a session replicates, or pretends to.
        ALTER TABLE ${keys} ENABLE ALWAYS TRIGGER api_key_gather_row;
        ALTER TABLE ${keys} ENABLE ALWAYS TRIGGER api_key_gather_update;
        ALTER TABLE ${keys} ENABLE ALWAYS TRIGGER api_key_gather_truncate;
        ALTER TABLE ${changes} ENABLE ALWAYS TRIGGER api_key_number;
        ALTER TABLE ${revisions} ENABLE ALWAYS TRIGGER api_key_keep_a_revision;

        ${unless(`EXISTS (SELECT FROM ${revisions})`, `INSERT INTO ${revisions} DEFAULT VALUES;`)}
      `,
      // With the functions go the triggers.
      down: `
        DROP TABLE IF EXISTS ${revisions}, ${changes}, ${lock}, ${bounds};
        DROP FUNCTION IF EXISTS ${gather}(), ${number}(), ${keepOne}() CASCADE;
      `,
    }
  },
)
