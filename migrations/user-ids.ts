import { qualify } from '../models/names'
import type { Storage, UserIdType } from '../models/storage-options'
import { reasonOf, type Run } from './transaction'

interface Column {
  schema: string
  table: string
  column: string
}

/** The type of a column. */
export interface ColumnType {
  type: UserIdType
  /** The COLLATE clause; empty for the collation of the database. */
  collation: string
}

/**
 * Returns the type that `user_id` must have: the type that the app named, else the type of its own column, else the
 * type that `user_id` has. If the app named no type, ids are strings in JavaScript, for bigint and integer alike. Text
 * has the collation of the app's column, which may ignore case.
 */
export async function findUserIdType(run: Run, storage: Storage): Promise<ColumnType> {
  const { schema, users, columnType } = storage
  const ours = await typeOf(run, { schema, table: 'api_keys', column: 'user_id' })
  // A missing table of users is reported when the foreign key is added.
  const theirs = users && (await typeOf(run, users))
  const from = theirs ?? ours
  const type = columnType ?? fittingType(from?.type, ours?.type)
  return { type, collation: (type === 'text' && from?.collation) || '' }
}

/** An integer column stays so, because another instance may have named that type. */
function fittingType(from: string | undefined, ours: string | undefined): UserIdType {
  switch (from) {
    case 'uuid':
    case 'bigint':
      return from
    case 'smallint':
    case 'integer':
      return ours === 'integer' ? 'integer' : 'bigint'
    default:
      return 'text'
  }
}

interface FoundType {
  /** Without its length. */
  type: string
  collation: string
}

/** Returns `undefined` if there is no such column. */
async function typeOf(run: Run, { schema, table, column }: Column): Promise<FoundType | undefined> {
  const [found] = await run(
    `SELECT format_type(attribute.atttypid, NULL) AS type,
            coalesce((
              SELECT format(' COLLATE %I.%I', place.nspname, collation_.collname)
                FROM pg_catalog.pg_collation AS collation_
                JOIN pg_catalog.pg_namespace AS place ON place.oid = collation_.collnamespace
               WHERE collation_.oid = attribute.attcollation AND collation_.collname <> 'default'
            ), '') AS collation
       FROM pg_catalog.pg_attribute AS attribute
       JOIN pg_catalog.pg_class AS class ON class.oid = attribute.attrelid
       JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = class.relnamespace
      WHERE (namespace.nspname, class.relname, attribute.attname) = ($1, $2, $3)`,
    [schema, table, column],
  )
  return found && { type: String(found.type), collation: String(found.collation) }
}

/**
 * Gives `user_id` another type if the text of all owners' ids stays the same. Returns true if it did. The triggers of
 * the table are gone then.
 *
 * @throws {Error} that says which keys are in the way
 */
export async function convertUserIds(
  run: Run,
  schema: string,
  { type: wanted, collation }: ColumnType,
): Promise<boolean> {
  const table = qualify(schema, 'api_keys')
  const found = await typeOf(run, { schema, table: 'api_keys', column: 'user_id' })
  if (!found || (found.type === wanted && found.collation === collation)) return false

  const fits = fitsSql(wanted)
  const [counted] = await run(
    `SELECT count(*) FILTER (WHERE NOT ${fits})::text AS misfits FROM ${table}`,
  )
  if (counted?.misfits !== '0') {
    throw new Error(
      `migrate: the users of the app have ids of the type ${wanted}, but the column user_id of ${table} has the type ` +
        `${found.type}, and ${String(counted?.misfits)} of its keys have owners whose ids cannot become ${wanted}. Delete these keys ` +
        `or give them owners, and call migrate() again: DELETE FROM ${table} WHERE NOT ${fits}. Or name the type ` +
        'that the column has in the option users.type.',
    )
  }

  try {
    const isWider = found.type === 'integer' && wanted === 'bigint'
    for (const { sql } of await run(obstaclesSql(isWider), [table])) await run(String(sql))
    await run(
      `ALTER TABLE ${table} ALTER COLUMN user_id TYPE ${wanted}${collation} USING user_id::text::${wanted}`,
    )
  } catch (error) {
    const { code, message } = reasonOf(error)
    if (!impossible.test(code)) throw error
    throw new Error(
      `migrate: the column user_id of ${table} has the type ${found.type} and cannot become ${wanted} (${message}). Remove ` +
        'what is in the way, or have the owner of the table call migrate().',
      { cause: error },
    )
  }
  return true
}

/** SQLSTATEs of failures that another try does not change: rights, views of the column, values. */
const impossible = /^(0A|22|2B|42)/

/**
 * SQL for the statements that remove the obstacles to another type: triggers that name the column, and a foreign key unless the new
 * type is wider. A wider type can refer to all that the old type did.
 */
function obstaclesSql(isWider: boolean): string {
  return `
    SELECT format('DROP TRIGGER %I ON %s', trigger.tgname, $1::text) AS sql
      FROM pg_catalog.pg_trigger AS trigger
     WHERE trigger.tgrelid = $1::regclass AND NOT trigger.tgisinternal AND trigger.tgname LIKE 'api\\_key\\_%'
     UNION ALL
    SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', $1::text, reference.conname)
      FROM pg_catalog.pg_constraint AS reference
      JOIN pg_catalog.pg_attribute AS ours ON (ours.attrelid, ours.attnum) = (reference.conrelid, reference.conkey[1])
     WHERE reference.conrelid = $1::regclass AND reference.contype = 'f' AND ours.attname = 'user_id' AND NOT ${isWider}`
}

/** SQL that is true if an id is the same text after it has become another type. */
function fitsSql(wanted: UserIdType): string {
  switch (wanted) {
    case 'text':
      return 'true'
    case 'uuid':
      return `(user_id::text COLLATE "C" ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$')`
    case 'integer':
      return isWholeSql('-2147483648', '2147483647')
    case 'bigint':
      return isWholeSql('-9223372036854775808', '9223372036854775807')
  }
}

function isWholeSql(least: string, greatest: string): string {
  return `(CASE WHEN user_id::text COLLATE "C" ~ '^(0|-?[1-9][0-9]{0,18})$' THEN user_id::text::numeric BETWEEN ${least} AND ${greatest} ELSE false END)`
}
