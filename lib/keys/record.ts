import type { ApiKeyRow, Status, Time } from '../../models/api-key'
import type { OwnerType } from '../../models/owner'
import type { UserIdType } from '../../models/storage-options'
import type { AnyApp, App, If, NewKeyEnvironment } from './app'
import { shownPrefix } from './imported-prefix'
import type { LimitOverrides } from './limits'
import type { Metadata } from './metadata'
import {
  isSameOwner,
  isUsersOnly,
  type AnyId,
  type IdTypes,
  type Owner,
  type OwnerOf,
  type UserIdIn,
} from './owner'
import type { Resources, ResourceTypes } from './resources'
import { isExpired, isIdle } from './states'

/** The actor of a change: a signed-in user, an administrator, or the app itself. */
export type Actor = { type: 'user' | 'admin'; id: AnyId } | { type: 'system' }

/** A key to be created. */
export type NewApiKey<A extends App = AnyApp> = OwnerOf<A['owner']> &
  NewKeyFields<A['permission']> &
  NewKeyEnvironment<A['environment']> &
  If<A['resource'], NewBindings<A['resource']>>

interface NewBindings<Type extends string> {
  /**
   * The ids of the resources for which the key may be used, by their types; at most 100 ids in all. A type that is left out is not bound, an
   * empty list stands for no resource of the type, and `null` for a key that is not bound.
   */
  resources?: Resources<Type> | null | undefined
}

/** The fields of a key to be created, besides its owner. */
export interface NewKeyFields<Permission extends string> {
  /** 1 to 100 characters. */
  name: string
  /** At most 500 characters. */
  description?: string | null | undefined
  /** At least one permission, without repeats. */
  permissions: readonly Permission[]
  /** A time in the future; text is RFC 3339. Without it, the key does not expire. */
  expiresAt?: Date | string | null | undefined
  /** At most 100 addresses and ranges (CIDR), IPv4 and IPv6, from which the key works. Without it, the key works everywhere. */
  allowedIps?: readonly string[] | null | undefined
  /** A JSON object of at most 4096 bytes, for the app to use. */
  metadata?: Metadata | undefined
  /**
   * How often the key may be used. A limit replaces the app's limit of the same name, and `null` removes that. Owners cannot
   * write it.
   */
  limits?: LimitOverrides | null | undefined
}

/** Changes of a key, besides its permissions and its status. Fields that are left out stay. */
export type ApiKeyChanges<A extends App = AnyApp> = Partial<
  Omit<NewKeyFields<string>, 'permissions'>
> &
  If<A['resource'], NewBindings<A['resource']>>

/** A key in answers, results and events. Times become ISO 8601 text in JSON. */
export type ApiKeyRecord<A extends App = AnyApp> = RecordFields<A['permission']> & {
  owner: A['owner']
} & UserIdIn<A['owner']> &
  If<A['environment'], { environment: A['environment'] }> &
  If<
    A['resource'],
    {
      /** The ids of the resources to which the key is bound, by their types; `null` for a key that is not bound. */
      resources: Resources<A['resource']> | null
    }
  >

/** The fields of the record of a key in every app. */
export interface RecordFields<Permission extends string> {
  id: string
  name: string
  description: string | null
  /** The start of the plain-text key, by which people recognize it; empty if the source of an imported key does not know it. */
  prefix: string
  /** The end of the plain-text key, by which people recognize it. */
  postfix: string
  status: Status
  permissions: Permission[]
  /** The addresses and ranges (CIDR) from which the key works; `null` for all. */
  allowedIps: string[] | null
  metadata: Metadata
  /** Limits that this key has over the app's of the same names; `null` for the app's. */
  limits: LimitOverrides | null
  createdAt: Date
  updatedAt: Date
  lastUsedAt: Date | null
  /** The address of the client at the time of `lastUsedAt`; `null` if it is unknown. */
  lastUsedFrom: string | null
  expiresAt: Date | null
  /** True if `expiresAt` or `idleExpiresAt` was over when the record was read, by the clock of this process. */
  isExpired: boolean
  /** The time at which the key expires if it is not used until then. Keys of an app without `maxIdleDays` have no such member. */
  idleExpiresAt?: Date
  revokedAt: Date | null
  /** The secret before the current secret; `null` for none. */
  previousSecret: PreviousSecret | null
  /** The secret that replaces the current one at its first use; `null` for none. */
  pendingRotation: PendingRotation | null
  /** True if the owner is suspended, so that the key is refused whatever its status is. */
  ownerSuspended: boolean
  /** The id of the user or administrator who made the key; `null` if the app did. */
  createdBy: string | null
  /** The source from which the key was imported. Keys that the library made have no such member. */
  source?: string
  /** How the key was exposed, so that it is never reactivated. Keys of which nothing is known have no such member. */
  exposed?: Exposure
}

/** The first report that a key was exposed. */
export interface Exposure {
  at: Date
  /** The source of the report, for example `github:commit`; `plain_http` for a key that was sent over plain HTTP. */
  source: string
  /** The place at which the key was found; `null` if the report does not name it. */
  url: string | null
}

/** The secret that a rotation has replaced. */
export interface PreviousSecret {
  /** Its two ends, by which people recognize it. */
  prefix: string
  postfix: string
  /** The time from which on it no longer works. */
  worksUntil: Date
  /** The last use. If that is long ago, no program needs the secret any longer. */
  lastUsedAt: Date | null
}

/** A rotation that waits for the first use of its new secret. */
export interface PendingRotation {
  /** The two ends of the new secret. */
  prefix: string
  postfix: string
  /** How many seconds the current secret still works after that use. */
  gracePeriodSeconds: number
}

/** The last use of a key that may not be written yet, in milliseconds since 1970. */
export interface LastUse {
  atMs: number
  from: string | null
  /** The owner of the key at that time. */
  owner: Owner
  /** The last use of the secret before the current one; `null` if none is to be written. */
  previousAtMs: number | null
}

/** Makes the record of a key from a row of `keySql`. */
export function toRecord(
  row: ApiKeyRow,
  { idTypes, resources }: { idTypes: IdTypes; resources: ResourceTypes },
): ApiKeyRecord {
  const expiresAt = row.expiresAt === null ? null : readTime(row.expiresAt)

  return {
    id: row.id,
    name: row.name,
    description: row.description,
    prefix: shownPrefix(row.prefix),
    postfix: row.postfix,
    status: row.status,
    permissions: row.permissions,
    allowedIps: row.allowedIps,
    // The library has written both, in the form that is read here.
    metadata: row.metadata as Metadata,
    limits: row.limits as LimitOverrides | null,
    ...ownerMembers(readOwner(row, idTypes), idTypes),
    createdAt: readTime(row.createdAt),
    updatedAt: readTime(row.updatedAt),
    lastUsedAt: row.lastUsedAt === null ? null : readTime(row.lastUsedAt),
    lastUsedFrom: row.lastUsedFrom,
    expiresAt,
    isExpired: isExpired({ expiresAt }, Date.now()),
    revokedAt: row.revokedAt === null ? null : readTime(row.revokedAt),
    previousSecret: readPreviousSecret(row),
    pendingRotation: readPendingRotation(row),
    ownerSuspended: row.ownerSuspended,
    createdBy: row.createdBy,
    ...(row.exposed && { exposed: { ...row.exposed, at: new Date(row.exposed.at) } }),
    ...(row.source !== null && { source: row.source }),
    ...bindingMembers(row.resources, resources),
  }
}

/** Returns the members of a record that name the resources to which its key is bound. An app without resources has none. */
export function bindingMembers(resources: Resources | null, types: ResourceTypes): object {
  return types.size > 0 || resources !== null ? { resources } : {}
}

/** Returns the resources to which the key of a record is bound; `null` if there are none. */
export function resourcesOf(record: ApiKeyRecord): Resources | null {
  // The records of some apps have no such member.
  return (record as Partial<ApiKeyRecord<App>>).resources ?? null
}

/** Returns the members of a record that name its owner. There is a `userId` only if all keys are users'. */
export function ownerMembers(owner: Owner, idTypes: IdTypes): { owner: Owner } {
  return { owner, ...(isUsersOnly(idTypes) && { userId: owner.id }) }
}

function readPreviousSecret(row: ApiKeyRow): ApiKeyRecord['previousSecret'] {
  const { previousPrefix: prefix, previousPostfix: postfix, previousWorksUntil } = row
  if (prefix === null || postfix === null || previousWorksUntil === null) return null

  const { previousLastUsedAt } = row
  return {
    prefix: shownPrefix(prefix),
    postfix,
    worksUntil: readTime(previousWorksUntil),
    lastUsedAt: previousLastUsedAt === null ? null : readTime(previousLastUsedAt),
  }
}

function readPendingRotation(row: ApiKeyRow): ApiKeyRecord['pendingRotation'] {
  const { pendingPrefix: prefix, pendingPostfix: postfix, pendingGraceSeconds } = row
  if (prefix === null || postfix === null || pendingGraceSeconds === null) return null
  return { prefix, postfix, gracePeriodSeconds: pendingGraceSeconds }
}

/** Returns a record with a use that is not written yet. */
export function withLastUse(record: ApiKeyRecord, use: LastUse | undefined): ApiKeyRecord {
  if (!use) return record

  const used = { ...record }
  if (isLater(use.atMs, record.lastUsedAt)) {
    used.lastUsedAt = new Date(use.atMs)
    used.lastUsedFrom = isSameOwner(use.owner, record.owner) ? use.from : null
  }
  const { previousSecret: previous } = record
  if (previous && use.previousAtMs !== null && isLater(use.previousAtMs, previous.lastUsedAt)) {
    used.previousSecret = { ...previous, lastUsedAt: new Date(use.previousAtMs) }
  }
  return used
}

/** Returns a record with the time at which the key expires if it is not used. */
export function withIdleExpiry(
  record: ApiKeyRecord,
  renewedAt: Date | null,
  { idleMs }: { idleMs: number },
): ApiKeyRecord {
  if (idleMs === Infinity) return withExpiry(record)

  const { createdAt, lastUsedAt, previousSecret } = record
  const signs = [createdAt, lastUsedAt, previousSecret?.lastUsedAt, renewedAt]
  const since = Math.max(...signs.map((time) => time?.getTime() ?? -Infinity))
  return withExpiry({ ...record, idleExpiresAt: new Date(since + idleMs) })
}

/** Returns a record that says if its times are over. */
export function withExpiry(record: ApiKeyRecord): ApiKeyRecord {
  const now = Date.now()
  return { ...record, isExpired: isExpired(record, now) || isIdle(record, now) }
}

function isLater(atMs: number, written: Date | null): boolean {
  return atMs > (written?.getTime() ?? -Infinity)
}

/** Returns the owner of a row. */
export function readOwner(
  { userId, organizationId, service }: Pick<ApiKeyRow, 'userId' | 'organizationId' | 'service'>,
  idTypes: IdTypes,
): Owner {
  if (userId !== null) return toOwner('user', userId, idTypes)
  if (organizationId !== null) return toOwner('organization', organizationId, idTypes)
  return toOwner('service', service ?? '', idTypes)
}

/** Returns an owner by the text of its id. If the app no longer has organizations, the ids of its keys' organizations are text. */
export function toOwner(type: OwnerType, id: string, { user, organization }: IdTypes): Owner {
  if (type === 'service') return { type, id }
  return { type, id: readUserId(id, type === 'user' ? user : (organization ?? 'text')) }
}

/** Returns a user's id by its type. The audit trail may have ids that are no numbers, from before the type was changed. */
export function readUserId(value: unknown, type: UserIdType): string | number {
  const number = type === 'integer' ? Number(value) : NaN
  return Number.isNaN(number) ? String(value) : number
}

/** Returns a time. An infinite time becomes an invalid date, which is `null` in JSON. */
export function readTime(time: Time): Date {
  return new Date(Number(time))
}
