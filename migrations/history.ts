import { qualify, quote } from '../models/names'
import { reasonOf, type Run } from './transaction'

/** The table of the steps that a schema has. */
export const historyTable = 'api_key_migrations'

/**
 * Returns the names of the steps that the schema has. It needs no right to create anything, so that `migrate()` is a harmless
 * call for a role without that right.
 */
export async function readHistory(run: Run, schema: string): Promise<Set<string>> {
  // Reads the catalog itself: `to_regclass` may answer from before the wait for the lock that there is no table.
  const found = await run(
    `SELECT 1 FROM pg_catalog.pg_class AS class
       JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = class.relnamespace
      WHERE namespace.nspname = $1 AND class.relname = $2`,
    [schema, historyTable],
  )
  if (found.length === 0) return new Set()

  try {
    const rows = await run(`SELECT name FROM ${qualify(schema, historyTable)}`)
    return new Set(rows.map((row) => String(row.name)))
  } catch (error) {
    const { code, message } = reasonOf(error)
    if (code !== '42501') throw error
    throw new Error(
      `migrate: this role may not read our tables in the schema "${schema}" (${message}). Grant it USAGE on that schema, and ` +
        'SELECT, INSERT, UPDATE and DELETE on our tables.',
      { cause: error },
    )
  }
}

/** Makes the schema and the history if they are missing. */
export async function prepareHistory(run: Run, schema: string) {
  // `IF NOT EXISTS` demands the right to create schemas even if the schema is there.
  const found = await run('SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1', [schema])
  if (found.length === 0) await run(`CREATE SCHEMA ${quote(schema)}`)
  await run(
    `CREATE TABLE IF NOT EXISTS ${qualify(schema, historyTable)} (name text PRIMARY KEY, run_at timestamptz NOT NULL DEFAULT now())`,
  )
}

/** Notes a step that was made. */
export async function noteInHistory(run: Run, schema: string, name: string) {
  await run(
    `INSERT INTO ${qualify(schema, historyTable)} (name, run_at) VALUES ($1, clock_timestamp()) ON CONFLICT DO NOTHING`,
    [name],
  )
}

/** Removes a step, and the history with its last step. */
export async function removeFromHistory(run: Run, schema: string, name: string) {
  const history = qualify(schema, historyTable)
  await run(`DELETE FROM ${history} WHERE name = $1`, [name])
  if ((await readHistory(run, schema)).size === 0) await run(`DROP TABLE ${history}`)
}
