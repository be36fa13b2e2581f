import { DataTypes, type Model, type ModelStatic, type Sequelize } from 'sequelize'

import { userIdDataType, type ModelOptions } from './user-id'

export const statuses = ['ACTIVE', 'SUSPENDED', 'REVOKED'] as const

export type Status = (typeof statuses)[number]

export interface ApiKeyRow {
  id: string
  userId: string | number
  name: string
  description: string | null
  prefix: string
  postfix: string
  /** 64 hexadecimal characters, unique. */
  hash: string
  /** Which of the app's secrets keyed the hash; `null` for an unkeyed one. */
  secretId: string | null
  permissions: string[]
  status: Status
  /** Addresses and ranges; `null` for all. */
  allowedIps: string[] | null
  metadata: Record<string, unknown>
  /** Those of this key; `null` for the app's. */
  limits: Record<string, unknown> | null
  createdAt: Date
  updatedAt: Date
  lastUsedAt: Date | null
  lastUsedFrom: string | null
  expiresAt: Date | null
  revokedAt: Date | null
  /** The secret before the current one, as long as a rotation lets it work. */
  previousHash: string | null
  previousSecretId: string | null
  previousPrefix: string | null
  previousPostfix: string | null
  previousWorksUntil: Date | null
  /** Which entry of the audit trail tells of the last change that was made through the library. */
  eventRef: string | null
}

/** What an INSERT names; the database fills in the rest. */
type NewApiKeyRow = Pick<
  ApiKeyRow,
  | 'userId'
  | 'name'
  | 'description'
  | 'prefix'
  | 'postfix'
  | 'hash'
  | 'secretId'
  | 'permissions'
  | 'expiresAt'
  | 'allowedIps'
  | 'metadata'
  | 'limits'
  | 'eventRef'
>

export type ApiKeyModel = ModelStatic<Model<ApiKeyRow, NewApiKeyRow>>

/** Defines the model of `api_keys`, the table of all keys. */
export function defineApiKey(
  sequelize: Sequelize,
  { schema, userIdType }: ModelOptions,
): ApiKeyModel {
  const timestamp = DataTypes.DATE(3)

  return sequelize.define<Model<ApiKeyRow, NewApiKeyRow>>(
    'ApiKey',
    {
      id: { type: DataTypes.UUID, primaryKey: true },
      userId: { type: userIdDataType(userIdType), field: 'user_id' },
      name: { type: DataTypes.TEXT },
      description: { type: DataTypes.TEXT },
      prefix: { type: DataTypes.TEXT },
      postfix: { type: DataTypes.TEXT },
      hash: { type: DataTypes.TEXT },
      secretId: { type: DataTypes.TEXT, field: 'secret_id' },
      // Not an array of an enum: Sequelize returns one as the string '{A,B}' to a connection older than the type.
      permissions: { type: DataTypes.ARRAY(DataTypes.TEXT) },
      status: { type: DataTypes.TEXT },
      allowedIps: { type: DataTypes.ARRAY(DataTypes.TEXT), field: 'allowed_ips' },
      metadata: { type: DataTypes.JSON },
      limits: { type: DataTypes.JSON },
      createdAt: { type: timestamp, field: 'created_at' },
      updatedAt: { type: timestamp, field: 'updated_at' },
      lastUsedAt: { type: timestamp, field: 'last_used_at' },
      lastUsedFrom: { type: DataTypes.TEXT, field: 'last_used_from' },
      expiresAt: { type: timestamp, field: 'expires_at' },
      revokedAt: { type: timestamp, field: 'revoked_at' },
      previousHash: { type: DataTypes.TEXT, field: 'previous_hash' },
      previousSecretId: { type: DataTypes.TEXT, field: 'previous_secret_id' },
      previousPrefix: { type: DataTypes.TEXT, field: 'previous_prefix' },
      previousPostfix: { type: DataTypes.TEXT, field: 'previous_postfix' },
      previousWorksUntil: { type: timestamp, field: 'previous_works_until' },
      eventRef: { type: DataTypes.UUID, field: 'event_ref' },
    },
    { tableName: 'api_keys', schema, timestamps: false },
  )
}
