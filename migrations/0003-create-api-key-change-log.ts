import { changeLogOf } from '../models/change-log'
import { gatherFunctions, numberFunctions } from './change-log-functions'
import { gatheredColumns, keyTriggers, numberTriggers } from './change-log-triggers'
import { defineMigration } from './migration'
import { unless } from './names'
import { createFunctions, createTriggers, dropFunctions } from './triggers'

/**
 * Creates the log of changes, from which every process learns which of the keys that it remembers have changed. It is
 * written by triggers, in the transaction that makes the change, so that changes made by hand, by a cascade or by
 * TRUNCATE count too.
 *
 * What changes is gathered as it happens, without a lock. The first change of a transaction also queues a deferred
 * trigger, which numbers the transaction when it commits: under a lock, so that the order of the numbers is the order
 * of the commits, and so late that an open transaction keeps nobody waiting. The lock is on a row that is never
 * updated: an updated one would make transactions of the app fail at REPEATABLE READ and SERIALIZABLE.
 *
 * The changes of an entry are in the order of its mark and their place. A reader takes them from that index in any case, however
 * many rows one transaction has left and whatever the statistics say of them.
 */
export const createApiKeyChangeLog = defineMigration(
  '0003-create-api-key-change-log',
  ({ schema, createTable, createSequence }) => {
    const { revisions, changes, lock, register, bounds } = changeLogOf(schema)
    const functions = [gatherFunctions(schema).gather, ...Object.values(numberFunctions(schema))]

    return {
      up: `
        ${createSequence('api_key_revision_register')}
        ${createTable(
          'api_key_revisions',
          `
        CREATE TABLE ${revisions} (
          revision bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
          mark uuid NOT NULL DEFAULT gen_random_uuid(),
          xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
          created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp()
        );`,
        )}
        ${createTable(
          'api_key_changes',
          `
        CREATE TABLE ${changes} (
          mark uuid,
          place integer,
          key_id uuid,
          user_id text,
          is_new boolean NOT NULL,
          PRIMARY KEY (mark, place)
        );`,
        )}
        ${createTable(
          'api_key_log_lock',
          `CREATE TABLE ${lock} (is_the_one boolean PRIMARY KEY DEFAULT true CHECK (is_the_one));`,
        )}
        ${createTable(
          'api_key_bounds',
          `
        CREATE TABLE ${bounds} (
          -- No longer than a timer of Node takes.
          bound_ms bigint PRIMARY KEY CHECK (bound_ms > 0 AND bound_ms < 2147483648),
          registered_at timestamptz(3) NOT NULL
        );`,
        )}
        INSERT INTO ${lock} DEFAULT VALUES ON CONFLICT DO NOTHING;
        ${createFunctions(functions)}
        ${createTriggers([...keyTriggers(schema, gatheredColumns.first), ...numberTriggers(schema)])}

        ${unless(`EXISTS (SELECT FROM ${revisions})`, `INSERT INTO ${revisions} DEFAULT VALUES;`)}
      `,
      down: `
        DROP TABLE IF EXISTS ${revisions}, ${changes}, ${lock}, ${bounds};
        ${dropFunctions(functions)}
        DROP SEQUENCE IF EXISTS ${register};
      `,
    }
  },
)
