import { qualify, quote } from '../models/names'
import type { Storage } from '../models/storage-options'
import { reasonOf, type Run } from './transaction'
import { explainReference, referenceOf, type Users } from './user-reference'

/**
 * Adds the foreign key to the app's users if there is none: without it, the keys of a user who is deleted would go on working. The
 * app may have given the option `users`, or changed it, after the table was made. What was there before is not checked
 * yet, because the users are locked against writes for as long as this takes. Returns true if it has to be.
 *
 * @throws {Error} that says what is in the way
 */
export async function referToUsers(run: Run, { schema, users }: Storage): Promise<boolean> {
  if (!users) return false

  const table = qualify(schema, 'api_keys')
  const references = await findReferences(run, table, users)
  const good = references.find(({ isFollowing }) => isFollowing)
  if (good) return !good.isValid

  const sql = `ALTER TABLE ${table} ADD FOREIGN KEY (user_id) ${referenceOf(users)}`
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

/** Checks the keys that there were when the foreign key was added. No write of the app waits for it. */
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
  /** Keys change owners as users change ids, and go with their users. */
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
  return found as unknown as Reference[]
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
