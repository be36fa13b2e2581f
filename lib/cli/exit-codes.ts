import { causeOf, isUnmigrated, messageOf, sqlStateOf } from '../database/failures'
import { ApiKeysError, InvalidInputError } from '../errors'
import { describe } from '../verification/health'

/** The exit codes of the command line. They are stable: scripts branch on them. */
export const exitCodes = {
  /** All went well. */
  done: 0,
  /** The command has found a fault, for example an audit trail that is not intact. */
  faulty: 1,
  /** The command line, its input or the module of `--config` is wrong. */
  usage: 2,
  /** The library refused the change, for example because there is no such key. */
  refused: 3,
  /** The database, or Redis, cannot be used. */
  unavailable: 4,
  /** The command takes something away, and was not confirmed. */
  unconfirmed: 5,
  /** The tables are missing, or older than this version. */
  unmigrated: 6,
  /** The role of the database lacks a right. */
  denied: 7,
  /** A fault that no other code names. */
  failed: 70,
  /** Ctrl-C. */
  interrupted: 130,
  /** The program that reads the output has ended, for example `head`. */
  unread: 141,
} as const

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes]

/** An error with a message for people, and an exit code. */
export class CliError extends Error {
  override readonly name = 'CliError'

  constructor(
    readonly exitCode: ExitCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options)
  }
}

/** The message of a failure, as the command line prints it. */
export interface Failure {
  exitCode: ExitCode
  /** The code of a refusal; `null` for all other failures. */
  code: string | null
  message: string
}

/** Returns what to say of a failure. A message has no secret. */
export function failureOf(error: unknown): Failure {
  if (error instanceof CliError) {
    return { exitCode: error.exitCode, code: null, message: error.message }
  }
  if (error instanceof InvalidInputError) {
    const { code, errors } = error
    const faults = errors.map(({ pointer, message }) => `${nameOfField(pointer)} ${message}`)
    return { exitCode: exitCodes.usage, code, message: faults.join('\n') }
  }
  if (codeOf(error) === 'database_unavailable') {
    return {
      exitCode: exitCodes.unavailable,
      code: 'database_unavailable',
      message:
        error instanceof ApiKeysError
          ? `The database cannot be used: ${describe(error)}`
          : messageOf(error),
    }
  }
  if (error instanceof ApiKeysError) {
    const { status, code, message } = error
    const exitCode = status === 503 ? exitCodes.unavailable : exitCodes.refused
    return { exitCode, code, message }
  }
  // The library throws it for calls that cannot be right, and says what to write instead.
  if (error instanceof TypeError && !isOfEngine(error)) {
    return { exitCode: exitCodes.usage, code: null, message: error.message }
  }
  const cause = causeOf(error)
  if (isUnmigrated(cause)) {
    const message = `The tables are missing, or older than this version (${messageOf(cause)}). Run express-api-keys migrate.`
    return { exitCode: exitCodes.unmigrated, code: null, message }
  }
  if (sqlStateOf(cause) === insufficientPrivilege) {
    const message = `${describe(error)}. Run express-api-keys doctor, which names the GRANT that is missing.`
    return { exitCode: exitCodes.denied, code: null, message }
  }
  return { exitCode: exitCodes.failed, code: null, message: describe(error) }
}

/** The SQLSTATE of a statement that the role may not run. */
const insufficientPrivilege = '42501'

function codeOf(error: unknown): unknown {
  return Object(error).code
}

/** True for a mistake in a program, whose message says nothing to people who type a command. */
function isOfEngine({ message }: TypeError): boolean {
  return /is not (a function|iterable|defined)|of (undefined|null)\b/.test(message)
}

/** `#/allowedIps/0` is `allowedIps/0`. */
function nameOfField(pointer: string): string {
  return pointer.replace(/^#\/?/, '') || 'the input'
}
