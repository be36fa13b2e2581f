import { newSaltSql } from '../models/sealed-entry'
import type { Tables } from '../models/tables'
import { auditTriggers } from './audit-triggers'
import type { Step } from './step'
import { isHexSql } from './text-forms'

/**
 * Creates the audit trail: one event for each change of a key, and the chain that seals the events.
 *
 * Events refer to keys and owners without foreign keys, and to owners by text, because the trail outlives keys, owners and the type
 * of their ids. An event of a transfer names both owners.
 *
 * A change by the library gives the row of the key a new `event_ref`, and writes an entry that has it as `ref`, in one statement. A
 * trigger looks for that entry, and writes an entry itself for every other change.
 *
 * `before` and `after` are `json`, which keeps the written text. Each verification reads them, and Postgres would
 * make the text of `jsonb` again for each reading. Verification reads the entries of a key in the order of their ids, so an index has this order.
 *
 * Entries never change, but for personal values that are erased, and only the pruning call deletes them. Their seals cover the personal
 * values by salted digests, which stay. Entries are sealed in the background, one after the other, in a table
 * of their own.
 */
export function createApiKeyAuditTrail(tables: Tables): Step {
  const { events, seals, unsealed, auditHead, origins } = tables

  return {
    name: '0004-create-api-key-audit-trail',

    sequences: ['api_key_event_register'],

    tables: {
      api_key_events: eventsSql(tables),
      api_key_event_seals: `
      CREATE TABLE ${seals} (
        position bigint PRIMARY KEY CHECK (position > 0),
        event_id bigint NOT NULL UNIQUE,
        is_genuine boolean NOT NULL,
        doubts text,
        digest text NOT NULL CHECK (${isHexSql('digest', 0, 64)}),
        -- The digest of the key and of all its entries, which agreed. This one was the last of them.
        state_digest text CHECK (${isHexSql('state_digest', 64)}),
        -- In the last seal of those that were written at once: the digest of them all and of their entries, as long as none was erased.
        block_digest text CHECK (${isHexSql('block_digest', 64)}),
        -- When the process that sealed the entry read it, by the clock of the server.
        sealed_at timestamptz(3) NOT NULL,
        hash text NOT NULL CHECK (${isHexSql('hash', 64)}),
        mac text CHECK (${isHexSql('mac', 64)}),
        secret_id text CHECK (${isHexSql('secret_id', 16)})
      );`,

      // Events may be there already, if a clean-up has removed the chain alone.
      api_key_unsealed_events: `
      CREATE TABLE ${unsealed} (
        xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
        event_id bigint NOT NULL, PRIMARY KEY (xid, event_id));
      INSERT INTO ${unsealed} (event_id) SELECT id FROM ${events} AS event
       WHERE NOT EXISTS (SELECT FROM ${seals} AS seal WHERE seal.event_id = event.id);`,

      // The row has both ends of the chain, so one signature covers them: the last seal, and the last seal that was pruned. Each page
      // of seals updates it, so its page of the table has room for its versions.
      api_key_audit_head: `
      CREATE TABLE ${auditHead} (
        is_the_one boolean PRIMARY KEY DEFAULT true CHECK (is_the_one),
        position bigint NOT NULL DEFAULT 0 CHECK (position >= 0),
        hash text NOT NULL DEFAULT '' CHECK (${isHexSql('hash', 0, 64)}),
        checkpoint_position bigint NOT NULL DEFAULT 0 CHECK (checkpoint_position >= 0),
        checkpoint_hash text NOT NULL DEFAULT '' CHECK (${isHexSql('checkpoint_hash', 0, 64)}),
        last_pruned_id bigint NOT NULL DEFAULT 0,
        pruned_before timestamptz(3),
        -- The number of origins, and the sum of their signatures; the number of adopted keys from before the trail.
        origin_count bigint NOT NULL DEFAULT 0,
        origin_sum text NOT NULL DEFAULT repeat('0', 64) CHECK (${isHexSql('origin_sum', 64)}),
        origin_secret_id text,
        adopted bigint,
        -- Not signed: when the row was last written.
        sealed_at timestamptz(3),
        mac text CHECK (${isHexSql('mac', 64)}),
        secret_id text CHECK (${isHexSql('secret_id', 16)})
      ) WITH (fillfactor = 10);`,

      // The last state of each key in entries that were pruned.
      api_key_origins: `
      CREATE TABLE ${origins} (api_key_id uuid PRIMARY KEY, as_of bigint NOT NULL, state jsonb NOT NULL);`,
    },

    triggers: auditTriggers(tables),

    // A new row does not replace a head that was removed: the seals show it.
    neverEmpty: ['api_key_audit_head'],
  }
}

function eventsSql({ events }: Tables): string {
  return `
      CREATE TABLE ${events} (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        api_key_id uuid,
        owner_type text,
        owner_id text,
        former_owner_type text,
        former_owner_id text,
        action text NOT NULL,
        actor_type text NOT NULL,
        actor_id text,
        address text,
        reason text,
        before json,
        after json,
        -- The values of attributes that erasing a person removes.
        personal_before json,
        personal_after json,
        salt bytea NOT NULL DEFAULT ${newSaltSql},
        -- The digests of the personal values that were erased.
        erased bytea[],
        created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
        ref uuid,
        entry_mac text,
        -- The transaction that wrote the entry. A trigger compares it, so that an old entry does not pass for a new change.
        xid xid8 NOT NULL DEFAULT pg_current_xact_id()
      );
      CREATE INDEX ON ${events} (api_key_id, id);
      CREATE INDEX ON ${events} (owner_type, owner_id, id DESC);
      CREATE INDEX ON ${events} (former_owner_type, former_owner_id, id DESC) WHERE former_owner_id IS NOT NULL;
      CREATE INDEX ON ${events} (action, id DESC);
      CREATE INDEX ON ${events} ((after ->> 'hashDigest')) WHERE action = 'imported';
      CREATE INDEX ON ${events} (id) WHERE erased IS NOT NULL;
      CREATE UNIQUE INDEX ON ${events} (api_key_id, date_trunc('hour', created_at AT TIME ZONE 'UTC'))
        WHERE action = 'retired_secret_used';`
}
