import { randomUUID } from 'node:crypto'

import type { Sequelize } from 'sequelize'

import { keyColumns, keySql, parameterSql, type KeyAttribute } from '../../models/api-key'
import { run, select } from '../../models/statements'
import type { UserIdType } from '../../models/storage-options'
import type { Background } from '../database/background'
import { ApiKeysError, InvalidInputError } from '../errors'
import { isSame, type Audit } from '../audit/trail'
import { sqlStateOf } from '../database/failures'
import type { Emitter } from '../keys/emitter'
import type { Grantable } from '../keys/grantable'
import { createKeyChecks, refuseOwnLimits } from './policies'
import { createKeyReader, type Scope } from './reader'
import type { KeyChanges, NewKey } from '../keys/input'
import { createManyKeys } from './bulk'
import type { ApiKeyRecord, LastUse } from '../keys/record'
import { pointerTo } from '../keys/parse-input'
import type { SecretFormat } from '../keys/secret'
import { isExpired, nextStatus, type Action } from '../keys/states'
import type { Actor, ChangeAction } from '../keys/types'
import { createInTransaction } from './transactions'
import type { InTurn } from '../keys/turns'
import { createUserKeys } from './user-keys'

export interface Circumstances extends Scope {
  actor?: Actor | undefined
  address?: string | undefined
  reason?: string | undefined
}

export type Store = ReturnType<typeof createStore>

interface StoreParts {
  sequelize: Sequelize
  userIdType: UserIdType
  keyPrefix: string
  /** The qualified, quoted name of the table of keys. */
  table: string
  /** That of the table of retired secrets. */
  retiredTable: string
  audit: Audit
  emitter: Pick<Emitter, 'committed' | 'callAfter' | 'emit' | 'isHeard'>
  background: Pick<Background, 'run'>
  inTurn: InTurn
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
  lastUseOf(id: string): LastUse | undefined
}

/** The life of a key: how it is made, found and changed, and how all of them are kept tidy. */
export function createStore(parts: StoreParts) {
  const { sequelize, table, retiredTable, format, audit } = parts
  const reader = createKeyReader(parts)
  const checks = createKeyChecks(parts)
  const userKeys = createUserKeys({ ...parts, reader })
  const inTransaction = createInTransaction(parts)
  const manyKeys = createManyKeys({ ...parts, reader, userKeys, inTransaction })

  async function create(input: NewKey, options: Omit<Circumstances, 'userId'> = {}) {
    const { userId, name, description = null, permissions, expiresAt = null } = input
    const { allowedIps = null, metadata = {}, limits = null } = input
    checks.refuseReserved(metadata, options.actor)
    refuseOwnLimits(limits, { before: null, actor: options.actor })
    checks.refuseTooLate(expiresAt, Date.now())
    await checks.refuseUngrantable(userId, permissions, options.transaction)
    const { plainTextKey, ...secret } = format.mint()

    const apiKey = await inTransaction({ ...options, userId }, async (transaction) => {
      await userKeys.lock(userId, transaction)
      await userKeys.refuseOneTooMany(userId, transaction)
      const ref = randomUUID()
      const values: Partial<Record<KeyAttribute, unknown>> = {
        id: randomUUID(),
        userId,
        name,
        description,
        permissions,
        expiresAt,
        allowedIps,
        metadata,
        limits,
        ...secret,
        eventRef: ref,
      }
      const bind: unknown[] = []
      const written = assign(values, bind)
      const [row] = await select<{ json: string }>(
        sequelize,
        `INSERT INTO ${table} AS key (${written.map(({ column }) => column).join(', ')})
         VALUES (${written.map(({ value }) => value).join(', ')}) RETURNING ${keySql('key')} AS json`,
        { bind, transaction },
      ).catch(explainUnknownUser)

      const after = reader.readRecord(row?.json ?? '')
      const entry = { action: 'created', before: null, after, ref } as const
      await audit.record([entry], { ...options, transaction })
      return after
    })
    return { apiKey, plainTextKey }
  }

  async function update(id: string, changes: KeyChanges, options: Circumstances = {}) {
    return inTransaction(options, async (transaction) => {
      const mayRevive = changes.expiresAt !== undefined && userKeys.isLimited
      if (mayRevive) {
        const { userId } = await reader.get(id, { ...options, transaction })
        await userKeys.lock(userId, transaction)
      }

      return change(id, { ...options, transaction }, async (key) => {
        nextStatus('change', key)
        const isNews = !isSame(changes.expiresAt, key.expiresAt)
        if (changes.expiresAt !== undefined && isNews) {
          checks.refuseTooLate(changes.expiresAt, key.createdAt.getTime())
        }
        if (mayRevive && isExpired(key, Date.now())) {
          await userKeys.refuseOneTooMany(key.userId, transaction)
        }

        refuseOwnLimits(changes.limits, { before: key.limits, actor: options.actor })
        const metadata =
          changes.metadata && checks.withReserved(changes.metadata, key, options.actor)
        return { action: 'updated', changes: { ...changes, metadata } }
      })
    })
  }

  async function setPermissions(id: string, permissions: string[], options: Circumstances = {}) {
    if (parts.grantable) {
      const { userId } = await reader.get(id, options)
      await checks.refuseUngrantable(userId, permissions, options.transaction)
    }

    return change(id, options, (key) => {
      nextStatus('change', key)

      const isSameSet = isSame(key.permissions.toSorted(), permissions.toSorted())
      return { action: 'permissions_changed', changes: isSameSet ? {} : { permissions } }
    })
  }

  async function transit(transition: Transition, id: string, options: Circumstances) {
    return change(id, options, (key) => ({
      action: transitionActions[transition],
      changes: { status: nextStatus(transition, key) },
    }))
  }

  /**
   * Gives a key a new secret. The one before works on for a while, and the one before that no more. In one statement, as a
   * hash may not be both current and retired.
   */
  async function rotate(id: string, gracePeriodSeconds: number, options: Circumstances = {}) {
    const { plainTextKey, hash, secretId, prefix, postfix } = format.mint()

    const apiKey = await inTransaction(options, async (transaction) => {
      const before = await reader.lock(id, { ...options, transaction })
      const ref = randomUUID()
      nextStatus('rotate', before)

      await run(
        sequelize,
        `WITH retired AS (
           INSERT INTO ${retiredTable} (hash, api_key_id) SELECT hash, id FROM ${table} WHERE id = $1
         )
         UPDATE ${table} AS key
            SET hash = $2, secret_id = $3, prefix = $4, postfix = $5, event_ref = $7, updated_at = clock_timestamp(),
                (previous_hash, previous_secret_id, previous_prefix, previous_postfix, previous_works_until,
                 previous_last_used_at) = (
                  SELECT key.hash, key.secret_id, key.prefix, key.postfix,
                         clock_timestamp() + $6::float8 * interval '1 second', key.last_used_at
                   WHERE $6::float8 > 0
                )
          WHERE key.id = $1`,
        { bind: [id, hash, secretId, prefix, postfix, gracePeriodSeconds, ref], transaction },
      )
      const after = await reader.get(id, { transaction })
      await audit.record([{ action: 'rotated', before, after, ref }], { ...options, transaction })
      return after
    })
    return { apiKey, plainTextKey }
  }

  /** Has the secret before the current one work no more. */
  async function endRotation(id: string, options: Circumstances = {}) {
    return change(id, options, (key) => {
      nextStatus('change', key)

      return { action: 'rotation_ended', changes: key.previousSecret ? withoutPrevious : {} }
    })
  }

  /** Locks the key, lets `decide` say what becomes of it, and writes that down twice: in its row, then in the audit. */
  async function change(
    id: string,
    options: Circumstances,
    decide: (key: ApiKeyRecord) => Decision | Promise<Decision>,
  ): Promise<ApiKeyRecord> {
    return inTransaction(options, async (transaction) => {
      const before = await reader.lock(id, { ...options, transaction })
      const { action, changes } = await decide(before)
      const news = newsIn(changes, before)
      if (Object.keys(news).length === 0) return before

      const ref = randomUUID()
      const bind: unknown[] = [id]
      const assignments = assign({ ...news, eventRef: ref }, bind).map(
        ({ column, value }) => `${column} = ${value}`,
      )
      if (news.status === 'REVOKED') assignments.push('revoked_at = clock_timestamp()')
      const [row] = await select<{ json: string }>(
        sequelize,
        `UPDATE ${table} AS key SET ${assignments.join(', ')}, updated_at = clock_timestamp()
          WHERE id = $1 RETURNING ${keySql('key')} AS json`,
        { bind, transaction },
      )
      if (!row) throw new ApiKeysError('api_key_not_found')
      const after = reader.readRecord(row.json)
      await audit.record([{ action, before, after, ref }], { ...options, transaction })
      return after
    })
  }

  const { get, list } = reader
  return { create, get, list, update, setPermissions, transit, rotate, endRotation, ...manyKeys }
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
  previousLastUsedAt: null,
}

interface Decision {
  action: ChangeAction
  changes: { [Name in keyof Changes]: Changes[Name] | undefined }
}

type Transition = Exclude<Action, 'change' | 'rotate'>

const transitionActions = {
  suspend: 'suspended',
  reactivate: 'reactivated',
  revoke: 'revoked',
} as const satisfies Record<Transition, ChangeAction>

/** Leaves out what is undefined or as it was. */
function newsIn(changes: Decision['changes'], key: ApiKeyRecord): Changes {
  return Object.fromEntries(
    Object.entries(changes).filter(
      ([name, value]) => value !== undefined && !isSame(value, key[name as keyof ApiKeyRecord]),
    ),
  )
}

/** Returns the columns of attributes with SQL for their values, which it adds to the parameters. */
function assign(values: Partial<Record<KeyAttribute, unknown>>, bind: unknown[]) {
  return Object.entries(values).map(([name, value]) => {
    // They have no other members.
    const attribute = name as KeyAttribute
    const number = bind.push(toParameter(value))
    return { column: keyColumns[attribute].name, value: parameterSql(attribute, number) }
  })
}

/** Times become milliseconds since 1970, and objects JSON. Lists stay, and the driver writes them as arrays. */
function toParameter(value: unknown): unknown {
  if (value instanceof Date) return value.getTime()
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? JSON.stringify(value)
    : value
}

const foreignKeyViolation = '23503'

function explainUnknownUser(error: unknown): never {
  if (sqlStateOf(error) !== foreignKeyViolation) throw error

  throw new InvalidInputError([{ pointer: pointerTo(['userId']), message: 'is not a user' }], {
    cause: error,
  })
}
