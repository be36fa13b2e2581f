import type { ApiKeyRow, Status, Time } from '../../models/api-key'
import type { UserIdType } from '../../models/storage-options'
import type { LimitOverrides } from './limits'
import type { Metadata } from './metadata'
import { isExpired } from './states'

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
  /** True if `expiresAt` was over, by the clock of this process, when the record was read. */
  isExpired: boolean
  revokedAt: Date | null
  /** The two ends of the secret before the current one, and until when it works or worked; `null` for none. */
  previousSecret: { prefix: string; postfix: string; worksUntil: Date } | null
}

/** Makes the record of a key from what `keySql` reads. */
export function toRecord(row: ApiKeyRow, userIdType: UserIdType): ApiKeyRecord {
  const expiresAt = row.expiresAt === null ? null : readTime(row.expiresAt)

  return {
    id: row.id,
    name: row.name,
    description: row.description,
    prefix: row.prefix,
    postfix: row.postfix,
    status: row.status,
    permissions: row.permissions,
    allowedIps: row.allowedIps,
    // Both are written by us, as they are read here.
    metadata: row.metadata as Metadata,
    limits: row.limits as LimitOverrides | null,
    userId: readUserId(row.userId, userIdType),
    createdAt: readTime(row.createdAt),
    updatedAt: readTime(row.updatedAt),
    lastUsedAt: row.lastUsedAt === null ? null : readTime(row.lastUsedAt),
    lastUsedFrom: row.lastUsedFrom,
    expiresAt,
    isExpired: isExpired({ expiresAt }, Date.now()),
    revokedAt: row.revokedAt === null ? null : readTime(row.revokedAt),
    previousSecret: readPreviousSecret(row),
  }
}

function readPreviousSecret(row: ApiKeyRow): ApiKeyRecord['previousSecret'] {
  const { previousPrefix: prefix, previousPostfix: postfix, previousWorksUntil } = row
  if (!prefix || !postfix || previousWorksUntil === null) return null

  return { prefix, postfix, worksUntil: readTime(previousWorksUntil) }
}

/** The trail may tell of owners from before ids were numbers. */
export function readUserId(value: unknown, type: UserIdType): string | number {
  const number = type === 'integer' ? Number(value) : NaN
  return Number.isNaN(number) ? String(value) : number
}

/** An infinite time becomes an invalid one, which is `null` in JSON. */
export function readTime(time: Time): Date {
  return new Date(Number(time))
}
