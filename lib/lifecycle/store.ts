import { is } from 'valibot'

import { isOfPrefixes, keySql, type ApiKeyRow } from '../../models/api-key'
import { ownerColumns } from '../../models/owner'
import { selectJson } from '../database/query'
import { ApiKeysError } from '../errors'
import { guid } from '../keys/fields'
import type { Owner } from '../keys/owner'
import { readTime, toRecord, withIdleExpiry, withLastUse, type ApiKeyRecord } from '../keys/record'
import type { Circumstances, GivenParts, Parts } from './calls'

/** The owner whose keys a call can reach, and the transaction that it is a part of. */
export type Scope = Pick<Circumstances, 'owner' | 'transaction'>

/** SQL that is true for some keys, and the values of its parameters. The row of the table has the name `key`. */
export interface Condition {
  where: string
  bind: unknown[]
}

/** Makes the record of a row, with the uses that this process has not written yet. */
export function readRecord(parts: GivenParts, row: ApiKeyRow): ApiKeyRecord {
  const { environments, permissions, verification } = parts
  const named = { ...row, permissions: permissions.namesOf(row.permissions) }
  const record = { ...toRecord(named, parts), ...environments.shownOf(row) }
  const renewedAt = row.renewedAt === null ? null : readTime(row.renewedAt)
  return withIdleExpiry(withLastUse(record, verification.lastUseOf(row.id)), renewedAt, parts)
}

async function read<Row>(
  { sequelize, tables, environments, inTurn }: Parts,
  json: string,
  { where, bind }: Condition,
  scope: Scope,
  rest = '',
): Promise<Row[]> {
  const sql = `SELECT ${json} AS json FROM ${tables.keys} AS key
                WHERE ${isOfPrefixes('key', environments.keyPrefixes)} AND ${where} ${rest}`
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
  const rows = await read<ApiKeyRow>(parts, keySql(parts.tables, 'key'), condition, scope, rest)
  return rows.map((row) => readRecord(parts, row))
}

/** Returns the ids of the instance's own keys for which a condition is true. */
export async function readIds(parts: Parts, condition: Condition): Promise<string[]> {
  return read(parts, 'pg_catalog.to_json(key.id)::text', condition, {})
}

/** Returns how many of the instance's own keys a condition is true for. */
export async function count(parts: Parts, condition: Condition, scope: Scope = {}) {
  const [keys = 0] = await read<number>(parts, 'count(*)::text', condition, scope)
  return keys
}

/** Returns the record of a key, or throws `api_key_not_found`. */
export async function get(parts: Parts, id: string, scope: Scope = {}) {
  const [record] = await readAll(parts, identify(id, scope.owner), scope)
  if (!record) throw new ApiKeysError('api_key_not_found')
  return record
}

/** Returns the condition for one key. The database would call an id that is no UUID an error. To callers it is the id of no key. */
export function identify(id: string, owner: Owner | undefined): Condition {
  if (!is(guid, id)) throw new ApiKeysError('api_key_not_found')

  return owner === undefined
    ? { where: 'key.id = $1', bind: [id] }
    : { where: `key.id = $1 AND ${isOf(owner, 2)}`, bind: [id, owner.id] }
}

/** SQL that is true for the keys of an owner, whose id is a parameter. */
export function isOf({ type }: Owner, parameter: number): string {
  return `key.${ownerColumns[type]} = $${parameter}`
}
