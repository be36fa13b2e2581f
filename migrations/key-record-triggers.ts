import { comparableColumns } from '../models/api-key'
import { openSql, personalSql, shownSql } from '../models/audit-trail'
import { qualify } from '../models/names'
import { ownerIdSql, ownerTypeSql } from '../models/owner'
import type { Tables } from '../models/tables'
import { changesAny, returnInReplication, type Trigger } from './triggers'

/**
 * Returns the triggers that write an entry for each change that the library has not made. They fire for every insertion and
 * deletion, and for an update that changes an attribute in the trail. The functions look for the entry of the library, for all keys of
 * an insertion at once. `keyColumns` in models/api-key.ts lists the columns that are watched, and the columns whose values are shown.
 */
export function keyRecordTriggers(tables: Tables): Trigger[] {
  const { schema, keys } = tables
  const onKeys = {
    table: keys,
    forEach: 'ROW',
    calls: { name: qualify(schema, 'api_key_record_change'), body: writeEventBody(tables) },
  } as const

  return [
    {
      name: 'api_key_record_insert',
      table: keys,
      fires: 'AFTER INSERT',
      newTable: 'added',
      forEach: 'STATEMENT',
      calls: { name: qualify(schema, 'api_key_record_insert'), body: writeInsertionsBody(tables) },
    },
    {
      ...onKeys,
      name: 'api_key_record_update',
      fires: 'AFTER UPDATE',
      when: changesAny([...comparableColumns('watched', 'shown'), 'event_ref']),
    },
    { ...onKeys, name: 'api_key_record_delete', fires: 'AFTER DELETE' },
    { ...onKeys, name: 'api_key_record_truncate', fires: 'AFTER TRUNCATE', forEach: 'STATEMENT' },
  ]
}

/**
 * SQL for the newest entry of a key. By two columns, so that the server reads their index, whatever it takes the number of entries for. After many
 * entries of one transaction, it would read all entries to find that a key has none.
 */
function newestEntrySql({ events }: Tables, id: string): string {
  return `FROM ${events} AS event
             WHERE (event.api_key_id, event.id) BETWEEN (${id}, 0) AND (${id}, 9223372036854775807) AND event.action <> 'retired_secret_used'
             ORDER BY event.api_key_id DESC, event.id DESC LIMIT 1`
}

/**
 * A change counts as made by the library if the newest entry of its key was written by the same transaction and has the new
 * `event_ref` of the row. Neither is enough alone: the row may name an older entry, and a role with rights on the keys alone may
 * write any reference. A deletion has no row to refer to. Uses of retired secrets are no changes, and come at any time.
 */
function isToldSql(entry: string, key: string): string {
  return `${entry}.xid = pg_current_xact_id() AND ${entry}.ref = ${key}.event_ref`
}

/** The plan that writes entries is larger by far, so the function first looks if there are any to write. */
function writeInsertionsBody(tables: Tables): string {
  const isUntold = `(SELECT ${isToldSql('event', 'key')} ${newestEntrySql(tables, 'key.id')}) IS NOT TRUE`
  return `
        BEGIN
          ${returnInReplication('NULL')}
          PERFORM FROM added AS key WHERE ${isUntold} LIMIT 1;
          IF FOUND THEN
            INSERT INTO ${tables.events} (api_key_id, owner_type, owner_id, action, actor_type, actor_id, after, personal_after)
            SELECT key.id, ${ownerTypeSql('key')}, ${ownerIdSql('key')}, 'created', 'database', session_user, ${openSql('shown.key')}, ${personalSql('shown.key')}
              FROM added AS key CROSS JOIN LATERAL (SELECT ${shownSql('key')} AS key OFFSET 0) AS shown
             WHERE ${isUntold};
          END IF;
          RETURN NULL;
        END`
}

function writeEventBody(tables: Tables): string {
  const { events } = tables
  const newest = (id: string) =>
    `event.ref, event.xid, event.action INTO last ${newestEntrySql(tables, id)}`
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
          ${returnInReplication('NULL')}
          IF TG_OP = 'TRUNCATE' THEN
            INSERT INTO ${events} (action, actor_type, actor_id)
            VALUES ('truncated', 'database', session_user);
            RETURN NULL;
          END IF;
          IF TG_OP = 'DELETE' THEN
            SELECT ${newest('OLD.id')};
            is_told := last.xid = pg_current_xact_id() AND last.action = 'deleted' AND last.ref IS NOT NULL;
          ELSIF NEW.event_ref IS DISTINCT FROM OLD.event_ref THEN
            SELECT ${newest('NEW.id')};
            is_told := ${isToldSql('last', 'NEW')};
          END IF;
          IF is_told THEN
            RETURN NULL;
          END IF;
          old_key := ${shownSql('OLD')};
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
          IF TG_OP = 'UPDATE' AND OLD.id <> NEW.id THEN
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
