import { changeLogOf } from '../models/change-log'
import { qualify } from '../models/names'
import { gatherFunctions, numberFunctions } from './change-log-functions'
import { changesAny, isNotIn, type Trigger } from './triggers'

/** The columns of a key whose changes the log reports, as of each migration that changed them. */
const first = ['id', 'user_id', 'name', 'hash', 'permissions', 'status', 'expires_at']
const withPolicies = [...first, 'allowed_ips', 'metadata::text']
const withRotation = [...withPolicies, 'previous_hash', 'previous_works_until']
const withLimits = [...withRotation, 'limits::text']

export const gatheredColumns = { first, withPolicies, withRotation, withLimits }

/** The triggers on the keys that gather changes, those of these columns among them. */
export function keyTriggers(schema: string, columns: readonly string[]): Trigger[] {
  const { gather } = gatherFunctions(schema)
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
  const { number, numberEntry, closeGap } = numberFunctions(schema)

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
      calls: gatherFunctions(schema).gatherUser,
    },
  ]
}
