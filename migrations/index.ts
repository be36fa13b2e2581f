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
import { executedMigrations, type Migration } from './migration'

/**
 * The migrations, for apps that run them with a runner of their own. Each is a function of the options `schema` and
 * `users` of `createApiKeys` and returns `{ up, down }`.
 *
 * @example
 * // migrations/20261201-create-api-keys.js, for sequelize-cli
 * module.exports = require('express-api-keys').migrations.createApiKeysTable({ users: { table: 'users' } })
 */
export const migrations = {
  createApiKeysTable: ofOptions('createApiKeysTable', createApiKeys),
  createApiKeyEventsTable: ofOptions('createApiKeyEventsTable', createApiKeyEvents),
  createApiKeyChangeLog: ofOptions('createApiKeyChangeLog', createApiKeyChangeLog),
  addApiKeyPolicies: ofOptions('addApiKeyPolicies', addApiKeyPolicies),
  addApiKeyRotation: ofOptions('addApiKeyRotation', addApiKeyRotation),
  addApiKeyLimits: ofOptions('addApiKeyLimits', addApiKeyLimits),
  logUserChanges: ofOptions('logUserChanges', logUserChanges),
  createApiKeyUsageTable: ofOptions('createApiKeyUsageTable', createApiKeyUsage),
  chainApiKeyEvents: ofOptions('chainApiKeyEvents', chainApiKeyEvents),
  createApiKeyExpiryNoticesTable: ofOptions(
    'createApiKeyExpiryNoticesTable',
    createApiKeyExpiryNotices,
  ),
}

function ofOptions(name: string, migration: (storage: Storage) => Migration) {
  return (options: StorageOptions = {}): Migration => {
    const checks = createOptionChecks(`migrations.${name}`)
    checks.refuseUnknownNames(options, ['schema', 'users'])

    return migration(readStorageOptions(options, checks))
  }
}

const inOrder = [
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

/** Runs the migrations that the database does not have yet, in order. */
export async function migrate(sequelize: Sequelize, storage: Storage) {
  // Loaded when it is needed, which in most processes is never.
  const { MigrationError, Umzug } = await import('umzug')
  const queryInterface = sequelize.getQueryInterface()
  const umzug = new Umzug({
    migrations: inOrder.map((migration) => {
      const { name, up, down } = migration(storage)
      return { name, up: () => up(queryInterface), down: () => down(queryInterface) }
    }),
    // A migration writes its own entry, in its own transaction.
    storage: {
      executed: () => executedMigrations(sequelize, storage),
      logMigration: async () => {},
      unlogMigration: async () => {},
    },
    logger: undefined,
  })

  await umzug.up().catch((error: unknown) => {
    throw error instanceof MigrationError ? error.cause : error
  })
}
