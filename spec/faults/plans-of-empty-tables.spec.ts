import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'
import { readPlans, type Plans } from '../support/plans'

const rowCount = 5_000

/** After five runs of a prepared statement, the server makes one plan for all further runs. The first run here is on an empty table. */
const runsBeforePlan = 8

let database: Database
/** Has one connection, which keeps the plans that it has made of functions. */
let functions: Plans
/** Has one connection for changes and one for look-ups, which keep the plans that they have made of prepared statements. */
let statements: Plans
let creator: TestApiKeys
let changer: TestApiKeys
let id: string
let plainTextKey: string

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

  functions = readPlans(database, { pool: { max: 1 }, fits: isOfFunction })
  creator = createTestApiKeys(database, { sequelize: functions.sequelize, maxKeysPerOwner: 1_000 })
  await createAll()
  statements = readPlans(database, { pool: { max: 1 }, fits: isPrepared })
  changer = createTestApiKeys(database, { sequelize: statements.sequelize, listen: false })
  const created = await changer.create(newKey())
  id = created.apiKey.id
  plainTextKey = created.plainTextKey
  for (let run = 0; run < runsBeforePlan; run++) await changeAll()

  await sequelize.query(
    `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
      SELECT 'user' || n, 'Key ' || n, 'agpt_abc123', 'abcd1234', md5('a' || n) || md5('b' || n), '{READ_GRAPH}'
        FROM generate_series(1, ${rowCount}) AS n`,
  )
})

afterAll(async () => {
  await changer.close()
  await database.drop()
})

/** True for a statement in a function. The library opens its own statements with a word to poolers or a frame. */
function isOfFunction(text: string): boolean {
  return !/NO LOAD BALANCE|START TRANSACTION/.test(text)
}

/** True for a statement that the library has the server prepare. The server plans all other statements of the library anew each time. */
function isPrepared(text: string): boolean {
  return text.includes('/* size ')
}

/** Makes each kind of change for which the server runs a function of ours that looks for rows. */
async function createAll() {
  await creator.create(newKey())
  await creator.createMany([newKey(), newKey()])
  await creator.suspendOwner({ type: 'user', id: 'alice' })
  await creator.reactivateOwner({ type: 'user', id: 'alice' })
}

/** Looks a key up, and changes it with and without a new secret. */
async function changeAll() {
  await changer.verify(plainTextKey)
  const { name } = await changer.get(id)
  await changer.update(id, { name: `${name}+` })
  ;({ plainTextKey } = await changer.rotate(id, { gracePeriodSeconds: 60 }))
}

describe('the plans that a connection made of empty tables', () => {
  it('still take the indexes when the tables have grown', async () => {
    functions.forget()

    await createAll()

    expect(functions.tablesReached()).toContain('api_keys')
    expect(functions.tablesReached()).toContain('api_key_events')
    expect(functions.tablesReadWhole()).toEqual([])
    expect(functions.countRowsInVain()).toBeLessThan(rowCount / 50)
  })
})

describe('a prepared statement that a connection has planned for small tables', () => {
  it('is planned anew after its first run on tables that have grown', async () => {
    statements.forget()
    await changeAll()
    expect(statements.tablesReadWhole()).toContain('api_keys')
    statements.forget()

    await changeAll()

    expect(statements.tablesReached()).toContain('api_keys')
    // The other tables are small.
    expect(statements.tablesReadWhole()).not.toContain('api_keys')
    expect(statements.tablesReadWhole()).not.toContain('api_key_events')
    expect(statements.countRowsInVain()).toBeLessThan(rowCount / 50)
  })
})
