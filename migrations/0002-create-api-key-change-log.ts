import type { Tables } from '../models/tables'
import { keyLogTriggers, ownerLogTriggers, suspensionLogTriggers } from './change-log-triggers'
import type { Step } from './step'

/**
 * Creates the log of changes. Every process reads in it which of its cached keys have changed. Triggers write it in the
 * transaction that makes the change, so that it has changes made by hand, by a cascade or by TRUNCATE.
 *
 * Triggers gather the changes of a transaction as they happen, without a lock. The first change also queues a deferred trigger,
 * which numbers the transaction when it commits. It does so under a lock, so that the order of the numbers is the
 * order of the commits. It does so late, so that an open transaction keeps no other transaction waiting. The locked row is never updated, because an
 * updated row would make transactions of the app fail at REPEATABLE READ and SERIALIZABLE.
 *
 * A key that the library creates is not in the log. So creations wait neither for the lock nor for notifications of other transactions.
 *
 * The primary key of the changes has them in the order of mark and place. Readers use that index, however many rows one
 * transaction has left and whatever the statistics say of them.
 *
 * A row for `api_key_user_changes` becomes a change of its transaction, and is not stored. So a trigger on the app's own users or
 * roles can report changed permissions in plain SQL, with no right but INSERT.
 */
export function createApiKeyChangeLog(tables: Tables): Step {
  const { revisions, changes, logLock, bounds, userChanges } = tables

  return {
    name: '0002-create-api-key-change-log',

    sequences: ['api_key_revision_register'],

    tables: {
      api_key_revisions: `
      CREATE TABLE ${revisions} (
        revision bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        mark uuid NOT NULL DEFAULT gen_random_uuid(),
        xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
        created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp()
      );`,

      api_key_changes: `
      CREATE TABLE ${changes} (
        mark uuid,
        place integer,
        key_id uuid,
        user_id text,
        organization_id text,
        service text,
        is_new boolean NOT NULL,
        PRIMARY KEY (mark, place)
      );`,

      // Without a foreign key, so that a deleted owner can be reported. Logical replication demands a primary key.
      api_key_user_changes: `
      CREATE TABLE ${userChanges} (
        user_id text,
        organization_id text,
        service text,
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY
      );`,

      api_key_log_lock: `
      CREATE TABLE ${logLock} (is_the_one boolean PRIMARY KEY DEFAULT true CHECK (is_the_one));`,

      api_key_bounds: `
      CREATE TABLE ${bounds} (
        -- No longer than a timer of Node takes.
        bound_ms bigint PRIMARY KEY CHECK (bound_ms > 0 AND bound_ms < 2147483648),
        registered_at timestamptz(3) NOT NULL
      );`,
    },

    triggers: [
      ...keyLogTriggers(tables),
      ...suspensionLogTriggers(tables),
      ...ownerLogTriggers(tables),
    ],

    // The first entry of the log takes the lock.
    neverEmpty: ['api_key_log_lock', 'api_key_revisions'],
  }
}
