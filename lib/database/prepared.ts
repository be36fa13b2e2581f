import { hash } from 'node:crypto'

import { literal } from '../../models/names'

/** SQLSTATEs that show that a pooler cannot keep prepared statements: the statement is missing, or there already. */
export const unprepared = /^(26000|42P05)$/

const names = new Map<string, string>()

/** Names a statement by its text: behind a pooler, another process may have prepared its statement on the same connection. */
export function nameOf(sql: string): string {
  let name = names.get(sql)
  if (name === undefined) {
    name = `express-api-keys ${hash('sha256', sql, 'base64url').slice(0, 16)}`
    names.set(sql, name)
  }
  return name
}

/** The size of a table, for which the server plans statements. */
export type PlannedSize = ReturnType<typeof createPlannedSize>

/** A table of so many pages has an index in every plan. */
const largePages = 4_096
const pageBytes = 8_192

/**
 * Has prepared statements planned anew when a table has grown eightfold. A connection keeps the plan that the server made when the table
 * was small, which may read the whole table, until the next ANALYZE. A statement whose text has a comment with the size is another
 * statement, so a connection has at most six plans of each.
 */
export function createPlannedSize(table: string) {
  let steps = 0
  return {
    /** SQL for the size of the table in bytes. The server asks its file system once in a statement. */
    sql: `(SELECT pg_catalog.pg_relation_size(${literal(table)}::pg_catalog.regclass))::text`,

    /** Notes the size that a statement has returned, if it has returned a row. */
    note(bytes: string | null | undefined) {
      if (bytes === undefined) return
      const pages = Math.min(Number(bytes) / pageBytes, largePages)
      steps = pages >= 1 ? 1 + Math.floor(Math.log2(pages) / 3) : 0
    },

    /** Returns the comment for the size that was noted last. */
    comment: () => `/* size ${steps} */`,
  }
}
