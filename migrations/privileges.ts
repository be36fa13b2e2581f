import { literal, qualify, quote } from '../models/names'
import { warn } from '../models/warnings'
import type { Run } from './transaction'

/** SQL for relations of ours, with their access lists and owners. */
function relationsSql(schema: string, names: readonly string[]): string {
  return `
    SELECT class.oid, class.relname, class.relowner, class.relacl
      FROM pg_catalog.pg_class AS class
      JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = class.relnamespace
     WHERE namespace.nspname = ${literal(schema)} AND class.relname IN (${names.map(literal).join(', ')})`
}

/** SQL for the name of the role that has a right, quoted. */
const granteeSql = `CASE granted.grantee WHEN 0 THEN 'PUBLIC'
            ELSE '"' || replace(pg_get_userbyid(granted.grantee)::text, '"', '""') || '"' END`

/**
 * Revokes the rights that default privileges gave on new tables to roles that no app runs as. Such a role has all rights, cannot sign
 * in, and no role that can sign in inherits from it. Services such as Supabase have these roles, and each holder of their public key
 * acts as such a role. Other roles keep their rights, because an app may run as one of them.
 */
export async function closeTables(run: Run, schema: string, names: readonly string[]) {
  if (names.length === 0) return

  const found = await run(
    `SELECT DISTINCT ${granteeSql} AS role
       FROM (${relationsSql(schema, names)}) AS made
      CROSS JOIN LATERAL aclexplode(made.relacl) AS granted
       LEFT JOIN pg_catalog.pg_roles AS role ON role.oid = granted.grantee
      WHERE granted.grantee <> made.relowner AND granted.privilege_type = 'TRUNCATE'
        AND NOT coalesce(role.rolcanlogin OR role.rolsuper, false)
        AND NOT EXISTS (
          SELECT FROM pg_catalog.pg_roles AS member
           WHERE member.rolcanlogin AND NOT member.rolsuper AND member.oid <> made.relowner
             AND role.oid IS NOT NULL AND pg_has_role(member.oid, role.oid, 'USAGE')
        )`,
  )
  const relations = names.map((name) => qualify(schema, name)).join(', ')
  for (const { role } of found) await run(`REVOKE ALL ON ${relations} FROM ${String(role)}`)
}

/**
 * Keeps all roles from calling our functions and from moving our sequences. Triggers need no right to a
 * function, and identity columns need none to their sequence.
 */
export async function closeFunctionsAndSequences(run: Run, schema: string) {
  const found = await run(
    `SELECT DISTINCT format('REVOKE ALL ON FUNCTION %I.%I() FROM %s', $1::text, function.proname, ${granteeSql}) AS sql
       FROM pg_catalog.pg_proc AS function
       JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = function.pronamespace
      CROSS JOIN LATERAL aclexplode(function.proacl) AS granted
      WHERE namespace.nspname = $1 AND function.proname LIKE 'api\\_key\\_%'
        AND function.prorettype = 'trigger'::regtype AND function.pronargs = 0
        AND granted.grantee <> function.proowner
      UNION
     SELECT format('REVOKE USAGE, UPDATE ON SEQUENCE %I.%I FROM %s', $1::text, class.relname, ${granteeSql})
       FROM pg_catalog.pg_class AS class
       JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = class.relnamespace
      CROSS JOIN LATERAL aclexplode(class.relacl) AS granted
      WHERE namespace.nspname = $1 AND class.relname LIKE 'api\\_key\\_%' AND class.relkind = 'S'
        AND granted.grantee <> class.relowner AND granted.privilege_type IN ('USAGE', 'UPDATE')`,
    [schema],
  )
  for (const { sql } of found) await run(String(sql))
}

/**
 * Returns the names of roles that may read hashes, or write to the tables, quoted: they may revive a revoked key or insert a key of
 * their own.
 */
export async function findOtherRoles(
  run: Run,
  schema: string,
  names: readonly string[],
): Promise<string[]> {
  const found = await run(
    `SELECT DISTINCT ${granteeSql} AS role
       FROM (${relationsSql(schema, names)}) AS made
      CROSS JOIN LATERAL (
        SELECT grantee, privilege_type, NULL AS attname FROM aclexplode(made.relacl)
         UNION ALL
        SELECT on_column.grantee, on_column.privilege_type, attribute.attname
          FROM pg_catalog.pg_attribute AS attribute
         CROSS JOIN LATERAL aclexplode(attribute.attacl) AS on_column
         WHERE attribute.attrelid = made.oid
      ) AS granted
       LEFT JOIN pg_catalog.pg_roles AS role ON role.oid = granted.grantee
      WHERE granted.grantee <> made.relowner AND NOT coalesce(role.rolsuper, false)
        AND coalesce(role.rolname, '') NOT IN (current_user, session_user)
        AND CASE granted.privilege_type
              WHEN 'SELECT' THEN made.relname IN ('api_keys', 'api_key_retired_secrets')
                                 AND coalesce(granted.attname, 'hash') IN ('hash', 'previous_hash')
              -- Any role may report that a user has changed.
              WHEN 'INSERT' THEN made.relname <> 'api_key_user_changes'
              ELSE granted.privilege_type IN ('UPDATE', 'DELETE', 'TRUNCATE')
            END
      ORDER BY 1`,
  )
  return found.map(({ role }) => String(role))
}

/** Returns SQL that takes all rights on our tables from other roles. */
export function closingSql(schema: string, names: readonly string[], roles: readonly string[]) {
  const relations = names.map((name) => qualify(schema, name)).join(', ')
  return `REVOKE ALL ON ${relations} FROM ${roles.join(', ')}`
}

/** Warns of other roles that may read hashes or write. */
export async function warnOfOtherRoles(run: Run, schema: string, names: readonly string[]) {
  const roles = await findOtherRoles(run, schema, names)
  if (roles.length === 0) return

  warn(
    'API_KEYS_OPEN_TABLES',
    `migrate: roles besides the owner may read the hashes of keys or write to the tables in the schema ${quote(schema)}: ${roles.join(', ')}. ` +
      'If one of them is not the role that your app runs as, give our tables a schema of their own (the option schema), or ' +
      `run for it: ${closingSql(schema, names, roles)}`,
  )
}
