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
] as const

export type EventAction = (typeof eventActions)[number]

export const actorTypes = ['user', 'admin', 'system'] as const

export type ActorType = (typeof actorTypes)[number]

export interface ApiKeyEventRow {
  /** A bigint: text, unless the app taught its driver otherwise. */
  id: string | number | bigint
  apiKeyId: string
  userId: string | number
  action: EventAction
  actorType: ActorType
  actorId: string | null
  reason: string | null
  before: Record<string, unknown> | null
  after: Record<string, unknown> | null
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
      reason: { type: DataTypes.TEXT },
      before: { type: DataTypes.JSONB },
      after: { type: DataTypes.JSONB },
      createdAt: { type: DataTypes.DATE(3), field: 'created_at' },
    },
    { tableName: 'api_key_events', schema, timestamps: false },
  )
}
