/**
 * SQL for the rows of a table in a JSON array, with their places in it, from 1, as `ordinality`. They have the given columns alone,
 * because columns that an app added to the table may have the names of other columns of a statement, `ordinality` among them.
 */
export function rowsInOrderSql(table: string, columns: readonly string[], json: string): string {
  const values = columns.map((column) => `given.${column}`)
  return `(SELECT ${values.join(', ')}, row_number() OVER () AS ordinality FROM pg_catalog.json_populate_recordset(NULL::${table}, ${json}) AS given)`
}
