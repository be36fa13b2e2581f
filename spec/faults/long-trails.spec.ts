import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { createTestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'

const run = promisify(execFile)
const register = join(__dirname, '..', 'support', 'register.js')
const program = join(__dirname, 'verifying.ts')
const secret = randomBytes(32).toString('base64')
const limitMs = 300_000

/** The driver holds two pages of seals, and the space of some more. 32,000 seals have twice as much. */
const slackBytes = 12 * 1024 * 1024

let database: Database

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

/** Makes keys by SQL: triggers write their entries. */
async function addKeys(from: number, to: number) {
  const sequelize = database.connect()
  const apiKeys = createTestApiKeys(database, { secrets: [secret], sequelize })
  await sequelize.query(`
    INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
    SELECT 'user-' || n % 100, 'Key ' || n, 'agpt_abc123', 'abcd1234', md5('a' || n) || md5('b' || n), '{READ_GRAPH}'
      FROM generate_series(${from}, ${to - 1}) AS n`)
  await sequelize.query(
    `UPDATE api_keys SET status = 'REVOKED', revoked_at = now() WHERE name = 'Key ${from}'`,
  )
  await apiKeys.auditHead()
  return apiKeys
}

async function verifyAlone() {
  const { stdout } = await run(
    process.execPath,
    ['--expose-gc', '--require', register, program, database.url, secret],
    { timeout: limitMs, killSignal: 'SIGKILL' },
  )
  return JSON.parse(stdout) as { isIntact: boolean; entries: number; most: number }
}

describe('verifyAuditTrail, of a trail that grows', () => {
  it(
    'holds as much memory for 8,000 entries as for 40,000',
    async () => {
      await addKeys(0, 8_000)
      const few = await verifyAlone()
      await addKeys(8_000, 40_000)
      const many = await verifyAlone()

      expect([few, many]).toMatchObject([
        { isIntact: true, entries: 8_001 },
        { isIntact: true, entries: 40_002 },
      ])
      console.log(`${few.entries} entries: ${few.most} bytes, ${many.entries}: ${many.most}`)
      expect(many.most - few.most).toBeLessThan(slackBytes)
    },
    limitMs,
  )

  it(
    'finds a contradiction of one of very many keys, and of very many keys',
    async () => {
      const apiKeys = await addKeys(40_000, 40_001)
      const sequelize = database.connect()
      const changeAlone = (sql: string) =>
        sequelize.query(`
          BEGIN; ALTER TABLE api_keys DISABLE TRIGGER USER; ${sql}; COMMIT`)
      await changeAlone(`UPDATE api_keys SET name = 'Mine' WHERE name = 'Key 7'`)
      const countContradictions = async () => {
        const { faults } = await apiKeys.verifyAuditTrail()
        return faults.filter(({ kind }) => kind === 'contradicted').length
      }

      expect(await countContradictions()).toBe(1)

      await changeAlone(`UPDATE api_keys SET name = 'Mine'`)
      expect(await countContradictions()).toBeGreaterThan(50)
    },
    limitMs,
  )
})
