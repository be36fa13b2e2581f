import { literal, qualify } from '../models/names'
import { entryDigestSql } from '../models/sealed-entry'
import type { Tables } from '../models/tables'
import { keyRecordTriggers } from './key-record-triggers'
import { leastNumber, microseconds, refuseFarAhead } from './numbers'
import { entryRules } from './row-rules'
import { suspensionTriggers } from './suspension-triggers'
import { isNotIn, returnInReplication, type Trigger } from './triggers'

/**
 * Returns the triggers that write the audit trail, refuse entries that break a rule, and refuse to change it.
 */
export function auditTriggers(tables: Tables): Trigger[] {
  return [
    ...entryRules(tables),
    ...keyRecordTriggers(tables),
    ...suspensionTriggers(tables),
    ...eventTriggers(tables),
    ...refusingTriggers(tables),
  ]
}

/** The triggers that number new entries and queue them for their seals. */
function eventTriggers(tables: Tables): Trigger[] {
  const { schema, events } = tables
  return [
    {
      name: 'api_key_number_event',
      table: events,
      fires: 'BEFORE INSERT',
      forEach: 'ROW',
      calls: { name: qualify(schema, 'api_key_number_event'), body: numberBody(tables) },
    },
    {
      name: 'api_key_queue_events',
      table: events,
      fires: 'AFTER INSERT',
      newTable: 'added',
      forEach: 'STATEMENT',
      calls: { name: qualify(schema, 'api_key_queue_events'), body: queueBody(tables) },
    },
  ]
}

/**
 * The triggers that refuse each update of an entry but its erasing, and each deletion but by pruning. The settings of both last as long
 * as their transactions.
 */
function refusingTriggers({ schema, events, seals, settings }: Tables): Trigger[] {
  const calls = { name: qualify(schema, 'api_key_refuse_rewriting'), body: refuseBody }
  const erasing = { name: qualify(schema, 'api_key_allow_erasing'), body: allowErasingBody }
  const onDelete = {
    name: 'api_key_refuse_delete',
    fires: 'BEFORE DELETE',
    forEach: 'ROW',
    when: isNotIn(settings.pruning),
  } as const
  const onEvents = { table: events, forEach: 'STATEMENT', calls } as const
  return [
    {
      ...onEvents,
      name: 'api_key_refuse_update',
      fires: 'BEFORE UPDATE',
      when: isNotIn(settings.erasing),
    },
    {
      ...onEvents,
      name: 'api_key_allow_erasing',
      fires: 'BEFORE UPDATE',
      forEach: 'ROW',
      calls: erasing,
    },
    { ...onEvents, name: 'api_key_refuse_truncate', fires: 'BEFORE TRUNCATE' },
    {
      ...onEvents,
      name: 'api_key_refuse_update',
      table: seals,
      fires: 'BEFORE UPDATE OR TRUNCATE',
    },
    { ...onEvents, ...onDelete },
    { ...onEvents, ...onDelete, table: seals },
  ]
}

function queueBody({ unsealed }: Tables): string {
  return `
        BEGIN
          ${returnInReplication('NULL')}
          INSERT INTO ${unsealed} (event_id) SELECT id FROM added;
          RETURN NULL;
        END`
}

/** A replication worker deletes the entries that were pruned at the publisher. */
const refuseBody = `
        BEGIN
          ${returnInReplication('OLD')}
          RAISE restrict_violation USING
            MESSAGE = format('express-api-keys: %I keeps the audit trail, which is not changed', TG_TABLE_NAME),
            HINT = 'Old entries are removed by apiKeys.pruneAuditTrail().';
        END`

/**
 * An entry may lose personal values if its digest stays the same, as its seal has it. So a role with the right to update entries can
 * erase values, and change none. Verification finds an erasing that the library has not noted. A value that was erased does not come back.
 */
const allowErasingBody = `
        BEGIN
          ${returnInReplication('NEW')}
          IF (NEW.id, NEW.xid) = (OLD.id, OLD.xid)
             AND array_remove(NEW.erased, NULL) @> array_remove(OLD.erased, NULL) IS NOT FALSE
             AND cardinality(array_remove(NEW.erased, NULL)) > coalesce(cardinality(array_remove(OLD.erased, NULL)), 0)
             AND ${entryDigestSql('NEW')} = ${entryDigestSql('OLD')} THEN
            RETURN NEW;
          END IF;
          RAISE restrict_violation USING
            MESSAGE = format('express-api-keys: %I keeps the audit trail, which is not changed', TG_TABLE_NAME),
            HINT = 'Personal values are removed by apiKeys.eraseOwner().';
        END`

/**
 * An open transaction must not keep other transactions waiting for a number. So the function takes each number of the
 * sequence that is not below the time in whole seconds. If the sequence is behind, one transaction per second sets it,
 * and all other transactions see that at once.
 */
function numberBody({ eventRegister: register }: Tables): string {
  return `
        DECLARE
          this_second bigint;
        BEGIN
          IF NEW.id >= ${leastNumber} THEN
            IF NEW.id > (SELECT last_value FROM ${register}) THEN
              ${refuseFarAhead('NEW.id')}
              PERFORM setval(${literal(register)}, NEW.id);
            END IF;
            RETURN NEW;
          END IF;
          LOOP
            this_second := floor(extract(epoch FROM clock_timestamp()))::bigint;
            NEW.id := nextval(${literal(register)});
            EXIT WHEN NEW.id >= this_second * 1000000;
            IF pg_try_advisory_xact_lock(hashtext(${literal(register)}), (this_second % 2147483647)::integer) THEN
              PERFORM setval(${literal(register)}, ${microseconds});
            ELSE
              PERFORM pg_sleep(0.001);
            END IF;
          END LOOP;
          RETURN NEW;
        END`
}
