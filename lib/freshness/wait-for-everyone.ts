import type { Sequelize } from 'sequelize'

import { literal } from '../../models/names'
import { select } from '../../models/statements'
import { setTimeout } from '../database/background'
import { ApiKeysError } from '../errors'
import { onDatabase } from '../database/failures'
import type { Clock } from '../database/clock'

interface BarrierParts {
  sequelize: Sequelize
  /** The qualified, quoted name of the table of bounds. */
  bounds: string
  /** The bound of this process. */
  boundMs: number
  clock: Clock
}

/** Node takes no longer time for a timer: one that is set for longer fires at once. */
const longestTimerMs = 2 ** 31 - 1

const hidden =
  'express-api-keys: the change is made, but row level security hides the rows of api_key_bounds from this role. They say how ' +
  'long it takes until the change is honoured everywhere. Give the role a policy to read the rows, or switch row level ' +
  'security off for this table.'

/**
 * Makes the function that waits until no process goes by what was so when it was called: as long as the longest bound
 * that any process holds itself to. Every one of them stands in the database before it is relied on.
 */
export function createBarrier({ sequelize, bounds, boundMs, clock }: BarrierParts) {
  return async function waitForEveryone(): Promise<void> {
    const startedAt = clock.monotonic()
    const [longest] = await onDatabase(() =>
      select<{ ms: string | null; isFiltered: string; isStandby: string }>(
        sequelize,
        `SELECT max(bound_ms)::text AS ms, row_security_active(${literal(bounds)})::text AS "isFiltered",
                pg_is_in_recovery()::text AS "isStandby"
           FROM ${bounds}`,
        { transaction: null },
      ),
    )
    // A standby may not know a bound that was registered just now. A proxy that balances loads may have asked one.
    if (longest?.isStandby !== 'false') {
      throw new ApiKeysError('database_unavailable', { cause: new Error('a standby answered') })
    }
    if (longest.isFiltered === 'true' && Number(longest.ms) < boundMs) throw new Error(hidden)
    const waitMs = Math.max(boundMs, Number(longest?.ms ?? 0))

    // A timer may fire a little early.
    for (let leftMs = waitMs; leftMs > 0; leftMs = startedAt + waitMs - clock.monotonic()) {
      await new Promise((resolve) => {
        setTimeout(resolve, Math.min(Math.ceil(leftMs), longestTimerMs))
      })
    }
  }
}
