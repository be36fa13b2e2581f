import { QueryTypes } from 'sequelize'

import type { Database } from '../support/database'
import { until } from '../support/until'

/**
 * Returns how often the server has found a deadlock in a database. Sessions report that at their end at the latest, so all other sessions
 * are ended before.
 */
export async function countDeadlocks(database: Database): Promise<number> {
  const observer = database.connect({ pool: { max: 1 } })
  async function read(sql: string) {
    const [row] = await observer.query<{ count: number }>(sql, { type: QueryTypes.SELECT })
    return row?.count ?? NaN
  }
  const endOthers = `
    SELECT count(pg_terminate_backend(pid))::int FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()`
  await until(async () => (await read(endOthers)) === 0)
  return read(
    'SELECT deadlocks::int AS count FROM pg_stat_database WHERE datname = current_database()',
  )
}
