import { randomUUID } from 'node:crypto'

import type { Transaction } from 'sequelize'

import { isOfPrefix, keySql, msSql, type Status, type Time } from '../../models/api-key'
import { quote } from '../../models/names'
import { limitStatements, run, select } from '../database/query'
import { noticeOf } from '../audit/trail'
import type { Pruning, UnusedKeys } from '../keys/input'
import { deepFreeze } from '../keys/metadata'
import { readTime, type ApiKeyRecord } from '../keys/record'
import type { Circumstances, OwnCircumstances, Parts } from './calls'
import { lockUser } from './policies'
import { count, readAll, readRecord, type Condition, type Scope } from './store'

/** How many keys `revokeUnused` and `pruneRevoked` change in one transaction. */
const batchSize = 1_000

/** How long a statement takes at most that reads all keys, or all keys of a user. */
const statementLimitMs = 600_000

/** How many keys of a transaction are in memory at once: so few that other requests do not wait. */
const pageSize = 200

/**
 * Revokes every key of a user in one transaction, and returns how many it revoked. It reads and revokes a page at a time, because
 * there may be any number. For listeners, memory keeps the records of the first page only.
 */
export async function revokeAll(
  parts: Parts,
  userId: string | number,
  circumstances: Circumstances,
): Promise<number> {
  const { audit, emitter, background } = parts

  return parts.inTransaction({ ...circumstances, userId }, async (transaction) => {
    const own = { ...circumstances, transaction }
    const later: string[] = []
    let keys = 0
    if (!circumstances.transaction) await allowTime(parts, transaction)
    await lockUser(parts, userId, transaction)
    for await (const ids of lockInPages(parts, revocable(userId), transaction)) {
      const changes = await revokeRows(parts, ids, transaction)
      if (keys === 0) {
        await audit.record(changes, own)
      } else {
        await audit.recordOnly(changes, own)
        if (emitter.hasListener('revoked')) later.push(toCompact(changes))
      }
      keys += changes.length
    }
    if (later.length > 0) {
      emitter.callAfter(transaction, 'revoked', () => {
        background.run(() => void announce(parts, later, circumstances))
      })
    }
    return keys
  })
}

/** Returns how many keys of a user `revokeAll` would revoke. */
export async function countRevocable(parts: Parts, userId: string | number, scope: Scope) {
  return count(parts, revocable(userId), { ...scope, userId })
}

function revocable(userId: string | number): Condition {
  return { where: `key.user_id = $1 AND key.status <> 'REVOKED'`, bind: [userId] }
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
        const notice = noticeOf(toRevocation(after, state), circumstances)
        emitter.emit('revoked', deepFreeze(notice))
      }
    }
  } catch (error) {
    emitter.emit('error', { error, notice: 'revoked' })
  }
}

async function allowTime({ sequelize }: Parts, transaction: Transaction) {
  await run(sequelize, limitStatements(statementLimitMs), { transaction })
}

/** Locks keys in the order of their ids, and returns the ids a page at a time. The server keeps the rest. */
async function* lockInPages(
  { sequelize, tables, keyPrefix }: Parts,
  { where, bind }: Condition,
  transaction: Transaction,
) {
  const cursor = quote(`api_key_pages_${randomUUID()}`)
  await run(
    sequelize,
    `DECLARE ${cursor} NO SCROLL CURSOR FOR
      SELECT key.id::text AS id FROM ${tables.keys} AS key
       WHERE ${isOfPrefix('key', keyPrefix)} AND ${where}
       ORDER BY key.id FOR NO KEY UPDATE`,
    { bind, transaction },
  )
  for (;;) {
    const rows = await select<{ id: string }>(sequelize, `FETCH ${pageSize} FROM ${cursor}`, {
      transaction,
    })
    if (rows.length > 0) yield rows.map(({ id }) => id)
    if (rows.length < pageSize) break
  }
  await run(sequelize, `CLOSE ${cursor}`, { transaction })
}

/** Revokes the keys that had no use for so many days, of one user or all, and returns how many it revoked. */
export async function revokeUnused(
  parts: Parts,
  { unusedForDays, userId, dryRun }: UnusedKeys,
  circumstances: Circumstances,
): Promise<number> {
  // The last use of a key that is in use may not be written yet.
  const unused = {
    where: `key.status <> 'REVOKED' AND coalesce(key.last_used_at, key.created_at) < clock_timestamp()
      - $1::float8 * interval '1 day' - $2::float8 * interval '1 millisecond'`,
    bind: [unusedForDays, parts.lastUsedResolutionMs],
  }
  const condition = userId === undefined ? unused : and(unused, 'key.user_id =', userId)
  if (dryRun) return count(parts, condition)

  return inBatches(parts, condition, circumstances, async (keys, own) => {
    const ids = keys.map(({ id }) => id)
    await parts.audit.record(await revokeRows(parts, ids, own.transaction), own)
  })
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

  return inBatches(parts, condition, circumstances, (keys, own) => deleteRows(parts, keys, own))
}

/**
 * Works on all keys for which a condition is true, a batch in a transaction of its own, and returns how many keys these are. The
 * order of the ids keeps two calls from deadlocks.
 */
async function inBatches(
  parts: Parts,
  condition: Condition,
  circumstances: Circumstances,
  work: (keys: ApiKeyRecord[], own: OwnCircumstances) => Promise<void>,
): Promise<number> {
  let last: string | undefined
  for (let total = 0; ;) {
    const keys = await parts.inTransaction({ actor: circumstances.actor }, async (transaction) => {
      await allowTime(parts, transaction)
      const next = last === undefined ? condition : and(condition, 'key.id >', last)
      const clauses = `ORDER BY key.id LIMIT ${batchSize} FOR NO KEY UPDATE`
      const batch = await readAll(parts, next, { transaction }, clauses)
      for (let first = 0; first < batch.length; first += pageSize) {
        await work(batch.slice(first, first + pageSize), { ...circumstances, transaction })
      }
      return batch
    })
    total += keys.length
    last = keys.at(-1)?.id
    if (keys.length < batchSize) return total
  }
}

function and({ where, bind }: Condition, comparison: string, value: unknown): Condition {
  return { where: `${where} AND ${comparison} $${bind.length + 1}`, bind: [...bind, value] }
}

/** Revokes keys whose rows are locked. Each row gets a reference of its own, because each key has its own entry. */
async function revokeRows(parts: Parts, ids: readonly string[], transaction: Transaction) {
  if (ids.length === 0) return []

  const rows = await select<{ json: string; ref: string } & StateBefore>(
    parts.sequelize,
    `UPDATE ${parts.tables.keys} AS key
        SET status = 'REVOKED', revoked_at = clock_timestamp(), updated_at = clock_timestamp(),
            event_ref = gen_random_uuid()
       FROM ${parts.tables.keys} AS old
      WHERE old.id = key.id AND key.id = ANY($1::uuid[])
      RETURNING ${keySql('key')} AS json, key.event_ref::text AS ref, old.status,
                (${msSql('old.updated_at')})::text AS "updatedAt"`,
    { bind: [ids], transaction },
  )
  return rows.map(({ json, ref, ...state }) => {
    const { before, after } = toRevocation(readRecord(parts, JSON.parse(json)), state)
    return { action: 'revoked' as const, before, after, ref }
  })
}

async function deleteRows(parts: Parts, keys: readonly ApiKeyRecord[], own: OwnCircumstances) {
  const { sequelize, tables, audit } = parts
  const { transaction } = own
  // Otherwise a trigger would write entries that say that the database deleted the keys.
  await run(sequelize, `SELECT set_config($1, pg_current_xact_id()::text, true)`, {
    bind: [tables.settings.deleting],
    transaction,
  })
  const bind = [keys.map(({ id }) => id)]
  await run(sequelize, `DELETE FROM ${tables.keys} WHERE id = ANY($1::uuid[])`, {
    bind,
    transaction,
  })
  const changes = keys.map((before) => ({
    action: 'deleted' as const,
    before,
    after: null,
    ref: randomUUID(),
  }))
  await audit.record(changes, own)
}

/** The values of a key that a revocation changes, as they were before. */
interface StateBefore {
  status: Status
  updatedAt: Time
}

function toRevocation(after: ApiKeyRecord, { status, updatedAt }: StateBefore) {
  const before = { ...after, status, updatedAt: readTime(updatedAt), revokedAt: null }
  return { before, after }
}

/** Returns the states of many keys before their revocation in one text, which `fromCompact` reads. */
function toCompact(changes: readonly { before: ApiKeyRecord }[]): string {
  return JSON.stringify(
    changes.map(({ before: { id, status, updatedAt } }) => [id, status, updatedAt.getTime()]),
  )
}

function fromCompact(text: string): (StateBefore & { id: string })[] {
  const states = JSON.parse(text) as [string, Status, number][]
  return states.map(([id, status, updatedAt]) => ({ id, status, updatedAt }))
}
