/*
 * A process that is killed while it creates many keys (see `many-keys.spec.ts`). Its argument is the URL of a database. The third
 * thousand waits for a user whom a transaction of the spec has locked.
 */
import { Sequelize } from 'sequelize'

import { createTestApiKeys } from '../support/app'
import { newKey } from '../support/keys'

const [, , url = ''] = process.argv
const apiKeys = createTestApiKeys({ connect: () => new Sequelize(url, { logging: false }) })

const keys = Array.from({ length: 3_500 }, (_, index) => newKey({ userId: `user-${index % 100}` }))
keys[2_500] = newKey({ userId: 'held' })
void apiKeys.createMany(keys)
