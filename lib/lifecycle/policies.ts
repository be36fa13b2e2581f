import type { Transaction } from 'sequelize'

import { ownerLockSql } from '../../migrations/create-function'
import { isOfPrefixes, timeOfParameter } from '../../models/api-key'
import { qualify, quote } from '../../models/names'
import { ownerColumns } from '../../models/owner'
import { run, select } from '../database/query'
import { ApiKeysError, InvalidInputError, type InputFault } from '../errors'
import type { Environment } from '../keys/environments'
import { readGranted } from '../keys/grantable'
import type { NewKey } from '../keys/input'
import type { LimitOverrides } from '../keys/limits'
import { faultOfSize, isSame, type Metadata } from '../keys/metadata'
import { ownerRow, type Owner } from '../keys/owner'
import type { PermissionSet } from '../keys/permissions'
import { pointerTo } from '../keys/parse-input'
import type { Actor, ApiKeyRecord } from '../keys/record'
import { readMayBind, type Resources } from '../keys/resources'
import type { Circumstances, Parts } from './calls'
import type { ReadKey } from './key-changes'
import { count, isOf } from './store'

// The table of which action a status allows is in keys/states.ts. The default grace of a rotation is in keys/input.ts.

const forAdministrators = 'is for administrators to write'

/** Refuses a new key that the policies of the app do not allow. */
export async function refuseNewKey(
  parts: Parts,
  { owner, permissions, resources, metadata = {}, limits = null, expiresAt = null }: NewKey,
  { actor, transaction, mayGive }: Circumstances,
) {
  refuseReserved(parts, metadata, actor)
  refuseOwnLimits(limits, null, actor)
  refuseTooLate(parts, expiresAt, Date.now())
  refuseBeyond(parts, permissions, mayGive)
  await refuseUngrantable(parts, owner, permissions, transaction)
  await refuseUnbindable(parts, owner, resources ?? null, null, transaction)
}

/** Refuses metadata of an owner that has reserved names. Administrators and the app write those members, and owners read them. */
export function refuseReserved(
  { reservedMetadata }: Parts,
  metadata: Metadata,
  actor: Actor | undefined,
) {
  if (actor?.type !== 'user') return

  refuse(
    reservedMetadata
      .filter((name) => Object.hasOwn(metadata, name))
      .map((name) => ({ pointer: pointerTo(['metadata', name]), message: forAdministrators })),
  )
}

/** Returns the metadata that a change writes. If an owner makes the change, all reserved names stay as they are. */
export function withReserved(
  parts: Parts,
  metadata: Metadata,
  key: ApiKeyRecord,
  actor: Actor | undefined,
): Metadata {
  if (actor?.type !== 'user') return metadata

  const isReserved = (name: string) => parts.reservedMetadata.includes(name)
  const kept = Object.entries(key.metadata).filter(([name]) => isReserved(name))
  const own = Object.entries(metadata).filter(
    ([name, value]) => !isReserved(name) || !isSame(value, key.metadata[name]),
  )
  refuseReserved(parts, Object.fromEntries(own), actor)
  const whole = Object.fromEntries([...kept, ...own])
  const fault = faultOfSize(whole)
  if (fault) refuse([{ pointer: '#/metadata', message: `${fault}, with what is reserved` }])
  return whole
}

/** Refuses limits of an owner that differ from the limits before. */
export function refuseOwnLimits(
  limits: LimitOverrides | null | undefined,
  before: LimitOverrides | null,
  actor: Actor | undefined,
) {
  if (actor?.type !== 'user' || limits === undefined || isSame(limits, before)) return

  refuse([{ pointer: '#/limits', message: forAdministrators }])
}

/** Refuses a key without an expiry, or with an expiry that is more than `maxLifetimeSeconds` after its creation. */
export function refuseTooLate(
  { maxLifetimeSeconds }: Parts,
  expiresAt: Date | null,
  createdAt: number,
) {
  if (maxLifetimeSeconds === Infinity) return

  const latest = new Date(createdAt + maxLifetimeSeconds * 1000)
  if (expiresAt !== null && expiresAt <= latest) return
  const message =
    expiresAt === null ? 'is required here' : `must not be later than ${latest.toISOString()}`
  refuse([{ pointer: '#/expiresAt', message }])
}

/**
 * Refuses permissions that the owner may not give. If the caller has a transaction, the app reads within it, because the
 * transaction may hold the last connection of the pool.
 */
export async function refuseUngrantable(
  parts: Parts,
  owner: Owner,
  permissions: readonly string[],
  transaction: Transaction | undefined,
) {
  const {
    grantable,
    permissions: { heldBy },
  } = parts
  if (!grantable) return

  const granted = heldBy(readGranted(await grantable(owner, { transaction })))
  refuseOthers(parts, permissions, granted, `may not be granted by this ${owner.type}`)
}

/** Refuses permissions that the caller may not give, if the caller may give fewer than the owner. */
export function refuseBeyond(
  parts: Pick<Parts, 'permissions'>,
  permissions: readonly string[],
  mayGive: readonly string[] | undefined,
) {
  if (!mayGive) return
  refuseOthers(parts, permissions, parts.permissions.heldBy(mayGive), 'may not be granted by you')
}

/**
 * Refuses a change of a key that may do more than the caller may give, because the caller may know its secret, or get it by the change. Names
 * that the app does not know count as more: in another process, they may be permissions.
 */
export function refuseKeyBeyond(
  { permissions: { heldBy, known } }: Pick<Parts, 'permissions'>,
  { permissions: stored }: Pick<ReadKey, 'permissions'>,
  mayGive: readonly string[] | undefined,
) {
  if (!mayGive) return
  const held = heldBy(mayGive)
  const isWithin = heldBy(stored).names.every((name) => held.has(name))
  if (!isWithin || !stored.every((name) => known.includes(name))) {
    throw new ApiKeysError('exceeds_access')
  }
}

function refuseOthers(
  { permissions: { nameOf } }: Pick<Parts, 'permissions'>,
  permissions: readonly string[],
  held: PermissionSet,
  message: string,
) {
  refuse(
    permissions.flatMap((permission, index) => {
      const name = nameOf(permission)
      const isHeld = name === undefined || held.has(name)
      return isHeld ? [] : [{ pointer: pointerTo(['permissions', index]), message }]
    }),
  )
}

/**
 * Refuses resources that the app does not let the owner bind. It is asked about the ids that the key does not have yet, so that an owner who
 * has lost a resource can still narrow a key.
 */
export async function refuseUnbindable(
  { resources: types }: Pick<Parts, 'resources'>,
  owner: Owner,
  wanted: Resources | null,
  before: Resources | null,
  transaction: Transaction | undefined,
) {
  const faults = await Promise.all(
    [...types].map(async ([type, mayBind]) => {
      const had = before?.[type] ?? []
      const ids = (wanted?.[type] ?? []).filter((id) => !had.includes(id))
      if (mayBind === true || ids.length === 0) return []
      const isAllowed = readMayBind(type, await mayBind(ids, owner, { transaction }))
      return isAllowed ? [] : [{ pointer: pointerTo(['resources', type]), message: notBindable }]
    }),
  )
  refuse(faults.flat())
}

const notBindable = 'may not be bound by this owner'

function refuse(faults: readonly InputFault[]) {
  if (faults.length > 0) throw new InvalidInputError(faults)
}

/**
 * Locks an owner until the transaction ends, so that one transaction at a time can change how many keys the owner has. It comes
 * before any lock on a row. It is an advisory lock, because the owner's row is the app's to lock.
 */
export async function lockOwner(
  { sequelize, tables }: Parts,
  owner: Owner,
  transaction: Transaction,
) {
  await run(
    sequelize,
    `SELECT pg_advisory_xact_lock(${ownerLockSql(tables, 'key')})
       FROM pg_catalog.json_populate_record(NULL::${tables.keys}, $1::json) AS key`,
    { bind: [JSON.stringify(ownerRow(owner))], transaction },
  )
}

/**
 * Locks the row of an owner in the app's table until the transaction ends. It comes before all other locks, because a deletion of the
 * owner takes that lock first, too. Otherwise each could wait for the other. A role that may not lock the row does without.
 */
export async function lockOwnerRow(
  { sequelize, tables, storage }: Parts,
  owner: Owner,
  transaction: Transaction,
) {
  const { users, organizations } = storage
  const { reference } =
    { user: users, organization: organizations, service: undefined }[owner.type] ?? {}
  if (!reference) return
  const { schema, table, column } = reference
  const owners = qualify(schema, table)
  const [right] = await select<{ mayLock: string }>(
    sequelize,
    `SELECT (has_any_column_privilege(owners.oid, 'SELECT') AND has_any_column_privilege(owners.oid, 'UPDATE'))::text AS "mayLock"
       FROM pg_catalog.pg_class AS owners WHERE owners.oid = to_regclass($1)`,
    { bind: [owners], transaction },
  )
  if (right?.mayLock !== 'true') return

  await run(
    sequelize,
    `SELECT FROM ${owners} AS owner
       JOIN pg_catalog.json_populate_record(NULL::${tables.keys}, $1::json) AS key ON owner.${quote(column)} = key.${ownerColumns[owner.type]}
        FOR KEY SHARE OF owner`,
    { bind: [JSON.stringify(ownerRow(owner))], transaction },
  )
}

/** Refuses one more key of an environment for an owner who is locked. The clock of verification decides which keys have expired. */
export async function refuseTooManyKeys(
  parts: Parts,
  owner: Owner,
  environment: Environment | undefined,
  transaction: Transaction,
) {
  const most = parts.maxKeysPerOwner[owner.type]
  if (most === Infinity) return
  const keys = await countLivingKeys(parts, owner, environment, transaction)
  if (keys >= most) throw new ApiKeysError('too_many_api_keys')
}

/** Returns how many keys of an environment an owner has that are neither revoked nor expired. */
export async function countLivingKeys(
  parts: Parts,
  owner: Owner,
  environment: Environment | undefined,
  transaction: Transaction,
): Promise<number> {
  const { keyPrefixes } = environment ?? parts.environments
  const living = {
    where: `${isOfPrefixes('key', keyPrefixes)} AND ${isOf(owner, 1)} AND key.status <> 'REVOKED'
            AND (key.expires_at IS NULL OR key.expires_at > ${timeOfParameter(2)})`,
    bind: [owner.id, Date.now()],
  }
  return count(parts, living, { transaction })
}
