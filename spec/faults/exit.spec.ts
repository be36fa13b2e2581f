import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'

import { createTestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { createKeys } from './trial'
import { within } from './waiting'

const register = join(__dirname, '..', 'support', 'register.js')
const script = join(__dirname, 'script.ts')
/** How long a program that has done its work may go on: for less time than an idle process keeps its connections. */
const limitMs = 15_000

let database: Database
let key: string

beforeAll(async () => {
  database = await createDatabase()
  const apiKeys = createTestApiKeys(database)
  const [issued] = await createKeys(apiKeys, 1)
  key = issued?.plainTextKey ?? ''
  await apiKeys.close()
})

afterAll(() => database.drop())

describe('a program that has used the library', () => {
  it.each([
    ['called close()', 'close'],
    ['called close() twice', 'twice'],
    ['called close() while usage was being written', 'while it writes'],
    ['did not call close()', 'no close'],
    ['did not call close(), nor closed Sequelize', 'no close at all'],
    ['never verified a key', 'unused'],
  ])('ends by itself if it %s', async (_, ending) => {
    const args = ['--require', register, script, ending, database.url, key]

    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    try {
      const exited = once(child, 'exit')
      const output = Promise.all([text(child.stdout), text(child.stderr)])
      await Promise.race([once(child.stdout, 'data'), exited])
      const [code] = await within(limitMs, 'the program ends', exited)

      const [stdout, stderr] = await output
      expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: 'done\n', stderr: '' })
    } finally {
      child.kill('SIGKILL')
    }
  })
})
