import type { Transaction } from 'sequelize'

import { ownerLockSql } from '../../migrations/create-function'
import { qualify, quote } from '../../models/names'
import { ownerColumns, ownerIdSql } from '../../models/owner'
import { rowsInOrderSql } from '../../models/rows'
import type { Run } from '../database/query'
import type { Environment } from '../keys/environments'
import { nameOfOwner, ownerRow, type Owner } from '../keys/owner'
import { toOwner } from '../keys/record'
import type { Parts } from './calls'
import type { ImportedRow } from './import-keys'
import { countLivingKeys } from './policies'

/** The owners of some rows, by their names. */
export type Owners = ReadonlyMap<string, Owner>

/** Returns the owners of rows, each once. */
export function ownersOf(rows: readonly ImportedRow[]): Map<string, Owner> {
  return new Map(rows.map(({ key }) => [nameOfOwner(key.owner), key.owner]))
}

/**
 * Keeps out of a transaction what revokes all keys of one of these owners, or suspends the owner, and if keys are counted, what makes keys
 * as well. Returns the owners as the database spells them.
 */
export async function lockOwners(
  { tables, idTypes }: Parts,
  run: Run,
  owners: Owners,
  isCounted: boolean,
): Promise<Owners> {
  const all = [...owners]
  const lock = isCounted ? 'pg_advisory_xact_lock' : 'pg_advisory_xact_lock_shared'
  const rows = await run(
    `WITH given AS MATERIALIZED (
       SELECT key.ordinality, ${ownerIdSql('key')} AS id, ${ownerLockSql(tables, 'key')} AS lock
         FROM ${rowsInOrderSql(tables.keys, Object.values(ownerColumns), '$1::json')} AS key
     ), locked AS MATERIALIZED (
       -- In the order in which all transactions lock owners.
       SELECT ${lock}(lock) FROM (SELECT DISTINCT lock FROM given ORDER BY lock) AS ordered
     )
     SELECT given.id FROM given, (SELECT count(*) FROM locked) AS locked ORDER BY given.ordinality`,
    [JSON.stringify(all.map(([, owner]) => ownerRow(owner)))],
  )
  return new Map(
    all.map(([name, owner], index) => [name, toOwner(owner.type, rows[index]?.id ?? '', idTypes)]),
  )
}

/** Returns the names of the owners who are not in the tables of the app. */
export async function findUnknownOwners(
  { tables, storage }: Parts,
  run: Run,
  owners: Owners,
): Promise<Set<string>> {
  const { users, organizations } = storage
  const unknown = new Set<string>()
  for (const [type, table] of [
    ['user', users],
    ['organization', organizations],
  ] as const) {
    const reference = table?.reference
    const all = [...owners].filter(([, owner]) => owner.type === type)
    if (!reference || all.length === 0) continue
    const rows = await run(
      `SELECT key.ordinality::text AS place
         FROM ${rowsInOrderSql(tables.keys, Object.values(ownerColumns), '$1::json')} AS key
        WHERE NOT EXISTS (
          SELECT FROM ${qualify(reference.schema, reference.table)} AS owner WHERE owner.${quote(reference.column)} = key.${ownerColumns[type]}
        )`,
      [JSON.stringify(all.map(([, owner]) => ownerRow(owner)))],
    )
    for (const { place } of rows) {
      const name = all[Number(place) - 1]?.[0]
      if (name !== undefined) unknown.add(name)
    }
  }
  return unknown
}

/** Returns how many more keys each owner may have, by the names of the owners as the database spells them. They are locked. */
export async function roomOf(
  parts: Parts,
  owners: Owners,
  environment: Environment | undefined,
  transaction: Transaction,
): Promise<Map<string, number>> {
  const room = new Map<string, number>()
  for (const owner of owners.values()) {
    const name = nameOfOwner(owner)
    if (room.has(name)) continue
    const most = parts.maxKeysPerOwner[owner.type]
    room.set(name, most - (await countLivingKeys(parts, owner, environment, transaction)))
  }
  return room
}
