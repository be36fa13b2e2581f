import type { Sequelize, Transaction } from 'sequelize'
import { is } from 'valibot'

import { isOfPrefix, keySql } from '../../models/api-key'
import { select } from '../../models/statements'
import type { UserIdType } from '../../models/storage-options'
import { ApiKeysError } from '../errors'
import { guid } from '../keys/user-id'
import type { KeyFilter } from '../keys/input'
import { createKeyList } from './search'
import { toRecord, withLastUse, type ApiKeyRecord, type LastUse } from '../keys/record'
import type { InTurn } from '../keys/turns'

export interface Scope {
  userId?: string | number | undefined
  transaction?: Transaction | undefined
}

/** SQL that is true for some keys, and the values of its parameters. The row of the table has the name `key`. */
export interface Condition {
  where: string
  bind: unknown[]
}

interface KeyReaderParts {
  sequelize: Sequelize
  inTurn: InTurn
  /** The qualified, quoted name of the table of keys. */
  table: string
  userIdType: UserIdType
  /** Keys with other prefixes are another instance's. */
  keyPrefix: string
  /** The last use of a key that may not be written yet: when, in milliseconds since 1970, and from where. */
  lastUseOf(id: string): LastUse | undefined
}

export type KeyReader = ReturnType<typeof createKeyReader>

/** Finds keys and reads their records. */
export function createKeyReader(parts: KeyReaderParts) {
  const { sequelize, inTurn, table, userIdType, lastUseOf } = parts
  const isOwn = isOfPrefix('key', parts.keyPrefix)

  const listKeys = createKeyList({ ...parts, isOwn, readRecord })

  /** Makes a record from what `keySql` has read, with the uses of this process that are not written yet. */
  function readRecord(json: string): ApiKeyRecord {
    const record = toRecord(JSON.parse(json), userIdType)
    return withLastUse(record, lastUseOf(record.id))
  }

  async function read<Row extends object>(
    column: string,
    { where, bind }: Condition,
    scope: Scope,
    rest = '',
  ): Promise<Row[]> {
    return inTurn(scope, () =>
      select<Row>(
        sequelize,
        `SELECT ${column} AS json FROM ${table} AS key WHERE ${isOwn} AND ${where} ${rest}`,
        { bind, transaction: scope.transaction ?? null },
      ),
    )
  }

  /** Returns the records of the instance's own keys for which a condition is true, by clauses such as ORDER BY. */
  async function readAll(
    condition: Condition,
    scope: Scope = {},
    rest = '',
  ): Promise<ApiKeyRecord[]> {
    const rows = await read<{ json: string }>(keySql('key'), condition, scope, rest)
    return rows.map(({ json }) => readRecord(json))
  }

  async function readOne(id: string, scope: Scope, lock = '') {
    const [record] = await readAll(identify(id, scope.userId), scope, lock)
    if (!record) throw new ApiKeysError('api_key_not_found')
    return record
  }

  return {
    readRecord,
    readAll,
    isOwn,

    get: (id: string, scope: Scope = {}) => readOne(id, scope),

    /** Keeps others from changing the key until the transaction ends. */
    lock: (id: string, scope: Scope & { transaction: Transaction }) =>
      readOne(id, scope, 'FOR NO KEY UPDATE'),

    list: (filter: KeyFilter, { transaction }: Scope = {}) =>
      inTurn({ userId: filter.userId, transaction }, () => listKeys(filter, { transaction })),

    async count(condition: Condition, scope: Scope = {}): Promise<number> {
      const [row] = await read<{ json: string }>('count(*)::text', condition, scope)
      return Number(row?.json)
    },
  }
}

/** An id that is no UUID names no key, like one that nobody has: the database would call it an error. */
function identify(id: string, userId: string | number | undefined): Condition {
  if (!is(guid, id)) throw new ApiKeysError('api_key_not_found')

  return userId === undefined
    ? { where: 'key.id = $1', bind: [id] }
    : { where: 'key.id = $1 AND key.user_id = $2', bind: [id, userId] }
}
