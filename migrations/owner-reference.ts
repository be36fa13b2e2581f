import { literal, qualify, quote } from '../models/names'
import type { OwnerReference, Storage } from '../models/storage-options'
import { reasonOf, type Run } from './transaction'

/** A foreign key of ours to owners of the app. */
interface Wanted {
  option: 'users' | 'organizations'
  /** Qualified and quoted. */
  table: string
  column: string
  to: OwnerReference
  onDelete: OwnerReference['onDelete']
}

/** Returns the foreign keys to the owners of the app. A suspension always goes with its owner. */
function wantedBy({ schema, users, organizations }: Storage): Wanted[] {
  const [keys, suspensions] = ['api_keys', 'api_key_suspended_owners'].map((name) =>
    qualify(schema, name),
  )
  const columns = [
    { option: 'users', column: 'user_id', to: users.reference },
    { option: 'organizations', column: 'organization_id', to: organizations?.reference },
  ] as const
  return columns.flatMap(({ to, ...column }) =>
    to
      ? [
          { ...column, to, table: String(keys), onDelete: to.onDelete },
          { ...column, to, table: String(suspensions), onDelete: 'cascade' },
        ]
      : [],
  )
}

/**
 * Adds the foreign keys to the app's owners that are missing: without them, the keys of a deleted owner would still work. The app may
 * have given the options, or changed them, after the tables were made. Returns true if the rows that are there must still be
 * checked, because that check would lock the app's owners against writes for as long as it takes.
 *
 * @throws {Error} that says what is in the way
 */
export async function referToOwners(run: Run, storage: Storage): Promise<boolean> {
  let isUnchecked = false
  for (const wanted of wantedBy(storage)) {
    const isValid = await refer(run, wanted)
    isUnchecked ||= !isValid
  }
  return isUnchecked
}

/** Returns true if all rows obey the foreign key. */
async function refer(run: Run, wanted: Wanted): Promise<boolean> {
  const { table, column, to, onDelete } = wanted
  const references = await findReferences(run, wanted)
  const good = references.find(({ isFollowing }) => isFollowing)
  if (good) return good.isValid

  const target = `${qualify(to.schema, to.table)} (${quote(to.column)})`
  const sql = `ALTER TABLE ${table} ADD FOREIGN KEY (${column}) REFERENCES ${target} ON UPDATE CASCADE ON DELETE ${onDelete.toUpperCase()}`
  try {
    for (const { name } of references) {
      await run(`ALTER TABLE ${table} DROP CONSTRAINT ${quote(name)}`)
    }
    await run(`${sql} NOT VALID`)
  } catch (error) {
    throw explainFailure(error, sql, wanted)
  }
  return false
}

/** Checks the rows that were there when the foreign keys were added. No write of the app waits for it. */
export async function validateReferences(run: Run, storage: Storage) {
  for (const wanted of wantedBy(storage)) {
    for (const { name, isValid } of await findReferences(run, wanted)) {
      if (isValid) continue
      const sql = `ALTER TABLE ${wanted.table} VALIDATE CONSTRAINT ${quote(name)}`
      await run(sql).catch((error: unknown) => {
        throw explainFailure(error, sql, wanted)
      })
    }
  }
}

interface Reference {
  name: string
  /** True if rows change owners when owners change ids, and do what the app wants when owners are deleted. */
  isFollowing: boolean
  isValid: boolean
}

async function findReferences(
  run: Run,
  { table, column, to, onDelete }: Wanted,
): Promise<Reference[]> {
  const found = await run(
    `SELECT key.conname AS name, key.confupdtype = 'c' AND key.confdeltype = left($6, 1)::"char" AS "isFollowing",
            key.convalidated AS "isValid"
       FROM pg_catalog.pg_constraint AS key
       JOIN pg_catalog.pg_attribute AS ours ON (ours.attrelid, ours.attnum) = (key.conrelid, key.conkey[1])
       JOIN pg_catalog.pg_class AS theirs ON theirs.oid = key.confrelid
       JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = theirs.relnamespace
       JOIN pg_catalog.pg_attribute AS id ON (id.attrelid, id.attnum) = (theirs.oid, key.confkey[1])
      WHERE key.conrelid = $1::regclass AND key.contype = 'f' AND ours.attname = $2
        AND (namespace.nspname, theirs.relname, id.attname) = ($3, $4, $5)`,
    [table, column, to.schema, to.table, to.column, onDelete],
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
  sql: string,
  { option, table, column, to }: Wanted,
): unknown {
  const { code, message, detail } = reasonOf(error)
  const named = qualify(to.schema, to.table)

  if (code === '23503') {
    return new Error(
      `migrate: there are keys of ${option} that are not in ${named}. Delete them first: DELETE FROM ${table} ` +
        `WHERE ${column} NOT IN (SELECT ${quote(to.column)} FROM ${named})`,
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
    `migrate: the foreign key to the ${option} of the app, ${literal(to.table)} (${literal(to.column)}) in the schema ` +
      `${literal(to.schema)}, cannot be made: ${reason}. In the option "${option}", name a table that is there, a column of it that is ` +
      'unique by itself, and no other type than that column has: text, uuid, integer or bigint.',
    { cause: error },
  )
}
