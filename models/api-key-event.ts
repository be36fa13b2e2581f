import { msSql, type Time } from './api-key'
import type { OwnerType } from './owner'
import type { Tables } from './tables'

/** The actions that entries of the audit trail record. */
export const eventActions = [
  'created',
  'imported',
  'updated',
  'permissions_changed',
  'suspended',
  'reactivated',
  'revoked',
  'unrevoked',
  'rotation_begun',
  'rotated',
  'rotation_ended',
  'upgraded',
  'transferred',
  'exposed',
  'owner_suspended',
  'owner_reactivated',
  'owner_erased',
  'retired_secret_used',
  'deleted',
  'truncated',
] as const

/** An action that an entry of the audit trail records. */
export type EventAction = (typeof eventActions)[number]

/** An action on a key that the library carries out. */
export type ChangeAction = Exclude<
  EventAction,
  | 'retired_secret_used'
  | 'upgraded'
  | 'truncated'
  | 'owner_suspended'
  | 'owner_reactivated'
  | 'owner_erased'
>

/** The kinds of actors. */
export const actorTypes = ['user', 'admin', 'system', 'database'] as const

/** The kind of actor: a user, an administrator, the app itself, or a role that changed the database without the library. */
export type ActorType = (typeof actorTypes)[number]

/** An entry of the audit trail as `eventSql` reads it. */
export interface ApiKeyEventRow {
  /** A bigint as text. */
  id: string
  /** `null` in an entry about an owner, and in the one entry of a TRUNCATE, which deletes all keys of all owners. */
  apiKeyId: string | null
  /** The owner at the time of the entry. Ids are text, whatever their types are. */
  ownerType: OwnerType | null
  ownerId: string | null
  /** The owner before the entry; `null` if the key has not changed hands. */
  formerOwnerType: OwnerType | null
  formerOwnerId: string | null
  action: EventAction
  /** `database` for changes that were not made through the library: by hand or by a cascade. */
  actorType: ActorType
  /** The role that was connected, for `database`. */
  actorId: string | null
  /** The address that the change was requested from; `null` if it is not known. */
  address: string | null
  reason: string | null
  /** The old values of the attributes that changed, but for personal ones; all attributes if the key was deleted. */
  before: Record<string, unknown> | null
  /** The new values of the attributes that changed, but for personal ones; all attributes if the key was created. */
  after: Record<string, unknown> | null
  /** The same of personal attributes; `null` if there are none. */
  personalBefore: Record<string, unknown> | null
  personalAfter: Record<string, unknown> | null
  createdAt: Time
  /** True if personal values of the entry were erased. */
  isErased: boolean
}

/** The columns of an entry, except its id and its time. */
export const eventColumns = {
  apiKeyId: 'api_key_id',
  ownerType: 'owner_type',
  ownerId: 'owner_id',
  formerOwnerType: 'former_owner_type',
  formerOwnerId: 'former_owner_id',
  action: 'action',
  actorType: 'actor_type',
  actorId: 'actor_id',
  address: 'address',
  reason: 'reason',
  before: 'before',
  after: 'after',
  personalBefore: 'personal_before',
  personalAfter: 'personal_after',
} as const satisfies Partial<Record<keyof ApiKeyEventRow, string>>

/** The columns of an entry that the library writes. The database fills the other columns. */
export const writtenColumns = ['ref', 'salt', ...Object.values(eventColumns), 'entry_mac']

/**
 * SQL that writes entries. Their rows come from the given clauses under the name `entry`, and `after` may be another value.
 */
export function insertEntriesSql(
  { events }: Tables,
  clauses: string,
  after = 'entry.after',
): string {
  const values = writtenColumns.map((name) => (name === 'after' ? after : `entry.${name}`))
  return `INSERT INTO ${events} (${writtenColumns.join(', ')}) SELECT ${values.join(', ')} ${clauses}`
}

/** SQL for an entry as JSON, from a row of the audit trail. */
export function eventSql(event: string): string {
  const members = Object.entries(eventColumns).map(
    ([name, column]) => `'${name}', ${event}.${column}`,
  )
  return `pg_catalog.json_build_object(
    'id', ${event}.id::text, ${members.join(', ')}, 'createdAt', ${msSql(`${event}.created_at`)},
    'isErased', ${event}.erased IS NOT NULL
  )::text`
}
