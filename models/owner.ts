import type { Tables } from './tables'

/** The kind of an owner. */
export type OwnerType = 'user' | 'organization' | 'service'

/** The columns of an owner, in the tables that have them. A row has a value in one of them. */
export const ownerColumns = {
  user: 'user_id',
  organization: 'organization_id',
  service: 'service',
} as const satisfies Record<OwnerType, string>

/** SQL for the type of the owner of a key, from a row that has the columns of an owner. */
export function ownerTypeSql(row: string): string {
  return `CASE WHEN ${row}.user_id IS NOT NULL THEN 'user' WHEN ${row}.organization_id IS NOT NULL THEN 'organization'
                WHEN ${row}.service IS NOT NULL THEN 'service' END`
}

/** SQL for the id of the owner of a key as text, from the same row. The columns may have different collations. */
export function ownerIdSql(row: string): string {
  const texts = ['user_id::text', 'organization_id::text', 'service'].map(
    (column) => `${row}.${column} COLLATE "C"`,
  )
  return `coalesce(${texts.join(', ')})`
}

/** SQL that is true for a key of the owner whom another row names, or if that row names none. */
export function isOwnedSql(key: string, wanted: string): string {
  return Object.values(ownerColumns)
    .map((column) => `(${wanted}.${column} IS NULL OR ${key}.${column} = ${wanted}.${column})`)
    .join(' AND ')
}

/** SQL that is true if the owner of a key is suspended. The server reads at most one row for it, by an index. */
export function isSuspendedSql(tables: Tables, row: string): string {
  const found = Object.values(ownerColumns).map((column) => findSuspension(tables, row, column))
  return `coalesce(${found.join(', ')}, false)`
}

/** SQL for the same of an owner of one type, from a row that has that column of the owner. */
export function isSuspendedByColumnSql(tables: Tables, row: string, column: string): string {
  return `coalesce(${findSuspension(tables, row, column)}, false)`
}

function findSuspension({ suspendedOwners }: Tables, row: string, column: string): string {
  return `(SELECT true FROM ${suspendedOwners} AS suspended WHERE suspended.${column} = ${row}.${column} LIMIT 1)`
}
