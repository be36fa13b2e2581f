import { literal, qualify, quote } from '../models/names'
import type { Storage } from '../models/storage-options'
import { reasonOf, type Run } from './transaction'

type Users = NonNullable<Storage['users']>

/**
 * Adds the foreign key to the app's users if it is missing: without it, the keys of a deleted user would still work. The app may
 * have given the option `users`, or changed it, after the table was made. Returns true if the keys that are there must still be
 * checked, because that check would lock the users against writes for as long as it takes.
 *
 * @throws {Error} that says what is in the way
 */
export async function referToUsers(run: Run, { schema, users }: Storage): Promise<boolean> {
  if (!users) return false

  const table = qualify(schema, 'api_keys')
  const references = await findReferences(run, table, users)
  const good = references.find(({ isFollowing }) => isFollowing)
  if (good) return !good.isValid

  const target = `${qualify(users.schema, users.table)} (${quote(users.column)})`
  const sql = `ALTER TABLE ${table} ADD FOREIGN KEY (user_id) REFERENCES ${target} ON UPDATE CASCADE ON DELETE CASCADE`
  try {
    for (const { name } of references) {
      await run(`ALTER TABLE ${table} DROP CONSTRAINT ${quote(name)}`)
    }
    await run(`${sql} NOT VALID`)
  } catch (error) {
    throw explainFailure(error, { sql, table, users })
  }
  return true
}

/** Checks the keys that were there when the foreign key was added. No write of the app waits for it. */
export async function validateReference(run: Run, { schema, users }: Storage) {
  if (!users) return

  const table = qualify(schema, 'api_keys')
  for (const { name, isValid } of await findReferences(run, table, users)) {
    if (isValid) continue
    const sql = `ALTER TABLE ${table} VALIDATE CONSTRAINT ${quote(name)}`
    await run(sql).catch((error: unknown) => {
      throw explainFailure(error, { sql, table, users })
    })
  }
}

interface Reference {
  name: string
  /** True if keys change owners when users change ids, and go with their users. */
  isFollowing: boolean
  isValid: boolean
}

async function findReferences(run: Run, table: string, users: Users): Promise<Reference[]> {
  const found = await run(
    `SELECT key.conname AS name, key.confupdtype = 'c' AND key.confdeltype = 'c' AS "isFollowing",
            key.convalidated AS "isValid"
       FROM pg_catalog.pg_constraint AS key
       JOIN pg_catalog.pg_attribute AS ours ON (ours.attrelid, ours.attnum) = (key.conrelid, key.conkey[1])
       JOIN pg_catalog.pg_class AS theirs ON theirs.oid = key.confrelid
       JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = theirs.relnamespace
       JOIN pg_catalog.pg_attribute AS id ON (id.attrelid, id.attnum) = (theirs.oid, key.confkey[1])
      WHERE key.conrelid = $1::regclass AND key.contype = 'f' AND ours.attname = 'user_id'
        AND (namespace.nspname, theirs.relname, id.attname) = ($2, $3, $4)`,
    [table, users.schema, users.table, users.column],
  )
  // The columns of the statement.
  return found as unknown as Reference[]
}

/**
 * SQLSTATEs of mistakes in names and types, of views, of temporary tables, and of whatever else a foreign key cannot refer to. A
 * missing right (42501) is none of them.
 */
const unfitReference = /^(42(?!501)|3F|0A|55000)/

/** Says what to do about a foreign key that cannot be added or checked. */
function explainFailure(
  error: unknown,
  { sql, table, users }: { sql: string; table: string; users: Users },
): unknown {
  const { code, message, detail } = reasonOf(error)
  const named = qualify(users.schema, users.table)

  if (code === '23503') {
    return new Error(
      `migrate: there are keys of users that are not in ${named}. Delete them first: DELETE FROM ${table} ` +
        `WHERE user_id NOT IN (SELECT ${quote(users.column)} FROM ${named})`,
      { cause: error },
    )
  }
  if (code === '42501') {
    return new Error(
      `migrate: ${table} has no foreign key to ${named}, and this role may not add it (${message}). ` +
        `Have the owner run: ${sql}`,
      { cause: error },
    )
  }
  if (!unfitReference.test(code)) return error

  const reason = [message, detail].filter(Boolean).join(': ').replace(/\.$/, '')
  return new Error(
    `migrate: the foreign key to the users of the app, ${literal(users.table)} (${literal(users.column)}) in the schema ` +
      `${literal(users.schema)}, cannot be made: ${reason}. In the option "users", name a table that is there, a column of it that is ` +
      'unique by itself, and no other type than that column has: text, uuid, integer or bigint.',
    { cause: error },
  )
}
