import type { QueryInterface } from 'sequelize'

import { noteInHistory, prepareHistory, readHistory, removeFromHistory } from './history'
import { createNames, type Names, type StepStorage } from './names'
import { exclusively, reasonOf, type Run } from './transaction'

/** One change of the schema, in the shape that umzug and sequelize-cli run. */
export interface Migration {
  readonly name: string
  /** Makes the change, unless the database has it already. */
  up(queryInterface: QueryInterface): Promise<void>
  /** Undoes the change, unless the database does not have it. */
  down(queryInterface: QueryInterface): Promise<void>
}

/** A migration that others are joined with. */
export interface Step extends Migration {
  /** The names of its tables. */
  readonly tables: ReadonlySet<string>
  /** Makes the change within a transaction, also over what is left of it. */
  make(run: Run): Promise<void>
}

/**
 * Makes a migration a function of the storage options. It runs in one transaction together with its entry in the
 * history and under one lock, so that it is safe to start in several processes at once, to meet twice (once by
 * `migrate()`, once by the app's own runner) and to kill half-way.
 */
export function defineMigration(name: string, sql: (names: Names) => { up: string; down: string }) {
  return function migration(storage: StepStorage): Step {
    const { schema } = storage
    const tables = new Set<string>()
    const { up, down } = sql(createNames(name, storage, tables))

    async function make(run: Run) {
      try {
        await prepareHistory(run, schema)
        await run(up)
        await noteInHistory(run, schema, name)
      } catch (error) {
        throw explainStep(error, schema)
      }
    }

    return {
      name,
      tables,
      make,

      async up({ sequelize }) {
        await exclusively(sequelize, schema, async (run) => {
          if (!(await readHistory(run, schema)).includes(name)) await make(run)
        })
      },

      async down({ sequelize }) {
        await exclusively(sequelize, schema, async (run) => {
          if (!(await readHistory(run, schema)).includes(name)) return

          await run(down)
          await removeFromHistory(run, schema, name)
        })
      },
    }
  }
}

/** Says what is in the way of a step. */
function explainStep(error: unknown, schema: string): unknown {
  const { code, message } = reasonOf(error)
  switch (code) {
    // A table, a type or a function has the name of one of ours.
    case '42P07':
    case '42710':
    case '42P13':
    case '42809':
      return new Error(
        `migrate: ${message} in the schema "${schema}", and it is not ours. It was left ` +
          'as it is. Give our tables a schema of their own with the option "schema".',
        { cause: error },
      )
    case '42501':
      return new Error(
        `migrate: this role may not make or mend our tables in the schema "${schema}" (${message}). Call migrate() as the owner ` +
          'of the tables, or as a role that may create tables there.',
        { cause: error },
      )
    default:
      return error
  }
}
