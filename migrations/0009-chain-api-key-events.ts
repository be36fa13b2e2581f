import { auditTrailOf, toldSql } from '../models/audit-trail'
import { isOneOf, replaceChecks } from './event-checks'
import { defineMigration } from './migration'
import { addColumns } from './names'

const actionsBefore = [
  'created',
  'updated',
  'permissions_changed',
  'suspended',
  'reactivated',
  'revoked',
  'rotated',
  'rotation_ended',
  'retired_secret_used',
]
const actorsBefore = ['user', 'admin', 'system']

/** The columns of a key whose changes leave an entry, whoever makes them: all but when it was used and changed. */
const toldColumns = [
  'id',
  'user_id',
  'name',
  'description',
  'prefix',
  'postfix',
  'hash',
  'secret_id',
  'permissions',
  'status',
  'created_at',
  'expires_at',
  'revoked_at',
  'allowed_ips',
  'metadata::text',
  'limits::text',
  'previous_hash',
  'previous_secret_id',
  'previous_prefix',
  'previous_postfix',
  'previous_works_until',
]

/**
 * Has the audit trail tell when somebody meddled with it, and of changes that are not made through the library.
 *
 * A change of the library gives the row of the key a new `event_ref`, which its entry carries as `ref`. A change that leaves
 * `event_ref` as it was is somebody else's, and a trigger writes its entry. So changes of the library cost no function call.
 *
 * Entries are not changed, and not deleted but by the pruning call. They are sealed one after the other, in a table of
 * their own: when a transaction of the library's own ends, together with all that waits to be sealed by then.
 */
export const chainApiKeyEvents = defineMigration('0009-chain-api-key-events', (names) => {
  const { schema, table, createTable, userIdType } = names
  const { events, seals, unsealed, head, checkpoints, pruning, deleting } = auditTrailOf(schema)
  const keys = table('api_keys')
  const [tell, queue, refuse] = [
    table('api_key_tell_change'),
    table('api_key_queue_events'),
    table('api_key_refuse_rewriting'),
  ]
  const asOwner = 'LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp'
  const told = (row: string) => toldSql(row, userIdType)

  /** Pruning alone may delete, and nobody may update. The setting is of its transaction and lasts no longer. */
  const keepAsItIs = (kept: string) => `
    DROP TRIGGER IF EXISTS api_key_refuse_update ON ${kept};
    DROP TRIGGER IF EXISTS api_key_refuse_delete ON ${kept};
    CREATE TRIGGER api_key_refuse_update BEFORE UPDATE OR TRUNCATE ON ${kept}
      FOR EACH STATEMENT EXECUTE FUNCTION ${refuse}();
    CREATE TRIGGER api_key_refuse_delete BEFORE DELETE ON ${kept}
      FOR EACH ROW WHEN (${isNotOf(pruning)}) EXECUTE FUNCTION ${refuse}();
    ALTER TABLE ${kept} ENABLE ALWAYS TRIGGER api_key_refuse_update;
    ALTER TABLE ${kept} ENABLE ALWAYS TRIGGER api_key_refuse_delete;`

  return {
    up: `
      ${addColumns(
        events,
        'address',
        `
        ADD COLUMN address text,
        ADD COLUMN ref uuid,
        ADD COLUMN entry_mac text CHECK (entry_mac ~ '^([0-9a-f]{16})?:[0-9a-f]{64}$')`,
      )}
      ALTER TABLE ${events}
        ALTER COLUMN api_key_id DROP NOT NULL,
        ALTER COLUMN user_id DROP NOT NULL;
      ${replaceChecks(events, ['actor_type'], isOneOf('actor_type', [...actorsBefore, 'database']))}
      ${replaceChecks(events, ['actor_type', 'actor_id'], `actor_id IS NOT NULL OR actor_type = 'system'`)}
      ${replaceChecks(events, ['action'], isOneOf('action', [...actionsBefore, 'deleted', 'truncated']))}
      ${replaceChecks(events, ['action', 'api_key_id'], `api_key_id IS NOT NULL OR action = 'truncated'`)}
      ${replaceChecks(events, ['action', 'user_id'], `user_id IS NOT NULL OR action = 'truncated'`)}
      -- Of the warnings there may be one an hour. Nobody else takes its place.
      ${replaceChecks(events, ['action', 'actor_type'], `action <> 'retired_secret_used' OR actor_type = 'system'`)}
      ${addColumns(keys, 'event_ref', 'ADD COLUMN event_ref uuid')}

      ${createTable(
        'api_key_event_seals',
        `
      CREATE TABLE ${seals} (
        position bigint PRIMARY KEY CHECK (position > 0),
        event_id bigint NOT NULL UNIQUE,
        is_genuine boolean NOT NULL,
        doubts text,
        hash text NOT NULL CHECK (hash ~ '^[0-9a-f]{64}$'),
        mac text NOT NULL CHECK (mac ~ '^[0-9a-f]{64}$'),
        secret_id text CHECK (secret_id ~ '^[0-9a-f]{16}$')
      );`,
      )}
      ${createTable(
        'api_key_unsealed_events',
        `
      CREATE TABLE ${unsealed} (
        xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
        event_id bigint NOT NULL,
        PRIMARY KEY (xid, event_id)
      );
      INSERT INTO ${unsealed} (event_id)
      SELECT id FROM ${events} AS event
       WHERE NOT EXISTS (SELECT FROM ${seals} AS seal WHERE seal.event_id = event.id);`,
      )}
      ${createTable(
        'api_key_audit_checkpoints',
        `
      CREATE TABLE ${checkpoints} (
        position bigint PRIMARY KEY CHECK (position > 0),
        hash text NOT NULL CHECK (hash ~ '^[0-9a-f]{64}$'),
        last_event_id bigint NOT NULL,
        created_before timestamptz(3) NOT NULL,
        pruned_at timestamptz(3) NOT NULL,
        mac text NOT NULL CHECK (mac ~ '^[0-9a-f]{64}$'),
        secret_id text CHECK (secret_id ~ '^[0-9a-f]{16}$')
      );`,
      )}
      ${createTable(
        'api_key_audit_head',
        `
      CREATE TABLE ${head} (
        is_the_one boolean PRIMARY KEY DEFAULT true CHECK (is_the_one),
        position bigint NOT NULL DEFAULT 0 CHECK (position >= 0),
        hash text NOT NULL DEFAULT '' CHECK (hash ~ '^([0-9a-f]{64})?$'),
        checkpoint_position bigint NOT NULL DEFAULT 0 CHECK (checkpoint_position >= 0),
        -- Entries of before there was a chain are taken as they are, in their order.
        legacy_until bigint NOT NULL DEFAULT 0,
        legacy_sealed bigint NOT NULL DEFAULT 0,
        started_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
        mac text CHECK (mac ~ '^[0-9a-f]{64}$'),
        secret_id text CHECK (secret_id ~ '^[0-9a-f]{16}$')
      );
      INSERT INTO ${head} (legacy_until) SELECT coalesce(max(id), 0) FROM ${events}
       WHERE NOT EXISTS (SELECT FROM ${seals});`,
      )}
      -- A head that was removed is not made up for: the seals tell.
      INSERT INTO ${head} DEFAULT VALUES ON CONFLICT (is_the_one) DO NOTHING;

      CREATE OR REPLACE FUNCTION ${tell}() RETURNS trigger ${asOwner} AS $tell$
        DECLARE
          old_key jsonb;
          new_key jsonb;
          what text;
        BEGIN
          IF TG_OP = 'TRUNCATE' THEN
            INSERT INTO ${events} (action, actor_type, actor_id)
            VALUES ('truncated', 'database', session_user);
            RETURN NULL;
          END IF;
          IF TG_OP <> 'INSERT' THEN
            old_key := ${told('OLD')};
          END IF;
          IF TG_OP <> 'DELETE' THEN
            new_key := ${told('NEW')};
          END IF;

          -- A key under another id is another key.
          IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND OLD.id <> NEW.id THEN
            INSERT INTO ${events} (api_key_id, user_id, action, actor_type, actor_id, before)
            VALUES (OLD.id, OLD.user_id, 'deleted', 'database', session_user, old_key);
          END IF;
          IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND OLD.id <> NEW.id THEN
            INSERT INTO ${events} (api_key_id, user_id, action, actor_type, actor_id, after)
            VALUES (NEW.id, NEW.user_id, 'created', 'database', session_user, new_key);
          ELSIF TG_OP = 'UPDATE' THEN
            what := CASE
              WHEN OLD.status <> NEW.status THEN
                CASE NEW.status WHEN 'REVOKED' THEN 'revoked' WHEN 'SUSPENDED' THEN 'suspended' ELSE 'reactivated' END
              WHEN OLD.hash <> NEW.hash THEN 'rotated'
              WHEN OLD.permissions <> NEW.permissions THEN 'permissions_changed'
              ELSE 'updated'
            END;
            SELECT jsonb_object_agg(known.key, known.value), jsonb_object_agg(known.key, new_key -> known.key)
              INTO old_key, new_key
              FROM jsonb_each(old_key) AS known WHERE known.value <> new_key -> known.key;
            INSERT INTO ${events} (api_key_id, user_id, action, actor_type, actor_id, before, after)
            VALUES (
              NEW.id, NEW.user_id, what, 'database', session_user,
              coalesce(old_key, '{}'), coalesce(new_key, '{}')
            );
          END IF;
          RETURN NULL;
        END
      $tell$;

      CREATE OR REPLACE FUNCTION ${queue}() RETURNS trigger ${asOwner} AS $queue$
        BEGIN
          INSERT INTO ${unsealed} (event_id) SELECT id FROM added;
          RETURN NULL;
        END
      $queue$;

      CREATE OR REPLACE FUNCTION ${refuse}() RETURNS trigger ${asOwner} AS $refuse$
        BEGIN
          RAISE restrict_violation USING
            MESSAGE = format('express-api-keys: %I keeps the audit trail, which is not changed', TG_TABLE_NAME),
            HINT = 'Old entries are removed by apiKeys.pruneAuditTrail().';
        END
      $refuse$;

      REVOKE EXECUTE ON FUNCTION ${tell}(), ${queue}(), ${refuse}() FROM PUBLIC;

      DROP TRIGGER IF EXISTS api_key_tell_insert ON ${keys};
      DROP TRIGGER IF EXISTS api_key_tell_update ON ${keys};
      DROP TRIGGER IF EXISTS api_key_tell_delete ON ${keys};
      DROP TRIGGER IF EXISTS api_key_tell_truncate ON ${keys};
      DROP TRIGGER IF EXISTS api_key_queue_events ON ${events};
      CREATE TRIGGER api_key_tell_insert AFTER INSERT ON ${keys}
        FOR EACH ROW WHEN (NEW.event_ref IS NULL) EXECUTE FUNCTION ${tell}();
      CREATE TRIGGER api_key_tell_update AFTER UPDATE ON ${keys}
        FOR EACH ROW WHEN (
          (${toldOf('OLD')}) IS DISTINCT FROM (${toldOf('NEW')})
          AND OLD.event_ref IS NOT DISTINCT FROM NEW.event_ref
        ) EXECUTE FUNCTION ${tell}();
      CREATE TRIGGER api_key_tell_delete AFTER DELETE ON ${keys}
        FOR EACH ROW WHEN (${isNotOf(deleting)}) EXECUTE FUNCTION ${tell}();
      CREATE TRIGGER api_key_tell_truncate AFTER TRUNCATE ON ${keys}
        FOR EACH STATEMENT EXECUTE FUNCTION ${tell}();
      CREATE TRIGGER api_key_queue_events AFTER INSERT ON ${events}
        REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION ${queue}();

      ALTER TABLE ${keys} ENABLE ALWAYS TRIGGER api_key_tell_insert;
      ALTER TABLE ${keys} ENABLE ALWAYS TRIGGER api_key_tell_update;
      ALTER TABLE ${keys} ENABLE ALWAYS TRIGGER api_key_tell_delete;
      ALTER TABLE ${keys} ENABLE ALWAYS TRIGGER api_key_tell_truncate;
      ALTER TABLE ${events} ENABLE ALWAYS TRIGGER api_key_queue_events;
      ${[events, seals, checkpoints].map(keepAsItIs).join('')}
    `,
    // The entries stay, but for those of no key: their place is not for them any more.
    down: `
      DROP FUNCTION IF EXISTS ${tell}(), ${queue}(), ${refuse}() CASCADE;
      DROP TABLE IF EXISTS ${seals}, ${unsealed}, ${checkpoints}, ${head};
      ALTER TABLE IF EXISTS ${keys} DROP COLUMN IF EXISTS event_ref;
      ${replaceChecks(events, ['action', 'actor_type'])}
      ${replaceChecks(events, ['action', 'api_key_id'])}
      ${replaceChecks(events, ['action', 'user_id'])}
      ${replaceChecks(events, ['action'], isOneOf('action', actionsBefore))}
      ${replaceChecks(events, ['actor_type'], isOneOf('actor_type', actorsBefore))}
      DO $down$
        BEGIN
          DELETE FROM ${events} WHERE api_key_id IS NULL;
          ALTER TABLE ${events}
            DROP COLUMN address,
            DROP COLUMN ref,
            DROP COLUMN entry_mac,
            ALTER COLUMN api_key_id SET NOT NULL,
            ALTER COLUMN user_id SET NOT NULL;
        EXCEPTION WHEN undefined_table THEN
          NULL;
        END
      $down$;
    `,
  }
})

/** SQL for whether a setting does not name this transaction. */
function isNotOf(setting: string): string {
  return `current_setting('${setting}', true) IS DISTINCT FROM pg_current_xact_id_if_assigned()::text`
}

function toldOf(row: string): string {
  return toldColumns.map((column) => `${row}.${column}`).join(', ')
}
