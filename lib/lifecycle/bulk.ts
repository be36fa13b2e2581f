import { randomUUID } from 'node:crypto'

import type { Transaction } from 'sequelize'

import type { Status } from '../../models/api-key'
import { insertEntriesSql } from '../../models/api-key-event'
import { quote } from '../../models/names'
import { allowMs } from '../database/answer-limit'
import { wait } from '../database/background'
import type { TextRow } from '../database/connection'
import { sqlStateOf } from '../database/failures'
import { limitStatements, run, runIn, select } from '../database/query'
import type { Caller } from '../database/turns'
import type { ManyKeys, Pruning, UnusedKeys } from '../keys/input'
import { deepFreeze } from '../keys/metadata'
import type { Owner } from '../keys/owner'
import type { Circumstances, OwnCircumstances, Parts } from './calls'
import { lockKeysSql, plan, toReadKey, writeChanges, type ReadKey } from './key-changes'
import { lockOwner, lockOwnerRow } from './policies'
import { conditionOf } from './search'
import { count, isOf, readAll, readIds, type Condition, type Scope } from './store'
import { entriesOf, noticeOf } from './transactions'

/** How many keys `revokeUnused` and `pruneRevoked` change in one transaction. */
const batchSize = 1_000

/** How long a statement takes at most that reads all keys, or all keys of an owner. */
const statementLimitMs = 600_000

/**
 * How long a transaction waits for a lock before it gives way, which is below the default of `deadlock_timeout`; how long it rests then
 * at most; and how long a call goes on so.
 */
const patienceMs = 300
const longestRestMs = 2_000
const waitLimitMs = 60_000

/** How many keys of a transaction are in memory at once: so few that other requests do not wait. */
const pageSize = 200

/**
 * Revokes every key of an owner in one transaction, and returns how many it revoked. It reads and revokes a page at a time, because
 * there may be any number. For listeners, memory keeps the records of the first page only.
 */
export async function revokeAll(
  parts: Parts,
  owner: Owner,
  circumstances: Circumstances,
): Promise<number> {
  const { audit, emitter, background, noteMade } = parts

  const revoked = await giveWay(parts, { ...circumstances, owner }, async (transaction) => {
    const own = { ...circumstances, transaction }
    const later: string[] = []
    let keys = 0
    await lockOwnerRow(parts, owner, transaction)
    await lockOwner(parts, owner, transaction)
    for await (const page of lockInPages(parts, revocable(owner), transaction)) {
      const { made, xid } = await revokeKeys(parts, page, own)
      if (keys === 0) {
        noteMade(transaction, made, { xid, isLogged: true })
      } else if (xid !== null) {
        audit.noteWritten(transaction, entriesOf(audit, made), xid, true)
        if (emitter.listeners.has('revoked')) later.push(toCompact(page))
      }
      keys += made.length
    }
    if (later.length > 0) {
      emitter.callAfter(transaction, 'revoked', () => {
        background.run(() => void announce(parts, later, circumstances))
      })
    }
    return keys
  })
  await parts.verification.changed('all', circumstances.transaction)
  return revoked
}

/** Returns how many keys of an owner `revokeAll` would revoke. */
export async function countRevocable(parts: Parts, owner: Owner, scope: Scope) {
  return count(parts, revocable(owner), { ...scope, owner })
}

/** Returns the condition for the revoked keys of an owner. */
export function revoked(owner: Owner): Condition {
  return { where: `${isOf(owner, 1)} AND key.status = 'REVOKED'`, bind: [owner.id] }
}

function revocable(owner: Owner): Condition {
  return { where: `${isOf(owner, 1)} AND key.status <> 'REVOKED'`, bind: [owner.id] }
}

/** Reports the revocation of many keys, a page at a time, with the records as they are by then. */
async function announce(parts: Parts, pages: readonly string[], circumstances: Circumstances) {
  const { emitter } = parts
  try {
    for (const page of pages) {
      const states = fromCompact(page)
      const ids = states.map(({ id }) => id)
      const records = await readAll(parts, { where: 'key.id = ANY($1::uuid[])', bind: [ids] })
      const found = new Map(records.map((record) => [record.id, record]))
      for (const state of states) {
        const after = found.get(state.id)
        if (!after) continue
        const { status, updatedAt } = state
        const before = { ...after, status, updatedAt: new Date(updatedAt), revokedAt: null }
        emitter.emit('revoked', deepFreeze(noticeOf(before, after, circumstances)))
      }
    }
  } catch (error) {
    emitter.emit('error', { error, notice: 'revoked' })
  }
}

/**
 * Works on many keys in the transaction of the caller, or else in a transaction of the library. If an app has locked
 * one of the keys, it may wait for another of them. So the transaction of the library does not wait for long: it gives
 * way before the server looks for a deadlock, and starts again.
 */
async function giveWay<Result>(
  parts: Parts,
  caller: Caller,
  work: (transaction: Transaction) => Promise<Result>,
): Promise<Result> {
  if (caller.transaction) return parts.inTransaction(caller, work)

  const { sequelize } = parts
  const limits = `${limitStatements(statementLimitMs)}, set_config('lock_timeout', '${patienceMs}ms', true)`
  const endsAt = Date.now() + waitLimitMs
  for (let attempts = 1; ; attempts++) {
    try {
      return await parts.inTransaction(caller, async (transaction) => {
        allowMs(transaction, statementLimitMs)
        await run(sequelize, limits, { transaction })
        return work(transaction)
      })
    } catch (error) {
      if (sqlStateOf(error) !== lockNotAvailable || Date.now() > endsAt) throw error
      await wait(Math.random() * Math.min(20 * 2 ** attempts, longestRestMs))
    }
  }
}

const lockNotAvailable = '55P03'

/** Locks keys in the order of their ids, and returns them a page at a time. The server keeps the rest. */
async function* lockInPages(parts: Parts, condition: Condition, transaction: Transaction) {
  const { sequelize } = parts
  const cursor = quote(`api_key_pages_${randomUUID()}`)
  const sql = lockKeysSql(parts, condition.where, 'ORDER BY key.id')
  const { bind } = condition
  await run(sequelize, `DECLARE ${cursor} NO SCROLL CURSOR FOR ${sql}`, { bind, transaction })
  for (;;) {
    const rows = await select<TextRow>(sequelize, `FETCH ${pageSize} FROM ${cursor}`, {
      transaction,
    })
    if (rows.length > 0) yield rows.map((row) => toReadKey(parts, row))
    if (rows.length < pageSize) break
  }
  await run(sequelize, `CLOSE ${cursor}`, { transaction })
}

/** Revokes the keys that had no use for so many days, of an owner and an environment or of all, and returns how many it revoked. */
export async function revokeUnused(
  parts: Parts,
  criteria: UnusedKeys,
  circumstances: Circumstances,
): Promise<number> {
  const condition = unused(parts, criteria)
  if (criteria.dryRun) return count(parts, condition)

  return inBatches(parts, condition, circumstances, revokeNoted(parts))
}

/** Returns the condition for the keys that `revokeUnused` revokes. */
export function unused(parts: Parts, criteria: UnusedKeys): Condition {
  const { unusedForDays, owner, environment } = criteria
  // The last use of a key that is in use may not be written yet.
  const { where, bind } = conditionOf(parts, { owner, environment })
  const [days, late] = [bind.length + 1, bind.length + 2]
  return {
    where: `${where} AND key.status <> 'REVOKED' AND ${lastUseSql} < clock_timestamp()
      - $${days}::float8 * interval '1 day' - $${late}::float8 * interval '1 millisecond'`,
    bind: [...bind, unusedForDays, parts.lastUsedResolutionMs],
  }
}

/** SQL for the last use of a key, or its creation if it has no use. */
export const lastUseSql = 'coalesce(key.last_used_at, key.created_at)'

function revokeNoted(parts: Parts) {
  return async function revokeNoted(keys: readonly ReadKey[], own: OwnCircumstances) {
    const { made, xid } = await revokeKeys(parts, keys, own)
    parts.noteMade(own.transaction, made, { xid, isLogged: true })
  }
}

/** Revokes the keys of a list or a filter, and returns how many it revoked, and which ids of the list are unknown. */
export async function revokeMany(
  parts: Parts,
  { ids, dryRun, ...filter }: ManyKeys,
  circumstances: Circumstances,
): Promise<{ keys: number; notFound: string[] }> {
  const wanted = ids
    ? { where: 'key.id = ANY($1::uuid[])', bind: [ids] }
    : conditionOf(parts, filter)
  const notFound = ids ? await unknownOf(parts, ids) : []
  const condition = { ...wanted, where: `${wanted.where} AND key.status <> 'REVOKED'` }
  const keys = dryRun
    ? await count(parts, condition)
    : await inBatches(parts, condition, circumstances, revokeNoted(parts))
  return { keys, notFound }
}

/** Returns the ids of a list that no key of the instance has. */
async function unknownOf(parts: Parts, ids: readonly string[]): Promise<string[]> {
  const condition = { where: 'key.id = ANY($1::uuid[])', bind: [ids] }
  const known = new Set(await readIds(parts, condition))
  return [...new Set(ids)].filter((id) => !known.has(id.toLowerCase()))
}

/** Deletes the keys that were revoked so many days ago, and returns how many it deleted. Their audit trail stays. */
export async function pruneRevoked(
  parts: Parts,
  { olderThanDays, dryRun }: Pruning,
  circumstances: Circumstances,
): Promise<number> {
  const condition = {
    where: `key.status = 'REVOKED' AND key.revoked_at < clock_timestamp() - $1::float8 * interval '1 day'`,
    bind: [olderThanDays],
  }
  if (dryRun) return count(parts, condition)

  return deleteAll(parts, condition, circumstances)
}

/** Deletes the keys for which a condition is true, and returns how many it deleted. */
export async function deleteAll(parts: Parts, condition: Condition, circumstances: Circumstances) {
  return inBatches(parts, condition, circumstances, (keys, own) => deleteKeys(parts, keys, own))
}

/**
 * Works on all keys for which a condition is true, a batch in a transaction of its own, and returns how many keys these are. The
 * order of the ids keeps two calls from deadlocks.
 */
export async function inBatches(
  parts: Parts,
  condition: Condition,
  circumstances: Circumstances,
  work: (keys: ReadKey[], own: OwnCircumstances) => Promise<void>,
): Promise<number> {
  let last: string | undefined
  for (let total = 0; ;) {
    const keys = await giveWay(parts, { actor: circumstances.actor }, async (transaction) => {
      const next = last === undefined ? condition : and(condition, 'key.id >', last)
      const sql = lockKeysSql(parts, next.where, `ORDER BY key.id LIMIT ${batchSize}`)
      const rows = await runIn(parts.sequelize, transaction)(sql, next.bind)
      const batch = rows.map((row) => toReadKey(parts, row))
      for (let first = 0; first < batch.length; first += pageSize) {
        await work(batch.slice(first, first + pageSize), { ...circumstances, transaction })
      }
      return batch
    })
    total += keys.length
    last = keys.at(-1)?.record.id
    if (keys.length === batchSize) continue

    await parts.verification.changed('all', undefined)
    return total
  }
}

function and({ where, bind }: Condition, comparison: string, value: unknown): Condition {
  return { where: `${where} AND ${comparison} $${bind.length + 1}`, bind: [...bind, value] }
}

/** Revokes keys whose rows are locked. */
async function revokeKeys(parts: Parts, keys: readonly ReadKey[], own: OwnCircumstances) {
  const changes = { status: 'REVOKED' } as const
  const planned = keys.flatMap((key) => plan(key, { action: 'revoked', changes }, own) ?? [])
  return writeChanges(parts, runIn(parts.sequelize, own.transaction), planned)
}

/** Deletes keys whose rows are locked, and writes their entries. */
async function deleteKeys(parts: Parts, keys: readonly ReadKey[], own: OwnCircumstances) {
  const { sequelize, tables, audit } = parts
  const { transaction } = own
  const deleted = keys.map((before) => {
    const change = { action: 'deleted' as const, before, after: null, ref: randomUUID() }
    return { change, circumstances: own }
  })
  const entries = JSON.stringify(deleted.map(({ change }) => audit.toRow(change, own)))
  const [row] = await runIn(sequelize, transaction)(
    `WITH entry AS MATERIALIZED (
       SELECT * FROM pg_catalog.json_populate_recordset(NULL::${tables.events}, $1::json)
     ), gone AS (
       DELETE FROM ${tables.keys} AS key USING entry WHERE key.id = entry.api_key_id
     ), told AS (
       ${insertEntriesSql(tables, 'FROM entry')}
     )
     SELECT pg_current_xact_id()::text AS xid`,
    [entries],
  )
  parts.noteMade(transaction, deleted, { xid: row?.xid, isLogged: true })
}

/** Returns the states of many keys before their revocation in one text, which `fromCompact` reads. */
function toCompact(keys: readonly ReadKey[]): string {
  return JSON.stringify(
    keys.map(({ record: { id, status, updatedAt } }) => [id, status, updatedAt.getTime()]),
  )
}

/** The old values of a key that a revocation changes. */
type StateBefore = { id: string; status: Status; updatedAt: number }

function fromCompact(text: string): StateBefore[] {
  const states = JSON.parse(text) as [string, Status, number][]
  return states.map(([id, status, updatedAt]) => ({ id, status, updatedAt }))
}
