import { qualify } from '../models/names'
import type { OwnerStorage, Storage, UserIdType } from '../models/storage-options'
import { tablesOf } from '../models/tables'
import { newOrganizationColumnSql, type OwnerIdTypes } from './0001-create-api-keys'
import { reasonOf, type Run } from './transaction'

interface Column {
  schema: string
  table: string
  column: string
}

/** The type of a column. */
interface ColumnType {
  type: UserIdType
  /** The COLLATE clause; empty for the collation of the database. */
  collation: string
}

/** The types that the columns with the ids of owners must have. */
export type OwnerIdColumns = Record<keyof OwnerIdTypes, ColumnType>

/** The tables that have these columns. */
const ownedTables = ['api_keys', 'api_key_suspended_owners']

/** Returns the types that the columns with the ids of owners must have. */
export async function findOwnerIdTypes(run: Run, storage: Storage): Promise<OwnerIdColumns> {
  const { schema, users, organizations } = storage
  return {
    user_id: await findType(run, { schema, table: 'api_keys', column: 'user_id' }, users),
    organization_id: await findType(
      run,
      { schema, table: 'api_keys', column: 'organization_id' },
      organizations,
    ),
  }
}

/**
 * Returns the type that a column must have: the type that the app named, else the type of its own column, else the type that the
 * column has. If the app named no type, ids are strings in JavaScript, for bigint and integer alike. Text has the collation of the
 * app's column, which may ignore case.
 */
async function findType(run: Run, column: Column, owners?: OwnerStorage): Promise<ColumnType> {
  const ours = await typeOf(run, column)
  // A missing table of the app is reported when the foreign key is added.
  const theirs = owners?.reference && (await typeOf(run, owners.reference))
  const from = theirs ?? ours
  const type = owners?.columnType ?? fittingType(from?.type, ours?.type)
  return { type, collation: (type === 'text' && from?.collation) || '' }
}

/** Returns the types as the table of keys is made with them. */
export function toSql({
  user_id: user,
  organization_id: organization,
}: OwnerIdColumns): OwnerIdTypes {
  return {
    user_id: `${user.type}${user.collation}`,
    organization_id: `${organization.type}${organization.collation}`,
  }
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
 * Gives the columns with the ids of owners other types if the text of all ids stays the same. Returns true if it did. The triggers
 * of the tables are gone then.
 *
 * @throws {Error} that says which keys are in the way
 */
export async function convertOwnerIds(run: Run, schema: string, types: OwnerIdColumns) {
  let isConverted = false
  for (const table of ownedTables) {
    for (const column of ['user_id', 'organization_id'] as const) {
      const wanted = types[column]
      const found = await typeOf(run, { schema, table, column })
      if (!found || (found.type === wanted.type && found.collation === wanted.collation)) continue
      await convert(run, { schema, table, column }, { found, wanted })
      isConverted = true
    }
  }
  return isConverted
}

async function convert(
  run: Run,
  { schema, table: name, column }: Column,
  { found, wanted: { type: wanted, collation } }: { found: FoundType; wanted: ColumnType },
) {
  const table = qualify(schema, name)
  const fits = fitsSql(column, wanted)
  const [counted] = await run(
    `SELECT count(*) FILTER (WHERE NOT ${fits})::text AS misfits, count(${column})::text AS ids FROM ${table}`,
  )
  if (counted?.misfits !== '0') {
    const owners = column === 'user_id' ? 'users' : 'organizations'
    throw new Error(
      `migrate: the ${owners} of the app have ids of the type ${wanted}, but the column ${column} of ${table} has the type ` +
        `${found.type}, and ${String(counted?.misfits)} of its keys have owners whose ids cannot become ${wanted}. Delete these keys ` +
        `or give them owners, and call migrate() again: DELETE FROM ${table} WHERE NOT ${fits}. Or name the type ` +
        `that the column has in the option ${owners}.type.`,
    )
  }

  const isNew = column === 'organization_id' && counted.ids === '0'
  const sql = isNew
    ? newOrganizationColumnSql(tablesOf(schema), `${wanted}${collation}`, table)
    : `ALTER TABLE ${table} ALTER COLUMN ${column} TYPE ${wanted}${collation} USING ${column}::text::${wanted}`
  try {
    const isWider = found.type === 'integer' && wanted === 'bigint'
    for (const { sql: remove } of await run(obstaclesSql(isWider), [table, column])) {
      await run(String(remove))
    }
    await run(sql)
  } catch (error) {
    const { code, message } = reasonOf(error)
    if (!impossible.test(code)) throw error
    throw new Error(
      `migrate: the column ${column} of ${table} has the type ${found.type} and cannot become ${wanted} (${message}). Remove ` +
        'what is in the way, or have the owner of the table call migrate().',
      { cause: error },
    )
  }
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
     WHERE reference.conrelid = $1::regclass AND reference.contype = 'f' AND ours.attname = $2 AND NOT ${isWider}`
}

/** SQL that is true if an id is the same text after it has become another type. */
function fitsSql(column: string, wanted: UserIdType): string {
  switch (wanted) {
    case 'text':
      return 'true'
    case 'uuid':
      return `(${column} IS NULL OR ${column}::text COLLATE "C" ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$')`
    case 'integer':
      return isWholeSql(column, '-2147483648', '2147483647')
    case 'bigint':
      return isWholeSql(column, '-9223372036854775808', '9223372036854775807')
  }
}

function isWholeSql(column: string, least: string, greatest: string): string {
  const text = `${column}::text COLLATE "C"`
  return `(${column} IS NULL OR CASE WHEN ${text} ~ '^(0|-?[1-9][0-9]{0,18})$' THEN ${column}::text::numeric BETWEEN ${least} AND ${greatest} ELSE false END)`
}
