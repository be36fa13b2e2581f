/*
 * A process that is killed while it creates many keys (see `many-keys.spec.ts`). Its argument is the URL of a database. The third
 * thousand waits for a user whom a transaction of the spec has locked.
 */
import { Sequelize } from 'sequelize'

import { createTestApiKeys } from '../support/app'
import { newKey } from '../support/keys'

export const idempotencyKey = 'deployments of 2026-11-29'

export const keysOfBatch = Array.from({ length: 3_500 }, (_, index) =>
  newKey({ name: `Key ${index}`, userId: index === 2_500 ? 'held' : `user-${index % 100}` }),
)

if (require.main === module) {
  const [, , url = ''] = process.argv
  const apiKeys = createTestApiKeys({ connect: () => new Sequelize(url, { logging: false }) })
  void apiKeys.createMany(keysOfBatch, { idempotencyKey })
}
