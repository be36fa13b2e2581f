import { auditTrailOf } from '../models/audit-trail'
import { qualify } from '../models/names'
import { auditFunctions } from './audit-functions'
import { changesAny, isNotIn, type Trigger } from './triggers'

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

/** The triggers that write the audit trail and keep it as it is. */
export function auditTriggers(schema: string): Trigger[] {
  const { events, seals, checkpoints, pruning, deleting } = auditTrailOf(schema)
  const { tell, queue, refuse, numberEvent } = auditFunctions(schema)
  const onKeys = {
    table: qualify(schema, 'api_keys'),
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
