import type { Names } from './names'

/** The columns of a key whose changes the log tells of, as of the migration that created it. */
export const firstGatheredColumns = [
  'id',
  'user_id',
  'name',
  'hash',
  'permissions',
  'status',
  'expires_at',
]

/** SQL that has the log tell of changes of these columns, and of no others. */
export function gatherChangesOf({ table }: Names, columns: readonly string[]): string {
  const keys = table('api_keys')
  const of = (row: string) => columns.map((column) => `${row}.${column}`).join(', ')

  return `
    DROP TRIGGER IF EXISTS api_key_gather_update ON ${keys};
    CREATE TRIGGER api_key_gather_update AFTER UPDATE ON ${keys}
      FOR EACH ROW WHEN ((${of('OLD')}) IS DISTINCT FROM (${of('NEW')}))
      EXECUTE FUNCTION ${table('api_key_gather_change')}();
    ALTER TABLE ${keys} ENABLE ALWAYS TRIGGER api_key_gather_update;`
}

/** The same for when a migration is undone: the table of keys or the log may have been undone before. */
export function gatherAgainChangesOf(names: Names, columns: readonly string[]): string {
  return `
    DO $gather$
      BEGIN
        ${gatherChangesOf(names, columns)}
      EXCEPTION WHEN undefined_table OR undefined_function THEN
        NULL;
      END
    $gather$;`
}
