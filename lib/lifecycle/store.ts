import { randomUUID } from 'node:crypto'

import type { Transaction } from 'sequelize'
import { is } from 'valibot'

import {
  isOfPrefix,
  keyColumns,
  keySql,
  parameterSql,
  type ApiKeyRow,
  type KeyAttribute,
} from '../../models/api-key'
import type { ChangeAction } from '../../models/api-key-event'
import { selectJson } from '../database/query'
import { sqlStateOf } from '../database/failures'
import { ApiKeysError, InvalidInputError } from '../errors'
import { guid } from '../keys/fields'
import { isSame } from '../keys/metadata'
import { toRecord, withLastUse, type ApiKeyRecord } from '../keys/record'
import type { Circumstances, OwnCircumstances, Parts } from './calls'

/** The owner whose keys a call can reach, and the transaction that it is a part of. */
export type Scope = Pick<Circumstances, 'userId' | 'transaction'>

/** SQL that is true for some keys, and the values of its parameters. The row of the table has the name `key`. */
export interface Condition {
  where: string
  bind: unknown[]
}

/** Values of columns, by their attributes. */
type Values = Partial<Record<KeyAttribute, unknown>>

/** Makes the record of a row, with the uses that this process has not written yet. */
export function readRecord({ userIdType, verification }: Parts, row: ApiKeyRow): ApiKeyRecord {
  return withLastUse(toRecord(row, userIdType), verification.lastUseOf(row.id))
}

async function read<Row>(
  { sequelize, tables, keyPrefix, inTurn }: Parts,
  json: string,
  { where, bind }: Condition,
  scope: Scope,
  rest = '',
): Promise<Row[]> {
  const sql = `SELECT ${json} AS json FROM ${tables.keys} AS key
                WHERE ${isOfPrefix('key', keyPrefix)} AND ${where} ${rest}`
  const transaction = scope.transaction ?? null
  return inTurn(scope, () => selectJson<Row[]>(sequelize, sql, { bind, transaction }))
}

/** Returns the records of the instance's own keys for which a condition is true, by clauses such as ORDER BY. */
export async function readAll(
  parts: Parts,
  condition: Condition,
  scope: Scope = {},
  rest = '',
): Promise<ApiKeyRecord[]> {
  const rows = await read<ApiKeyRow>(parts, keySql('key'), condition, scope, rest)
  return rows.map((row) => readRecord(parts, row))
}

/** Returns how many of the instance's own keys a condition is true for. */
export async function count(parts: Parts, condition: Condition, scope: Scope = {}) {
  const [keys = 0] = await read<number>(parts, 'count(*)::text', condition, scope)
  return keys
}

/** Returns the record of a key, or throws `api_key_not_found`. */
export async function get(parts: Parts, id: string, scope: Scope = {}, rest = '') {
  const [record] = await readAll(parts, identify(id, scope.userId), scope, rest)
  if (!record) throw new ApiKeysError('api_key_not_found')
  return record
}

/** Does the same, and locks the row until the transaction ends. */
export async function lock(parts: Parts, id: string, scope: Scope & { transaction: Transaction }) {
  return get(parts, id, scope, 'FOR NO KEY UPDATE')
}

/** The database would call an id that is no UUID an error. To callers it is the id of no key. */
function identify(id: string, userId: string | number | undefined): Condition {
  if (!is(guid, id)) throw new ApiKeysError('api_key_not_found')

  return userId === undefined
    ? { where: 'key.id = $1', bind: [id] }
    : { where: 'key.id = $1 AND key.user_id = $2', bind: [id, userId] }
}

/** Inserts a key and writes its entry of the audit trail. */
export async function insert(
  parts: Parts,
  values: Values,
  circumstances: OwnCircumstances,
): Promise<ApiKeyRecord> {
  const { sequelize, tables, audit } = parts
  const ref = randomUUID()
  const bind: unknown[] = []
  const written = assign({ ...values, id: randomUUID(), eventRef: ref }, bind)
  const [row] = await selectJson<[ApiKeyRow]>(
    sequelize,
    `INSERT INTO ${tables.keys} AS key (${written.map(({ column }) => column).join(', ')})
     VALUES (${written.map(({ value }) => value).join(', ')}) RETURNING ${keySql('key')} AS json`,
    { bind, transaction: circumstances.transaction },
  ).catch(explainUnknownUser)
  const after = readRecord(parts, row)
  await audit.record([{ action: 'created', before: null, after, ref }], circumstances)
  return after
}

const foreignKeyViolation = '23503'

function explainUnknownUser(error: unknown): never {
  if (sqlStateOf(error) !== foreignKeyViolation) throw error

  const fault = { pointer: '#/userId', message: 'is not a user' }
  throw new InvalidInputError([fault], { cause: error })
}

/** The action on a key, and the new values. Values that are undefined or as before are left out. */
interface Decision {
  action: ChangeAction
  values: Values
}

/** Decides what becomes of a key whose row is locked, or throws a refusal. */
type Decide = (key: ApiKeyRecord) => Decision | Promise<Decision>

/** Locks a key, decides what becomes of it, and writes that to its row and to the audit trail. */
export async function changeKey(
  parts: Parts,
  id: string,
  circumstances: Circumstances,
  decide: Decide,
): Promise<ApiKeyRecord> {
  return parts.inTransaction(circumstances, async (transaction) =>
    changeKeyIn(parts, id, { ...circumstances, transaction }, decide),
  )
}

/** Does the same within a transaction that is open. */
export async function changeKeyIn(
  parts: Parts,
  id: string,
  circumstances: OwnCircumstances,
  decide: Decide,
): Promise<ApiKeyRecord> {
  const before = await lock(parts, id, circumstances)
  const { action, values } = await decide(before)
  const news = newsIn(values, before)
  if (Object.keys(news).length === 0) return before

  const ref = randomUUID()
  const bind: unknown[] = [id]
  const assignments = assign({ ...news, eventRef: ref }, bind).map(
    ({ column, value }) => `${column} = ${value}`,
  )
  if (news.status === 'REVOKED') assignments.push('revoked_at = clock_timestamp()')
  const [row] = await selectJson<[ApiKeyRow]>(
    parts.sequelize,
    `UPDATE ${parts.tables.keys} AS key
        SET ${assignments.join(', ')}, updated_at = clock_timestamp()
      WHERE id = $1 RETURNING ${keySql('key')} AS json`,
    { bind, transaction: circumstances.transaction },
  )
  const after = readRecord(parts, row)
  await parts.audit.record([{ action, before, after, ref }], circumstances)
  return after
}

function newsIn(values: Values, key: ApiKeyRecord): Values {
  return Object.fromEntries(
    Object.entries(values).filter(
      ([name, value]) => value !== undefined && !isSame(value, key[name as keyof ApiKeyRecord]),
    ),
  )
}

/** Returns the columns of attributes with SQL for their values, which it adds to the parameters. */
function assign(values: Values, bind: unknown[]) {
  const given = Object.entries(values).filter(([, value]) => value !== undefined)
  return given.map(([name, value]) => {
    // They have no other members.
    const attribute = name as KeyAttribute
    const number = bind.push(toParameter(value))
    return { column: keyColumns[attribute].name, value: parameterSql(attribute, number) }
  })
}

/** Times become milliseconds since 1970, and objects JSON. The driver writes lists as arrays. */
function toParameter(value: unknown): unknown {
  if (value instanceof Date) return value.getTime()
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? JSON.stringify(value)
    : value
}
