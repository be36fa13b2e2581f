import type { Sequelize } from 'sequelize'
import { MigrationError, Umzug } from 'umzug'

import type { StorageOptions } from '../models/storage-options'
import { createApiKeys } from './0001-create-api-keys'
import { createApiKeyEvents } from './0002-create-api-key-events'
import { executedMigrations } from './migration'

/**
 * The migrations, for apps that run them with a runner of their own. Each is a function of the options `schema` and
 * `users` of `createApiKeys` and returns `{ up, down }`.
 *
 * @example
 * // migrations/20261201-create-api-keys.js, for sequelize-cli
 * module.exports = require('express-api-keys').migrations.createApiKeys({ users: { table: 'users', type: 'uuid' } })
 */
export const migrations = { createApiKeys, createApiKeyEvents }

/** Runs the migrations that the database does not have yet, in order. */
export async function migrate(sequelize: Sequelize, options: StorageOptions) {
  const umzug = new Umzug({
    migrations: Object.values(migrations).map((migration) => {
      const { name, up, down } = migration(options)
      const queryInterface = sequelize.getQueryInterface()
      return { name, up: () => up(queryInterface), down: () => down(queryInterface) }
    }),
    // A migration writes its own entry, in its own transaction.
    storage: {
      executed: () => executedMigrations(sequelize, options),
      logMigration: async () => {},
      unlogMigration: async () => {},
    },
    logger: undefined,
  })

  await umzug.up().catch((error: unknown) => {
    throw error instanceof MigrationError ? error.cause : error
  })
}
