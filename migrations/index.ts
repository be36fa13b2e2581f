import type { QueryInterface, Sequelize } from 'sequelize'

import { createOptionChecks } from '../models/option-checks'
import {
  readStorageOptions,
  storageOptionNames,
  type Storage,
  type StorageOptions,
} from '../models/storage-options'
import { literal } from '../models/names'
import { tablesOf } from '../models/tables'
import { warn } from '../models/warnings'
import { createApiKeys, type OwnerIdTypes } from './0001-create-api-keys'
import { createApiKeyChangeLog } from './0002-create-api-key-change-log'
import { createApiKeyUsage } from './0003-create-api-key-usage'
import { createApiKeyAuditTrail } from './0004-create-api-key-audit-trail'
import { readHistory } from './history'
import { findMissing } from './missing'
import { closeFunctionsAndSequences, closeTables, warnOfOtherRoles } from './privileges'
import { makeSteps, relationsOf, undoSteps, type Step } from './step'
import { exclusively, type Run } from './transaction'
import { convertOwnerIds, findOwnerIdTypes, toSql, type OwnerIdColumns } from './owner-ids'
import { referToOwners, validateReferences } from './owner-reference'

/** A migration in the shape that umzug and sequelize-cli run. */
export interface Migration {
  readonly name: string
  /** Makes the tables, or the parts of them that are missing. */
  up(queryInterface: QueryInterface): Promise<void>
  /** Drops the tables, unless the history says that they are not there. */
  down(queryInterface: QueryInterface): Promise<void>
}

/** The types of ids do not matter to steps that are undone. */
const anyTypes: OwnerIdTypes = { user_id: 'text', organization_id: 'text' }

/** Returns the steps of the first version, in order. */
export function initialSteps(schema: string, types = anyTypes): Step[] {
  const tables = tablesOf(schema)
  return [
    createApiKeys(tables, types),
    createApiKeyChangeLog(tables),
    createApiKeyUsage(tables),
    createApiKeyAuditTrail(tables),
  ]
}

/**
 * The migrations, for apps that run them with a runner of their own: a function for each version that changed the schema,
 * of the options `schema`, `users` and `organizations` of `createApiKeys`. It returns `{ name, up, down }`.
 *
 * @example
 * // migrations/20261201-create-api-keys.js, for sequelize-cli
 * module.exports = require('express-api-keys').migrations.initial({ users: { table: 'users' } })
 */
export const migrations = {
  initial(options: StorageOptions = {}): Migration {
    const checks = createOptionChecks('migrations.initial')
    checks.refuseUnknownNames(options, storageOptionNames)
    const storage = readStorageOptions(options, checks)
    const { schema } = storage

    return {
      name: 'create-api-keys',
      up: ({ sequelize }) => migrate(sequelize, storage),
      down: ({ sequelize }) =>
        exclusively(sequelize, schema, (run) => undoSteps(run, schema, initialSteps(schema))),
    }
  },
}

/**
 * Makes the steps that the database does not have, and fits the tables to the options `users` and `organizations`. If a part of a step is missing, all
 * steps are made again in one transaction, so that no change of a key goes unseen in between.
 */
export async function migrate(sequelize: Sequelize, storage: Storage) {
  const { schema } = storage
  const isUnchecked = await exclusively(sequelize, schema, (run) => bringUp(run, storage))
  if (isUnchecked) await exclusively(sequelize, schema, (run) => validateReferences(run, storage))
}

/**
 * Returns the statements by which `migrate` would change the database at the moment. They run in a transaction that is rolled back, because
 * later statements depend on what earlier statements have made. So this needs the same rights and locks as `migrate`.
 */
export async function planMigration(sequelize: Sequelize, storage: Storage): Promise<string[]> {
  const { schema } = storage
  const rollback = new Error('express-api-keys: the plan of a migration is rolled back')
  let statements: string[] = []

  try {
    await exclusively(sequelize, schema, async (run) => {
      statements = []
      const runAndNote: Run = async (sql, bind) => {
        if (!/^\s*SELECT\b/.test(sql)) statements.push(withValues(sql, bind))
        return run(sql, bind)
      }
      const isUnchecked = await bringUp(runAndNote, storage)
      if (isUnchecked) await validateReferences(runAndNote, storage)
      throw rollback
    })
  } catch (error) {
    if (error !== rollback) throw error
  }
  return statements
}

/** Returns the parts of the tables that the database does not have, and the names of all tables and sequences. It changes nothing. */
export async function findMissingParts(run: Run, storage: Storage) {
  const { schema } = storage
  const steps = initialSteps(schema, toSql(await findOwnerIdTypes(run, storage)))
  return { ...(await findMissing(run, schema, steps)), all: relationsOf(steps) }
}

/** Puts the values of a statement into its text. All values of statements that change the database are texts. */
function withValues(sql: string, bind: readonly unknown[] = []): string {
  if (bind.length === 0) return sql.trim()
  return sql.trim().replaceAll(/\$(\d+)/g, (_, place) => literal(String(bind[Number(place) - 1])))
}

/** Makes what is missing. Returns true if the rows that refer to owners are not checked yet. */
async function bringUp(run: Run, storage: Storage) {
  const { schema } = storage
  const types = await findOwnerIdTypes(run, storage)
  const steps = initialSteps(schema, toSql(types))
  const history = await readHistory(run, schema)
  const names = new Set(steps.map(({ name }) => name))
  // A newer version of the library has made further steps: a difference from this version is no mistake.
  const isNewer = [...history].some((name) => !names.has(name))

  if (!isNewer) await makeMissing(run, { schema, types, steps, history })
  await warnOfOtherRoles(run, schema, relationsOf(steps))
  return referToOwners(run, storage)
}

interface State {
  schema: string
  types: OwnerIdColumns
  steps: readonly Step[]
  history: ReadonlySet<string>
}

async function makeMissing(run: Run, { schema, types, steps, history }: State) {
  const isComplete = steps.every(({ name }) => history.has(name))
  const { relations, triggers, isRow } = await findMissing(run, schema, steps)
  const isConverted = await convertOwnerIds(run, schema, types)
  if (isComplete && !isConverted && relations.length + triggers.length === 0 && !isRow) return

  await makeSteps(run, schema, steps)
  await closeTables(run, schema, relations)
  await closeFunctionsAndSequences(run, schema)
  // A conversion drops triggers itself.
  if (isComplete && !isConverted && triggers.length > 0) {
    warn(
      'API_KEYS_TRIGGERS_MENDED',
      `migrate: triggers were off, gone or altered, and are made again: ${triggers.join(', ')}. That is usual after a ` +
        'restore. Otherwise find out who did it, and verify the audit trail: a change in between may have left no trace.',
    )
  }
}
