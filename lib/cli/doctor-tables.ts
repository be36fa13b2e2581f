import { findMissingParts } from '../../migrations'
import { historyTable } from '../../migrations/history'
import { closingSql, findOtherRoles } from '../../migrations/privileges'
import { literal, qualify, quote } from '../../models/names'
import type { Check, Finding, Patient } from './doctor'

/** The checks of the tables, and of the rights on them. */
export const checkTables: readonly (readonly [name: string, check: Check])[] = [
  ['tables', checkParts],
  ['rights', checkRights],
  ['other roles', checkOtherRoles],
]

async function checkParts({ run, parts }: Patient): Promise<Finding[]> {
  const { relations, triggers, isRow, all } = await findMissingParts(run, parts.storage)
  const remedy = 'Run express-api-keys migrate, as the owner of the tables.'
  if (relations.length > 0) {
    const isNew = relations.length === all.length
    const finding = isNew ? 'there are none yet' : `missing: ${relations.join(', ')}`
    return [{ check: 'tables', state: 'fault', finding, remedy }]
  }
  const findings: Finding[] = []
  if (triggers.length > 0) {
    findings.push({
      check: 'triggers',
      state: 'fault',
      finding: `off, gone or altered: ${triggers.join(', ')}`,
      remedy: `${remedy} Unless you have restored a dump, find out who did it, and run audit verify.`,
    })
  }
  if (isRow) {
    const finding = 'a table has lost the row that every change needs'
    findings.push({ check: 'tables', state: 'fault', finding, remedy })
  }
  const finding = `all are there, in the schema ${parts.tables.schema}`
  return findings.length > 0 ? findings : [{ check: 'tables', state: 'ok', finding }]
}

const needed = ['SELECT', 'INSERT', 'UPDATE', 'DELETE']

async function checkRights({ run, parts }: Patient): Promise<Finding[]> {
  const check = 'rights'
  const { schema } = parts.tables
  const { all, relations } = await findMissingParts(run, parts.storage)
  if (relations.length > 0) return []
  const [usage] = await run(
    `SELECT has_schema_privilege($1, 'USAGE')::text AS usage, current_user::text AS role`,
    [schema],
  )
  const role = quote(String(usage?.role))
  if (usage?.usage !== 'true') {
    const remedy = `GRANT USAGE ON SCHEMA ${quote(schema)} TO ${role}`
    return [{ check, state: 'fault', finding: `no USAGE on the schema ${schema}`, remedy }]
  }
  const lacking = await run(
    `SELECT class.relname AS name, string_agg(needed.privilege, ', ' ORDER BY needed.place) AS privileges
       FROM pg_catalog.pg_class AS class
       JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = class.relnamespace
      CROSS JOIN unnest($3::text[]) WITH ORDINALITY AS needed (privilege, place)
      WHERE namespace.nspname = $1 AND class.relname = ANY($2) AND class.relkind = 'r'
        AND class.relname <> ${literal(historyTable)}
        AND NOT has_table_privilege(class.oid, needed.privilege)
      GROUP BY class.relname ORDER BY class.relname`,
    [schema, all, needed],
  )
  if (lacking.length === 0) {
    return [{ check, state: 'ok', finding: 'the role may read and write all tables' }]
  }
  const shown = lacking.map(({ name, privileges }) => `${String(privileges)} on ${String(name)}`)
  const tables = lacking.map(({ name }) => qualify(schema, String(name))).join(', ')
  return [
    {
      check,
      state: 'fault',
      finding: `the role lacks ${shown.join('; ')}`,
      remedy: `Run as the owner: GRANT ${needed.join(', ')} ON ${tables} TO ${role}`,
    },
  ]
}

async function checkOtherRoles({ run, parts }: Patient): Promise<Finding[]> {
  const check = 'other roles'
  const { schema } = parts.tables
  const { all } = await findMissingParts(run, parts.storage)
  const roles = await findOtherRoles(run, schema, all)
  if (roles.length === 0) {
    return [{ check, state: 'ok', finding: 'none may read hashes or write' }]
  }
  return [
    {
      check,
      state: 'advice',
      finding: `may read hashes or write: ${roles.join(', ')}`,
      remedy: `Unless your app runs as them, give our tables a schema of their own (the option schema), or run: ${closingSql(schema, all, roles)}`,
    },
  ]
}
