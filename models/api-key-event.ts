import { msSql, type Time } from './api-key'

export const eventActions = [
  'created',
  'updated',
  'permissions_changed',
  'suspended',
  'reactivated',
  'revoked',
  'rotated',
  'rotation_ended',
  'retired_secret_used',
  'deleted',
  'truncated',
] as const

export type EventAction = (typeof eventActions)[number]

const actorTypes = ['user', 'admin', 'system', 'database'] as const

export type ActorType = (typeof actorTypes)[number]

/** An entry of the audit trail as `eventSql` reads it. */
export interface ApiKeyEventRow {
  /** A bigint as text. */
  id: string
  /** `null` in the entry of a TRUNCATE, which is of all keys. */
  apiKeyId: string | null
  /** As text, whatever its type. */
  userId: string | null
  action: EventAction
  actorType: ActorType
  actorId: string | null
  address: string | null
  reason: string | null
  before: Record<string, unknown> | null
  after: Record<string, unknown> | null
  createdAt: Time
}

/** An entry as the library writes it. */
export interface NewApiKeyEventRow extends Omit<ApiKeyEventRow, 'id' | 'userId' | 'createdAt'> {
  userId: string | number | null
  /** What the change gave the row of the key; `null` where it was not made through the library. */
  ref: string | null
  /** Vouches for everything above: the id of a secret, a colon and the HMAC. */
  entryMac: string | null
}

/** SQL for an entry as JSON, from a row of the audit trail. */
export function eventSql(event: string): string {
  const attributes: Record<keyof ApiKeyEventRow, string> = {
    id: `${event}.id::text`,
    apiKeyId: `${event}.api_key_id`,
    userId: `${event}.user_id::text`,
    action: `${event}.action`,
    actorType: `${event}.actor_type`,
    actorId: `${event}.actor_id`,
    address: `${event}.address`,
    reason: `${event}.reason`,
    before: `${event}.before`,
    after: `${event}.after`,
    createdAt: msSql(`${event}.created_at`),
  }
  const members = Object.entries(attributes).map(([name, sql]) => `'${name}', ${sql}`)
  return `json_build_object(${members.join(', ')})::text`
}
