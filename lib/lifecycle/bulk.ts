import { randomUUID } from 'node:crypto'

import type { Sequelize, Transaction } from 'sequelize'

import { keySql, msSql, type Status, type Time } from '../../models/api-key'
import { quote } from '../../models/names'
import { limitStatements, run, select } from '../../models/statements'
import type { Background } from '../database/background'
import { noticeOf, type Audit } from '../audit/trail'
import type { Emitter } from '../keys/emitter'
import type { Condition, KeyReader, Scope } from './reader'
import type { Pruning, UnusedKeys } from '../keys/input'
import { deepFreeze } from '../keys/metadata'
import { readTime, type ApiKeyRecord } from '../keys/record'
import type { Circumstances } from './store'
import type { InTransaction } from './transactions'
import type { Caller } from '../keys/turns'
import type { UserKeys } from './user-keys'

interface ManyKeysParts {
  sequelize: Sequelize
  /** The qualified, quoted name of the table of keys. */
  table: string
  reader: KeyReader
  userKeys: UserKeys
  background: Pick<Background, 'run'>
  audit: Pick<Audit, 'record' | 'recordOnly'>
  emitter: Pick<Emitter, 'emit' | 'isHeard' | 'callAfter'>
  inTransaction: InTransaction
  /** How long after a use that is not told of yet `lastUsedAt` may say that there was none. */
  lastUsedResolutionMs: number
  /** The setting under which keys are deleted whose entries are written here. */
  deleting: string
}

type OwnOptions = Circumstances & { transaction: Transaction }

/** How many keys are worked on in one transaction where there may be any number. */
const batchSize = 1_000

/** How long a statement takes at most that reads all keys, or all of a user. */
const statementLimitMs = 600_000

/** How many keys of one transaction are in memory at once: so few that other requests do not wait. */
const pageSize = 200

/** How many keys at once are revoked and deleted. */
export function createManyKeys(parts: ManyKeysParts) {
  const { sequelize, table, reader, userKeys, audit, inTransaction } = parts
  const { background, emitter, lastUsedResolutionMs, deleting } = parts

  /**
   * Revokes every key of a user in one transaction, and returns how many there were to revoke. There may be any number, and so
   * they are read and revoked a page at a time. For listeners, memory keeps the records of the first page only.
   */
  async function revokeAll(userId: string | number, options: Omit<Circumstances, 'userId'> = {}) {
    return inTransaction({ ...options, userId }, async (transaction) => {
      const own = { ...options, transaction }
      const later: string[] = []
      let count = 0
      if (!options.transaction) await allowTime(transaction)
      await userKeys.lock(userId, transaction)
      for await (const ids of lockInPages(revocable(userId), transaction)) {
        const changes = await revokeRows(ids, transaction)
        if (count === 0) {
          await audit.record(changes, own)
        } else {
          await audit.recordOnly(changes, own)
          if (emitter.isHeard('revoked')) later.push(toCompact(changes))
        }
        count += changes.length
      }
      if (later.length > 0) {
        emitter.callAfter(transaction, () => background.run(() => void announce(later, options)))
      }
      return count
    })
  }

  /** Reports the revocation of many keys, a page at a time, with the records as they are by then. */
  async function announce(pages: readonly string[], options: Circumstances) {
    try {
      for (const page of pages) {
        const states = fromCompact(page)
        const those = { where: 'key.id = ANY($1::uuid[])', bind: [states.map(({ id }) => id)] }
        const records = await reader.readAll(those)
        const found = new Map(records.map((record) => [record.id, record]))
        for (const state of states) {
          const after = found.get(state.id)
          if (after)
            emitter.emit('revoked', deepFreeze(noticeOf(toRevocation(after, state), options)))
        }
      }
    } catch (error) {
      emitter.emit('error', { error, notice: 'revoked' })
    }
  }

  async function allowTime(own: Transaction) {
    await run(sequelize, limitStatements(statementLimitMs), { transaction: own })
  }

  /** Locks keys in the order of their ids and returns these, a page at a time. The server keeps the rest. */
  async function* lockInPages({ where, bind }: Condition, transaction: Transaction) {
    const cursor = quote(`api_key_pages_${randomUUID()}`)
    await run(
      sequelize,
      `DECLARE ${cursor} NO SCROLL CURSOR FOR
        SELECT key.id::text AS id FROM ${table} AS key WHERE ${reader.isOwn} AND ${where}
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

  /** Returns how many keys of a user there are to revoke. */
  async function countRevocable(userId: string | number, { transaction }: Scope = {}) {
    return reader.count(revocable(userId), { userId, transaction })
  }

  /**
   * Revokes the keys, of one user or all, that nobody has used for so many days, and returns how many there were. A batch at
   * a time, so that nobody waits for all of them.
   */
  async function revokeUnused(
    { unusedForDays, userId, dryRun }: UnusedKeys,
    options: Circumstances,
  ) {
    // A key that is in use may not be written down yet as that.
    const unused = {
      where: `key.status <> 'REVOKED' AND coalesce(key.last_used_at, key.created_at) < clock_timestamp()
        - $1::float8 * interval '1 day' - $2::float8 * interval '1 millisecond'`,
      bind: [unusedForDays, lastUsedResolutionMs],
    }
    const condition = userId === undefined ? unused : and(unused, 'key.user_id =', userId)
    return dryRun
      ? reader.count(condition)
      : inBatches({ actor: options.actor }, condition, async (keys, own) => {
          const ids = keys.map(({ id }) => id)
          await audit.record(await revokeRows(ids, own.transaction), { ...options, ...own })
        })
  }

  /** Deletes the keys that were revoked so many days ago, and returns how many there were. What the trail says stays. */
  async function pruneRevoked({ olderThanDays, dryRun }: Pruning, options: Circumstances) {
    const condition = {
      where: `key.status = 'REVOKED' AND key.revoked_at < clock_timestamp() - $1::float8 * interval '1 day'`,
      bind: [olderThanDays],
    }
    return dryRun
      ? reader.count(condition)
      : inBatches({ actor: options.actor }, condition, (keys, own) =>
          deleteMany(keys, { ...options, ...own }),
        )
  }

  /** Has all keys that are such worked on, a batch in a transaction of its own, and returns how many there were. */
  async function inBatches(
    caller: Caller,
    condition: Condition,
    work: (keys: ApiKeyRecord[], own: { transaction: Transaction }) => Promise<void>,
  ): Promise<number> {
    let last: string | undefined
    for (let total = 0; ;) {
      const keys = await inTransaction(caller, async (transaction) => {
        await allowTime(transaction)
        const next = last === undefined ? condition : and(condition, 'key.id >', last)
        const batch = await lockMany(next, transaction, `LIMIT ${batchSize}`)
        for (let first = 0; first < batch.length; first += pageSize) {
          await work(batch.slice(first, first + pageSize), { transaction })
        }
        return batch
      })
      total += keys.length
      last = keys.at(-1)?.id
      if (keys.length < batchSize) return total
    }
  }

  /** In the order of their ids, so that two who lock many do not wait for each other. */
  async function lockMany(condition: Condition, transaction: Transaction, limit = '') {
    return reader.readAll(condition, { transaction }, `ORDER BY key.id ${limit} FOR NO KEY UPDATE`)
  }

  /** Revokes keys that the transaction has locked. */
  async function revokeRows(ids: readonly string[], transaction: Transaction) {
    if (ids.length === 0) return []

    // Each row gets a reference of its own, because each has an entry of its own.
    const rows = await select<{ json: string; ref: string } & StateBefore>(
      sequelize,
      `UPDATE ${table} AS key
          SET status = 'REVOKED', revoked_at = clock_timestamp(), updated_at = clock_timestamp(),
              event_ref = gen_random_uuid()
         FROM ${table} AS old
        WHERE old.id = key.id AND key.id = ANY($1::uuid[])
        RETURNING ${keySql('key')} AS json, key.event_ref::text AS ref, old.status,
                  (${msSql('old.updated_at')})::text AS "updatedAt"`,
      { bind: [ids], transaction },
    )
    return rows.map(({ json, ref, ...state }) => {
      const { before, after } = toRevocation(reader.readRecord(json), state)
      return { action: 'revoked' as const, before, after, ref }
    })
  }

  async function deleteMany(keys: readonly ApiKeyRecord[], options: OwnOptions) {
    if (keys.length === 0) return

    const { transaction } = options
    // Else a trigger would write that the database did it.
    await run(sequelize, `SELECT set_config($1, pg_current_xact_id()::text, true)`, {
      bind: [deleting],
      transaction,
    })
    await run(sequelize, `DELETE FROM ${table} WHERE id = ANY($1::uuid[])`, {
      bind: [keys.map(({ id }) => id)],
      transaction,
    })
    const changes = keys.map((key) => ({
      action: 'deleted' as const,
      before: key,
      after: null,
      ref: randomUUID(),
    }))
    await audit.record(changes, options)
  }

  return { revokeAll, countRevocable, revokeUnused, pruneRevoked }
}

/** What a revocation changes of a key, as it was before. */
interface StateBefore {
  status: Status
  updatedAt: Time
}

function toRevocation(after: ApiKeyRecord, { status, updatedAt }: StateBefore) {
  const before = { ...after, status, updatedAt: readTime(updatedAt), revokedAt: null }
  return { before, after }
}

/** Many keys that were revoked, in one text: what `fromCompact` returns. */
function toCompact(changes: readonly { before: ApiKeyRecord }[]): string {
  return JSON.stringify(
    changes.map(({ before: { id, status, updatedAt } }) => [id, status, updatedAt.getTime()]),
  )
}

function fromCompact(text: string): (StateBefore & { id: string })[] {
  const states = JSON.parse(text) as [string, Status, number][]
  return states.map(([id, status, updatedAt]) => ({ id, status, updatedAt }))
}

function revocable(userId: string | number): Condition {
  return { where: `key.user_id = $1 AND key.status <> 'REVOKED'`, bind: [userId] }
}

function and({ where, bind }: Condition, comparison: string, value: unknown): Condition {
  return { where: `${where} AND ${comparison} $${bind.length + 1}`, bind: [...bind, value] }
}
