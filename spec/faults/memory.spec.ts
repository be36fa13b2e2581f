import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { createDatabase, type Database } from '../support/database'
import { roundCount } from './rounds'

const run = promisify(execFile)
const register = join(__dirname, '..', 'support', 'register.js')
const program = join(__dirname, 'garbage.ts')

/** Ten million in a long run. */
const malformed = Math.min(300_000 * roundCount, 9_000_000)
const unknown = Math.min(90_000 * roundCount, 1_000_000)
const slackBytes = 1024 * 1024

let database: Database

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

describe('the memory of a process', () => {
  const limitMs = 60_000 * Math.min(roundCount, 30)

  it(
    `stays flat under ${malformed + unknown} distinct keys that were never created`,
    async () => {
      const { stdout } = await run(
        process.execPath,
        ['--expose-gc', '--require', register, program, database.url, `${malformed}`, `${unknown}`],
        { timeout: limitMs, killSignal: 'SIGKILL' },
      )

      const { third, end } = JSON.parse(stdout) as { third: number; end: number }
      console.log(`${malformed} malformed and ${unknown} unknown keys: ${third} bytes, then ${end}`)
      expect(end - third).toBeLessThan(slackBytes)
    },
    limitMs + 10_000,
  )
})
