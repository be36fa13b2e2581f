import { qualify, quote } from '../models/names'
import type { Storage } from '../models/storage-options'
import { reasonOf, type Run } from './transaction'
import { explainReference, referenceOf, type Users } from './user-reference'

/**
 * Holds the table of keys against the option `users`, which an app may have given, or changed, after the table was made, and adds
 * the foreign key where there is none: without it, the keys of a user who is deleted would work on.
 *
 * @throws {Error} that says what is in the way
 */
export async function matchUsers(run: Run, { schema, userIdType, users }: Storage) {
  const table = qualify(schema, 'api_keys')

  const [column] = await run(
    `SELECT format_type(atttypid, NULL) AS type FROM pg_catalog.pg_attribute
        WHERE attrelid = $1::regclass AND attname = 'user_id'`,
    [table],
  )
  if (column?.type !== userIdType) {
    throw new Error(
      `migrate: the option users.type says ${userIdType}, but the column user_id of ${table} has the type ` +
        `${String(column?.type)}, with which it was made. Change the one or the other.`,
    )
  }
  if (!users || (await hasReference(run, table, users))) return

  const sql = `ALTER TABLE ${table} ADD FOREIGN KEY (user_id) ${referenceOf(users)}`
  await run(sql).catch((error: unknown) => {
    throw explainFailure(error, { sql, table, users })
  })
}

async function hasReference(run: Run, table: string, users: Users): Promise<boolean> {
  const found = await run(
    `SELECT 1
       FROM pg_catalog.pg_constraint AS key
       JOIN pg_catalog.pg_attribute AS ours ON (ours.attrelid, ours.attnum) = (key.conrelid, key.conkey[1])
       JOIN pg_catalog.pg_class AS theirs ON theirs.oid = key.confrelid
       JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = theirs.relnamespace
       JOIN pg_catalog.pg_attribute AS id ON (id.attrelid, id.attnum) = (theirs.oid, key.confkey[1])
      WHERE key.conrelid = $1::regclass AND key.contype = 'f' AND ours.attname = 'user_id'
        AND (namespace.nspname, theirs.relname, id.attname) = ($2, $3, $4)`,
    [table, users.schema, users.table, users.column],
  )
  return found.length > 0
}

const foreignKeyViolation = '23503'

const notTheOwner = '42501'

function explainFailure(
  error: unknown,
  { sql, table, users }: { sql: string; table: string; users: Users },
): unknown {
  const { code, message } = reasonOf(error)
  const named = qualify(users.schema, users.table)

  switch (code) {
    case foreignKeyViolation:
      return new Error(
        `migrate: there are keys of users that are not in ${named}. Delete them first: DELETE FROM ${table} ` +
          `WHERE user_id NOT IN (SELECT ${quote(users.column)} FROM ${named})`,
        { cause: error },
      )
    case notTheOwner:
      return new Error(
        `migrate: ${table} has no foreign key to ${named}, and this role may not add it (${message}). ` +
          `Have the owner run: ${sql}`,
        { cause: error },
      )
    default:
      return explainReference(error, users)
  }
}
