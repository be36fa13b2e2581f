import { randomUUID } from 'node:crypto'

import { DataTypes, type Sequelize } from 'sequelize'

import { createApiKeys, type StorageOptions } from '../../lib'
import { findBlockedSession } from '../support/blocked'
import { createDatabase, type Database } from '../support/database'
import { until } from '../support/until'

const permissions = ['READ_GRAPH'] as const

let database: Database
let sequelize: Sequelize

beforeEach(async () => {
  database = await createDatabase('empty')
  sequelize = database.connect()
})

afterEach(() => database.drop())

function createInstance(users?: StorageOptions['users'], connection = database.connect()) {
  const apiKeys = createApiKeys({ sequelize: connection, keyPrefix: 'agpt', permissions, users })
  database.closeFirst(apiKeys)
  return apiKeys
}

async function readColumn(table = 'api_keys'): Promise<unknown> {
  const [[column]] = (await sequelize.query(
    `SELECT data_type AS type FROM information_schema.columns
      WHERE table_name = '${table}' AND column_name = 'user_id'`,
  )) as unknown as [[{ type: string } | undefined]]
  return column?.type
}

describe('the foreign key to users', () => {
  it('keeps no write of the app waiting while its lock is not to be had', async () => {
    await sequelize.query(`CREATE TABLE users (id text PRIMARY KEY)`)
    const open = await sequelize.transaction()
    await sequelize.query(`INSERT INTO users VALUES ('alice')`, { transaction: open })

    const migrated = createInstance({ table: 'users' }).migrate()
    await findBlockedSession(sequelize)
    await sequelize.query(`INSERT INTO users VALUES ('bob')`)
    await open.commit()
    await migrated

    await expect(
      createInstance({ table: 'users' }).create({ userId: 'carol', name: 'A', permissions }),
    ).rejects.toMatchObject({ code: 'invalid_input' })
  })

  it('is added without a lock on the users that lasts until all keys are checked', async () => {
    await sequelize.query(
      `CREATE TABLE users (id text PRIMARY KEY); INSERT INTO users VALUES ('alice')`,
    )
    await createInstance().migrate()
    await createInstance().create({ userId: 'alice', name: 'A', permissions })
    const statements: string[] = []
    const logging = (sql: string) => void statements.push(sql)

    await createInstance({ table: 'users' }, database.connect({ logging })).migrate()

    const [[reference]] = await sequelize.query(
      `SELECT convalidated AS "isValid" FROM pg_constraint WHERE confrelid = 'users'::regclass`,
    )
    expect(reference).toEqual({ isValid: true })
    // Each in a transaction of its own.
    expect(statements.filter((sql) => sql.endsWith('COMMIT;'))).toHaveLength(2)
  })

  it('has keys follow a user whose id changes, in every process and in the trail', async () => {
    await sequelize.query(
      `CREATE TABLE users (id text PRIMARY KEY); INSERT INTO users VALUES ('alice')`,
    )
    const apiKeys = createInstance({ table: 'users' })
    await apiKeys.migrate()
    const { apiKey, plainTextKey } = await apiKeys.create({
      userId: 'alice',
      name: 'A',
      permissions,
    })
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ apiKey: { userId: 'alice' } })

    await sequelize.query(`UPDATE users SET id = 'alicia'`)

    await until(async () => {
      const verdict = await apiKeys.verify(plainTextKey)
      return verdict.valid && verdict.apiKey.userId === 'alicia'
    })
    const { events } = await apiKeys.events({ apiKeyId: apiKey.id })
    expect(events[0]).toMatchObject({
      action: 'updated',
      actorType: 'database',
      before: { userId: 'alice' },
      after: { userId: 'alicia' },
    })
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
    expect(await apiKeys.revokeAll('alicia')).toEqual({ keys: 1 })
  })

  it('takes the place of a foreign key that does not follow the users', async () => {
    await sequelize.query(`CREATE TABLE users (id text PRIMARY KEY)`)
    await createInstance().migrate()
    await sequelize.query('ALTER TABLE api_keys ADD FOREIGN KEY (user_id) REFERENCES users (id)')

    await createInstance({ table: 'users' }).migrate()

    const [references] = await sequelize.query(
      `SELECT confupdtype, confdeltype FROM pg_constraint WHERE confrelid = 'users'::regclass`,
    )
    expect(references).toEqual([{ confupdtype: 'c', confdeltype: 'c' }])
  })
})

describe('the type of user ids', () => {
  it.each([
    ['text', 'text', "'alice'", 'alice'],
    ['varchar(80)', 'text', "'alice'", 'alice'],
    [
      'uuid',
      'uuid',
      "'7d444840-9dc0-11d1-b245-5ffdce74fad2'",
      '7d444840-9dc0-11d1-b245-5ffdce74fad2',
    ],
    ['integer', 'bigint', '7', '7'],
    ['bigint', 'bigint', '7', '7'],
  ])('is read from a column of type %s', async (type, expected, value, userId) => {
    await sequelize.query(
      `CREATE TABLE users (id ${type} PRIMARY KEY); INSERT INTO users VALUES (${value})`,
    )
    const apiKeys = createInstance({ table: 'users' })

    await apiKeys.migrate()
    await apiKeys.migrate()
    const { apiKey, plainTextKey } = await apiKeys.create({ userId, name: 'A', permissions })

    expect(await readColumn()).toBe(expected)
    expect(apiKey.userId).toBe(userId)
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true, apiKey: { userId } })
    expect((await apiKeys.list({ userId })).apiKeys).toHaveLength(1)
    await expect(
      apiKeys.create({ userId: 'not there', name: 'A', permissions }),
    ).rejects.toMatchObject({ code: 'invalid_input', errors: [{ pointer: '#/userId' }] })
    await sequelize.query('DELETE FROM users')
    await until(async () => !(await apiKeys.verify(plainTextKey)).valid)
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })

  it('compares text as the column does, without regard to case for example', async () => {
    await sequelize.query(`
      CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
      CREATE TABLE users (id text COLLATE any_case PRIMARY KEY); INSERT INTO users VALUES ('alice')`)
    await createInstance().migrate()
    const apiKeys = createInstance({ table: 'users' })
    await apiKeys.migrate()
    await apiKeys.migrate()
    const { apiKey } = await apiKeys.create({ userId: 'alice', name: 'A', permissions })
    await apiKeys.create({ userId: 'Alice', name: 'B', permissions })

    expect((await apiKeys.list({ userId: 'ALICE' })).apiKeys).toHaveLength(2)
    expect(await apiKeys.revokeAll('Alice')).toEqual({ keys: 2 })
    expect(await apiKeys.get(apiKey.id)).toMatchObject({ status: 'REVOKED' })
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })

  it.each([
    ['alone', (User: NonNullable<StorageOptions['users']>) => User],
    ['as the table', (table: never) => ({ table })],
  ])('is that of a Sequelize model, which may be given %s', async (_, usersOf) => {
    await sequelize.query('CREATE SCHEMA app')
    const User = sequelize.define(
      'User',
      { userId: { type: DataTypes.UUID, primaryKey: true, field: 'user_id' } },
      { tableName: 'people', schema: 'app', timestamps: false },
    )
    await User.sync()
    const userId = randomUUID()
    await User.create({ userId })
    const apiKeys = createInstance(usersOf(User as never))

    await apiKeys.migrate()
    const { plainTextKey } = await apiKeys.create({ userId, name: 'A', permissions })
    await User.destroy({ where: { userId } })

    expect(await readColumn()).toBe('uuid')
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: false })
  })

  it.each([
    ['text', 'uuid', '7d444840-9dc0-11d1-b245-5ffdce74fad2'],
    ['text', 'bigint', '7'],
    ['uuid', 'text', '7d444840-9dc0-11d1-b245-5ffdce74fad2'],
    ['bigint', 'text', '7'],
  ] as const)('goes from %s to %s with the keys that there are', async (before, after, userId) => {
    const old = createInstance({ type: before })
    await old.migrate()
    const { apiKey, plainTextKey } = await old.create({ userId, name: 'A', permissions })
    await old.suspend(apiKey.id)
    const apiKeys = createInstance({ type: after })

    await apiKeys.migrate()
    await apiKeys.reactivate(apiKey.id)

    expect(await readColumn()).toBe(after)
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true, apiKey: { userId } })
    expect((await apiKeys.health()).feed).toBe('following')
    await apiKeys.revoke(apiKey.id)
    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
    expect((await apiKeys.events({ userId })).events).toHaveLength(4)
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })

  it('goes from integer to bigint as the app widens the column, and the trail knows the owners', async () => {
    await sequelize.query(
      `CREATE TABLE users (id integer PRIMARY KEY); INSERT INTO users VALUES (1)`,
    )
    const old = createInstance({ table: 'users', type: 'integer' })
    await old.migrate()
    const { apiKey } = await old.create({ userId: 1, name: 'A', permissions })
    await sequelize.query(`
      UPDATE api_keys SET name = 'B'; ALTER TABLE users ALTER COLUMN id TYPE bigint;
      INSERT INTO users VALUES (9007199254740993)`)
    const apiKeys = createInstance({ table: 'users', type: 'bigint' })

    await apiKeys.migrate()
    const { apiKey: other } = await apiKeys.create({
      userId: '9007199254740993',
      name: 'A',
      permissions,
    })
    await sequelize.query(`UPDATE users SET id = 2 WHERE id = 1`)
    await sequelize.query(`DELETE FROM users WHERE id = 2`)

    expect(other.userId).toBe('9007199254740993')
    const { events } = await apiKeys.events({ apiKeyId: apiKey.id })
    expect(events.map(({ action, userId }) => [action, userId])).toEqual([
      ['deleted', '2'],
      ['updated', '2'],
      ['updated', '1'],
      ['created', '1'],
    ])
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })

  it('goes to any type if there are no keys', async () => {
    await createInstance().migrate()
    const { apiKey } = await createInstance().create({ userId: 'alice', name: 'A', permissions })
    await sequelize.query('DELETE FROM api_keys')
    const apiKeys = createInstance({ type: 'integer' })

    await apiKeys.migrate()

    expect(await readColumn()).toBe('integer')
    await apiKeys.create({ userId: 7, name: 'A', permissions })
    const { events } = await apiKeys.events({ apiKeyId: apiKey.id })
    expect(events.map(({ userId }) => userId)).toEqual(['alice', 'alice'])
  })

  it('may differ between instances that share the tables, which then leave the triggers alone', async () => {
    await sequelize.query(
      `CREATE TABLE users (id integer PRIMARY KEY); INSERT INTO users VALUES (7)`,
    )
    const numbers = createInstance({ table: 'users', type: 'integer' })
    await numbers.migrate()
    const { apiKey } = await numbers.create({ userId: 7, name: 'A', permissions })
    await sequelize.query(`UPDATE users SET id = 8`)
    const warnings = jest.spyOn(process, 'emitWarning').mockImplementation()

    const texts = createInstance()
    await texts.migrate()
    await numbers.migrate()

    expect(warnings).not.toHaveBeenCalled()
    warnings.mockRestore()
    for (const [apiKeys, before, after] of [
      [numbers, 7, 8],
      [texts, '7', '8'],
    ] as const) {
      const { events } = await apiKeys.events({ apiKeyId: apiKey.id })
      expect(events[0]).toMatchObject({ before: { userId: before }, after: { userId: after } })
      expect(events[0]?.userId).toBe(after)
      expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
    }
  })

  it('stays as it is if a key would lose its owner, and it is said what to run', async () => {
    await createInstance().migrate()
    await createInstance().create({ userId: 'alice', name: 'A', permissions })
    const apiKeys = createInstance({ type: 'uuid' })

    const failure = await apiKeys.migrate().catch((error: Error) => error)

    expect(String(failure)).toMatch(
      'migrate: the users of the app have ids of the type uuid, but the column user_id of "public"."api_keys" has the type ' +
        'text, and 1 of its keys have owners whose ids cannot become uuid.',
    )
    const [, sql = ''] = /: (DELETE FROM .*)\. Or name/.exec(String(failure)) ?? []
    await sequelize.query(sql)
    await apiKeys.migrate()
    expect(await readColumn()).toBe('uuid')
  })
})
