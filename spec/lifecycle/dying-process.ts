/*
 * A process that is killed while it handles a notice (see `expiry-notices.spec.ts`). Its argument is the URL of a database.
 */
import { Sequelize } from 'sequelize'

import { createTestApiKeys } from '../support/app'

const [, , url = ''] = process.argv
const apiKeys = createTestApiKeys({ connect: () => new Sequelize(url, { logging: false }) })

apiKeys.on('expiring', () => process.kill(process.pid, 'SIGKILL'))
void apiKeys.announceExpiring()
