import { once } from 'node:events'
import type { Server } from 'node:http'

import type { Sequelize } from 'sequelize'

import type { Keys } from './api-keys'

/** How long answers may take that are under way. Kubernetes kills a process after 30 seconds. */
const answersMs = 10_000

/**
 * Ends a process in order: requests under way are answered, then the last uses and audit entries are written, then the pool closes. Another
 * order loses uses, because `close()` needs the database.
 */
export async function shutDown(server: Server, apiKeys: Keys, sequelize: Sequelize): Promise<void> {
  const limit = setTimeout(() => server.closeAllConnections(), answersMs)
  server.close()
  await once(server, 'close')
  clearTimeout(limit)

  await apiKeys.close()
  await sequelize.close()
}
