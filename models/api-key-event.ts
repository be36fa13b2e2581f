import { DataTypes, type Model, type ModelStatic, type Sequelize } from 'sequelize'

import { userIdDataType, type ModelOptions } from './user-id'

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

export interface ApiKeyEventRow {
  /** A bigint: text, unless the app taught its driver otherwise. */
  id: string | number | bigint
  /** `null` in the entry of a TRUNCATE, which is of all keys. */
  apiKeyId: string | null
  userId: string | number | null
  action: EventAction
  actorType: ActorType
  actorId: string | null
  address: string | null
  reason: string | null
  before: Record<string, unknown> | null
  after: Record<string, unknown> | null
  /** What the change gave the row of the key; `null` where it was not made through the library. */
  ref: string | null
  /** Vouches for everything above: the id of a secret, a colon and the HMAC. */
  entryMac: string | null
  createdAt: Date
}

export type NewApiKeyEventRow = Omit<ApiKeyEventRow, 'id' | 'createdAt'>

export type ApiKeyEventModel = ModelStatic<Model<ApiKeyEventRow, NewApiKeyEventRow>>

/** Defines the model of `api_key_events`, the audit trail: one row for each change of a key, never changed itself. */
export function defineApiKeyEvent(
  sequelize: Sequelize,
  { schema, userIdType }: ModelOptions,
): ApiKeyEventModel {
  return sequelize.define<Model<ApiKeyEventRow, NewApiKeyEventRow>>(
    'ApiKeyEvent',
    {
      id: { type: DataTypes.BIGINT, primaryKey: true, autoIncrement: true },
      apiKeyId: { type: DataTypes.UUID, field: 'api_key_id' },
      userId: { type: userIdDataType(userIdType), field: 'user_id' },
      action: { type: DataTypes.TEXT },
      actorType: { type: DataTypes.TEXT, field: 'actor_type' },
      actorId: { type: DataTypes.TEXT, field: 'actor_id' },
      address: { type: DataTypes.TEXT },
      reason: { type: DataTypes.TEXT },
      before: { type: DataTypes.JSONB },
      after: { type: DataTypes.JSONB },
      ref: { type: DataTypes.UUID },
      entryMac: { type: DataTypes.TEXT, field: 'entry_mac' },
      createdAt: { type: DataTypes.DATE(3), field: 'created_at' },
    },
    { tableName: 'api_key_events', schema, timestamps: false },
  )
}
