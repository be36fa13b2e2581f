import type { Sequelize } from 'sequelize'

import { createOptionChecks } from '../models/option-checks'
import { readStorageOptions, type Storage, type StorageOptions } from '../models/storage-options'
import { warn } from '../models/warnings'
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
import { historyTable, readHistory } from './history'
import type { Migration, Step } from './migration'
import { findMissing } from './missing'
import { closeFunctions, closeSequences, closeTables, warnOfOtherRoles } from './privileges'
import { referToUsers, validateReference } from './refer-to-users'
import { exclusively, type Run } from './transaction'
import { convertUserIds, findUserIdType, type ColumnType } from './user-ids'

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

    return joined('create-api-keys', storage)
  },
}

/** Makes all steps as `migrate()` does. Undoes them one after the other: if that is interrupted, the next call goes on. */
function joined(name: string, storage: Storage): Migration {
  const steps = initial.map((migration) => migration(storage))
  return {
    name,
    up: ({ sequelize }) => migrate(sequelize, storage),

    async down(queryInterface) {
      for (const { down } of steps.toReversed()) await down(queryInterface)
    },
  }
}

/**
 * Makes what the database does not have of the steps, and has the tables fit the option `users`. All steps are made again if a
 * part of one is missing, in one transaction, so that no change of a key goes unseen in between.
 */
export async function migrate(sequelize: Sequelize, storage: Storage) {
  const { schema } = storage

  const isUnchecked = await exclusively(sequelize, schema, async (run) => {
    const columnType = await findUserIdType(run, storage)
    const steps = inOrder.map((migration) =>
      migration({ ...storage, columnType: `${columnType.type}${columnType.collation}` }),
    )
    const tables = [historyTable, ...steps.flatMap((step) => [...step.tables])]
    const history = await readHistory(run, schema)
    const names = new Set(steps.map(({ name }) => name))
    // A newer version of the library has made them: what this one finds altered is meant to be.
    const isNewer = history.some((name) => !names.has(name))

    if (!isNewer) await makeSteps(run, { storage, columnType, steps, tables, history })
    await warnOfOtherRoles(run, schema, tables)
    return referToUsers(run, storage)
  })

  if (isUnchecked) await exclusively(sequelize, schema, (run) => validateReference(run, storage))
}

interface State {
  storage: Storage
  columnType: ColumnType
  steps: readonly Step[]
  tables: readonly string[]
  history: readonly string[]
}

async function makeSteps(run: Run, { storage, columnType, steps, tables, history }: State) {
  const { schema } = storage
  const isComplete = steps.every(({ name }) => history.includes(name))
  const missing = await findMissing(run, storage, tables)
  const isConverted = await convertUserIds(run, schema, columnType)
  const isWhole = missing.tables.length + missing.triggers.length === 0 && !missing.isRow
  if (isComplete && isWhole && !isConverted) return

  for (const { make } of steps) await make(run)
  if (missing.tables.length > 0) await closeTables(run, schema, missing.tables)
  await closeFunctions(run, schema)
  await closeSequences(run, schema)
  // The type of the ids is part of them.
  if (isComplete && !isConverted && missing.triggers.length > 0) {
    warn(
      'API_KEYS_TRIGGERS_MENDED',
      `migrate: triggers were off, gone or altered, and are made again: ${missing.triggers.join(', ')}. That is usual after a ` +
        'restore. Otherwise find out who did it, and verify the audit trail: what changed meanwhile may have left no trace.',
    )
  }
}
