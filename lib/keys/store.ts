import { randomUUID } from 'node:crypto'

import {
  ForeignKeyConstraintError,
  literal,
  type Model,
  Op,
  QueryTypes,
  Transaction,
  type Sequelize,
  type WhereOptions,
} from 'sequelize'
import { z } from 'zod'

import type { ApiKeyModel, ApiKeyRow, NewApiKeyRow, Status } from '../../models/api-key'
import type { EventAction } from '../../models/api-key-event'
import type { UserIdType } from '../../models/storage-options'
import { ApiKeysError, InvalidInputError, type InputFault } from '../errors'
import { isSame, type Actor, type Audit } from './audit'
import { formatKeyCursor, type KeyPosition } from './cursor'
import {
  readArray,
  readTime,
  readUserId,
  recordAttributes,
  toRecord,
  type ApiKeyRecord,
} from './record'
import { pointerTo } from './rules'
import type { SecretFormat } from './secret'
import { isChangeable, isExpired, nextStatus, type Transition } from './states'

interface ReadOptions {
  userId?: string | number | undefined
  transaction?: Transaction | undefined
}

interface ChangeOptions extends ReadOptions {
  actor?: Actor | undefined
  reason?: string | undefined
}

interface NewApiKey {
  userId: string | number
  name: string
  description?: string | null | undefined
  permissions: string[]
  expiresAt?: Date | null | undefined
}

interface ApiKeyChanges {
  name?: string | undefined
  description?: string | null | undefined
  expiresAt?: Date | null | undefined
}

interface ApiKeyFilter {
  userId?: string | number | undefined
  status?: Status | undefined
  permission?: string | undefined
  text?: string | undefined
  cursor?: KeyPosition | undefined
  limit: number
}

/** What verification needs of a key. */
export type UsableKey = Pick<
  ApiKeyRow,
  'id' | 'userId' | 'name' | 'permissions' | 'status' | 'expiresAt'
>

export type Store = ReturnType<typeof createStore>

interface StoreParts {
  sequelize: Sequelize
  ApiKey: ApiKeyModel
  userIdType: UserIdType
  /** The qualified, quoted name of the table of keys. */
  table: string
  audit: Audit
  format: SecretFormat
  maxKeysPerUser: number
  grantable:
    ((userId: string | number) => readonly string[] | Promise<readonly string[]>) | undefined
}

const uuid = z.guid()

/** The database's clock, which all processes share, at the moment of the change. */
const clock = literal('clock_timestamp()')

/** A key that lives counts towards `maxKeysPerUser`. */
const living = {
  status: { [Op.ne]: 'REVOKED' },
  expiresAt: { [Op.or]: [null, { [Op.gt]: literal('now()') }] },
}

/** The life of a key: every way in which the table of keys is read and changed. */
export function createStore(parts: StoreParts) {
  const { sequelize, ApiKey, userIdType, table, audit, format, maxKeysPerUser, grantable } = parts

  async function create(input: NewApiKey, options: Omit<ChangeOptions, 'userId'> = {}) {
    await refuseUngrantable(input.userId, input.permissions)
    const { plainTextKey, ...secret } = format.mint()

    const apiKey = await inTransaction(options.transaction, async (transaction) => {
      await refuseOneTooMany(input.userId, transaction)
      const { userId, name, description = null, permissions, expiresAt = null } = input
      const values = {
        userId,
        name,
        description,
        permissions,
        expiresAt,
        ...secret,
        id: randomUUID(),
      }
      const row = await ApiKey.create(values, { transaction }).catch(explainUnknownUser)

      const created = recordOf(row)
      await audit.record([{ action: 'created', before: null, after: created }], {
        ...options,
        transaction,
      })
      return created
    })
    return { apiKey, plainTextKey }
  }

  async function get(id: string, { userId, transaction }: ReadOptions = {}) {
    const row = await ApiKey.findOne({
      where: identify(id, userId),
      attributes: [...recordAttributes],
      transaction: transaction ?? null,
      useMaster: true,
    })
    if (!row) throw new ApiKeysError('api_key_not_found')
    return recordOf(row)
  }

  async function list(filter: ApiKeyFilter, { transaction }: ReadOptions = {}) {
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
        ['createdAt', 'DESC'],
        ['id', 'DESC'],
      ],
      limit: limit + 1,
      transaction: transaction ?? null,
      useMaster: true,
    })

    const apiKeys = rows.slice(0, limit).map((row) => recordOf(row))
    const last = rows.length > limit ? apiKeys.at(-1) : undefined
    return { apiKeys, nextCursor: last ? formatKeyCursor(last) : null }
  }

  async function update(id: string, changes: ApiKeyChanges, options: ChangeOptions = {}) {
    return change(id, options, async (key, transaction) => {
      if (!isChangeable(key.status)) throw new ApiKeysError('api_key_revoked')

      const revives = changes.expiresAt !== undefined && isExpired(key, Date.now())
      if (revives) await refuseOneTooMany(key.userId, transaction)
      return { action: 'updated', changes }
    })
  }

  async function setPermissions(id: string, permissions: string[], options: ChangeOptions = {}) {
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

  async function transit(transition: Transition, id: string, options: ChangeOptions) {
    return change(id, options, (key) => transitionOf(transition, key))
  }

  /** Revokes every key of a user at once and returns how many there were to revoke. */
  async function revokeAll(userId: string | number, options: Omit<ChangeOptions, 'userId'> = {}) {
    return inTransaction(options.transaction, async (transaction) => {
      const keys = await ApiKey.findAll({
        where: { userId, status: { [Op.ne]: 'REVOKED' } },
        attributes: [...recordAttributes],
        order: [['id', 'ASC']],
        lock: Transaction.LOCK.NO_KEY_UPDATE,
        transaction,
      })
      const before = new Map(keys.map(recordOf).map((key) => [key.id, key]))
      const [, after] = await ApiKey.update(
        { status: 'REVOKED', revokedAt: clock, updatedAt: clock },
        { where: { id: [...before.keys()] }, returning: true, transaction },
      )

      const changes = after.map((row) => {
        const revoked = recordOf(row)
        return {
          action: 'revoked' as const,
          before: before.get(revoked.id) ?? null,
          after: revoked,
        }
      })
      if (changes.length > 0) await audit.record(changes, { ...options, transaction })
      return changes.length
    })
  }

  /** Looks up what verification needs, by the hash of a plain-text key. Always on the primary. */
  async function findByHash(hash: string): Promise<UsableKey | null> {
    const [key] = await sequelize.query<UsableKey>(
      `SELECT id, user_id AS "userId", name, permissions, status, expires_at AS "expiresAt"
         FROM ${table} WHERE hash = $1`,
      { bind: [hash], type: QueryTypes.SELECT, useMaster: true, transaction: null },
    )
    if (!key) return null

    return {
      ...key,
      userId: readUserId(key.userId, userIdType),
      permissions: readArray(key.permissions),
      expiresAt: readTime(key.expiresAt),
    }
  }

  /**
   * Notes when keys were last used. Rows that somebody else is changing are left out: waiting for their lock would
   * hold up a connection, and the next use is noted anyway.
   */
  async function writeLastUsed(uses: ReadonlyMap<string, Date>) {
    await sequelize.query(
      `WITH used AS (
         SELECT key.id, noted.used_at
           FROM unnest($1::uuid[], $2::timestamptz[]) AS noted (id, used_at)
           JOIN ${table} AS key ON key.id = noted.id
          WHERE key.last_used_at IS NULL OR key.last_used_at < noted.used_at
          ORDER BY key.id
            FOR NO KEY UPDATE OF key SKIP LOCKED
       )
       UPDATE ${table} AS key SET last_used_at = used.used_at FROM used WHERE key.id = used.id`,
      {
        bind: [[...uses.keys()], [...uses.values()].map((usedAt) => usedAt.toISOString())],
        transaction: null,
      },
    )
  }

  /** Locks the key, lets `decide` say what becomes of it, and writes that down twice: in its row, then in the audit. */
  async function change(
    id: string,
    options: ChangeOptions,
    decide: (key: ApiKeyRecord, transaction: Transaction) => Decision | Promise<Decision>,
  ): Promise<ApiKeyRecord> {
    return inTransaction(options.transaction, async (transaction) => {
      const row = await ApiKey.findOne({
        where: identify(id, options.userId),
        attributes: [...recordAttributes],
        lock: Transaction.LOCK.NO_KEY_UPDATE,
        transaction,
      })
      if (!row) throw new ApiKeysError('api_key_not_found')
      const before = recordOf(row)

      const { action, changes } = await decide(before, transaction)
      const news = newsIn(changes, before)
      if (Object.keys(news).length === 0) return before

      const [, [changed]] = await ApiKey.update(
        { ...news, ...(news.status === 'REVOKED' && { revokedAt: clock }), updatedAt: clock },
        { where: { id }, returning: true, transaction },
      )
      if (!changed) throw new ApiKeysError('api_key_not_found')
      const after = recordOf(changed)
      await audit.record([{ action, before, after }], { ...options, transaction })
      return after
    })
  }

  function recordOf(row: Model<ApiKeyRow, NewApiKeyRow>) {
    return toRecord(row.get({ plain: true }), userIdType)
  }

  function inTransaction<Result>(
    transaction: Transaction | undefined,
    work: (transaction: Transaction) => Promise<Result>,
  ): Promise<Result> {
    return transaction ? work(transaction) : sequelize.transaction(work)
  }

  /** Counts under a lock of our own, held until the transaction ends: a user's row is the app's to lock. */
  async function refuseOneTooMany(userId: string | number, transaction: Transaction) {
    if (maxKeysPerUser === Infinity) return

    await sequelize.query('SELECT pg_advisory_xact_lock(hashtextextended($1, 0))', {
      bind: [`express-api-keys ${table} ${userId}`],
      transaction,
    })
    const count = await ApiKey.count({ where: { userId, ...living }, transaction })
    if (count >= maxKeysPerUser) throw new ApiKeysError('too_many_api_keys')
  }

  async function refuseUngrantable(userId: string | number, permissions: readonly string[]) {
    if (!grantable) return

    const granted = await grantable(userId)
    const faults = permissions.flatMap((permission, index): InputFault[] => {
      if (granted.includes(permission)) return []
      return [{ pointer: pointerTo(['permissions', index]), message: 'is not this user’s to give' }]
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
    revokeAll,
    findByHash,
    writeLastUsed,
  }
}

type Changes = Partial<
  Pick<ApiKeyRecord, 'name' | 'description' | 'permissions' | 'expiresAt' | 'status'>
>

interface Decision {
  action: EventAction
  changes: { [Name in keyof Changes]: Changes[Name] | undefined }
}

const transitionActions = {
  suspend: 'suspended',
  reactivate: 'reactivated',
  revoke: 'revoked',
} as const satisfies Record<Transition, EventAction>

function transitionOf(transition: Transition, key: ApiKeyRecord): Decision {
  const status = nextStatus(transition, key.status)
  if (status === null) throw new ApiKeysError('api_key_revoked')

  return { action: transitionActions[transition], changes: { status } }
}

/** Leaves out what is undefined or as it was. */
function newsIn(changes: Decision['changes'], key: ApiKeyRecord): Changes {
  return Object.fromEntries(
    Object.entries(changes).filter(
      ([name, value]) => value !== undefined && !isSame(value, key[name as keyof Changes]),
    ),
  )
}

/** An id that is no UUID names no key, like one that nobody has: the database would call it an error. */
function identify(id: string, userId: string | number | undefined): WhereOptions<ApiKeyRow> {
  if (!uuid.safeParse(id).success) throw new ApiKeysError('api_key_not_found')

  return { id, ...(userId !== undefined && { userId }) }
}

function conditions({ userId, status, permission, text, cursor }: ApiKeyFilter) {
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
