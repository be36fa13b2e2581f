import { optionsOf } from '../../models/option-checks'
import { onDatabase } from '../database/failures'
import { checkEverywhere, readOptions, type Circumstances, type Parts } from './calls'
import type { IssueOptions, ReadOptions, RestrictOptions } from './types'

/** The work that a call does with its parsed options. */
type Work<Result> = (circumstances: Circumstances) => Promise<Result>

/** Creates the three ways to run a call. */
export function createRuns({ parse, verification }: Parts) {
  /** Works with the parsed options of a call, and names the failures of the database. */
  async function run<Result>(options: ReadOptions | undefined, work: Work<Result>) {
    return onDatabase(async () => work(readOptions(parse, options)))
  }

  /** Does the same for changes that restrict keys. With `everywhere`, all processes honour the change before the call returns. */
  async function restrict<Result>(given: RestrictOptions | undefined, work: Work<Result>) {
    const { everywhere = false, ...options } = optionsOf(given)
    checkEverywhere(everywhere, options.transaction)
    const result = await run(options, work)
    if (everywhere) await verification.waitForEveryone()
    return result
  }

  /** Makes a secret, once for all calls with one idempotency key. */
  async function issue<Result>(given: IssueOptions | undefined, work: Work<Result>) {
    const { idempotencyKey, answersAgain = true, ...options } = optionsOf(given)
    return run(options, (call) =>
      work({ ...call, ...parse.request({ idempotencyKey }), answersAgain }),
    )
  }

  return { run, issue, restrict }
}
