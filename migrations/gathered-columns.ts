import { keyTriggers } from './change-log-triggers'
import type { Names } from './names'
import { createTriggers } from './triggers'

/** SQL that has the log tell of changes of these columns, and of no others. */
export function gatherChangesOf({ schema }: Names, columns: readonly string[]): string {
  const triggers = keyTriggers(schema, columns)
  return createTriggers(triggers.filter(({ name }) => name === 'api_key_gather_update'))
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
