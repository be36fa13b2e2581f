import { randomUUID } from 'node:crypto'

import { DataTypes } from 'sequelize'

import type { StorageOptions } from '../../lib'
import { until } from '../support/until'
import { createInstance, createRole } from '../support/tables'
import { useWorldForEach } from '../support/world'

const permissions = ['READ_GRAPH'] as const

const world = useWorldForEach({ template: 'empty' })

async function readColumn(table = 'api_keys', name = 'user_id'): Promise<unknown> {
  const [[column]] = (await world.sequelize.query(
    `SELECT data_type AS type FROM information_schema.columns
      WHERE table_name = '${table}' AND column_name = '${name}'`,
  )) as unknown as [[{ type: string } | undefined]]
  return column?.type
}

describe('the type of the ids of organizations', () => {
  const organization = '7d444840-9dc0-11d1-b245-5ffdce74fad2'

  /** Gives a key to the organization without the library. */
  async function giveKey() {
    await world.sequelize.query(
      `UPDATE api_keys SET user_id = NULL, organization_id = '${organization}'`,
    )
  }

  it('is chosen when the option is first given, however many keys of users there are', async () => {
    const old = createInstance(world)
    await old.migrate()
    const { plainTextKey } = await old.create({ userId: 'alice', name: 'A', permissions })
    const [before] = await world.rows(`SELECT pg_relation_filenode('api_keys') AS file`)
    await world.sequelize.query(
      `CREATE TABLE organizations (id uuid PRIMARY KEY); INSERT INTO organizations VALUES ('${organization}')`,
    )
    const apiKeys = createInstance(world, { organizations: { table: 'organizations' } })

    await apiKeys.migrate()
    await apiKeys.migrate()

    for (const table of ['api_keys', 'api_key_suspended_owners']) {
      expect(await readColumn(table, 'organization_id')).toBe('uuid')
    }
    // No row was written again.
    expect(await world.rows(`SELECT pg_relation_filenode('api_keys') AS file`)).toEqual([before])
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
    expect(await apiKeys.health()).toMatchObject({ feed: 'following' })
    await giveKey()
    await expect(
      world.sequelize.query(`INSERT INTO api_key_suspended_owners (reason) VALUES ('left')`),
    ).rejects.toThrow('check constraint')
    await expect(world.sequelize.query('UPDATE api_keys SET user_id = 7')).rejects.toThrow(
      'check constraint',
    )
    await world.sequelize.query('DELETE FROM organizations')
    expect((await apiKeys.list()).apiKeys).toEqual([])
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })

  it('changes with the keys that organizations have, or stays and says which keys are in the way', async () => {
    const apiKeys = createInstance(world, { organizations: { type: 'uuid' } })
    await createInstance(world).migrate()
    await createInstance(world).create({ userId: 'alice', name: 'A', permissions })
    await giveKey()

    await apiKeys.migrate()
    expect(await readColumn('api_keys', 'organization_id')).toBe('uuid')
    await expect(
      createInstance(world, { organizations: { type: 'integer' } }).migrate(),
    ).rejects.toThrow(
      'migrate: the organizations of the app have ids of the type integer, but the column organization_id of "public"."api_keys" has ' +
        'the type uuid, and 1 of its keys have owners whose ids cannot become integer.',
    )
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })

  it('needs the owner of the tables, and the error says so', async () => {
    await createInstance(world, { schema: 'keys' }).migrate()
    const { role, connection } = await createRole(world)
    await world.sequelize.query(`
      GRANT USAGE ON SCHEMA keys TO ${role};
      GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA keys TO ${role}`)
    const options = { schema: 'keys', organizations: { type: 'uuid' } } as const

    await expect(createInstance(world, options, connection).migrate()).rejects.toThrow(
      'migrate: the column organization_id of "keys"."api_keys" has the type text and cannot become uuid',
    )
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
    await world.sequelize.query(
      `CREATE TABLE users (id ${type} PRIMARY KEY); INSERT INTO users VALUES (${value})`,
    )
    const apiKeys = createInstance(world, { users: { table: 'users' } })

    await apiKeys.migrate()
    await apiKeys.migrate()
    const { apiKey, plainTextKey } = await apiKeys.create({ userId, name: 'A', permissions })

    expect(await readColumn()).toBe(expected)
    const owner = { type: 'user', id: userId }
    expect(apiKey.owner).toEqual(owner)
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true, apiKey: { owner } })
    expect((await apiKeys.list({ userId })).apiKeys).toHaveLength(1)
    await expect(
      apiKeys.create({ userId: 'not there', name: 'A', permissions }),
    ).rejects.toMatchObject({ code: 'invalid_input', errors: [{ pointer: '#/owner' }] })
    await world.sequelize.query('DELETE FROM users')
    await until(async () => !(await apiKeys.verify(plainTextKey)).valid)
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })

  it('compares text as the column does, for example without regard to case', async () => {
    await world.sequelize.query(`
      CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
      CREATE TABLE users (id text COLLATE any_case PRIMARY KEY); INSERT INTO users VALUES ('alice')`)
    await createInstance(world).migrate()
    const apiKeys = createInstance(world, { users: { table: 'users' } })
    await apiKeys.migrate()
    await apiKeys.migrate()
    const { apiKey } = await apiKeys.create({ userId: 'alice', name: 'A', permissions })
    await apiKeys.create({ userId: 'Alice', name: 'B', permissions })

    expect((await apiKeys.list({ userId: 'ALICE' })).apiKeys).toHaveLength(2)
    expect(await apiKeys.revokeAll({ type: 'user', id: 'Alice' })).toEqual({ keys: 2 })
    expect(await apiKeys.get(apiKey.id)).toMatchObject({ status: 'REVOKED' })
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })

  it.each([
    ['alone', (User: NonNullable<StorageOptions['users']>) => User],
    ['as the table', (table: never) => ({ table })],
  ])('is that of a Sequelize model, which may be given %s', async (_, usersOf) => {
    await world.sequelize.query('CREATE SCHEMA app')
    const User = world.sequelize.define(
      'User',
      { userId: { type: DataTypes.UUID, primaryKey: true, field: 'user_id' } },
      { tableName: 'people', schema: 'app', timestamps: false },
    )
    await User.sync()
    const userId = randomUUID()
    await User.create({ userId })
    const apiKeys = createInstance(world, { users: usersOf(User as never) })

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
  ] as const)('changes from %s to %s with all keys', async (before, after, userId) => {
    const old = createInstance(world, { users: { type: before } })
    await old.migrate()
    const { apiKey, plainTextKey } = await old.create({ userId, name: 'A', permissions })
    await old.suspend(apiKey.id)
    const apiKeys = createInstance(world, { users: { type: after } })

    await apiKeys.migrate()
    await apiKeys.reactivate(apiKey.id)

    expect(await readColumn()).toBe(after)
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({
      valid: true,
      apiKey: { owner: { id: userId } },
    })
    expect((await apiKeys.health()).feed).toBe('following')
    await apiKeys.revoke(apiKey.id)
    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
    expect((await apiKeys.events({ userId })).events).toHaveLength(4)
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })

  it('changes with the table of the app, although the column refers to the table before', async () => {
    const userId = '7d444840-9dc0-11d1-b245-5ffdce74fad2'
    await world.sequelize.query(`
      CREATE TABLE users (id text PRIMARY KEY); INSERT INTO users VALUES ('${userId}');
      CREATE TABLE people (id uuid PRIMARY KEY); INSERT INTO people VALUES ('${userId}')`)
    const old = createInstance(world, { users: { table: 'users' } })
    await old.migrate()
    const { plainTextKey } = await old.create({ userId, name: 'A', permissions })
    const apiKeys = createInstance(world, { users: { table: 'people' } })

    await apiKeys.migrate()
    await world.sequelize.query('DROP TABLE users')

    expect(await readColumn()).toBe('uuid')
    expect(await readColumn('api_key_suspended_owners')).toBe('uuid')
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
    await world.sequelize.query('DELETE FROM people')
    expect((await apiKeys.list()).apiKeys).toEqual([])
  })

  it('changes from integer to bigint with the column of the app, and the trail knows the owners', async () => {
    await world.sequelize.query(
      `CREATE TABLE users (id integer PRIMARY KEY); INSERT INTO users VALUES (1)`,
    )
    const old = createInstance(world, { users: { table: 'users', type: 'integer' } })
    await old.migrate()
    const { apiKey } = await old.create({ userId: 1, name: 'A', permissions })
    await world.sequelize.query(`
      UPDATE api_keys SET name = 'B'; ALTER TABLE users ALTER COLUMN id TYPE bigint;
      INSERT INTO users VALUES (9007199254740993)`)
    const apiKeys = createInstance(world, { users: { table: 'users', type: 'bigint' } })

    await apiKeys.migrate()
    const { apiKey: other } = await apiKeys.create({
      userId: '9007199254740993',
      name: 'A',
      permissions,
    })
    await world.sequelize.query(`UPDATE users SET id = 2 WHERE id = 1`)
    await world.sequelize.query(`DELETE FROM users WHERE id = 2`)

    expect(other.owner.id).toBe('9007199254740993')
    const { events } = await apiKeys.events({ apiKeyId: apiKey.id })
    expect(events.map(({ action, owner }) => [action, owner?.id])).toEqual([
      ['deleted', '2'],
      ['transferred', '2'],
      ['updated', '1'],
      ['created', '1'],
    ])
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })

  it('changes to any type if there are no keys', async () => {
    await createInstance(world).migrate()
    const { apiKey } = await createInstance(world).create({
      userId: 'alice',
      name: 'A',
      permissions,
    })
    await world.sequelize.query('DELETE FROM api_keys')
    const apiKeys = createInstance(world, { users: { type: 'integer' } })

    await apiKeys.migrate()

    expect(await readColumn()).toBe('integer')
    await apiKeys.create({ userId: 7, name: 'A', permissions })
    const { events } = await apiKeys.events({ apiKeyId: apiKey.id })
    expect(events.map(({ owner }) => owner?.id)).toEqual(['alice', 'alice'])
  })

  it('may differ between instances on the same tables, which do not replace the triggers', async () => {
    await world.sequelize.query(
      `CREATE TABLE users (id integer PRIMARY KEY); INSERT INTO users VALUES (7)`,
    )
    const numbers = createInstance(world, { users: { table: 'users', type: 'integer' } })
    await numbers.migrate()
    const { apiKey } = await numbers.create({ userId: 7, name: 'A', permissions })
    await world.sequelize.query(`UPDATE users SET id = 8`)
    const warnings = jest.spyOn(process, 'emitWarning').mockImplementation()

    const texts = createInstance(world)
    await texts.migrate()
    await numbers.migrate()

    expect(warnings).not.toHaveBeenCalled()
    warnings.mockRestore()
    for (const [apiKeys, before, after] of [
      [numbers, 7, 8],
      [texts, '7', '8'],
    ] as const) {
      const { events } = await apiKeys.events({ apiKeyId: apiKey.id })
      expect(events[0]).toMatchObject({
        before: { owner: { id: before } },
        after: { owner: { id: after } },
      })
      expect(events[0]?.owner?.id).toBe(after)
      expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
    }
  })

  it('stays if a key would lose its owner, and the error says what to run', async () => {
    await createInstance(world).migrate()
    await createInstance(world).create({ userId: 'alice', name: 'A', permissions })
    const apiKeys = createInstance(world, { users: { type: 'uuid' } })

    const failure = await apiKeys.migrate().catch((error: Error) => error)

    expect(String(failure)).toMatch(
      'migrate: the users of the app have ids of the type uuid, but the column user_id of "public"."api_keys" has the type ' +
        'text, and 1 of its keys have owners whose ids cannot become uuid.',
    )
    const [, sql = ''] = /: (DELETE FROM .*)\. Or name/.exec(String(failure)) ?? []
    await world.sequelize.query(sql)
    await apiKeys.migrate()
    expect(await readColumn()).toBe('uuid')
  })
})
