import { randomUUID } from 'node:crypto'

import type { Transaction } from 'sequelize'

import { ownerLockSql } from '../../migrations/create-function'
import { insertEntriesSql } from '../../models/api-key-event'
import { isSuspendedSql, ownerColumns, ownerIdSql, type OwnerType } from '../../models/owner'
import { rowsInOrderSql } from '../../models/rows'
import type { Tables } from '../../models/tables'
import { select } from '../database/query'
import { nameOfOwner, ownerRow, type Owner } from '../keys/owner'
import { toOwner } from '../keys/record'
import type { Circumstances, Parts } from './calls'
import { explainUnknownOwner } from './new-keys'
import { lockOwnerRow } from './policies'

/** Suspends an owner, so that all keys of the owner are refused. Returns false if the owner is suspended already. */
export async function suspendOwner(parts: Parts, owner: Owner, circumstances: Circumstances) {
  return changeOwner(parts, 'owner_suspended', owner, circumstances).catch((error: unknown) =>
    explainUnknownOwner(error, owner),
  )
}

/** Ends the suspension of an owner. Keys that are suspended by themselves stay so. Returns false if the owner is not suspended. */
export async function reactivateOwner(parts: Parts, owner: Owner, circumstances: Circumstances) {
  return changeOwner(parts, 'owner_reactivated', owner, circumstances)
}

type OwnerAction = 'owner_suspended' | 'owner_reactivated'

async function changeOwner(
  parts: Parts,
  action: OwnerAction,
  given: Owner,
  circumstances: Circumstances,
): Promise<boolean> {
  const { sequelize, tables, audit, emitter, verification } = parts
  const isChanged = await parts.inTransaction(circumstances, async (transaction) => {
    const [owner = given] = await lockOwners(parts, [given], transaction)
    const ref = randomUUID()
    const entry = audit.toOwnerRow({ action, owner, ref }, circumstances)
    const row = { ...ownerRow(owner), reason: circumstances.reason ?? null, event_ref: ref }
    const bind = [JSON.stringify(row), JSON.stringify(entry.row)]
    const sql = changeSql(tables, action, owner.type)
    const [told] = await select<{ xid: string }>(sequelize, sql, { bind, transaction })
    if (!told) return false
    audit.noteWritten(transaction, [entry.own], told.xid, true)
    const { actor = { type: 'system' }, reason = null } = circumstances
    emitter.emitAfter(transaction, action, { owner, actor, reason })
    return true
  })
  await verification.suspensionChanged(nameOfOwner(given), circumstances.transaction)
  return isChanged
}

/** SQL that changes the row of an owner, and writes the entry of the change. Without a change, it returns no row. */
function changeSql(tables: Tables, action: OwnerAction, type: OwnerType): string {
  const { suspendedOwners, events } = tables
  const column = ownerColumns[type]
  const given = `pg_catalog.json_populate_record(NULL::${suspendedOwners}, $1::json) AS given`
  const changed =
    action === 'owner_suspended'
      ? `INSERT INTO ${suspendedOwners} (${column}, reason, event_ref)
         SELECT given.${column}, given.reason, given.event_ref FROM ${given} ON CONFLICT DO NOTHING RETURNING id`
      : `DELETE FROM ${suspendedOwners} AS suspended USING ${given}
          WHERE suspended.${column} = given.${column} RETURNING suspended.id`
  return `
    WITH changed AS (
      ${changed}
    ), told AS (
      ${insertEntriesSql(tables, `FROM changed, pg_catalog.json_populate_record(NULL::${events}, $2::json) AS entry`)}
      RETURNING id
    )
    SELECT pg_current_xact_id()::text AS xid FROM told`
}

/**
 * Locks owners until the transaction ends: first their rows in the app's tables, then their keys. Returns them in the order given, as
 * the database spells their ids. All transactions take the locks in one order, so that none waits for another in a circle.
 */
export async function lockOwners(
  parts: Parts,
  owners: readonly Owner[],
  transaction: Transaction,
): Promise<Owner[]> {
  const { sequelize, tables, idTypes } = parts
  const inOrder = owners.toSorted((a, b) => (nameOfOwner(a) < nameOfOwner(b) ? -1 : 1))
  for (const owner of inOrder) await lockOwnerRow(parts, owner, transaction)
  const rows = await select<{ id: string }>(
    sequelize,
    `WITH owner AS MATERIALIZED (
       SELECT key.ordinality, ${ownerIdSql('key')} AS id, ${ownerLockSql(tables, 'key')} AS number
         FROM ${rowsInOrderSql(tables.keys, Object.values(ownerColumns), '$1::json')} AS key
     ), locked AS MATERIALIZED (
       SELECT pg_advisory_xact_lock(number) FROM (SELECT DISTINCT number FROM owner ORDER BY number OFFSET 0) AS numbers
     )
     SELECT owner.id FROM owner WHERE (SELECT count(*) FROM locked) > 0 ORDER BY owner.ordinality`,
    { bind: [JSON.stringify(owners.map(ownerRow))], transaction },
  )
  return owners.map((owner, index) => toOwner(owner.type, rows[index]?.id ?? '', idTypes))
}

/** True if an owner who is locked is suspended. */
export async function isSuspended(
  { sequelize, tables }: Parts,
  owner: Owner,
  transaction: Transaction,
): Promise<boolean> {
  const [row] = await select<{ isSuspended: boolean }>(
    sequelize,
    `SELECT ${isSuspendedSql(tables, 'key')} AS "isSuspended" FROM pg_catalog.json_populate_record(NULL::${tables.keys}, $1::json) AS key`,
    { bind: [JSON.stringify(ownerRow(owner))], transaction },
  )
  return row?.isSuspended === true
}
