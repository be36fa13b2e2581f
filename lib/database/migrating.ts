import { causeOf, isOutage, onDatabase, sqlStateOf } from './failures'

/** Advice by the SQLSTATE that the server gave. */
const advice: readonly (readonly [RegExp, string])[] = [
  [/^3D000$/, 'Create this database, or correct its name in the address of your Sequelize.'],
  [/^28/, 'Correct the user or the password in the address of your Sequelize.'],
  [
    /^25006$/,
    'Tables are made on the primary, by a role that may write: this is a standby, or the role has default_transaction_read_only.',
  ],
  [
    /^53300$/,
    'It has too few connections: allow more, or have the pools of your processes hold fewer.',
  ],
  [
    /^(57P0[1-5]|08)/,
    'The server ended the connection. Nothing was changed. Call migrate() again.',
  ],
]

const otherwise = 'Start it, or correct the host and the port in the address of your Sequelize.'

/**
 * Runs the migrations. An outage is explained to the developer, because no client reads it. The error has the code
 * `database_unavailable`, as from all functions.
 */
export async function migrating(work: () => Promise<void>) {
  try {
    await onDatabase(work)
  } catch (error) {
    if (!isOutage(error)) throw error

    const cause = causeOf(error)
    const state = sqlStateOf(cause)
    const [, toDo = otherwise] = advice.find(([states]) => states.test(state)) ?? []
    throw Object.assign(
      new Error(`migrate: the database cannot be used (${messageOf(cause)}). ${toDo}`, { cause }),
      { code: 'database_unavailable' },
    )
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
