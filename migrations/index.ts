import type { Sequelize } from 'sequelize'

import { createOptionChecks } from '../models/option-checks'
import { readStorageOptions, type Storage, type StorageOptions } from '../models/storage-options'
import { createApiKeys } from './0001-create-api-keys'
import { createApiKeyEvents } from './0002-create-api-key-events'
import { createApiKeyChangeLog } from './0003-create-api-key-change-log'
import { addApiKeyPolicies } from './0004-add-api-key-policies'
import { addApiKeyRotation } from './0005-add-api-key-rotation'
import { addApiKeyLimits } from './0006-add-api-key-limits'
import { logUserChanges } from './0007-log-user-changes'
import { createApiKeyUsage } from './0008-create-api-key-usage'
import { chainApiKeyEvents } from './0009-chain-api-key-events'
import { createApiKeyExpiryNotices } from './0010-create-api-key-expiry-notices'
import { matchUsers } from './match-users'
import { executedMigrations, type Migration } from './migration'

/** Those of the first version, in order. */
const initial = [
  createApiKeys,
  createApiKeyEvents,
  createApiKeyChangeLog,
  addApiKeyPolicies,
  addApiKeyRotation,
  addApiKeyLimits,
  logUserChanges,
  createApiKeyUsage,
  chainApiKeyEvents,
  createApiKeyExpiryNotices,
]

export const inOrder = initial

/**
 * The migrations, for apps that run them with a runner of their own: a function for each version that changed the schema,
 * of the options `schema` and `users` of `createApiKeys`. It returns `{ name, up, down }`.
 *
 * @example
 * // migrations/20261201-create-api-keys.js, for sequelize-cli
 * module.exports = require('express-api-keys').migrations.initial({ users: { table: 'users' } })
 */
export const migrations = {
  initial(options: StorageOptions = {}): Migration {
    const checks = createOptionChecks('migrations.initial')
    checks.refuseUnknownNames(options, ['schema', 'users'])
    const storage = readStorageOptions(options, checks)

    return joined(
      'create-api-keys',
      initial.map((migration) => migration(storage)),
    )
  },
}

/** Each runs in a transaction of its own: where one is interrupted, the next call goes on. */
function joined(name: string, steps: readonly Migration[]): Migration {
  return {
    name,

    async up(queryInterface) {
      for (const { up } of steps) await up(queryInterface)
    },

    async down(queryInterface) {
      for (const { down } of steps.toReversed()) await down(queryInterface)
    },
  }
}

/** Runs the migrations that the database does not have yet, in order, and has the tables fit the option `users`. */
export async function migrate(sequelize: Sequelize, storage: Storage) {
  const queryInterface = sequelize.getQueryInterface()
  const executed = await executedMigrations(sequelize, storage)

  for (const { name, up } of inOrder.map((migration) => migration(storage))) {
    if (!executed.includes(name)) await up(queryInterface)
  }
  await matchUsers(sequelize, storage)
}
