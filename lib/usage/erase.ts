import { randomUUID } from 'node:crypto'

import type { Sequelize } from 'sequelize'

import { ownerIdSql, ownerTypeSql } from '../../models/owner'
import type { Tables } from '../../models/tables'
import { allowMs } from '../database/answer-limit'
import { limitStatements, run, select } from '../database/query'
import type { InTurn } from '../database/turns'
import type { Owner } from '../keys/owner'

interface UsageErasingParts {
  sequelize: Sequelize
  inTurn: InTurn
  tables: Tables
}

/** The type of owner in counts whose owner was erased. */
export const erasedType = 'erased'

/** How many rows are changed in one statement, and how long it may take. */
const batchSize = 5_000
const statementLimitMs = 60_000

/** Makes the functions that count and change the counts that name an owner. The keys that the owner has keep their counts. */
export function createUsageErasing({ sequelize, inTurn, tables }: UsageErasingParts) {
  const { usage, keys } = tables
  const isOwners = `(owner_type, owner_id) = ($1::text, $2::text)`
  const isWanted = `${isOwners} AND NOT EXISTS (
      SELECT FROM ${keys} AS key
       WHERE key.id = used.api_key_id AND ${ownerTypeSql('key')} = $1::text AND ${ownerIdSql('key')} = $2::text
    )`

  async function count(sql: string, bind: unknown[]): Promise<number> {
    const [row] = await inTurn({}, () =>
      sequelize.transaction(async (transaction) => {
        allowMs(transaction, statementLimitMs)
        await run(sequelize, limitStatements(statementLimitMs), { transaction })
        return select<{ count: string }>(sequelize, sql, { bind, transaction })
      }),
    )
    return Number(row?.count)
  }

  /** Resolves once all writes of counts have ended that have begun before. Each of them writes this table. */
  async function waitForWriters() {
    await inTurn({}, () =>
      sequelize.transaction(async (transaction) => {
        allowMs(transaction, statementLimitMs)
        await run(sequelize, limitStatements(statementLimitMs), { transaction })
        await run(sequelize, `LOCK TABLE ${tables.usageWriters} IN SHARE MODE`, { transaction })
      }),
    )
  }

  return {
    /** Returns the number of counts of an owner, those of keys that the owner has among them. */
    countOf: ({ type, id }: Owner) =>
      count(`SELECT count(*)::text AS count FROM ${usage} AS used WHERE ${isOwners}`, [
        type,
        String(id),
      ]),

    /**
     * Gives the counts of an owner a random id in place of the owner's, a batch at a time, and returns their number. The id is another
     * one for each call, because a row of an earlier owner may be of the same key and hour. Rows are locked in the order in which
     * processes write them. The trail must be erased by then: a process that writes counts later sees that, and does not name the owner.
     */
    async erase({ type, id }: Owner): Promise<number> {
      const bind = [type, String(id), randomUUID()]
      await waitForWriters()
      const sql = `
        WITH found AS MATERIALIZED (
          SELECT api_key_id, hour FROM ${usage} AS used WHERE ${isWanted}
           ORDER BY api_key_id, hour LIMIT ${batchSize} FOR UPDATE
        ), changed AS (
          UPDATE ${usage} AS used SET owner_type = '${erasedType}', owner_id = $3 FROM found
           WHERE used.api_key_id = found.api_key_id AND used.hour = found.hour AND (used.owner_type, used.owner_id) = ($1::text, $2::text)
          RETURNING 1
        )
        SELECT count(*)::text AS count FROM changed`
      for (let erased = 0; ;) {
        const batch = await count(sql, bind)
        erased += batch
        if (batch < batchSize) return erased
      }
    },
  }
}
