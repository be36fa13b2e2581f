import { changeLogOf } from '../models/change-log'
import { literal, qualify } from '../models/names'
import { leastNumber, microseconds } from './numbers'
import {
  changesAny,
  isNotIn,
  isReplicationWorker,
  type Trigger,
  type TriggerFunction,
} from './triggers'

/** The columns of a key whose changes the log reports, as of each migration that changed them. */
const first = ['id', 'user_id', 'name', 'hash', 'permissions', 'status', 'expires_at']
const withPolicies = [...first, 'allowed_ips', 'metadata::text']
const withRotation = [...withPolicies, 'previous_hash', 'previous_works_until']
const withLimits = [...withRotation, 'limits::text']

export const gatheredColumns = { first, withPolicies, withRotation, withLimits }

/**
 * The functions that write the log of changes.
 *
 * Changes are gathered as they happen, without a lock: `gather` and `gatherUser`. The first change of a transaction queues
 * `number`, which numbers the transaction when it commits.
 */
export function changeLogFunctions(schema: string) {
  const { revisions, changes, lock, register, channel, entry } = changeLogOf(schema)

  /** Which transaction has begun an entry, its mark and the place of its last change, for as long as the transaction lasts. */
  const declareEntry = `
          this_transaction text := pg_current_xact_id()::text;
          entry text[] := string_to_array(current_setting('${entry}', true), ' ');
          entry_mark uuid;
          entry_place integer;`
  const continueEntry = `
            IF entry[1] = this_transaction AND entry[2] IS NOT NULL THEN
              entry_mark := entry[2];
              entry_place := entry[3]::integer + 1;
            ELSE
              entry_mark := gen_random_uuid();
              entry_place := 0;
            END IF;
            PERFORM set_config('${entry}', concat_ws(' ', this_transaction, entry_mark, entry_place), true);`

  const lockMissing = `
              RAISE EXCEPTION 'express-api-keys: the row of % is missing', ${literal(lock)}
                USING HINT = 'Insert it again, with its default.';`

  const functions = {
    gather: `
        DECLARE ${declareEntry}
          changed uuid;
          is_new boolean := false;
        BEGIN
          IF NOT (${isReplicationWorker}) THEN ${continueEntry}
            IF TG_OP = 'INSERT' THEN
              changed := NEW.id;
              is_new := true;
            ELSIF TG_OP = 'UPDATE' THEN
              changed := OLD.id;
              is_new := (OLD.id, OLD.hash) IS DISTINCT FROM (NEW.id, NEW.hash);
            ELSIF TG_OP = 'DELETE' THEN
              changed := OLD.id;
            END IF;
            INSERT INTO ${changes} (mark, place, key_id, is_new) VALUES (entry_mark, entry_place, changed, is_new);
          END IF;
          RETURN NULL;
        END`,

    // A row without a user is about all users: with neither key nor user, a change is of everything.
    gatherUser: `
        DECLARE ${declareEntry}
        BEGIN
          IF NOT (${isReplicationWorker}) THEN ${continueEntry}
            INSERT INTO ${changes} (mark, place, user_id, is_new) VALUES (entry_mark, entry_place, NEW.user_id, false);
          END IF;
          RETURN NULL;
        END`,

    // Without NOTIFY, a transaction could be prepared, and would keep the lock until its second phase.
    number: `
        BEGIN
          IF NOT (${isReplicationWorker}) THEN
            INSERT INTO ${revisions} (mark) VALUES (NEW.mark);
            -- Changes that follow in this transaction, as after SET CONSTRAINTS, begin an entry of their own.
            PERFORM set_config('${entry}', pg_current_xact_id()::text, true);
            IF current_setting('synchronous_commit') IN ('off', 'local', 'remote_write') THEN
              PERFORM set_config('synchronous_commit', 'on', true);
            END IF;
            PERFORM pg_notify('${channel}', '');
          END IF;
          RETURN NULL;
        END`,

    // The log itself is not read: the snapshot of the transaction may be old, and a SERIALIZABLE one would fail.
    numberEntry: `
        DECLARE
          highest bigint;
        BEGIN
          PERFORM FROM ${lock} FOR UPDATE;
          IF NOT FOUND AND NOT (${isReplicationWorker}) THEN ${lockMissing}
          END IF;
          SELECT last_value INTO highest FROM ${register};
          IF NEW.revision < ${leastNumber} THEN
            NEW.revision := greatest(highest + 1, ${microseconds});
          END IF;
          IF NEW.revision > highest THEN
            PERFORM setval(${literal(register)}, NEW.revision);
          END IF;
          RETURN NEW;
        END`,

    closeGap: `
        BEGIN
          IF NOT (${isReplicationWorker}) THEN
            PERFORM FROM ${lock} FOR UPDATE;
            IF NOT FOUND THEN ${lockMissing}
            END IF;
            PERFORM setval(${literal(register)}, greatest(
              (SELECT last_value FROM ${register}), (SELECT max(revision) FROM ${revisions})
            ));
            INSERT INTO ${changes} (mark, place, is_new) VALUES (gen_random_uuid(), 0, true);
          END IF;
          RETURN NULL;
        END`,
  }
  const names: Record<keyof typeof functions, string> = {
    gather: 'api_key_gather_change',
    gatherUser: 'api_key_gather_user_change',
    number: 'api_key_number_changes',
    numberEntry: 'api_key_number_entry',
    closeGap: 'api_key_close_gap',
  }
  const functionOf = (name: keyof typeof functions): TriggerFunction => ({
    name: qualify(schema, names[name]),
    body: functions[name],
  })

  return {
    gather: functionOf('gather'),
    gatherUser: functionOf('gatherUser'),
    number: functionOf('number'),
    numberEntry: functionOf('numberEntry'),
    closeGap: functionOf('closeGap'),
  }
}

/** The triggers on the keys that gather changes, those of these columns among them. */
export function keyTriggers(schema: string, columns: readonly string[]): Trigger[] {
  const { gather } = changeLogFunctions(schema)
  const onKeys = { table: qualify(schema, 'api_keys'), calls: gather }

  return [
    { ...onKeys, name: 'api_key_gather_row', fires: 'AFTER INSERT OR DELETE', forEach: 'ROW' },
    {
      ...onKeys,
      name: 'api_key_gather_update',
      fires: 'AFTER UPDATE',
      forEach: 'ROW',
      when: changesAny(columns),
    },
    { ...onKeys, name: 'api_key_gather_truncate', fires: 'AFTER TRUNCATE', forEach: 'STATEMENT' },
  ]
}

/** The triggers that number the log, and that let no reader miss what was deleted from it. */
export function numberTriggers(schema: string): Trigger[] {
  const { revisions, changes, pruning } = changeLogOf(schema)
  const { number, numberEntry, closeGap } = changeLogFunctions(schema)

  return [
    {
      name: 'api_key_number',
      table: changes,
      fires: 'AFTER INSERT',
      forEach: 'ROW',
      when: 'NEW.place = 0',
      isDeferred: true,
      calls: number,
    },
    {
      name: 'api_key_number_entry',
      table: revisions,
      fires: 'BEFORE INSERT',
      forEach: 'ROW',
      calls: numberEntry,
    },
    {
      name: 'api_key_close_gap',
      table: revisions,
      fires: 'AFTER DELETE OR TRUNCATE',
      forEach: 'STATEMENT',
      when: isNotIn(pruning),
      calls: closeGap,
    },
  ]
}

/** The trigger that gathers what is inserted into the table of changed users. */
export function userTriggers(schema: string): Trigger[] {
  return [
    {
      name: 'api_key_gather_user',
      table: changeLogOf(schema).userChanges,
      fires: 'BEFORE INSERT',
      forEach: 'ROW',
      calls: changeLogFunctions(schema).gatherUser,
    },
  ]
}
