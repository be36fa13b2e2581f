import { auditTrailOf, toldSql } from '../models/audit-trail'
import { literal, qualify } from '../models/names'
import { leastNumber, microseconds } from './numbers'
import { isReplicationWorker, type TriggerFunction } from './triggers'

/** The functions that write the audit trail and keep it as it is. */
export function auditFunctions(
  schema: string,
): Record<'tell' | 'queue' | 'refuse' | 'numberEvent', TriggerFunction> {
  return {
    tell: { name: qualify(schema, 'api_key_tell_change'), body: tellBody(schema) },
    queue: { name: qualify(schema, 'api_key_queue_events'), body: queueBody(schema) },
    refuse: { name: qualify(schema, 'api_key_refuse_rewriting'), body: refuseBody },
    numberEvent: { name: qualify(schema, 'api_key_number_event'), body: numberBody(schema) },
  }
}

function tellBody(schema: string): string {
  const { events } = auditTrailOf(schema)

  return `
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
            old_key := ${toldSql('OLD')};
          END IF;
          IF TG_OP <> 'DELETE' THEN
            new_key := ${toldSql('NEW')};
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
}

function queueBody(schema: string): string {
  const { unsealed } = auditTrailOf(schema)

  return `
        BEGIN
          IF NOT (${isReplicationWorker}) THEN
            INSERT INTO ${unsealed} (event_id) SELECT id FROM added;
          END IF;
          RETURN NULL;
        END`
}

/** A replication worker deletes what was pruned at the publisher. */
const refuseBody = `
        BEGIN
          IF ${isReplicationWorker} THEN
            RETURN OLD;
          END IF;
          RAISE restrict_violation USING
            MESSAGE = format('express-api-keys: %I keeps the audit trail, which is not changed', TG_TABLE_NAME),
            HINT = 'Old entries are removed by apiKeys.pruneAuditTrail().';
        END`

/**
 * An open transaction must not keep others waiting for a number. So every number of the sequence that is not below the time in
 * whole seconds is taken as it is. If the sequence is behind, one transaction per second sets it, which the others see at once.
 */
function numberBody(schema: string): string {
  const { register } = auditTrailOf(schema)

  return `
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
}
