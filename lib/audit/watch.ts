import type { Tables } from '../../models/tables'
import { clearTimeout, type Background } from '../database/background'
import type { Clock } from '../database/clock'
import type { Connection } from '../database/connection'
import { writeLimitMs } from '../database/writer'
import { queueSql, type Look } from './seal'

interface WatchParts {
  background: Background
  clock: Clock
  connection: Pick<Connection, 'query'>
  tables: Tables
}

/** How often a process looks for entries. The time is random, so that processes do not look together. */
const lookEveryMs = () => 600 + 300 * Math.random()

/** How often entries are sealed without a look, which also looks through the whole queue. */
export const lookAnewEveryMs = 60_000

/** How long entries are left alone that could not be sealed. */
const heldMs = 10_000

/**
 * Makes the watch of a process that verifies keys. It looks for entries without a seal once a second, and seals those of processes that
 * have ended. Most looks find none, so a look is one small statement.
 */
export function createWatch(
  { background, clock, connection, tables }: WatchParts,
  sealing: { look: Pick<Look, 'from'>; isBusy(): boolean; seal(): Promise<void> },
) {
  let timer: NodeJS.Timeout | undefined
  let sealedAt = -Infinity
  let heldUntil = -Infinity

  async function isAnyWaiting() {
    const sql = `SELECT EXISTS (SELECT FROM ${queueSql(tables, sealing.look)})::text AS is_any
                   FROM (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xmin) AS clock`
    const { rows } = await connection.query(sql, writeLimitMs)
    return rows[0]?.is_any === 'true'
  }

  async function lookNow() {
    const now = clock.monotonic()
    const isDue = now - sealedAt > lookAnewEveryMs
    if (sealing.isBusy() || (now < heldUntil && !isDue)) return

    if (isDue) sealedAt = now
    else if (!(await isAnyWaiting())) return
    await sealing.seal()
    // A database that gets its seals by replication keeps its entries, and so does a database whose head is hidden.
    if (await isAnyWaiting()) heldUntil = clock.monotonic() + heldMs
  }

  async function lookOnce() {
    try {
      await lookNow()
    } catch {
      // The role may have no right to seal.
      heldUntil = clock.monotonic() + lookAnewEveryMs
    }
  }

  /** The next look begins some time after the last has ended, so that a slow database is not asked twice at once. */
  function start() {
    const next = background.startTimer(() => {
      void lookOnce().then(() => timer === next && start())
    }, lookEveryMs())
    timer = next
  }

  return {
    start,

    get isOn() {
      return timer !== undefined
    },

    stop() {
      clearTimeout(timer)
      timer = undefined
    },
  }
}
