import { literal, qualify } from '../models/names'
import type { Storage } from '../models/storage-options'
import { auditTriggers } from './audit-triggers'
import { gatheredColumns, keyTriggers, numberTriggers, userTriggers } from './change-log-triggers'
import type { Run } from './transaction'
import { alteredTriggersSql } from './triggers'

interface Missing {
  tables: string[]
  /** Triggers that are gone, switched off, or do something else than they should. */
  triggers: string[]
  /** True if a table that cannot do without a row has none. */
  isRow: boolean
}

/** Returns what the steps make and the database does not have. Needs no right but to read. */
export async function findMissing(
  run: Run,
  storage: Storage,
  tables: readonly string[],
): Promise<Missing> {
  const { schema } = storage
  const found = await run(
    `SELECT class.relname AS name, has_table_privilege(class.oid, 'SELECT') AS "isReadable"
       FROM pg_catalog.pg_class AS class
       JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = class.relnamespace
      WHERE namespace.nspname = $1 AND class.relname = ANY($2)`,
    [schema, tables],
  )
  const names = new Set(found.map(({ name }) => String(name)))
  const missing = tables.filter((table) => !names.has(table))
  if (missing.length > 0) return { tables: missing, triggers: [], isRow: false }

  const readable = found.filter(({ isReadable }) => isReadable).map(({ name }) => String(name))
  return {
    tables: [],
    triggers: await findAlteredTriggers(run, storage),
    isRow: await lacksRow(run, schema, readable),
  }
}

async function findAlteredTriggers(run: Run, { schema }: Storage): Promise<string[]> {
  const triggers = [
    ...keyTriggers(schema, gatheredColumns.withLimits),
    ...numberTriggers(schema),
    ...userTriggers(schema),
    ...auditTriggers(schema),
  ]
  const altered = await run(alteredTriggersSql(triggers))
  const off = await run(triggersOffSql(schema))
  return [...altered, ...off].map(({ name }) => String(name))
}

/** The triggers for retired secrets. They do not fire always: what replicates has both tables of the other server. */
const triggersOfRetired = [
  ['api_key_keep_hashes_unique_insert', 'api_keys'],
  ['api_key_keep_hashes_unique_update', 'api_keys'],
  ['api_key_keep_hashes_unique_insert', 'api_key_retired_secrets'],
  ['api_key_keep_hashes_unique_update', 'api_key_retired_secrets'],
  ['api_key_forget_retired_row', 'api_keys'],
  ['api_key_forget_retired_all', 'api_keys'],
] as const

/** SQL for the names of the triggers for retired secrets that are missing or switched off. */
function triggersOffSql(schema: string): string {
  const rows = triggersOfRetired.map(
    ([name, table]) => `(${literal(name)}, ${literal(qualify(schema, table))})`,
  )
  return `
    SELECT format('%s on %s', made.name, made.kept::regclass) AS name
      FROM (VALUES ${rows.join(', ')}) AS made (name, kept)
     WHERE NOT EXISTS (
       SELECT FROM pg_catalog.pg_trigger AS trigger
        WHERE trigger.tgrelid = made.kept::regclass AND trigger.tgname = made.name AND trigger.tgenabled IN ('O', 'A')
     )`
}

/** The tables that cannot do without a row. */
const neededRows = ['api_key_log_lock', 'api_key_revisions', 'api_key_audit_head']

async function lacksRow(run: Run, schema: string, readable: readonly string[]): Promise<boolean> {
  const tables = neededRows.filter((table) => readable.includes(table))
  if (tables.length === 0) return false

  const conditions = tables.map((table) => `NOT EXISTS (SELECT FROM ${qualify(schema, table)})`)
  const found = await run(`SELECT 1 WHERE ${conditions.join(' OR ')}`)
  return found.length > 0
}
