import { warn } from '../../models/warnings'
import { ApiKeysError, InvalidInputError } from '../errors'

/**
 * SQLSTATEs that say the server cannot serve: connection lost, shutting down, full, a standby, out of time. connections.ts says
 * which connection gives way if the server is full.
 */
const outages = /^(08...|57P0[1-5]|53...|25006|25P0[34]|57014|55P03)$/

/**
 * Sequelize's errors for a server that it did not reach, or not in time. They go by name: the app may have another copy of
 * Sequelize than we have, and its errors are no instances of our classes.
 */
const unreached =
  /^Sequelize(Connection\w*|AccessDenied|HostNotFound|HostNotReachable|InvalidConnection|Timeout)Error$/

/** SQLSTATEs of a deadlock or a conflict between transactions. The transaction may succeed if it is tried again. */
const conflicts = /^(40P01|40001)$/

/** SQLSTATEs that say the tables are not there: no such column, no such schema. */
const unmigrated = /^(42703|3F000)$/

/** SQLSTATEs that say the same if they name a part of the library: no such table, no such function, no such type. */
const unknownName = /^(42P01|42883|42704)$/

/**
 * The server's words for an id that does not fit the type of `user_id`. If an app leaves the type to its own column, nothing else
 * checks its ids.
 */
const noUserId =
  /^(invalid input syntax for type (uuid|integer|bigint): |value ".*" is out of range for type (integer|bigint))/s

/** The words of Node, the driver and time-limit.ts for a connection that is gone, if there is no SQLSTATE. */
const brokenConnection = /^(E[A-Z]+)$/
const connectionLost =
  /connection terminated|server closed the connection|not queryable|read timeout|^no answer within/i

/** The driver's own error for a new connection that is lost before Sequelize has set it up. Sequelize passes it on as it is. */
const lostAtOnce = /^(Connection terminated( unexpectedly)?|Client .+ is not queryable)$/

/**
 * Runs work on the database and gives its failures a name. An outage becomes the refusal `database_unavailable`.
 * Missing tables become an error that names the remedy. All other errors stay unchanged.
 */
export async function onDatabase<Result>(work: () => Promise<Result>): Promise<Result> {
  try {
    return await work()
  } catch (error) {
    throw explain(error)
  }
}

/** True if a refusal says that the database cannot be used. */
export function isOutage(error: unknown): boolean {
  return error instanceof ApiKeysError && error.code === 'database_unavailable'
}

/** True if a transaction was rolled back because of a deadlock or a conflict with another transaction. */
export function isConflict(error: unknown): boolean {
  return conflicts.test(sqlStateOf(error))
}

/** The SQLSTATE of a statement that was cancelled, by `statement_timeout` as a rule. */
const cancelled = '57014'

/** A limit that is too short for every statement is no passing outage, so the developer is warned. */
function warnOfTimeLimit(error: Error) {
  warn(
    'API_KEYS_STATEMENT_TIMEOUT',
    `Postgres cancelled a statement of the library (${error.message}). If that happens without load, raise ` +
      'statement_timeout for the role that the app connects as.',
  )
}

/** The fault of an id that the database cannot read, because the app does not name the type of its ids. */
export const noOwnerId = { pointer: '#/owner', message: 'has an id of another type' }

/** Returns what to throw instead of an error of Sequelize or of the driver. */
export function explain(error: unknown): unknown {
  const isOfApp = comesOfAppFunction(error)
  removeValues(error)
  if (error instanceof Error && sqlStateOf(error) === cancelled) warnOfTimeLimit(error)
  if (comesOfOutage(error)) return new ApiKeysError('database_unavailable', { cause: error })
  if (error instanceof Error && isOfApp) {
    return new Error(
      `express-api-keys: a function of your database did not find a name (${error.message}). The library sets its own search path. ` +
        'So give the functions of your triggers on its tables a SET search_path, or qualify the names in them.',
      { cause: error },
    )
  }
  if (error instanceof Error && isUnmigrated(error)) {
    return new Error(
      `express-api-keys: the tables are missing or older than this version (${error.message}). ` +
        'Run "await apiKeys.migrate()", or the migrations with your own runner.',
      { cause: error },
    )
  }
  if (error instanceof Error && noUserId.test(error.message)) {
    return new InvalidInputError([noOwnerId], { cause: error })
  }
  return error
}

/** True if a name is missing in a function that is not the library's, as a rule the function of a trigger that an app added. */
function comesOfAppFunction(error: unknown): boolean {
  const state = sqlStateOf(error)
  if (!unmigrated.test(state) && !unknownName.test(state)) return false

  // The innermost function comes first. An inline code block is of the migrations. PostgreSQL translates all but this name of the language.
  const [innermost = ''] = /^PL\/pgSQL.*/m.exec(fieldOf(error, 'where')) ?? []
  return innermost !== '' && !/\bapi_key_|inline_code_block/.test(innermost)
}

function comesOfOutage(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  if (unreached.test(error.name) || outages.test(sqlStateOf(error))) return true

  const { parent } = error as SequelizeError
  if (!parent) return lostAtOnce.test(error.message)
  return brokenConnection.test(String(parent.code)) || connectionLost.test(error.message)
}

/** The members that Sequelize's errors have in every copy of it. */
type SequelizeError = Error & {
  /** The error of the driver, of any realm. */
  parent?: { code?: unknown; severity?: unknown }
  original?: object
  errors?: object[]
}

/** The code that the server gave its error (SQLSTATE), through Sequelize or from the driver itself; else ''. */
export function sqlStateOf(error: unknown): string {
  const { parent } = (error ?? {}) as Partial<SequelizeError>
  const { code, severity } = (parent ?? error ?? {}) as { code?: unknown; severity?: unknown }
  return typeof code === 'string' && severity !== undefined ? code : ''
}

/** Returns what the server says besides the message of its error. It has values: no log, error or client may get it. */
export function detailOf(error: unknown): string {
  return fieldOf(error, 'detail')
}

function fieldOf(error: unknown, name: 'detail' | 'where'): string {
  const { parent } = (error ?? {}) as Partial<SequelizeError>
  const { [name]: value } = (parent ?? error ?? {}) as Record<typeof name, unknown>
  return typeof value === 'string' ? value : ''
}

/** True if our tables or functions, or some of their columns, are not there. */
export function isUnmigrated(error: unknown): boolean {
  const state = sqlStateOf(error)
  return unmigrated.test(state) || (unknownName.test(state) && messageOf(error).includes('api_key'))
}

/** Returns the cause of an error; without a cause, the error itself. */
export function causeOf(error: unknown): unknown {
  return error instanceof Error && error.cause ? error.cause : error
}

/**
 * Sequelize and the driver hang values on their errors, hashes among them: the parameters of the statement, the
 * instance to be saved, the row that broke a constraint. The server may repeat parameters as well
 * (`log_parameter_max_length_on_error`). They must not reach a log.
 */
function removeValues(error: unknown) {
  if (!(error instanceof Error)) return
  if (error.cause) removeValues(error.cause)

  const { parent, original, errors = [] } = error as SequelizeError
  if (!parent && sqlStateOf(error) === '') return

  for (const holder of new Set([error, parent, original])) {
    for (const name of ['parameters', 'detail', 'where', 'fields', 'value'] as const) {
      if (holder && name in holder) Object.assign(holder, { [name]: undefined })
    }
  }
  for (const fault of errors) Object.assign(fault, { instance: null, value: null })
}

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
 * `database_unavailable`, like that of all functions.
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

/** Returns the message of an error; for any other thrown value, its text. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
