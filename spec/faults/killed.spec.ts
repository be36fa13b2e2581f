import { execFile } from 'node:child_process'
import { join } from 'node:path'

import { QueryTypes, type Sequelize } from 'sequelize'

import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { createKey } from '../support/keys'
import { secret } from './killed'

const register = join(__dirname, '..', 'support', 'register.js')
const program = join(__dirname, 'killed.ts')

/** More statements than any change has. */
const mostStatements = 20

let database: Database
let sequelize: Sequelize
let apiKeys: TestApiKeys

beforeEach(async () => {
  database = await createDatabase()
  sequelize = database.connect()
  apiKeys = createTestApiKeys(database, { sequelize, secrets: [secret] })
})

afterEach(() => database.drop())

/**
 * Makes a change in a process that is killed after a number of statements. Returns the way in which the process ended.
 */
function makeKilled(change: string, id: string, statements: number): Promise<string> {
  const args = ['--require', register, program, database.url, change, id, `${statements}`]

  return new Promise((resolve) => {
    const child = execFile(process.execPath, args, (_, stdout, stderr) => {
      resolve(child.signalCode ?? (stdout || stderr))
    })
  })
}

/** Everything that has to agree: the keys, the secrets that they had, and their entries in the trail. */
async function readState() {
  const [retired] = await sequelize.query<{ count: number }>(
    'SELECT count(*)::int AS count FROM api_key_retired_secrets',
    { type: QueryTypes.SELECT },
  )
  const { apiKeys: keys } = await apiKeys.list({ limit: 100 })
  const { events } = await apiKeys.events({ limit: 100 })
  const { isIntact, entries, unsealed, faults } = await apiKeys.verifyAuditTrail()
  const count = (name: string) => events.filter(({ action }) => action === name).length

  return {
    trail: { isIntact, faults, isSealed: unsealed === 0 && entries === events.length },
    keys: keys.length,
    revoked: keys.filter(({ status }) => status === 'REVOKED').length,
    rotated: keys.filter(({ previousSecret }) => previousSecret !== null).length,
    retired: retired?.count,
    entries: { created: count('created'), revoked: count('revoked'), rotated: count('rotated') },
  }
}

/** The state after so many changes of three keys. */
function stateOf({ created = 3, rotated = 0, revoked = 0 }) {
  return {
    trail: { isIntact: true, faults: [], isSealed: true },
    keys: created,
    revoked,
    rotated,
    retired: rotated,
    entries: { created, revoked, rotated },
  }
}

describe('a process that is killed after any statement', () => {
  it.each([
    ['create', { created: 4 }, 1],
    ['rotate', { rotated: 1 }, 2],
    ['revokeAll', { revoked: 3 }, 6],
  ])(
    'of %s leaves all of the change, with its audit trail, or nothing of it',
    async (change, done, least) => {
      const [key] = [await createKey(apiKeys), await createKey(apiKeys), await createKey(apiKeys)]
      const states: unknown[] = []
      let ending: string | undefined
      for (let statements = 1; ending !== 'done'; statements++) {
        expect(statements).toBeLessThan(mostStatements)
        ending = await makeKilled(change, key.id, statements)
        expect(['SIGKILL', 'done']).toContain(ending)
        if (ending === 'SIGKILL') states.push(await readState())
      }

      // The last process was killed after its COMMIT, and before it reported the change.
      expect(states.length).toBeGreaterThanOrEqual(least)
      expect(states).toEqual([...states.slice(1).map(() => stateOf({})), stateOf(done)])
    },
  )
})
