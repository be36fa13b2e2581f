import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { createTestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { createKeys } from './trial'

const run = promisify(execFile)
const register = join(__dirname, '..', 'support', 'register.js')
const script = join(__dirname, 'script.ts')
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
  ])(
    'ends by itself if it %s',
    async (_, ending) => {
      const args = ['--require', register, script, ending, database.url, key]

      // Killed at the limit, it would not have ended by itself.
      const { stdout, stderr } = await run(process.execPath, args, {
        timeout: limitMs,
        killSignal: 'SIGKILL',
      })

      expect({ stdout, stderr }).toEqual({ stdout: 'done\n', stderr: '' })
    },
    30_000,
  )
})
