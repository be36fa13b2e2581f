import { QueryTypes, type Sequelize } from 'sequelize'

import { until } from './until'

/** Resolves once a session of the database waits for a lock, with the number of its process. */
export async function findBlockedSession(sequelize: Sequelize): Promise<number> {
  let pid: number | undefined
  await until(async () => {
    const [blocked] = await sequelize.query<{ pid: number }>(
      `SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0`,
      { type: QueryTypes.SELECT },
    )
    pid = blocked?.pid
    return pid !== undefined
  })
  return Number(pid)
}
