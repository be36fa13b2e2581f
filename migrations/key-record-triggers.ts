import { comparableColumns } from '../models/api-key'
import { openSql, personalSql, shownSql } from '../models/audit-trail'
import { qualify } from '../models/names'
import { ownerIdSql, ownerTypeSql } from '../models/owner'
import type { Tables } from '../models/tables'
import { returnInReplication, returnUnlessChanged, type Trigger } from './triggers'

/**
 * Returns the triggers that write an entry for each change that the library has not made: for every insertion and
 * deletion, and for an update that changes an attribute in the trail. The function looks for the entry of the library.
 * `keyColumns` in models/api-key.ts lists the columns that are watched, and the columns whose values are shown.
 */
export function keyRecordTriggers(tables: Tables): Trigger[] {
  const onKeys = {
    table: tables.keys,
    forEach: 'ROW',
    calls: { name: qualify(tables.schema, 'api_key_record_change'), body: writeEventBody(tables) },
  } as const

  return [
    { ...onKeys, name: 'api_key_record_insert', fires: 'AFTER INSERT' },
    { ...onKeys, name: 'api_key_record_update', fires: 'AFTER UPDATE' },
    { ...onKeys, name: 'api_key_record_delete', fires: 'AFTER DELETE' },
    { ...onKeys, name: 'api_key_record_truncate', fires: 'AFTER TRUNCATE', forEach: 'STATEMENT' },
  ]
}

/**
 * A change counts as made by the library if the newest entry of its key was written by the same transaction and has the new
 * `event_ref` of the row. Neither is enough alone: the row may name an older entry, and a role with rights on the keys alone may
 * write any reference. A deletion has no row to refer to. Uses of retired secrets are no changes, and come at any time.
 */
function writeEventBody({ events }: Tables): string {
  // By two columns, so that the server reads their index, whatever it takes the number of entries for. After many entries of one
  // transaction, it would read all entries to find that a key has none.
  const newest = (
    id: string,
  ) => `event.ref, event.xid, event.action INTO last FROM ${events} AS event
             WHERE (event.api_key_id, event.id) BETWEEN (${id}, 0) AND (${id}, 9223372036854775807) AND event.action <> 'retired_secret_used'
             ORDER BY event.api_key_id DESC, event.id DESC LIMIT 1`
  return `
        DECLARE
          last record;
          is_told boolean;
          old_key jsonb;
          new_key jsonb;
          old_person jsonb;
          new_person jsonb;
          what text;
        BEGIN
          ${returnUnlessChanged([...comparableColumns('watched', 'shown'), 'event_ref'])}
          ${returnInReplication('NULL')}
          IF TG_OP = 'TRUNCATE' THEN
            INSERT INTO ${events} (action, actor_type, actor_id)
            VALUES ('truncated', 'database', session_user);
            RETURN NULL;
          END IF;
          IF TG_OP = 'DELETE' THEN
            SELECT ${newest('OLD.id')};
            is_told := last.xid = pg_current_xact_id() AND last.action = 'deleted' AND last.ref IS NOT NULL;
          ELSIF NEW.event_ref IS NOT NULL AND (TG_OP = 'INSERT' OR NEW.event_ref IS DISTINCT FROM OLD.event_ref) THEN
            SELECT ${newest('NEW.id')};
            is_told := last.xid = pg_current_xact_id() AND last.ref = NEW.event_ref;
          END IF;
          IF is_told THEN
            RETURN NULL;
          END IF;
          IF TG_OP <> 'INSERT' THEN
            old_key := ${shownSql('OLD')};
          END IF;
          IF TG_OP <> 'DELETE' THEN
            new_key := ${shownSql('NEW')};
          END IF;

          old_person := ${personalSql('old_key')};
          new_person := ${personalSql('new_key')};
          old_key := ${openSql('old_key')};
          new_key := ${openSql('new_key')};

          -- A key under another id is another key.
          IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND OLD.id <> NEW.id THEN
            INSERT INTO ${events} (api_key_id, owner_type, owner_id, action, actor_type, actor_id, before, personal_before)
            VALUES (OLD.id, ${oldOwner}, 'deleted', 'database', session_user, old_key, old_person);
          END IF;
          IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND OLD.id <> NEW.id THEN
            INSERT INTO ${events} (api_key_id, owner_type, owner_id, action, actor_type, actor_id, after, personal_after)
            VALUES (NEW.id, ${newOwner}, 'created', 'database', session_user, new_key, new_person);
          ELSIF TG_OP = 'UPDATE' THEN
            what := ${actionOfUpdate};
            SELECT jsonb_object_agg(known.key, known.value), jsonb_object_agg(known.key, new_key -> known.key)
              INTO old_key, new_key
              FROM jsonb_each(old_key) AS known WHERE known.value <> new_key -> known.key;
            SELECT jsonb_object_agg(known.key, known.value), jsonb_object_agg(known.key, new_person -> known.key)
              INTO old_person, new_person
              FROM jsonb_each(old_person) AS known WHERE known.value <> new_person -> known.key;
            INSERT INTO ${events} (
              api_key_id, owner_type, owner_id, former_owner_type, former_owner_id, action, actor_type, actor_id, before, after,
              personal_before, personal_after
            )
            SELECT NEW.id, ${newOwner}, former.type, former.id, what, 'database', session_user,
                   coalesce(old_key, '{}'), coalesce(new_key, '{}'), old_person, new_person
              FROM (VALUES (1)) AS one
              LEFT JOIN (VALUES (${oldOwner})) AS former (type, id) ON (former.type, former.id) IS DISTINCT FROM (${newOwner});
          END IF;
          RETURN NULL;
        END`
}

const oldOwner = `${ownerTypeSql('OLD')}, ${ownerIdSql('OLD')}`
const newOwner = `${ownerTypeSql('NEW')}, ${ownerIdSql('NEW')}`

/** SQL for the action of an update. */
const actionOfUpdate = `CASE
              WHEN OLD.status <> NEW.status THEN
                CASE
                  WHEN NEW.status = 'REVOKED' THEN 'revoked'
                  WHEN OLD.status = 'REVOKED' THEN 'unrevoked'
                  WHEN NEW.status = 'SUSPENDED' THEN 'suspended'
                  ELSE 'reactivated'
                END
              WHEN (${oldOwner}) IS DISTINCT FROM (${newOwner}) THEN 'transferred'
              WHEN OLD.hash <> NEW.hash THEN 'rotated'
              WHEN OLD.permissions <> NEW.permissions THEN 'permissions_changed'
              ELSE 'updated'
            END`
