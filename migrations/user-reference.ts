import { literal, qualify, quote } from '../models/names'
import type { Storage } from '../models/storage-options'
import { reasonOf } from './transaction'

/** Where the app's users are. */
export type Users = NonNullable<Storage['users']>

/** The REFERENCES clause of `user_id`. */
export function referenceOf({ schema, table, column }: Users): string {
  return `REFERENCES ${qualify(schema, table)} (${quote(column)}) ON UPDATE CASCADE ON DELETE CASCADE`
}

/** Mistakes in names and types, views, temporary tables, and what else no foreign key refers to. But for 42501, a right that lacks. */
const unfitReference = /^(42(?!501)|3F|0A|55000)/

/** Says which option an error comes of, where it is about the table of users. */
export function explainReference(error: unknown, users: Users): unknown {
  const { code, message, detail } = reasonOf(error)
  if (!unfitReference.test(code)) return error

  const { schema, table, column } = users
  const reason = [message, detail].filter(Boolean).join(': ').replace(/\.$/, '')
  return new Error(
    `migrate: the foreign key to the users of the app, ${literal(table)} (${literal(column)}) in the schema ` +
      `${literal(schema)}, cannot be made: ${reason}. In the option "users", name a table that is there, a column of it that is ` +
      'unique by itself, and no other type than that column has: text, uuid, integer or bigint.',
    { cause: error },
  )
}
