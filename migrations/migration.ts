import type { QueryInterface, Sequelize, Transaction } from 'sequelize'

import { asGuest } from '../models/guest'
import { qualify, quote } from '../models/names'
import { select } from '../models/statements'
import type { Storage } from '../models/storage-options'
import { explainReference, referenceOf } from './user-reference'

/** One change of the schema, in the shape that umzug and sequelize-cli run. */
export interface Migration {
  readonly name: string
  /** Makes the change, unless the database has it already. */
  up(queryInterface: QueryInterface): Promise<void>
  /** Undoes the change, unless the database does not have it. */
  down(queryInterface: QueryInterface): Promise<void>
}

/** The pieces that the SQL of a migration is put together from, quoted. */
export interface Names {
  /** The schema of our tables, as the app gave it. */
  schema: string
  /** The name of one of our tables, with its schema. */
  table(name: string): string
  /** The type of `user_id`. */
  userIdType: string
  /** The REFERENCES clause of `user_id`; empty where the app named no table of users. */
  userReference: string
}

const historyTable = 'api_key_migrations'

/**
 * Makes a migration a function of the storage options. It runs in one transaction together with its entry in the
 * history and under one lock, so that it is safe to start in several processes at once, to meet twice (once by
 * `migrate()`, once by the app's own runner) and to kill half-way.
 */
export function defineMigration(name: string, sql: (names: Names) => { up: string; down: string }) {
  return function migration({ schema, users, userIdType }: Storage): Migration {
    const { up, down } = sql({
      schema,
      table: (table) => qualify(schema, table),
      userIdType,
      userReference: users ? referenceOf(users) : '',
    })
    const history = qualify(schema, historyTable)

    return {
      name,

      async up({ sequelize }) {
        await exclusively(sequelize, schema, async (run) => {
          if ((await readHistory(run, schema)).includes(name)) return

          await createSchema(run, schema)
          if (!(await hasHistory(run, schema))) {
            await run(
              `CREATE TABLE ${history} (name text PRIMARY KEY, run_at timestamptz NOT NULL DEFAULT now())`,
            )
          }
          await run(up).catch((error: unknown) => {
            const refersToUsers = users && up.includes(referenceOf(users))
            throw explainExistingTable(
              refersToUsers ? explainReference(error, users) : error,
              schema,
            )
          })
          await run(`INSERT INTO ${history} (name) VALUES ($1)`, [name])
        })
      },

      async down({ sequelize }) {
        await exclusively(sequelize, schema, async (run) => {
          const done = await readHistory(run, schema)
          if (!done.includes(name)) return

          await run(down)
          await (done.length === 1
            ? run(`DROP TABLE ${history}`)
            : run(`DELETE FROM ${history} WHERE name = $1`, [name]))
        })
      },
    }
  }
}

/** Returns the names of the migrations that the database has, in the order in which they ran. */
export async function executedMigrations(sequelize: Sequelize, { schema }: Storage) {
  return readHistory(runnerOf(asGuest(sequelize), null), schema)
}

export type Run = (sql: string, bind?: unknown[]) => Promise<Record<string, unknown>[]>

function runnerOf(sequelize: Sequelize, transaction: Transaction | null): Run {
  return async function run(sql, bind) {
    // Not logged, because each is a whole file.
    return select<Record<string, unknown>>(sequelize, sql, { bind, transaction, logging: false })
  }
}

/** Works in a transaction of its own, one after the other with all others that do. */
export async function exclusively(
  sequelize: Sequelize,
  schema: string,
  work: (run: Run) => Promise<void>,
) {
  const guest = asGuest(sequelize)

  await guest.transaction(async (transaction) => {
    const run = runnerOf(guest, transaction)
    await run('SELECT pg_advisory_xact_lock(hashtextextended($1, 0))', [
      `express-api-keys migrations ${schema}`,
    ])
    await work(run)
  })
}

/** Needs no right to create anything, so that `migrate()` is a harmless call for a role that may not. */
async function readHistory(run: Run, schema: string): Promise<string[]> {
  if (!(await hasHistory(run, schema))) return []

  const rows = await run(`SELECT name FROM ${qualify(schema, historyTable)} ORDER BY run_at, name`)
  return rows.map((row) => String(row.name))
}

/** Reads the catalog itself: `to_regclass` may remember from before the wait for the lock that there was no table. */
async function hasHistory(run: Run, schema: string): Promise<boolean> {
  const found = await run(
    `SELECT 1 FROM pg_catalog.pg_class AS class
       JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = class.relnamespace
      WHERE namespace.nspname = $1 AND class.relname = $2`,
    [schema, historyTable],
  )
  return found.length > 0
}

/** Looks first, as `IF NOT EXISTS` demands the right to create schemas even where there is nothing to do. */
async function createSchema(run: Run, schema: string) {
  const found = await run('SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1', [schema])
  if (found.length === 0) await run(`CREATE SCHEMA ${quote(schema)}`)
}

const duplicateTable = '42P07'

function explainExistingTable(error: unknown, schema: string): unknown {
  const { parent } = error as { parent?: { code?: string; message: string } }
  if (parent?.code !== duplicateTable) return error

  return new Error(
    `migrate: ${parent.message} in the schema "${schema}", and it is not ours. It was left ` +
      'as it is. Give our tables a schema of their own with the option "schema".',
    { cause: error },
  )
}
