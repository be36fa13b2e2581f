import { setTimeout as sleep } from 'node:timers/promises'

import { QueryTypes, type Sequelize } from 'sequelize'

/** Resolves once a session of the database waits for a lock, with the number of its process. */
export async function findBlockedSession(sequelize: Sequelize): Promise<number> {
  for (;;) {
    const [blocked] = await sequelize.query<{ pid: number }>(
      `SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0`,
      { type: QueryTypes.SELECT },
    )
    if (blocked) return blocked.pid
    await sleep(5)
  }
}
