import { qualify, quote } from '../models/names'
import { reasonOf, type Run } from './transaction'

export const historyTable = 'api_key_migrations'

/**
 * Returns the names of the steps that the database has, in the order in which they were made. Needs no right to create
 * anything, so that `migrate()` is a harmless call for a role that has none.
 */
export async function readHistory(run: Run, schema: string): Promise<string[]> {
  if (!(await hasHistory(run, schema))) return []

  try {
    const rows = await run(
      `SELECT name FROM ${qualify(schema, historyTable)} ORDER BY run_at, name`,
    )
    return rows.map((row) => String(row.name))
  } catch (error) {
    throw explainRead(error, schema)
  }
}

function explainRead(error: unknown, schema: string): unknown {
  const { code, message } = reasonOf(error)
  if (code !== '42501') return error
  return new Error(
    `migrate: this role may not read our tables in the schema "${schema}" (${message}). Grant it USAGE on that schema, and ` +
      'SELECT, INSERT, UPDATE and DELETE on our tables.',
    { cause: error },
  )
}

/** Makes the schema and the history if they are missing. */
export async function prepareHistory(run: Run, schema: string) {
  // Without a look, because `IF NOT EXISTS` demands the right to create schemas even if there is nothing to do.
  const found = await run('SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1', [schema])
  if (found.length === 0) await run(`CREATE SCHEMA ${quote(schema)}`)

  if (await hasHistory(run, schema)) return
  await run(
    `CREATE TABLE ${qualify(schema, historyTable)} (name text PRIMARY KEY, run_at timestamptz NOT NULL DEFAULT now())`,
  )
}

export async function noteInHistory(run: Run, schema: string, name: string) {
  await run(
    `INSERT INTO ${qualify(schema, historyTable)} (name, run_at) VALUES ($1, clock_timestamp()) ON CONFLICT DO NOTHING`,
    [name],
  )
}

/** Removes a step, and the history with the last of them. */
export async function removeFromHistory(run: Run, schema: string, name: string) {
  const history = qualify(schema, historyTable)
  await run(`DELETE FROM ${history} WHERE name = $1`, [name])
  if ((await readHistory(run, schema)).length === 0) await run(`DROP TABLE ${history}`)
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
