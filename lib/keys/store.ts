import { randomUUID } from 'node:crypto'

import {
  ForeignKeyConstraintError,
  literal,
  Op,
  Transaction,
  type Sequelize,
  type WhereOptions,
} from 'sequelize'
import { z } from 'zod'

import type { ApiKeyModel, ApiKeyRow, Status } from '../../models/api-key'
import type { UserIdType } from '../../models/storage-options'
import { ApiKeysError, InvalidInputError, type InputFault } from '../errors'
import { isSame, type Actor, type Audit, type ChangeAction } from './audit'
import type { AuditChain } from './audit-chain'
import { formatKeyCursor, type KeyPosition } from './cursor'
import { afterCommit } from './database'
import type { Emitter } from './emitter'
import { readGranted, type Grantable } from './grantable'
import type { LimitOverrides } from './limits'
import { maxMetadataBytes, sizeOf, type Metadata } from './metadata'
import { recordAttributes, toRecord, type ApiKeyRecord } from './record'
import { pointerTo } from './rules'
import type { SecretFormat } from './secret'
import { isChangeable, isExpired, nextStatus, type Transition } from './states'

interface Scope {
  userId?: string | number | undefined
  transaction?: Transaction | undefined
}

interface Circumstances extends Scope {
  actor?: Actor | undefined
  address?: string | undefined
  reason?: string | undefined
}

interface KeyInput {
  userId: string | number
  name: string
  description?: string | null | undefined
  permissions: string[]
  expiresAt?: Date | null | undefined
  allowedIps?: string[] | null | undefined
  metadata?: Metadata | undefined
  limits?: LimitOverrides | null | undefined
}

interface KeyChanges {
  name?: string | undefined
  description?: string | null | undefined
  expiresAt?: Date | null | undefined
  allowedIps?: string[] | null | undefined
  metadata?: Metadata | undefined
  limits?: LimitOverrides | null | undefined
}

interface KeyFilter {
  userId?: string | number | undefined
  status?: Status | undefined
  permission?: string | undefined
  text?: string | undefined
  cursor?: KeyPosition | undefined
  limit: number
}

interface UnusedKeys {
  unusedForDays: number
  userId?: string | number | undefined
  dryRun: boolean
}

interface OldKeys {
  olderThanDays: number
  dryRun: boolean
}

/** How many keys are worked on in one transaction where there may be any number. */
const batchSize = 1_000

export type Store = ReturnType<typeof createStore>

interface StoreParts {
  sequelize: Sequelize
  ApiKey: ApiKeyModel
  userIdType: UserIdType
  /** The qualified, quoted name of the table of keys. */
  table: string
  /** That of the table of retired secrets. */
  retiredTable: string
  audit: Audit
  emitter: Pick<Emitter, 'committed'>
  chain: AuditChain
  format: SecretFormat
  maxKeysPerUser: number
  /** Counted from the creation of a key. */
  maxLifetimeSeconds: number
  /** Names in the metadata of keys that owners may not write. */
  reservedMetadata: readonly string[]
  grantable: Grantable | undefined
  /** How long after a use that is not told of yet `lastUsedAt` may say that there was none. */
  lastUsedResolutionMs: number
  /** The setting under which keys are deleted whose entries are written here. */
  deleting: string
  /** The last use of a key that may not be written yet: when, in milliseconds since 1970, and from where. */
  lastUseOf(id: string): { atMs: number; from: string | null } | undefined
}

const uuid = z.guid()

/** The database's clock, which all processes share, at the moment of the change. */
const clock = literal('clock_timestamp()')

/** One for each row, so that each entry of the audit trail has one of its own. */
const newRef = literal('gen_random_uuid()')

/**
 * The order of a search. Postgres takes the start of any word for one in 50 keys, and would walk the index on the time
 * in the hope of a full page soon: through all keys, where few have the word.
 */
const unindexedTime = literal(`"created_at" + interval '0'`)

/** A key that lives counts towards `maxKeysPerUser`. Whether it has expired goes by the clock that verification has. */
function isLiving(now: number) {
  return {
    status: { [Op.ne]: 'REVOKED' },
    expiresAt: { [Op.or]: [null, { [Op.gt]: new Date(now) }] },
  }
}

/** The life of a key: how it is made, found and changed, and how all of them are kept tidy. */
export function createStore(parts: StoreParts) {
  const { sequelize, ApiKey, userIdType, table, retiredTable, format, lastUseOf } = parts
  const { audit, chain, emitter, deleting, lastUsedResolutionMs } = parts
  const { maxKeysPerUser, maxLifetimeSeconds, reservedMetadata, grantable } = parts

  async function create(input: KeyInput, options: Omit<Circumstances, 'userId'> = {}) {
    const { userId, name, description = null, permissions, expiresAt = null } = input
    const { allowedIps = null, metadata = {}, limits = null } = input
    refuseReserved(metadata, options.actor)
    refuseOwnLimits(limits, { before: null, actor: options.actor })
    refuseTooLate(expiresAt, Date.now())
    await refuseUngrantable(userId, permissions)
    const { plainTextKey, ...secret } = format.mint()

    const apiKey = await inTransaction(options.transaction, async (transaction) => {
      await lockUser(userId, transaction)
      await refuseOneTooMany(userId, transaction)
      const values = {
        userId,
        name,
        description,
        permissions,
        expiresAt,
        allowedIps,
        metadata,
        limits,
        ...secret,
        id: randomUUID(),
        eventRef: randomUUID(),
      }
      const row = await ApiKey.create(values, { transaction }).catch(explainUnknownUser)

      const created = recordOf(row.get({ plain: true }))
      const entry = {
        action: 'created',
        before: null,
        after: created,
        ref: values.eventRef,
      } as const
      await audit.record([entry], { ...options, transaction })
      return created
    })
    return { apiKey, plainTextKey }
  }

  async function get(id: string, { userId, transaction }: Scope = {}) {
    const row = await ApiKey.findOne({
      where: identify(id, userId),
      attributes: [...recordAttributes],
      raw: true,
      transaction: transaction ?? null,
      useMaster: true,
    })
    if (!row) throw new ApiKeysError('api_key_not_found')
    return recordOf(row)
  }

  async function list(filter: KeyFilter, { transaction }: Scope = {}) {
    const { limit } = filter
    const rows = await ApiKey.findAll({
      where: { [Op.and]: conditions(filter) },
      replacements: {
        text: filter.text && toPrefixQuery(filter.text),
        createdAt: filter.cursor?.createdAt.toISOString(),
        id: filter.cursor?.id,
      },
      attributes: [...recordAttributes],
      order: [
        [filter.text ? unindexedTime : 'createdAt', 'DESC'],
        ['id', 'DESC'],
      ],
      limit: limit + 1,
      raw: true,
      transaction: transaction ?? null,
      useMaster: true,
    })

    const apiKeys = rows.slice(0, limit).map((row) => recordOf(row))
    const last = rows.length > limit ? apiKeys.at(-1) : undefined
    return { apiKeys, nextCursor: last ? formatKeyCursor(last) : null }
  }

  async function update(id: string, changes: KeyChanges, options: Circumstances = {}) {
    return inTransaction(options.transaction, async (transaction) => {
      const mayRevive = changes.expiresAt !== undefined && maxKeysPerUser !== Infinity
      if (mayRevive) {
        const { userId } = await get(id, { ...options, transaction })
        await lockUser(userId, transaction)
      }

      return change(id, { ...options, transaction }, async (key) => {
        if (!isChangeable(key.status)) throw new ApiKeysError('api_key_revoked')
        const isNews = !isSame(changes.expiresAt, key.expiresAt)
        if (changes.expiresAt !== undefined && isNews) {
          refuseTooLate(changes.expiresAt, key.createdAt.getTime())
        }
        if (mayRevive && isExpired(key, Date.now())) await refuseOneTooMany(key.userId, transaction)

        refuseOwnLimits(changes.limits, { before: key.limits, actor: options.actor })
        const metadata = changes.metadata && withReserved(changes.metadata, key, options.actor)
        return { action: 'updated', changes: { ...changes, metadata } }
      })
    })
  }

  async function setPermissions(id: string, permissions: string[], options: Circumstances = {}) {
    if (grantable) {
      const { userId } = await get(id, options)
      await refuseUngrantable(userId, permissions)
    }

    return change(id, options, (key) => {
      if (!isChangeable(key.status)) throw new ApiKeysError('api_key_revoked')

      const isSameSet = isSame(key.permissions.toSorted(), permissions.toSorted())
      return { action: 'permissions_changed', changes: isSameSet ? {} : { permissions } }
    })
  }

  async function transit(transition: Transition, id: string, options: Circumstances) {
    return change(id, options, (key) => transitionOf(transition, key))
  }

  /**
   * Gives a key a new secret. The one before works on for a while, and the one before that no more. In one statement, as a
   * hash may not be both current and retired.
   */
  async function rotate(id: string, gracePeriodSeconds: number, options: Circumstances = {}) {
    const { plainTextKey, hash, secretId, prefix, postfix } = format.mint()

    const apiKey = await inTransaction(options.transaction, async (transaction) => {
      const before = await lock(id, options.userId, transaction)
      const ref = randomUUID()
      if (before.status === 'SUSPENDED') throw new ApiKeysError('api_key_suspended')
      if (!isChangeable(before.status)) throw new ApiKeysError('api_key_revoked')

      await sequelize.query(
        `WITH retired AS (
           INSERT INTO ${retiredTable} (hash, api_key_id) SELECT hash, id FROM ${table} WHERE id = $1
         )
         UPDATE ${table} AS key
            SET hash = $2, secret_id = $3, prefix = $4, postfix = $5, event_ref = $7, updated_at = clock_timestamp(),
                (previous_hash, previous_secret_id, previous_prefix, previous_postfix, previous_works_until) = (
                  SELECT key.hash, key.secret_id, key.prefix, key.postfix,
                         clock_timestamp() + $6::float8 * interval '1 second'
                   WHERE $6::float8 > 0
                )
          WHERE key.id = $1`,
        { bind: [id, hash, secretId, prefix, postfix, gracePeriodSeconds, ref], transaction },
      )
      const after = await get(id, { transaction })
      await audit.record([{ action: 'rotated', before, after, ref }], { ...options, transaction })
      return after
    })
    return { apiKey, plainTextKey }
  }

  /** Has the secret before the current one work no more. */
  async function endRotation(id: string, options: Circumstances = {}) {
    return change(id, options, (key) => {
      if (!isChangeable(key.status)) throw new ApiKeysError('api_key_revoked')

      return { action: 'rotation_ended', changes: key.previousSecret ? withoutPrevious : {} }
    })
  }

  /** Revokes every key of a user at once and returns how many there were to revoke. */
  async function revokeAll(userId: string | number, options: Omit<Circumstances, 'userId'> = {}) {
    return inTransaction(options.transaction, async (transaction) => {
      await lockUser(userId, transaction)
      const keys = await lockMany({ userId, status: { [Op.ne]: 'REVOKED' } }, { transaction })
      await revokeMany(keys, { ...options, transaction })
      return keys.length
    })
  }

  /** Returns how many keys of a user there are to revoke. */
  async function countRevocable(userId: string | number, { transaction }: Scope = {}) {
    return count({ userId, status: { [Op.ne]: 'REVOKED' } }, transaction)
  }

  /**
   * Revokes the keys, of one user or all, that nobody has used for so many days, and returns how many there were. A batch at
   * a time, so that nobody waits for all of them.
   */
  async function revokeUnused(
    { unusedForDays, userId, dryRun }: UnusedKeys,
    options: Circumstances,
  ) {
    const where = {
      ...(userId !== undefined && { userId }),
      status: { [Op.ne]: 'REVOKED' as const },
      // A key that is in use may not be written down yet as that.
      [Op.and]: [
        literal(
          `coalesce("last_used_at", "created_at") < clock_timestamp()` +
            ` - interval '${unusedForDays} days' - interval '${lastUsedResolutionMs} milliseconds'`,
        ),
      ],
    }
    return dryRun
      ? count(where)
      : inBatches(where, (keys, own) => revokeMany(keys, { ...options, ...own }))
  }

  /** Deletes the keys that were revoked so many days ago, and returns how many there were. What the trail says stays. */
  async function pruneRevoked({ olderThanDays, dryRun }: OldKeys, options: Circumstances) {
    const since = literal(`clock_timestamp() - interval '${olderThanDays} days'`)
    const where = { status: 'REVOKED' as const, revokedAt: { [Op.lt]: since } }
    return dryRun
      ? count(where)
      : inBatches(where, (keys, own) => deleteMany(keys, { ...options, ...own }))
  }

  async function count(where: WhereOptions<ApiKeyRow>, transaction?: Transaction) {
    // The types know of no such option here.
    const options = { where, transaction: transaction ?? null, useMaster: true }
    return ApiKey.count(options)
  }

  /** Has all keys that are such worked on, a batch in a transaction of its own, and returns how many there were. */
  async function inBatches(
    where: WhereOptions<ApiKeyRow>,
    work: (keys: ApiKeyRecord[], own: { transaction: Transaction }) => Promise<void>,
  ): Promise<number> {
    let last: string | undefined
    for (let total = 0; ;) {
      const keys = await inTransaction(undefined, async (transaction) => {
        const next = last === undefined ? where : { [Op.and]: [where, { id: { [Op.gt]: last } }] }
        const batch = await lockMany(next, { transaction, limit: batchSize })
        await work(batch, { transaction })
        return batch
      })
      total += keys.length
      last = keys.at(-1)?.id
      if (keys.length < batchSize) return total
    }
  }

  /** In the order of their ids, so that two who lock many do not wait for each other. */
  async function lockMany(
    where: WhereOptions<ApiKeyRow>,
    { transaction, limit }: { transaction: Transaction; limit?: number },
  ): Promise<ApiKeyRecord[]> {
    const rows = await ApiKey.findAll({
      where,
      attributes: [...recordAttributes],
      order: [['id', 'ASC']],
      ...(limit !== undefined && { limit }),
      raw: true,
      lock: Transaction.LOCK.NO_KEY_UPDATE,
      transaction,
    })
    return rows.map(recordOf)
  }

  async function revokeMany(
    keys: readonly ApiKeyRecord[],
    options: Circumstances & { transaction: Transaction },
  ) {
    if (keys.length === 0) return

    const { transaction } = options
    const before = new Map(keys.map((key) => [key.id, key]))
    const [, after] = await ApiKey.update(
      { status: 'REVOKED', revokedAt: clock, updatedAt: clock, eventRef: newRef },
      { where: { id: [...before.keys()] }, returning: true, transaction },
    )
    const changes = after.map((row) => {
      const values = row.get({ plain: true })
      const revoked = recordOf(values)
      return {
        action: 'revoked' as const,
        before: before.get(revoked.id) ?? null,
        after: revoked,
        ref: String(values.eventRef),
      }
    })
    await audit.record(changes, options)
  }

  async function deleteMany(
    keys: readonly ApiKeyRecord[],
    options: Circumstances & { transaction: Transaction },
  ) {
    if (keys.length === 0) return

    const { transaction } = options
    // Else a trigger would write that the database did it.
    await sequelize.query(`SELECT set_config($1, pg_current_xact_id()::text, true)`, {
      bind: [deleting],
      transaction,
    })
    await ApiKey.destroy({ where: { id: keys.map(({ id }) => id) }, transaction })
    const changes = keys.map((key) => ({
      action: 'deleted' as const,
      before: key,
      after: null,
      ref: randomUUID(),
    }))
    await audit.record(changes, options)
  }

  /** Locks the key, lets `decide` say what becomes of it, and writes that down twice: in its row, then in the audit. */
  async function change(
    id: string,
    options: Circumstances,
    decide: (key: ApiKeyRecord) => Decision | Promise<Decision>,
  ): Promise<ApiKeyRecord> {
    return inTransaction(options.transaction, async (transaction) => {
      const before = await lock(id, options.userId, transaction)
      const { action, changes } = await decide(before)
      const news = newsIn(changes, before)
      if (Object.keys(news).length === 0) return before

      const ref = randomUUID()
      const [, [changed]] = await ApiKey.update(
        {
          ...news,
          ...(news.status === 'REVOKED' && { revokedAt: clock }),
          updatedAt: clock,
          eventRef: ref,
        },
        { where: { id }, returning: true, transaction },
      )
      if (!changed) throw new ApiKeysError('api_key_not_found')
      const after = recordOf(changed.get({ plain: true }))
      await audit.record([{ action, before, after, ref }], { ...options, transaction })
      return after
    })
  }

  async function lock(
    id: string,
    userId: string | number | undefined,
    transaction: Transaction,
  ): Promise<ApiKeyRecord> {
    const row = await ApiKey.findOne({
      where: identify(id, userId),
      attributes: [...recordAttributes],
      raw: true,
      lock: Transaction.LOCK.NO_KEY_UPDATE,
      transaction,
    })
    if (!row) throw new ApiKeysError('api_key_not_found')
    return recordOf(row)
  }

  /** With `raw`, which spares it the making of instances, Sequelize returns rows that its types still call instances. */
  function recordOf(row: object): ApiKeyRecord {
    const record = toRecord(row as ApiKeyRow, userIdType)
    const lastUse = lastUseOf(record.id)
    const isNews = lastUse && lastUse.atMs > (record.lastUsedAt?.getTime() ?? -Infinity)
    return isNews
      ? { ...record, lastUsedAt: new Date(lastUse.atMs), lastUsedFrom: lastUse.from }
      : record
  }

  /**
   * Works in the transaction of the caller or else in one of our own, and has what happened told of when it commits. What is
   * written in the caller's is sealed later: others would wait for it to end.
   */
  async function inTransaction<Result>(
    transaction: Transaction | undefined,
    work: (transaction: Transaction) => Promise<Result>,
  ): Promise<Result> {
    if (transaction) {
      const result = await work(transaction)
      afterCommit(transaction, () => emitter.committed(transaction))
      return result
    }

    const [result, own] = await sequelize.transaction(async (own) => {
      const result = await work(own)
      if (audit.hasWritten(own)) await chain.seal(own)
      return [result, own] as const
    })
    emitter.committed(own)
    return result
  }

  /**
   * Has everything wait that changes how many keys a user has, until the transaction ends. Taken before any row is
   * locked. It is a lock of our own, as a user's row is the app's to lock.
   */
  async function lockUser(userId: string | number, transaction: Transaction) {
    await sequelize.query('SELECT pg_advisory_xact_lock(hashtextextended($1, 0))', {
      bind: [`express-api-keys ${table} ${userId}`],
      transaction,
    })
  }

  /** Counts the living keys of a user, under the user's lock. */
  async function refuseOneTooMany(userId: string | number, transaction: Transaction) {
    if (maxKeysPerUser === Infinity) return

    const count = await ApiKey.count({ where: { userId, ...isLiving(Date.now()) }, transaction })
    if (count >= maxKeysPerUser) throw new ApiKeysError('too_many_api_keys')
  }

  function refuseTooLate(expiresAt: Date | null, createdAt: number) {
    if (maxLifetimeSeconds === Infinity) return

    const latest = new Date(createdAt + maxLifetimeSeconds * 1000)
    if (expiresAt !== null && expiresAt <= latest) return
    const message =
      expiresAt === null ? 'is required here' : `must not be later than ${latest.toISOString()}`
    throw new InvalidInputError([{ pointer: pointerTo(['expiresAt']), message }])
  }

  /** Owners read what is reserved, and others write it. */
  function refuseReserved(metadata: Metadata, actor: Actor | undefined) {
    if (actor?.type !== 'user') return

    const faults = reservedMetadata
      .filter((name) => Object.hasOwn(metadata, name))
      .map((name) => ({
        pointer: pointerTo(['metadata', name]),
        message: 'is for administrators to write',
      }))
    if (faults.length > 0) throw new InvalidInputError(faults)
  }

  /** What an owner writes replaces everything but what is reserved. */
  function withReserved(metadata: Metadata, key: ApiKeyRecord, actor: Actor | undefined): Metadata {
    if (actor?.type !== 'user') return metadata

    const kept = Object.entries(key.metadata).filter(([name]) => reservedMetadata.includes(name))
    const own = Object.entries(metadata).filter(
      ([name, value]) => !reservedMetadata.includes(name) || !isSame(value, key.metadata[name]),
    )
    refuseReserved(Object.fromEntries(own), actor)
    const whole = Object.fromEntries([...kept, ...own])
    if (sizeOf(whole) <= maxMetadataBytes) return whole

    const message = `must have at most ${maxMetadataBytes} bytes as JSON, with what is reserved`
    throw new InvalidInputError([{ pointer: pointerTo(['metadata']), message }])
  }

  async function refuseUngrantable(userId: string | number, permissions: readonly string[]) {
    if (!grantable) return

    const granted = readGranted(await grantable(userId))
    const faults = permissions.flatMap((permission, index): InputFault[] => {
      if (granted.includes(permission)) return []
      return [
        { pointer: pointerTo(['permissions', index]), message: 'may not be granted by this user' },
      ]
    })
    if (faults.length > 0) throw new InvalidInputError(faults)
  }

  return {
    create,
    get,
    list,
    update,
    setPermissions,
    transit,
    rotate,
    endRotation,
    revokeAll,
    countRevocable,
    revokeUnused,
    pruneRevoked,
  }
}

/** How often a key may be used is not for its owner to say. */
function refuseOwnLimits(
  limits: LimitOverrides | null | undefined,
  { before, actor }: { before: LimitOverrides | null; actor: Actor | undefined },
) {
  if (actor?.type !== 'user' || limits === undefined || isSame(limits, before)) return

  const message = 'is for administrators to write'
  throw new InvalidInputError([{ pointer: pointerTo(['limits']), message }])
}

type Changes = Partial<
  Pick<
    ApiKeyRecord,
    | 'name'
    | 'description'
    | 'permissions'
    | 'expiresAt'
    | 'status'
    | 'allowedIps'
    | 'metadata'
    | 'limits'
  > &
    typeof withoutPrevious
>

const withoutPrevious = {
  previousHash: null,
  previousSecretId: null,
  previousPrefix: null,
  previousPostfix: null,
  previousWorksUntil: null,
}

interface Decision {
  action: ChangeAction
  changes: { [Name in keyof Changes]: Changes[Name] | undefined }
}

const transitionActions = {
  suspend: 'suspended',
  reactivate: 'reactivated',
  revoke: 'revoked',
} as const satisfies Record<Transition, ChangeAction>

function transitionOf(transition: Transition, key: ApiKeyRecord): Decision {
  const status = nextStatus(transition, key.status)
  if (status === null) throw new ApiKeysError('api_key_revoked')

  return { action: transitionActions[transition], changes: { status } }
}

/** Leaves out what is undefined or as it was. */
function newsIn(changes: Decision['changes'], key: ApiKeyRecord): Changes {
  return Object.fromEntries(
    Object.entries(changes).filter(
      ([name, value]) => value !== undefined && !isSame(value, key[name as keyof ApiKeyRecord]),
    ),
  )
}

/** An id that is no UUID names no key, like one that nobody has: the database would call it an error. */
function identify(id: string, userId: string | number | undefined): WhereOptions<ApiKeyRow> {
  if (!uuid.safeParse(id).success) throw new ApiKeysError('api_key_not_found')

  return { id, ...(userId !== undefined && { userId }) }
}

function conditions({ userId, status, permission, text, cursor }: KeyFilter) {
  const all: WhereOptions<ApiKeyRow>[] = []

  if (userId !== undefined) all.push({ userId })
  if (status) all.push({ status })
  if (permission) all.push({ permissions: { [Op.contains]: [permission] } })
  if (text) {
    all.push(
      literal(
        `to_tsvector('pg_catalog.simple', "name" || ' ' || coalesce("description", ''))` +
          ` @@ to_tsquery('pg_catalog.simple', :text)`,
      ),
    )
  }
  if (cursor) all.push(literal('("created_at", "id") < (:createdAt::timestamptz, :id::uuid)'))
  return all
}

/** Asks for all of the words, each as the start of one. */
function toPrefixQuery(text: string): string {
  return text
    .split(/\s+/)
    .map((word) => `'${word.replaceAll('\\', '\\\\').replaceAll("'", "''")}':*`)
    .join(' & ')
}

function explainUnknownUser(error: unknown): never {
  if (!(error instanceof ForeignKeyConstraintError)) throw error

  throw new InvalidInputError([{ pointer: pointerTo(['userId']), message: 'is not a user' }], {
    cause: error,
  })
}
