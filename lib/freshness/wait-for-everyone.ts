import type { Sequelize } from 'sequelize'

import { literal } from '../../models/names'
import type { Tables } from '../../models/tables'
import { wait } from '../database/background'
import type { Clock } from '../database/clock'
import { onDatabase } from '../database/failures'
import { select } from '../database/query'
import { ApiKeysError } from '../errors'

interface WaitForEveryoneParts {
  sequelize: Sequelize
  tables: Pick<Tables, 'bounds'>
  /** The bound of this process. */
  boundMs: number
  clock: Clock
}

/** The longest time of a timer of Node. A timer that is set for longer fires at once. */
const longestTimerMs = 2 ** 31 - 1

const hidden =
  'express-api-keys: the change is made, but row level security hides the rows of api_key_bounds from this role. They say how ' +
  'long it takes until the change is honoured everywhere. Give the role a policy to read the rows, or switch row level ' +
  'security off for this table.'

/**
 * Makes the function that waits until every process honours the changes made before the call. It waits for the longest bound
 * that any process keeps. Each process registers its bound in the database before it relies on the log.
 */
export function createWaitForEveryone({ sequelize, tables, boundMs, clock }: WaitForEveryoneParts) {
  return async function waitForEveryone(): Promise<void> {
    const [longest] = await onDatabase(() =>
      select<{ ms: string | null; isFiltered: string; isStandby: string }>(
        sequelize,
        `SELECT max(bound_ms)::text AS ms, row_security_active(${literal(tables.bounds)})::text AS "isFiltered",
                pg_is_in_recovery()::text AS "isStandby"
           FROM ${tables.bounds}`,
        { transaction: null },
      ),
    )
    // A standby may lack a bound that was registered just now. A proxy that balances loads may have asked a standby.
    if (longest?.isStandby !== 'false') {
      throw new ApiKeysError('database_unavailable', { cause: new Error('a standby answered') })
    }
    if (longest.isFiltered === 'true' && Number(longest.ms) < boundMs) throw new Error(hidden)
    const endsAt = clock.monotonic() + Math.max(boundMs, Number(longest.ms ?? 0))

    // A timer may fire a little early.
    for (;;) {
      const leftMs = endsAt - clock.monotonic()
      if (leftMs <= 0) return
      await wait(Math.min(Math.ceil(leftMs), longestTimerMs))
    }
  }
}
