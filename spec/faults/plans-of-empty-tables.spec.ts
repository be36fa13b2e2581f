import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'
import { readPlans, type Plans } from '../support/plans'

const rowCount = 5_000

let database: Database
/** Has one connection, which keeps the plans that it has made. */
let plans: Plans
let apiKeys: TestApiKeys

beforeAll(async () => {
  database = await createDatabase()
  const sequelize = database.connect()
  // The server takes a table for empty only if it has counted its rows.
  await sequelize.query('VACUUM ANALYZE')
  // No other statistics come before the spec ends. The server makes new plans after them.
  await sequelize.query(`
    ALTER TABLE api_keys SET (autovacuum_enabled = off);
    ALTER TABLE api_key_events SET (autovacuum_enabled = off);
    ALTER TABLE api_key_suspended_owners SET (autovacuum_enabled = off)`)

  plans = readPlans(database, { pool: { max: 1 }, fits: isOfFunction })
  apiKeys = createTestApiKeys(database, { sequelize: plans.sequelize, maxKeysPerOwner: 1_000 })
  await changeAll()

  await sequelize.query(
    `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
      SELECT 'user' || n, 'Key ' || n, 'agpt_abc123', 'abcd1234', md5('a' || n) || md5('b' || n), '{READ_GRAPH}'
        FROM generate_series(1, ${rowCount}) AS n`,
  )
  plans.forget()
})

afterAll(() => database.drop())

/** True for a statement in a function. The library plans its own statements anew each time, and opens them with a word to poolers or a frame. */
function isOfFunction(text: string): boolean {
  return !/NO LOAD BALANCE|START TRANSACTION/.test(text)
}

/** Makes each kind of change for which the server runs a function of ours that looks for rows. */
async function changeAll() {
  await apiKeys.create(newKey())
  await apiKeys.createMany([newKey(), newKey()])
  await apiKeys.suspendOwner({ type: 'user', id: 'alice' })
  await apiKeys.reactivateOwner({ type: 'user', id: 'alice' })
}

describe('the plans that a connection made of empty tables', () => {
  it('still take the indexes when the tables have grown', async () => {
    await changeAll()

    expect(plans.tablesReached()).toContain('api_keys')
    expect(plans.tablesReached()).toContain('api_key_events')
    expect(plans.tablesReadWhole()).toEqual([])
    expect(plans.countRowsInVain()).toBeLessThan(rowCount / 50)
  })
})
