import { literal, qualify } from '../models/names'
import type { Step } from './migration'
import type { Run } from './transaction'

/** Returns what the steps have made and the database does not have, in words. Needs no right but to read. */
export async function findMissing(
  run: Run,
  schema: string,
  steps: readonly Step[],
): Promise<string[]> {
  const tables = steps.flatMap((step) => [...step.tables])
  const found = await run(
    `SELECT class.relname AS name, has_table_privilege(class.oid, 'SELECT') AS "isReadable"
       FROM pg_catalog.pg_class AS class
       JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = class.relnamespace
      WHERE namespace.nspname = $1 AND class.relname = ANY($2)`,
    [schema, tables],
  )
  const names = new Set(found.map(({ name }) => String(name)))
  const missing = tables.filter((table) => !names.has(table))
  if (missing.length > 0) return missing.map((table) => `the table ${table}`)

  const readable = found.filter(({ isReadable }) => isReadable).map(({ name }) => String(name))
  return findMissingRows(run, schema, readable)
}

/** The tables that cannot do without a row. */
const neededRows = ['api_key_log_lock', 'api_key_revisions', 'api_key_audit_head']

async function findMissingRows(run: Run, schema: string, readable: readonly string[]) {
  const tables = neededRows.filter((table) => readable.includes(table))
  if (tables.length === 0) return []

  const rows = await run(
    tables
      .map(
        (table) =>
          `SELECT ${literal(table)} AS name WHERE NOT EXISTS (SELECT FROM ${qualify(schema, table)})`,
      )
      .join(' UNION ALL '),
  )
  return rows.map(({ name }) => `the row of ${String(name)}`)
}
