import type { Sequelize, Transaction } from 'sequelize'

import { allowMs } from '../database/answer-limit'
import { limitStatements, select } from '../database/query'
import type { Tables } from '../../models/tables'
import { dayMs } from '../database/clock'
import type { InTurn } from '../database/turns'

interface UsagePruningParts {
  sequelize: Sequelize
  inTurn: InTurn
  tables: Tables
}

/** How many rows are deleted in one statement. */
const batchSize = 10_000

/** How long such a statement may take. */
const statementLimitMs = 60_000

/** Makes the functions that count and delete the counts of hours that began a number of days ago. */
export function createUsagePruning({ sequelize, inTurn, tables }: UsagePruningParts) {
  async function pruneBatch(before: string, transaction: Transaction): Promise<number> {
    allowMs(transaction, statementLimitMs)
    await select(sequelize, limitStatements(statementLimitMs), { transaction })
    const [row] = await select<{ count: string }>(
      sequelize,
      `WITH deleted AS (
         DELETE FROM ${tables.usage} WHERE ctid = ANY (ARRAY(
           SELECT ctid FROM ${tables.usage} WHERE hour < $1::timestamptz
            ORDER BY hour LIMIT ${batchSize} FOR UPDATE SKIP LOCKED
         ))
         RETURNING 1
       )
       SELECT count(*)::text AS count FROM deleted`,
      { bind: [before], transaction },
    )
    return Number(row?.count)
  }

  return {
    /** Deletes the counts, a batch at a time, and returns their number. */
    async prune(olderThanDays: number): Promise<number> {
      const before = startOf(olderThanDays)
      await inTurn({}, () =>
        // A running process writes its row again, so only the rows of dead processes are gone for good.
        select(sequelize, `DELETE FROM ${tables.usageWriters} WHERE written_at < $1::timestamptz`, {
          bind: [before],
          transaction: null,
        }),
      )
      for (let deleted = 0; ;) {
        const count = await sequelize.transaction((own) => pruneBatch(before, own))
        deleted += count
        if (count < batchSize) return deleted
      }
    },

    /** Returns the number of counts that `prune` would delete. */
    async countOld(olderThanDays: number): Promise<number> {
      const [row] = await inTurn({}, () =>
        select<{ count: string }>(
          sequelize,
          `SELECT count(*)::text AS count FROM ${tables.usage} WHERE hour < $1::timestamptz`,
          { bind: [startOf(olderThanDays)], transaction: null },
        ),
      )
      return Number(row?.count)
    },
  }
}

function startOf(olderThanDays: number): string {
  return new Date(Date.now() - olderThanDays * dayMs).toISOString()
}
