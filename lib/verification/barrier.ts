import type { Sequelize } from 'sequelize'

import { select } from '../../models/statements'
import { setTimeout } from '../background'
import { onDatabase } from '../keys/database'
import type { Clock } from './clock'

interface BarrierParts {
  sequelize: Sequelize
  /** The qualified, quoted name of the table of bounds. */
  bounds: string
  /** The bound of this process. */
  boundMs: number
  clock: Clock
}

/**
 * Makes the function that waits until no process goes by what was so when it was called: as long as the longest bound
 * that any process holds itself to. Every one of them stands in the database before it is relied on.
 */
export function createBarrier({ sequelize, bounds, boundMs, clock }: BarrierParts) {
  return async function waitForEveryone(): Promise<void> {
    const startedAt = clock.monotonic()
    const [longest] = await onDatabase(() =>
      select<{ ms: string | null }>(sequelize, `SELECT max(bound_ms)::text AS ms FROM ${bounds}`, {
        transaction: null,
      }),
    )
    const waitMs = Math.max(boundMs, Number(longest?.ms ?? 0))

    // A timer may fire a little early.
    for (let leftMs = waitMs; leftMs > 0; leftMs = startedAt + waitMs - clock.monotonic()) {
      await new Promise((resolve) => {
        setTimeout(resolve, Math.ceil(leftMs))
      })
    }
  }
}
