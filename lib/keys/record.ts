import type { ApiKeyRow, Status } from '../../models/api-key'
import type { UserIdType } from '../../models/storage-options'
import type { LimitOverrides } from './limits'
import type { Metadata } from './metadata'

/** A key as its owner and the app see it. Times become ISO 8601 text in JSON. */
export interface ApiKeyRecord<Permission extends string = string, UserId = string | number> {
  id: string
  name: string
  description: string | null
  /** The start of the plain-text key, for people to tell keys apart. */
  prefix: string
  /** The end of the plain-text key, for people to tell keys apart. */
  postfix: string
  status: Status
  permissions: Permission[]
  /** The addresses and ranges (CIDR) from which the key works; `null` for all. */
  allowedIps: string[] | null
  metadata: Metadata
  /** Limits that this key has over the app's of the same names; `null` for the app's. */
  limits: LimitOverrides | null
  userId: UserId
  createdAt: Date
  updatedAt: Date
  lastUsedAt: Date | null
  /** The client's address of the use that `lastUsedAt` tells of; `null` where it is not known. */
  lastUsedFrom: string | null
  expiresAt: Date | null
  revokedAt: Date | null
  /** The two ends of the secret before the current one, and until when it works or worked; `null` for none. */
  previousSecret: { prefix: string; postfix: string; worksUntil: Date } | null
}

/** What is read of a row: nothing of its hashes. */
export const recordAttributes = [
  'id',
  'name',
  'description',
  'prefix',
  'postfix',
  'status',
  'permissions',
  'allowedIps',
  'metadata',
  'limits',
  'userId',
  'createdAt',
  'updatedAt',
  'lastUsedAt',
  'lastUsedFrom',
  'expiresAt',
  'revokedAt',
  'previousPrefix',
  'previousPostfix',
  'previousWorksUntil',
] as const satisfies (keyof ApiKeyRow)[]

/** Copies the record from a row, and so leaves out whatever else the row holds. */
export function toRecord(row: ApiKeyRow, userIdType: UserIdType): ApiKeyRecord {
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    prefix: row.prefix,
    postfix: row.postfix,
    status: row.status,
    permissions: readArray(row.permissions),
    allowedIps: row.allowedIps === null ? null : readArray(row.allowedIps),
    // Both are written by us, as they are read here.
    metadata: readJson(row.metadata) as Metadata,
    limits: readJson(row.limits) as LimitOverrides | null,
    userId: readUserId(row.userId, userIdType),
    createdAt: new Date(row.createdAt),
    updatedAt: new Date(row.updatedAt),
    lastUsedAt: readTime(row.lastUsedAt),
    lastUsedFrom: row.lastUsedFrom,
    expiresAt: readTime(row.expiresAt),
    revokedAt: readTime(row.revokedAt),
    previousSecret: readPreviousSecret(row),
  }
}

function readPreviousSecret(row: ApiKeyRow): ApiKeyRecord['previousSecret'] {
  const { previousPrefix: prefix, previousPostfix: postfix, previousWorksUntil } = row
  if (!prefix || !postfix || !previousWorksUntil) return null

  return { prefix, postfix, worksUntil: new Date(previousWorksUntil) }
}

/*
 * An app may have taught its driver to read bigints, arrays or times in its own way, for all of its connections. What is
 * shown here bears with that; what decides about a key, its expiry, is read as a number instead.
 */

export function readUserId(value: unknown, type: UserIdType): string | number {
  return type === 'integer' ? Number(value) : String(value)
}

function readTime(value: Date | null): Date | null {
  return value === null ? null : new Date(value)
}

/** Some drivers leave it to others to parse JSON. */
function readJson(value: unknown): unknown {
  return typeof value === 'string' ? JSON.parse(value) : value
}

/** `includes()` on a string such as '{READ_ALL}' would find permissions that the key does not hold. */
function readArray(value: unknown): string[] {
  if (!Array.isArray(value)) {
    throw new TypeError('express-api-keys: the driver does not read text[] as an array')
  }
  return value
}
