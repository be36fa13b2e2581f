import { eventActions, actorTypes } from '../models/api-key-event'
import { statuses } from '../models/api-key'
import { literal, qualify } from '../models/names'
import { ownerColumns } from '../models/owner'
import { personalGroups, saltLength } from '../models/sealed-entry'
import type { Tables } from '../models/tables'
import { isHexSql, matchesSql, sourceForm } from './text-forms'
import type { Trigger } from './triggers'

/*
 * The rules that each key and each entry of the audit trail obeys, whoever writes it. Triggers check them. The server would parse and
 * plan CHECK constraints for each statement anew, which took a quarter of the time of a new key. It keeps the plans of a trigger.
 */

/** Conditions in SQL on the row `NEW`, by their names. As in a CHECK constraint, a row passes a condition that is NULL. */
type Rules = Readonly<Record<string, string>>

/** Rules for columns that are mostly NULL together. They are checked if one of the columns has a value. */
interface Group {
  columns: readonly string[]
  rules: Rules
}

/**
 * Returns the triggers that refuse keys that break a rule. They see rows as the app's own triggers have left them. Their error is that of a
 * CHECK constraint without the values of the row, which has a hash.
 */
export function keyRules({ schema, keys }: Tables): Trigger[] {
  return [checkRow(keys, qualify(schema, 'api_key_check_key'), rulesOfKeys, groupsOfKeys)]
}

/** Returns the same of the entries of the audit trail. */
export function entryRules({ schema, events }: Tables): Trigger[] {
  return [checkRow(events, qualify(schema, 'api_key_check_entry'), rulesOfEntries, groupsOfEntries)]
}

function checkRow(table: string, name: string, rules: Rules, groups: readonly Group[]): Trigger {
  const body = `
        DECLARE
          broken text;
        BEGIN
          broken := ${firstBroken(rules)};${groups.map(checkGroup).join('')}
          IF broken IS NOT NULL THEN
            broken := format('%s_%s_check', TG_TABLE_NAME, broken);
            RAISE check_violation USING
              MESSAGE = format('new row for relation "%s" violates check constraint "%s"', TG_TABLE_NAME, broken),
              SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, CONSTRAINT = broken;
          END IF;
          RETURN NULL;
        END`
  const on = { table, fires: 'AFTER INSERT OR UPDATE', forEach: 'ROW' } as const
  return { ...on, name: 'api_key_check_row', calls: { name, body } }
}

function checkGroup({ columns, rules }: Group): string {
  const values = columns.map((column) => `NEW.${column}`)
  return `
          IF broken IS NULL AND num_nonnulls(${values.join(', ')}) > 0 THEN
            broken := ${firstBroken(rules)};
          END IF;`
}

/** SQL for the name of the first rule that is broken; NULL if there is none. */
function firstBroken(rules: Rules): string {
  const cases = Object.entries(rules).map(
    ([name, rule]) => `
            WHEN NOT (${rule}) THEN ${literal(name)}`,
  )
  return `CASE${cases.join('')} END`
}

function isOneOf(column: string, values: readonly string[]): string {
  return `NEW.${column} = ANY (${literal(`{${values.join()}}`)})`
}

function isObject(column: string, mostBytes: number): string {
  return `json_typeof(NEW.${column}) = 'object' AND octet_length(NEW.${column}::text) <= ${mostBytes}`
}

function isJsonb(column: string): string {
  return `jsonb_typeof(NEW.${column}::jsonb) <> ''`
}

function isFlat(column: string): string {
  return `array_ndims(NEW.${column}) = 1 AND array_position(NEW.${column}, NULL) IS NULL`
}

/** True if all columns have a value, or none. */
function areTogether(columns: readonly string[]): string {
  return `num_nulls(${columns.map((column) => `NEW.${column}`).join(', ')}) IN (0, ${columns.length})`
}

function isSecretId(column: string): string {
  return isHexSql(`NEW.${column}`, 16)
}

const rulesOfKeys = {
  owner: `num_nonnulls(${Object.values(ownerColumns)
    .map((column) => `NEW.${column}`)
    .join(', ')}) = 1`,
  name: 'char_length(NEW.name) BETWEEN 1 AND 100',
  prefix: matchesSql(
    'NEW.prefix',
    '^[a-z][a-z0-9_]*_[0-9A-Za-z]{6}$|^@[a-z][a-z0-9-]*_[0-9A-Za-z_|.-]{6}$',
  ),
  postfix: `octet_length(NEW.postfix) <= 8 AND ${matchesSql('NEW.postfix', '^[!-~]*$')}`,
  hash: isHexSql('NEW.hash', 64),
  permissions: `cardinality(NEW.permissions) = 0 OR ${isFlat('permissions')}`,
  status: isOneOf('status', statuses),
  metadata: isObject('metadata', 4_096),
  revoked_at: `(NEW.status = 'REVOKED') = (NEW.revoked_at IS NOT NULL)`,
  // The prefix of an imported key is '@', the source, an underscore and six characters, until the key is rotated.
  source_of_prefix: `CASE WHEN NEW.prefix LIKE '@%' THEN NEW.source IS NOT NULL AND left(NEW.prefix, -7) = '@' || NEW.source
                           ELSE octet_length(NEW.postfix) = 8 AND ${matchesSql('NEW.postfix', '^[0-9A-Za-z]*$')} END`,
}

const previous = ['hash', 'prefix', 'postfix', 'works_until'].map((name) => `previous_${name}`)
const pending = ['hash', 'prefix', 'postfix', 'grace_seconds'].map((name) => `pending_${name}`)

const groupsOfKeys: Group[] = [
  groupOf({
    service: 'char_length(NEW.service) BETWEEN 1 AND 100',
    environment: matchesSql('NEW.environment', '^[a-z][a-z0-9_]{0,31}$'),
    resources: isObject('resources', 16_384),
    description: 'char_length(NEW.description) <= 500',
    secret_id: isSecretId('secret_id'),
    last_used_from: matchesSql('NEW.last_used_from', '^[0-9a-f.:]{2,45}$'),
    allowed_ips: `cardinality(NEW.allowed_ips) BETWEEN 1 AND 100 AND ${isFlat('allowed_ips')}`,
    limits: isObject('limits', 4_096),
    exposed: `NEW.exposed IS NULL OR (${isObject('exposed', 8_192)} AND NEW.status <> 'ACTIVE')`,
    source: matchesSql('NEW.source', sourceForm),
  }),
  {
    columns: [...previous, 'previous_secret_id', 'previous_last_used_at'],
    rules: {
      previous_secret_id: isSecretId('previous_secret_id'),
      previous: `${areTogether(previous)}
                 AND (NEW.previous_hash IS NOT NULL OR num_nonnulls(NEW.previous_secret_id, NEW.previous_last_used_at) = 0)`,
    },
  },
  {
    columns: [...pending, 'pending_secret_id'],
    rules: {
      pending_secret_id: isSecretId('pending_secret_id'),
      pending_grace_seconds: 'NEW.pending_grace_seconds BETWEEN 0 AND 31536000',
      pending: `${areTogether(pending)} AND (NEW.pending_hash IS NOT NULL OR NEW.pending_secret_id IS NULL)`,
    },
  },
]

const actionsOnOwners = eventActions.filter(
  (action) => action === 'truncated' || action.startsWith('owner_'),
)

function partOfMac(place: number): string {
  return `split_part(NEW.entry_mac, ':', ${place})`
}

const rulesOfEntries = {
  action: isOneOf('action', eventActions),
  api_key_id: `NEW.api_key_id IS NOT NULL OR ${isOneOf('action', actionsOnOwners)}`,
  owner_type: isOneOf('owner_type', Object.keys(ownerColumns)),
  owner: '(NEW.owner_type IS NULL) = (NEW.owner_id IS NULL AND NEW.erased[1] IS NULL)',
  former_owner:
    '(NEW.former_owner_type IS NULL) = (NEW.former_owner_id IS NULL AND NEW.erased[2] IS NULL)',
  actor_type: isOneOf('actor_type', actorTypes),
  actor_id: `NEW.actor_id IS NOT NULL OR NEW.actor_type = 'system' OR NEW.erased[3] IS NOT NULL`,
  // One of these warnings may be written per hour. No other entry takes its place.
  retired_secret_used: `NEW.action <> 'retired_secret_used' OR NEW.actor_type = 'system'`,
  // A trigger takes a change for one of the library if an entry has its reference, and a signature vouches for such an entry.
  ref: `NEW.ref IS NULL OR (NEW.actor_type <> 'database' AND NEW.entry_mac IS NOT NULL)`,
  salt: `octet_length(NEW.salt) = ${saltLength}`,
  // The id of a secret or nothing, a time in milliseconds, and the code.
  entry_mac: `${matchesSql('NEW.entry_mac', '^[0-9a-f]*:[0-9]+:[0-9a-f]*$')} AND octet_length(${partOfMac(1)}) IN (0, 16)
              AND octet_length(${partOfMac(2)}) <= 15 AND octet_length(${partOfMac(3)}) = 64`,
  // Text that cannot be jsonb would make statements fail that read its members.
  before: isJsonb('before'),
  after: isJsonb('after'),
  personal_before: isJsonb('personal_before'),
  personal_after: isJsonb('personal_after'),
}

const groupsOfEntries: Group[] = [
  groupOf({
    former_owner_type: isOneOf('former_owner_type', Object.keys(ownerColumns)),
    reason: 'char_length(NEW.reason) <= 500',
    erased: `cardinality(NEW.erased) = ${personalGroups.length}`,
  }),
]

/** Makes a group of rules that have the names of their columns. */
function groupOf(rules: Rules): Group {
  return { columns: Object.keys(rules), rules }
}
