import { changeLogOf } from '../models/change-log'
import { literal, qualify } from '../models/names'
import { leastNumber, microseconds } from './numbers'
import { isReplicationWorker, type TriggerFunction } from './triggers'

/** The functions that gather changes as they happen, without a lock. The first change of a transaction queues its numbering. */
export function gatherFunctions(schema: string): Record<'gather' | 'gatherUser', TriggerFunction> {
  const { changes, entry } = changeLogOf(schema)

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

  return {
    gather: {
      name: qualify(schema, 'api_key_gather_change'),
      body: `
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
    },

    // A row without a user is about all users: with neither key nor user, a change is of everything.
    gatherUser: {
      name: qualify(schema, 'api_key_gather_user_change'),
      body: `
        DECLARE ${declareEntry}
        BEGIN
          IF NOT (${isReplicationWorker}) THEN ${continueEntry}
            INSERT INTO ${changes} (mark, place, user_id, is_new) VALUES (entry_mark, entry_place, NEW.user_id, false);
          END IF;
          RETURN NULL;
        END`,
    },
  }
}

/**
 * The functions that number transactions when they commit, and that let no reader miss what was deleted from the log.
 *
 * `numberEntry` does not read the log: the snapshot of the transaction may be old, and a SERIALIZABLE one would fail. It goes by
 * a sequence, which belongs to no snapshot, and by the clock if the sequence was set back.
 */
export function numberFunctions(
  schema: string,
): Record<'number' | 'numberEntry' | 'closeGap', TriggerFunction> {
  const { revisions, changes, lock, register, channel, entry } = changeLogOf(schema)

  const lockMissing = `
              RAISE EXCEPTION 'express-api-keys: the row of % is missing', ${literal(lock)}
                USING HINT = 'Insert it again, with its default.';`

  return {
    // Without NOTIFY, a transaction could be prepared, and would keep the lock until its second phase.
    number: {
      name: qualify(schema, 'api_key_number_changes'),
      body: `
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
    },

    numberEntry: {
      name: qualify(schema, 'api_key_number_entry'),
      body: `
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
    },

    closeGap: {
      name: qualify(schema, 'api_key_close_gap'),
      body: `
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
    },
  }
}
