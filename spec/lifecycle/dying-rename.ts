/*
 * A process that is killed while it renames a permission (see `permission-names.spec.ts`). Its argument is the URL of a database. The
 * second thousand waits for a key that a transaction of the spec has locked.
 */
import { Sequelize } from 'sequelize'

import { createTestApiKeys } from '../support/app'

const [, , url = ''] = process.argv
const apiKeys = createTestApiKeys({ connect: () => new Sequelize(url, { logging: false }) })

void apiKeys.renamePermission('RUN_GRAPH', 'EXECUTE_GRAPH')
