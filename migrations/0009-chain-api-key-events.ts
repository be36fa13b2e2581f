import { auditTrailOf } from '../models/audit-trail'
import { auditFunctions } from './audit-functions'
import { auditTriggers } from './audit-triggers'
import { isOneOf, replaceChecks } from './event-checks'
import { defineMigration } from './migration'
import { addColumns } from './names'
import { createFunctions, createTriggers, dropFunctions } from './triggers'

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
  const { schema, table, createTable, createSequence } = names
  const { events, seals, unsealed, head, checkpoints, register } = auditTrailOf(schema)
  const keys = table('api_keys')
  const functions = Object.values(auditFunctions(schema))

  return {
    up: `
      ${createSequence('api_key_event_register')}
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

      ${createFunctions(functions)}
      ${createTriggers(auditTriggers(schema))}
    `,
    // The entries stay, but for those of no key: their place is not for them any more.
    down: `
      ${dropFunctions(functions)}
      DROP SEQUENCE IF EXISTS ${register};
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
