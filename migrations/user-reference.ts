import { literal, qualify, quote } from '../models/names'
import type { Storage } from '../models/storage-options'
import { reasonOf } from './transaction'

/** Where the app's users are. */
export type Users = NonNullable<Storage['users']>

/** The REFERENCES clause of `user_id`. */
export function referenceOf({ schema, table, column }: Users): string {
  return `REFERENCES ${qualify(schema, table)} (${quote(column)}) ON UPDATE CASCADE ON DELETE CASCADE`
}

/** No such table, schema or column; of another type; not unique. */
const unfitReference = /^(42P01|3F000|42703|42804|42830)$/

/** Says which option an error comes of, where it is about the table of users. */
export function explainReference(error: unknown, users: Users): unknown {
  const { code, message } = reasonOf(error)
  if (!unfitReference.test(code)) return error

  const { schema, table, column } = users
  return new Error(
    `migrate: the foreign key to the users of the app, ${literal(table)} (${literal(column)}) in the schema ` +
      `${literal(schema)}, cannot be made: ${message}. Make that table first, and give its name, column and type ` +
      'in the option "users".',
    { cause: error },
  )
}
