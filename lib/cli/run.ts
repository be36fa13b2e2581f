import { CommanderError } from 'commander'

import { clearTimeout, setTimeout } from '../database/background'
import { exitCodes, failureOf } from './exit-codes'
import { endOnInterruption } from './interruption'
import { createProgram } from './program'
import { note, paint, printable, toJson } from './terminal'

/** The longest time that a timer takes. */
const longestMs = 2 ** 31 - 1

/** Runs a command line, and ends the process with the exit code of its command. */
export async function run(args: readonly string[]) {
  prepareProcess()
  // Connections and timers of the library keep no process alive, so that Node would end in the midst of a command.
  const keepAlive = setTimeout(() => {}, longestMs)
  const { version } = require('../../../package.json') as { version: string }
  try {
    await createProgram(version).parseAsync(args, { from: 'user' })
  } catch (error) {
    process.exitCode = report(error, args.includes('--json'))
  }
  clearTimeout(keepAlive)
  // A timer or a server of the app must not keep the process.
  process.exit()
}

function prepareProcess() {
  // The output is the result alone. Sequelize and apps print to the console, too.
  const { error } = console
  Object.assign(console, { log: error, info: error, debug: error })
  // If `head` has what it wants, nobody reads on.
  process.stdout.on('error', ({ code }: NodeJS.ErrnoException) => {
    process.exit(code === 'EPIPE' ? exitCodes.unread : exitCodes.failed)
  })
  endOnInterruption()
  // In place of the form in which Node prints them, with the number of the process.
  process.removeAllListeners('warning')
  process.on('warning', ({ name, message }) => {
    if (name === 'ApiKeysWarning') note(`${paint('yellow', 'warning:')} ${message}`)
  })
}

/** Prints a failure to standard error, and returns its exit code. */
function report(error: unknown, asJson: boolean): number {
  if (error instanceof CommanderError) {
    // Commander has printed it. Help and the version are no failures.
    return error.exitCode === 0 ? exitCodes.done : exitCodes.usage
  }
  const { exitCode, code, message } = failureOf(error)
  if (asJson) note(toJson({ error: { exitCode, code, message } }))
  else if (exitCode !== exitCodes.interrupted) {
    const lines = message.split('\n').map(printable)
    note(`${paint('red', 'error:')} ${lines.join('\n')}`)
  }
  return exitCode
}
