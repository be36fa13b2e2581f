import { randomUUID } from 'node:crypto'

import type { Sequelize, Transaction } from 'sequelize'

import { keySql } from '../../models/api-key'
import { run, select } from '../../models/statements'
import type { Audit } from './audit'
import type { Condition, KeyReader, Scope } from './key-reader'
import type { ApiKeyRecord } from './record'
import type { Circumstances } from './store'
import type { InTransaction } from './transactions'
import type { UserKeys } from './user-keys'

export interface UnusedKeys {
  unusedForDays: number
  userId?: string | number | undefined
  dryRun: boolean
}

export interface OldKeys {
  olderThanDays: number
  dryRun: boolean
}

interface ManyKeysParts {
  sequelize: Sequelize
  /** The qualified, quoted name of the table of keys. */
  table: string
  reader: KeyReader
  userKeys: UserKeys
  audit: Pick<Audit, 'record'>
  inTransaction: InTransaction
  /** How long after a use that is not told of yet `lastUsedAt` may say that there was none. */
  lastUsedResolutionMs: number
  /** The setting under which keys are deleted whose entries are written here. */
  deleting: string
}

type OwnOptions = Circumstances & { transaction: Transaction }

/** How many keys are worked on in one transaction where there may be any number. */
const batchSize = 1_000

/** How many keys at once are revoked and deleted. */
export function createManyKeys(parts: ManyKeysParts) {
  const { sequelize, table, reader, userKeys, audit, inTransaction } = parts
  const { lastUsedResolutionMs, deleting } = parts

  /** Revokes every key of a user at once and returns how many there were to revoke. */
  async function revokeAll(userId: string | number, options: Omit<Circumstances, 'userId'> = {}) {
    return inTransaction(options.transaction, async (transaction) => {
      await userKeys.lock(userId, transaction)
      const keys = await lockMany(revocable(userId), transaction)
      await revokeMany(keys, { ...options, transaction })
      return keys.length
    })
  }

  /** Returns how many keys of a user there are to revoke. */
  async function countRevocable(userId: string | number, { transaction }: Scope = {}) {
    return reader.count(revocable(userId), transaction)
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
      : inBatches(condition, (keys, own) => revokeMany(keys, { ...options, ...own }))
  }

  /** Deletes the keys that were revoked so many days ago, and returns how many there were. What the trail says stays. */
  async function pruneRevoked({ olderThanDays, dryRun }: OldKeys, options: Circumstances) {
    const condition = {
      where: `key.status = 'REVOKED' AND key.revoked_at < clock_timestamp() - $1::float8 * interval '1 day'`,
      bind: [olderThanDays],
    }
    return dryRun
      ? reader.count(condition)
      : inBatches(condition, (keys, own) => deleteMany(keys, { ...options, ...own }))
  }

  /** Has all keys that are such worked on, a batch in a transaction of its own, and returns how many there were. */
  async function inBatches(
    condition: Condition,
    work: (keys: ApiKeyRecord[], own: { transaction: Transaction }) => Promise<void>,
  ): Promise<number> {
    let last: string | undefined
    for (let total = 0; ;) {
      const keys = await inTransaction(undefined, async (transaction) => {
        const next = last === undefined ? condition : and(condition, 'key.id >', last)
        const batch = await lockMany(next, transaction, `LIMIT ${batchSize}`)
        await work(batch, { transaction })
        return batch
      })
      total += keys.length
      last = keys.at(-1)?.id
      if (keys.length < batchSize) return total
    }
  }

  /** In the order of their ids, so that two who lock many do not wait for each other. */
  async function lockMany(condition: Condition, transaction: Transaction, limit = '') {
    return reader.readAll(condition, `ORDER BY key.id ${limit} FOR NO KEY UPDATE`, transaction)
  }

  async function revokeMany(keys: readonly ApiKeyRecord[], options: OwnOptions) {
    if (keys.length === 0) return

    const before = new Map(keys.map((key) => [key.id, key]))
    // Each row gets a reference of its own, because each has an entry of its own.
    const rows = await select<{ json: string; ref: string }>(
      sequelize,
      `UPDATE ${table} AS key
          SET status = 'REVOKED', revoked_at = clock_timestamp(), updated_at = clock_timestamp(),
              event_ref = gen_random_uuid()
        WHERE id = ANY($1::uuid[])
        RETURNING ${keySql('key')} AS json, event_ref::text AS ref`,
      { bind: [[...before.keys()]], transaction: options.transaction },
    )
    const changes = rows.map(({ json, ref }) => {
      const after = reader.readRecord(json)
      return { action: 'revoked' as const, before: before.get(after.id) ?? null, after, ref }
    })
    await audit.record(changes, options)
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

function revocable(userId: string | number): Condition {
  return { where: `key.user_id = $1 AND key.status <> 'REVOKED'`, bind: [userId] }
}

function and({ where, bind }: Condition, comparison: string, value: unknown): Condition {
  return { where: `${where} AND ${comparison} $${bind.length + 1}`, bind: [...bind, value] }
}
