import { CliError, exitCodes } from './exit-codes'
import { note } from './terminal'

/** True once Ctrl-C asked for the end of work that stops at a good place. */
let isInterrupted = false
let isGraceful = false

/** Ends the process at Ctrl-C: at once, or while long work runs at its next good place. A second Ctrl-C always ends it at once. */
export function endOnInterruption() {
  process.on('SIGINT', () => {
    if (!isGraceful || isInterrupted) process.exit(exitCodes.interrupted)
    isInterrupted = true
    // The step under way may wait for a lock of another session.
    note('Ending with the step that is under way. Ctrl-C again ends at once.')
  })
}

/** Throws if Ctrl-C asked for the end. Long work calls it at good places. */
export function throwIfInterrupted() {
  if (isInterrupted) throw new CliError(exitCodes.interrupted, 'Interrupted.')
}

/** Runs work that calls `throwIfInterrupted` again and again. */
export async function untilInterrupted<Result>(work: () => Promise<Result>): Promise<Result> {
  isGraceful = true
  try {
    return await work()
  } finally {
    isGraceful = false
    // The work may have ended before it came to a good place.
    throwIfInterrupted()
  }
}
