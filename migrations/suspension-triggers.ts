import { qualify } from '../models/names'
import { ownerIdSql, ownerTypeSql } from '../models/owner'
import type { Tables } from '../models/tables'
import { returnInReplication, type Trigger } from './triggers'

/** Returns the triggers that write an entry for each suspension of an owner, and for the end of it, that the library has not made. */
export function suspensionTriggers({ schema, suspendedOwners, events }: Tables): Trigger[] {
  const onSuspensions = {
    table: suspendedOwners,
    calls: { name: qualify(schema, 'api_key_record_suspension'), body: suspensionBody(events) },
  }
  return [
    {
      ...onSuspensions,
      name: 'api_key_record_suspension',
      fires: 'AFTER INSERT OR DELETE OR UPDATE',
      forEach: 'ROW',
    },
    {
      ...onSuspensions,
      name: 'api_key_record_all_suspensions',
      fires: 'AFTER TRUNCATE',
      forEach: 'STATEMENT',
    },
  ]
}

/**
 * An entry by the library is the newest of its owner, and of the same transaction. An UPDATE that leaves the owner alone changes no
 * suspension. A TRUNCATE ends the suspensions of all owners by one entry.
 */
function suspensionBody(events: string): string {
  // The variables have the collation of the column. The server could not find an owner of another collation by the index.
  const newest = (owner: string) => `SELECT ${owner} INTO type_of_owner, id_of_owner;
            SELECT event.xid, event.ref, event.action INTO last FROM ${events} AS event
             WHERE (event.owner_type, event.owner_id) = (type_of_owner, id_of_owner)
             ORDER BY event.owner_type DESC, event.owner_id DESC, event.id DESC LIMIT 1`
  const write = (
    action: string,
    owner = 'type_of_owner, id_of_owner',
  ) => `INSERT INTO ${events} (owner_type, owner_id, action, actor_type, actor_id)
              VALUES (${owner}, '${action}', 'database', session_user)`
  return `
        DECLARE
          last record;
          type_of_owner text;
          id_of_owner text;
        BEGIN
          ${returnInReplication('NULL')}
          IF TG_OP = 'TRUNCATE' THEN
            ${write('owner_reactivated', 'NULL, NULL')};
            RETURN NULL;
          END IF;
          IF TG_OP = 'UPDATE' AND (${oldOwner}) IS NOT DISTINCT FROM (${newOwner}) THEN
            RETURN NULL;
          END IF;
          IF TG_OP <> 'INSERT' THEN
            ${newest(oldOwner)};
            IF (last.xid = pg_current_xact_id() AND last.action = 'owner_reactivated' AND last.ref IS NOT NULL) IS NOT TRUE THEN
              ${write('owner_reactivated')};
            END IF;
          END IF;
          IF TG_OP <> 'DELETE' THEN
            ${newest(newOwner)};
            IF (last.xid = pg_current_xact_id() AND last.action = 'owner_suspended' AND last.ref = NEW.event_ref) IS NOT TRUE THEN
              ${write('owner_suspended')};
            END IF;
          END IF;
          RETURN NULL;
        END`
}

const oldOwner = `${ownerTypeSql('OLD')}, ${ownerIdSql('OLD')}`
const newOwner = `${ownerTypeSql('NEW')}, ${ownerIdSql('NEW')}`
