import { auditTrailOf, toldSql } from '../models/audit-trail'
import { literal, qualify } from '../models/names'
import { leastNumber, microseconds } from './numbers'
import {
  changesAny,
  isNotIn,
  isReplicationWorker,
  type Trigger,
  type TriggerFunction,
} from './triggers'

interface TrailOptions {
  schema: string
  userIdType: string
}

/** The columns of a key whose changes leave an entry, whoever makes them: all but when it was used and changed. */
const toldColumns = [
  'id',
  'user_id',
  'name',
  'description',
  'prefix',
  'postfix',
  'hash',
  'secret_id',
  'permissions',
  'status',
  'created_at',
  'expires_at',
  'revoked_at',
  'allowed_ips',
  'metadata::text',
  'limits::text',
  'previous_hash',
  'previous_secret_id',
  'previous_prefix',
  'previous_postfix',
  'previous_works_until',
]

/** The functions that write the audit trail and keep it as it is. */
export function auditFunctions({ schema, userIdType }: TrailOptions) {
  const { events, unsealed, register } = auditTrailOf(schema)
  const told = (row: string) => toldSql(row, userIdType)

  const tell = `
        DECLARE
          old_key jsonb;
          new_key jsonb;
          what text;
        BEGIN
          IF ${isReplicationWorker} THEN
            RETURN NULL;
          END IF;
          IF TG_OP = 'TRUNCATE' THEN
            INSERT INTO ${events} (action, actor_type, actor_id)
            VALUES ('truncated', 'database', session_user);
            RETURN NULL;
          END IF;
          IF TG_OP <> 'INSERT' THEN
            old_key := ${told('OLD')};
          END IF;
          IF TG_OP <> 'DELETE' THEN
            new_key := ${told('NEW')};
          END IF;

          -- A key under another id is another key.
          IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND OLD.id <> NEW.id THEN
            INSERT INTO ${events} (api_key_id, user_id, action, actor_type, actor_id, before)
            VALUES (OLD.id, OLD.user_id, 'deleted', 'database', session_user, old_key);
          END IF;
          IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND OLD.id <> NEW.id THEN
            INSERT INTO ${events} (api_key_id, user_id, action, actor_type, actor_id, after)
            VALUES (NEW.id, NEW.user_id, 'created', 'database', session_user, new_key);
          ELSIF TG_OP = 'UPDATE' THEN
            what := CASE
              WHEN OLD.status <> NEW.status THEN
                CASE NEW.status WHEN 'REVOKED' THEN 'revoked' WHEN 'SUSPENDED' THEN 'suspended' ELSE 'reactivated' END
              WHEN OLD.hash <> NEW.hash THEN 'rotated'
              WHEN OLD.permissions <> NEW.permissions THEN 'permissions_changed'
              ELSE 'updated'
            END;
            SELECT jsonb_object_agg(known.key, known.value), jsonb_object_agg(known.key, new_key -> known.key)
              INTO old_key, new_key
              FROM jsonb_each(old_key) AS known WHERE known.value <> new_key -> known.key;
            INSERT INTO ${events} (api_key_id, user_id, action, actor_type, actor_id, before, after)
            VALUES (
              NEW.id, NEW.user_id, what, 'database', session_user,
              coalesce(old_key, '{}'), coalesce(new_key, '{}')
            );
          END IF;
          RETURN NULL;
        END`

  const queue = `
        BEGIN
          IF NOT (${isReplicationWorker}) THEN
            INSERT INTO ${unsealed} (event_id) SELECT id FROM added;
          END IF;
          RETURN NULL;
        END`

  // A worker deletes what was pruned where it comes from.
  const refuse = `
        BEGIN
          IF ${isReplicationWorker} THEN
            RETURN OLD;
          END IF;
          RAISE restrict_violation USING
            MESSAGE = format('express-api-keys: %I keeps the audit trail, which is not changed', TG_TABLE_NAME),
            HINT = 'Old entries are removed by apiKeys.pruneAuditTrail().';
        END`

  // An open transaction may not keep others waiting for a number. So whatever the register says above the time counts, and if
  // it is behind the time, one transaction a second may raise it. The others see that at once.
  const numberEvent = `
        DECLARE
          this_second bigint;
        BEGIN
          IF NEW.id >= ${leastNumber} THEN
            IF NEW.id > (SELECT last_value FROM ${register}) THEN
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

  const functionOf = (name: string, body: string): TriggerFunction => ({
    name: qualify(schema, name),
    body,
  })

  return {
    tell: functionOf('api_key_tell_change', tell),
    queue: functionOf('api_key_queue_events', queue),
    refuse: functionOf('api_key_refuse_rewriting', refuse),
    numberEvent: functionOf('api_key_number_event', numberEvent),
  }
}

/** The triggers that write the audit trail and keep it as it is. */
export function auditTriggers(options: TrailOptions): Trigger[] {
  const { events, seals, checkpoints, pruning, deleting } = auditTrailOf(options.schema)
  const { tell, queue, refuse, numberEvent } = auditFunctions(options)
  const onKeys = {
    table: qualify(options.schema, 'api_keys'),
    calls: tell,
    forEach: 'ROW',
  } as const

  return [
    {
      ...onKeys,
      name: 'api_key_tell_insert',
      fires: 'AFTER INSERT',
      when: 'NEW.event_ref IS NULL',
    },
    {
      ...onKeys,
      name: 'api_key_tell_update',
      fires: 'AFTER UPDATE',
      when: `(${changesAny(toldColumns)}) AND NOT (${changesAny(['event_ref'])})`,
    },
    { ...onKeys, name: 'api_key_tell_delete', fires: 'AFTER DELETE', when: isNotIn(deleting) },
    { ...onKeys, name: 'api_key_tell_truncate', fires: 'AFTER TRUNCATE', forEach: 'STATEMENT' },
    {
      name: 'api_key_number_event',
      table: events,
      fires: 'BEFORE INSERT',
      forEach: 'ROW',
      calls: numberEvent,
    },
    {
      name: 'api_key_queue_events',
      table: events,
      fires: 'AFTER INSERT',
      newTable: 'added',
      forEach: 'STATEMENT',
      calls: queue,
    },
    // Pruning alone may delete, and nobody may update. The setting is of its transaction and lasts no longer.
    ...[events, seals, checkpoints].flatMap((table): Trigger[] => [
      {
        name: 'api_key_refuse_update',
        table,
        fires: 'BEFORE UPDATE OR TRUNCATE',
        forEach: 'STATEMENT',
        calls: refuse,
      },
      {
        name: 'api_key_refuse_delete',
        table,
        fires: 'BEFORE DELETE',
        forEach: 'ROW',
        when: isNotIn(pruning),
        calls: refuse,
      },
    ]),
  ]
}
