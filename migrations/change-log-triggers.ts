import { comparableColumns } from '../models/api-key'
import { literal, qualify } from '../models/names'
import type { Tables } from '../models/tables'
import { leastNumber, microseconds, refuseFarAhead } from './numbers'
import {
  isNotIn,
  isReplicationWorker,
  returnInReplication,
  returnUnlessChanged,
  type Trigger,
  type TriggerFunction,
} from './triggers'

/** Returns the triggers that log changes of keys, that number the log, and that report entries deleted from it. */
export function keyLogTriggers(tables: Tables): Trigger[] {
  const { schema, keys, revisions, changes, settings } = tables
  const onKeys = {
    table: keys,
    calls: { name: qualify(schema, 'api_key_gather_change'), body: gatherBody(tables) },
  }

  return [
    {
      name: 'api_key_gather_insert',
      table: keys,
      fires: 'AFTER INSERT',
      forEach: 'ROW',
      when: 'NEW.event_ref IS NULL OR NEW.source IS NOT NULL',
      calls: { name: qualify(schema, 'api_key_gather_insert'), body: gatherInsertBody(tables) },
    },
    { ...onKeys, name: 'api_key_gather_delete', fires: 'AFTER DELETE', forEach: 'ROW' },
    { ...onKeys, name: 'api_key_gather_update', fires: 'AFTER UPDATE', forEach: 'ROW' },
    { ...onKeys, name: 'api_key_gather_truncate', fires: 'AFTER TRUNCATE', forEach: 'STATEMENT' },
    {
      name: 'api_key_keep_insert',
      table: keys,
      fires: 'AFTER INSERT',
      forEach: 'STATEMENT',
      when: isLostInCrash,
      calls: { name: qualify(schema, 'api_key_keep_commit'), body: keepCommitBody },
    },
    {
      name: 'api_key_number',
      table: changes,
      fires: 'AFTER INSERT',
      forEach: 'ROW',
      when: 'NEW.place = 0',
      isDeferred: true,
      calls: { name: qualify(schema, 'api_key_number_changes'), body: numberBody(tables) },
    },
    {
      name: 'api_key_number_entry',
      table: revisions,
      fires: 'BEFORE INSERT',
      forEach: 'ROW',
      calls: { name: qualify(schema, 'api_key_number_entry'), body: numberEntryBody(tables) },
    },
    {
      name: 'api_key_close_gap',
      table: revisions,
      fires: 'AFTER DELETE OR TRUNCATE',
      forEach: 'STATEMENT',
      when: isNotIn(settings.pruning),
      calls: { name: qualify(schema, 'api_key_close_gap'), body: closeGapBody(tables) },
    },
  ]
}

/** Returns the triggers that log which owners are suspended. */
export function suspensionLogTriggers(tables: Tables): Trigger[] {
  const onSuspensions = { table: tables.suspendedOwners, calls: gatherOwner(tables) }
  return [
    {
      ...onSuspensions,
      name: 'api_key_gather_suspension',
      fires: 'AFTER INSERT OR DELETE OR UPDATE',
      forEach: 'ROW',
    },
    {
      ...onSuspensions,
      name: 'api_key_gather_all_suspensions',
      fires: 'AFTER TRUNCATE',
      forEach: 'STATEMENT',
    },
  ]
}

/** Returns the trigger that logs the rows that are inserted into the table of changed owners. */
export function ownerLogTriggers(tables: Tables): Trigger[] {
  return [
    {
      name: 'api_key_gather_user',
      table: tables.userChanges,
      fires: 'BEFORE INSERT',
      forEach: 'ROW',
      calls: gatherOwner(tables),
    },
  ]
}

function gatherOwner(tables: Tables): TriggerFunction {
  return {
    name: qualify(tables.schema, 'api_key_gather_owner_change'),
    body: gatherOwnerBody(tables),
  }
}

/*
 * Changes are gathered as they happen, without a lock. A setting holds the transaction that has begun an entry, the
 * mark of the entry, the place of its last change, and 'added' if one of the changes says that keys were added. The
 * setting lasts as long as the transaction.
 *
 * A key that the library creates is not gathered, and needs no number. An imported key is, because processes know the hashes of all
 * imported keys. No process can have cached it, and a process
 * caches its hash as unknown no longer than the bound. Keys that SQL inserts are gathered as one change, so that a
 * test can use an inserted key at once.
 */

function declareEntry({ settings }: Tables): string {
  return `
          this_transaction text := pg_current_xact_id()::text;
          entry text[] := string_to_array(current_setting('${settings.entry}', true), ' ');
          entry_mark uuid;
          entry_place integer;`
}

function continueEntry({ settings }: Tables, added = 'entry[4]'): string {
  return `
            IF entry[1] = this_transaction AND entry[2] IS NOT NULL THEN
              entry_mark := entry[2];
              entry_place := entry[3]::integer + 1;
            ELSE
              entry_mark := gen_random_uuid();
              entry_place := 0;
              entry[4] := NULL;
            END IF;
            PERFORM set_config(
              '${settings.entry}', concat_ws(' ', this_transaction, entry_mark, entry_place, ${added}), true
            );`
}

function gatherBody(tables: Tables): string {
  return `
        DECLARE ${declareEntry(tables)}
          changed uuid;
          is_new boolean := false;
        BEGIN
          ${returnUnlessChanged(comparableColumns('logged'))}
          ${returnInReplication('NULL')} ${continueEntry(tables)}
          IF TG_OP = 'UPDATE' THEN
            changed := OLD.id;
            is_new := (OLD.id, OLD.hash) IS DISTINCT FROM (NEW.id, NEW.hash);
          ELSIF TG_OP = 'DELETE' THEN
            changed := OLD.id;
          END IF;
          INSERT INTO ${tables.changes} (mark, place, key_id, is_new)
          VALUES (entry_mark, entry_place, changed, is_new);
          RETURN NULL;
        END`
}

/** Added keys become one change without ids, however many rows a transaction inserts. */
function gatherInsertBody(tables: Tables): string {
  return `
        DECLARE ${declareEntry(tables)}
        BEGIN
          IF entry[1] = this_transaction AND entry[4] = 'added' THEN
            RETURN NULL;
          END IF;
          ${returnInReplication('NULL')} ${continueEntry(tables, "'added'")}
          INSERT INTO ${tables.changes} (mark, place, is_new) VALUES (entry_mark, entry_place, true);
          RETURN NULL;
        END`
}

/** SQL that is true if a crash or a failover may lose the changes of the transaction. */
const isLostInCrash = `current_setting('synchronous_commit') = ANY (ARRAY['off', 'local', 'remote_write'])`

/** Without it, an app might hand out a key that a crash takes back. */
const keepCommitBody = `
        BEGIN
          ${returnInReplication('NULL')}
          PERFORM set_config('synchronous_commit', 'on', true);
          RETURN NULL;
        END`

/**
 * A row without an owner reports all owners: a change with neither key nor owner is a change of everything. So does a TRUNCATE. If
 * ids are compared without regard to case, the keys of an owner may spell its id in other ways than the row. So a row reports all then.
 */
function gatherOwnerBody(tables: Tables): string {
  const { changes, keys, settings } = tables
  return `
        DECLARE ${declareEntry(tables)}
          owner record;
        BEGIN
          ${returnInReplication('NULL')}
          FOR owner IN
            SELECT DISTINCT user_id, organization_id, service
              FROM (VALUES
                (TG_OP IN ('UPDATE', 'DELETE'), OLD.user_id::text COLLATE "C", OLD.organization_id::text COLLATE "C", OLD.service COLLATE "C"),
                (TG_OP <> 'DELETE', NEW.user_id::text COLLATE "C", NEW.organization_id::text COLLATE "C", NEW.service COLLATE "C")
              ) AS changed (is_changed, user_id, organization_id, service)
             WHERE is_changed
          LOOP
            entry := string_to_array(current_setting('${settings.entry}', true), ' '); ${continueEntry(tables)}
            IF owner.service IS NULL AND EXISTS (
              SELECT FROM pg_attribute AS attribute JOIN pg_collation AS folding ON folding.oid = attribute.attcollation
               WHERE attribute.attrelid = ${literal(keys)}::regclass AND attribute.attname IN ('user_id', 'organization_id')
                 AND NOT folding.collisdeterministic
            ) THEN
              INSERT INTO ${changes} (mark, place, is_new) VALUES (entry_mark, entry_place, false);
            ELSE
              INSERT INTO ${changes} (mark, place, user_id, organization_id, service, is_new)
              VALUES (entry_mark, entry_place, owner.user_id, owner.organization_id, owner.service, false);
            END IF;
          END LOOP;
          RETURN NULL;
        END`
}

/** Without NOTIFY, a transaction could be prepared, and would keep the lock until its second phase. */
function numberBody({ revisions, channel, settings }: Tables): string {
  return `
        BEGIN
          ${returnInReplication('NULL')}
          INSERT INTO ${revisions} (mark) VALUES (NEW.mark);
          -- Later changes in this transaction, for example after SET CONSTRAINTS, begin an entry of their own.
          PERFORM set_config('${settings.entry}', pg_current_xact_id()::text, true);
          IF ${isLostInCrash} THEN
            PERFORM set_config('synchronous_commit', 'on', true);
          END IF;
          PERFORM pg_notify('${channel}', '');
          RETURN NULL;
        END`
}

/**
 * The function does not read the log: the snapshot of the transaction may be old, and a SERIALIZABLE transaction would
 * fail. It comes from a sequence, which belongs to no snapshot, or from the clock if the sequence was set back.
 */
function numberEntryBody({ logLock, revisionRegister: register }: Tables): string {
  return `
        DECLARE
          highest bigint;
        BEGIN
          PERFORM FROM ${logLock} FOR UPDATE;
          IF NOT FOUND THEN
            IF NOT (${isReplicationWorker}) THEN ${raiseLockMissing(logLock)}
            END IF;
          END IF;
          SELECT last_value INTO highest FROM ${register};
          IF NEW.revision < ${leastNumber} THEN
            NEW.revision := greatest(highest + 1, ${microseconds});
          ELSIF NEW.revision > highest THEN
            ${refuseFarAhead('NEW.revision')}
          END IF;
          IF NEW.revision > highest THEN
            PERFORM setval(${literal(register)}, NEW.revision);
          END IF;
          RETURN NEW;
        END`
}

/** Deleted entries become one change of everything, with a number above all other numbers. */
function closeGapBody(tables: Tables): string {
  const { revisions, changes, logLock, revisionRegister: register } = tables
  return `
        BEGIN
          ${returnInReplication('NULL')}
          PERFORM FROM ${logLock} FOR UPDATE;
          IF NOT FOUND THEN ${raiseLockMissing(logLock)}
          END IF;
          PERFORM setval(${literal(register)}, greatest(
            (SELECT last_value FROM ${register}), (SELECT max(revision) FROM ${revisions})
          ));
          INSERT INTO ${changes} (mark, place, is_new) VALUES (gen_random_uuid(), 0, false);
          RETURN NULL;
        END`
}

function raiseLockMissing(logLock: string): string {
  return `
              RAISE EXCEPTION 'express-api-keys: the row of % is missing', ${literal(logLock)}
                USING HINT = 'Insert it again, with its default.';`
}
