import type { StorageOptions } from '../../lib'
import { findBlockedSession } from '../support/blocked'
import { until } from '../support/until'
import { createInstance, createRole, listTables } from '../support/tables'
import { useWorldForEach } from '../support/world'

const permissions = ['READ_GRAPH'] as const

const world = useWorldForEach({ template: 'empty' })

async function createUsers() {
  await world.sequelize.query(
    `CREATE TABLE users (id text PRIMARY KEY); INSERT INTO users VALUES ('alice')`,
  )
}

describe('the option users.table', () => {
  const key = { userId: 'alice', name: 'A', permissions: ['READ_GRAPH'] } as const

  it('may come later: from then on, the keys of a user are deleted with the user', async () => {
    await createUsers()
    await createInstance(world).migrate()
    const apiKeys = createInstance(world, { users: { table: 'users' } })
    await apiKeys.create(key)

    await apiKeys.migrate()
    await apiKeys.migrate()
    await world.sequelize.query('DELETE FROM users')

    expect(await apiKeys.list()).toEqual({ apiKeys: [], nextCursor: null })
    const references = await world.rows(
      `SELECT pg_get_constraintdef(oid) AS sql FROM pg_constraint
        WHERE contype = 'f' AND conrelid = 'api_keys'::regclass AND confrelid = 'users'::regclass`,
    )
    expect(references).toEqual([
      { sql: 'FOREIGN KEY (user_id) REFERENCES users(id) ON UPDATE CASCADE ON DELETE CASCADE' },
    ])
  })

  it('holds again after the app has made a new table of users, or the error names the obstacle', async () => {
    await createUsers()
    const apiKeys = createInstance(world, { users: { table: 'users' } })
    await apiKeys.migrate()
    await apiKeys.create(key)
    await world.sequelize.query(
      'DROP TABLE users CASCADE; CREATE TABLE users (id text PRIMARY KEY)',
    )

    await expect(apiKeys.migrate()).rejects.toThrow(
      'migrate: there are keys of users that are not in "public"."users". Delete them first: ' +
        'DELETE FROM "public"."api_keys" WHERE user_id NOT IN (SELECT "id" FROM "public"."users")',
    )

    await world.sequelize.query(
      'DELETE FROM "public"."api_keys" WHERE user_id NOT IN (SELECT "id" FROM "public"."users")',
    )
    await apiKeys.migrate()
    await expect(apiKeys.create(key)).rejects.toMatchObject({ code: 'invalid_input' })
  })

  it('needs the owner of the tables, and the error says what to run', async () => {
    await createUsers()
    await createInstance(world, { schema: 'keys' }).migrate()
    const { role, connection } = await createRole(world)
    await world.sequelize.query(`
      GRANT USAGE ON SCHEMA keys TO ${role};
      GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA keys TO ${role}`)
    const options = { schema: 'keys', users: { table: 'users' } }

    await expect(createInstance(world, options, connection).migrate()).rejects.toThrow(
      'migrate: "keys"."api_keys" has no foreign key to "public"."users", and this role may not add it ' +
        '(must be owner of table api_keys). Have the owner run: ALTER TABLE "keys"."api_keys" ' +
        'ADD FOREIGN KEY (user_id) REFERENCES "public"."users" ("id") ON UPDATE CASCADE ON DELETE CASCADE',
    )
    await createInstance(world, options).migrate()
    await createInstance(world, options, connection).migrate()
  })

  it.each<[string, NonNullable<StorageOptions['users']>, string]>([
    ['a table that is not there', { table: 'people' }, 'relation "public.people" does not exist'],
    [
      'a schema that is not there',
      { table: 'users', schema: 'app' },
      'schema "app" does not exist',
    ],
    ['a column that is not there', { table: 'users', column: 'uid' }, 'column "uid" referenced'],
    ['another type', { table: 'users', type: 'uuid' }, 'incompatible types: uuid and text'],
    [
      'a column that is not unique',
      { table: 'users', column: 'name' },
      'there is no unique constraint',
    ],
  ])('is refused by its name if it names %s', async (_, users, reason) => {
    await world.sequelize.query('CREATE TABLE users (id text PRIMARY KEY, name text)')

    const message = String(await createInstance(world, { users }).migrate().catch(String))

    expect(message).toMatch(
      /^Error: migrate: the foreign key to the users of the app, .* cannot be made: /,
    )
    expect(message).toContain(reason)
    expect(message).toContain('In the option "users"')
    expect(await listTables(world)).toEqual(['public.users'])
  })
})

describe('the foreign key to users', () => {
  it('keeps no write of the app waiting while it waits for a lock itself', async () => {
    await world.sequelize.query(`CREATE TABLE users (id text PRIMARY KEY)`)
    const open = await world.sequelize.transaction()
    await world.sequelize.query(`INSERT INTO users VALUES ('alice')`, { transaction: open })

    const migrated = createInstance(world, { users: { table: 'users' } }).migrate()
    await findBlockedSession(world.sequelize)
    await world.sequelize.query(`INSERT INTO users VALUES ('bob')`)
    await open.commit()
    await migrated

    await expect(
      createInstance(world, { users: { table: 'users' } }).create({
        userId: 'carol',
        name: 'A',
        permissions,
      }),
    ).rejects.toMatchObject({ code: 'invalid_input' })
  })

  it('is added without a lock on the users that lasts until all keys are checked', async () => {
    await world.sequelize.query(
      `CREATE TABLE users (id text PRIMARY KEY); INSERT INTO users VALUES ('alice')`,
    )
    await createInstance(world).migrate()
    await createInstance(world).create({ userId: 'alice', name: 'A', permissions })
    const statements: string[] = []
    const logging = (sql: string) => void statements.push(sql)

    await createInstance(
      world,
      { users: { table: 'users' } },
      world.database.connect({ logging }),
    ).migrate()

    const [[reference]] = await world.sequelize.query(
      `SELECT DISTINCT convalidated AS "isValid" FROM pg_constraint WHERE confrelid = 'users'::regclass`,
    )
    expect(reference).toEqual({ isValid: true })
    // Each in a transaction of its own.
    expect(statements.filter((sql) => sql.endsWith('COMMIT;'))).toHaveLength(2)
  })

  it('gives keys the new id of their user, in every process and in the trail', async () => {
    await world.sequelize.query(
      `CREATE TABLE users (id text PRIMARY KEY); INSERT INTO users VALUES ('alice')`,
    )
    const apiKeys = createInstance(world, { users: { table: 'users' } })
    await apiKeys.migrate()
    const { apiKey, plainTextKey } = await apiKeys.create({
      userId: 'alice',
      name: 'A',
      permissions,
    })
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ apiKey: { owner: { id: 'alice' } } })

    await world.sequelize.query(`UPDATE users SET id = 'alicia'`)

    await until(async () => {
      const verdict = await apiKeys.verify(plainTextKey)
      return verdict.valid && verdict.apiKey.owner.id === 'alicia'
    })
    const { events } = await apiKeys.events({ apiKeyId: apiKey.id })
    expect(events[0]).toMatchObject({
      action: 'transferred',
      actorType: 'database',
      before: { owner: { id: 'alice' } },
      after: { owner: { id: 'alicia' } },
    })
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
    expect(await apiKeys.revokeAll({ type: 'user', id: 'alicia' })).toEqual({ keys: 1 })
  })

  it.each([
    ['users', 'user_id'],
    ['organizations', 'organization_id'],
  ] as const)('refuses to delete %s who have keys if the app wants that', async (name, column) => {
    await world.sequelize.query(
      `CREATE TABLE owners (id text PRIMARY KEY); INSERT INTO owners VALUES ('one'), ('other')`,
    )
    await createInstance(world, { [name]: { table: 'owners' } }).migrate()
    const apiKeys = createInstance(world, { [name]: { table: 'owners', onDelete: 'restrict' } })

    await apiKeys.migrate()
    await world.sequelize.query(`
      INSERT INTO api_keys (${column}, name, prefix, postfix, hash, permissions)
      VALUES ('one', 'A', 'agpt_abc123', 'abcd1234', md5('a') || md5('b'), '{READ_GRAPH}');
      INSERT INTO api_key_suspended_owners (${column}) VALUES ('other')`)

    await expect(world.sequelize.query(`DELETE FROM owners WHERE id = 'one'`)).rejects.toThrow(
      'foreign key constraint "api_keys_',
    )
    await world.sequelize.query(`DELETE FROM owners WHERE id = 'other'`)
    await world.sequelize.query(`UPDATE owners SET id = 'renamed'`)
    expect(await world.rows(`SELECT ${column} AS id FROM api_keys`)).toEqual([{ id: 'renamed' }])
    expect(await world.rows('SELECT FROM api_key_suspended_owners')).toEqual([])
  })

  it('replaces a foreign key that does not cascade', async () => {
    await world.sequelize.query(`CREATE TABLE users (id text PRIMARY KEY)`)
    await createInstance(world).migrate()
    await world.sequelize.query(
      'ALTER TABLE api_keys ADD FOREIGN KEY (user_id) REFERENCES users (id)',
    )

    await createInstance(world, { users: { table: 'users' } }).migrate()

    const [references] = await world.sequelize.query(
      `SELECT DISTINCT confupdtype, confdeltype FROM pg_constraint WHERE confrelid = 'users'::regclass`,
    )
    expect(references).toEqual([{ confupdtype: 'c', confdeltype: 'c' }])
  })
})
