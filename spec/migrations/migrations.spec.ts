import { randomUUID } from 'node:crypto'

import { QueryTypes, Sequelize } from 'sequelize'
import { memoryStorage, Umzug } from 'umzug'

import { createApiKeys, migrations, type StorageOptions } from '../../lib'
import { createSecretFormat } from '../../lib/keys/secret'
import { initialSteps } from '../../migrations'
import { makeSteps, undoSteps, type Step } from '../../migrations/step'
import { exclusively } from '../../migrations/transaction'
import { quote } from '../../models/names'
import { findBlockedSession } from '../support/blocked'
import { createDatabase, type Database } from '../support/database'
import { until } from '../support/until'

const ours = [
  'api_key_audit_head',
  'api_key_bounds',
  'api_key_changes',
  'api_key_event_seals',
  'api_key_events',
  'api_key_expiry_notices',
  'api_key_log_lock',
  'api_key_migrations',
  'api_key_retired_secrets',
  'api_key_revisions',
  'api_key_unsealed_events',
  'api_key_usage',
  'api_key_usage_writers',
  'api_key_user_changes',
  'api_keys',
]

let database: Database
let sequelize: Sequelize

function useDatabase(template: 'empty' | 'migrated', [before, after] = [beforeEach, afterEach]) {
  before(async () => {
    database = await createDatabase(template)
    sequelize = database.connect()
  })

  after(() => database.drop())
}

function createInstance(options: StorageOptions = {}, connection: Sequelize = sequelize) {
  const apiKeys = createApiKeys({
    sequelize: connection,
    keyPrefix: 'agpt',
    permissions: ['READ_GRAPH'],
    ...options,
  })
  database.closeFirst(apiKeys)
  return apiKeys
}

type Instance = ReturnType<typeof createInstance>

/** Makes or undoes some of the steps that the migration consists of. */
function change(work: typeof makeSteps | typeof undoSteps, ...steps: (Step | undefined)[]) {
  const given = steps.filter((step) => step !== undefined)
  return exclusively(sequelize, 'public', (run) => work(run, 'public', given))
}

/** A runner of the app's own, with a history of its own. */
function createRunner() {
  const context = sequelize.getQueryInterface()
  const { name, up, down } = migrations.initial()
  return new Umzug({
    migrations: [{ name: `app-${name}`, up: () => up(context), down: () => down(context) }],
    storage: memoryStorage(),
    logger: undefined,
  })
}

async function rows<Row extends object>(sql: string, bind: unknown[] = []): Promise<Row[]> {
  return sequelize.query<Row>(sql, { type: QueryTypes.SELECT, bind })
}

function insert(table: string, values: Record<string, string>) {
  const columns = Object.keys(values).join(', ')
  return sequelize.query(
    `INSERT INTO ${table} (${columns}) VALUES (${Object.values(values).join(', ')})`,
  )
}

/** All tables of the database that are not Postgres's, with their schema. */
async function listTables() {
  const tables = await rows<{ name: string }>(
    `SELECT schemaname || '.' || tablename AS name FROM pg_tables
      WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY name`,
  )
  return tables.map(({ name }) => name)
}

function inSchema(schema: string) {
  return ours.map((table) => `${schema}.${table}`)
}

/** Creates a role that may do nothing, and says how to connect as it. */
async function createRole() {
  const role = `spec_${randomUUID().replaceAll('-', '')}`
  await sequelize.query(`CREATE ROLE ${role}`)
  return { role, connection: database.connect({ dialectOptions: { options: `-c role=${role}` } }) }
}

/** Uses everything there is, as `userId`, and returns the owner as the database gives it back. */
async function useEverything(apiKeys: Instance, userId: string | number) {
  const { apiKey, plainTextKey } = await apiKeys.create({
    userId,
    name: 'Deployment',
    permissions: ['READ_GRAPH'],
  })
  const verdict = await apiKeys.verify(plainTextKey)
  await apiKeys.flush()
  const { feed, revision } = await apiKeys.health()
  await apiKeys.update(apiKey.id, { description: 'of the graphs' }, { userId })
  await apiKeys.suspend(apiKey.id, { userId })
  await apiKeys.reactivate(apiKey.id, { userId })
  const listed = await apiKeys.list({ userId, text: 'graphs', permission: 'READ_GRAPH' })
  const revoked = await apiKeys.revokeAll(userId)
  const { events } = await apiKeys.events({ userId })
  const { totals } = await apiKeys.usage(apiKey.id, {}, { userId })
  const { keys } = await apiKeys.totalUsage({ userId })
  const after = await apiKeys.health()
  await apiKeys.close()

  expect(feed).toBe('following')
  expect(after.revision).toBeGreaterThan(revision ?? Infinity)
  expect(verdict).toMatchObject({ valid: true, apiKey: { userId: apiKey.userId } })
  expect(listed.apiKeys).toMatchObject([{ id: apiKey.id, lastUsedAt: expect.any(Date) }])
  expect(revoked).toEqual({ keys: 1 })
  expect(totals).toEqual({ accepted: 1, denied: 0, rateLimited: 0 })
  expect(keys).toEqual([{ apiKeyId: apiKey.id, userId: apiKey.userId, ...totals }])
  expect(events.map(({ action, userId }) => [action, userId])).toEqual([
    ['revoked', apiKey.userId],
    ['reactivated', apiKey.userId],
    ['suspended', apiKey.userId],
    ['updated', apiKey.userId],
    ['created', apiKey.userId],
  ])
  return apiKey.userId
}

describe('migrations', () => {
  useDatabase('empty')

  it('go up, down and up again', async () => {
    const steps = initialSteps('public')
    const left: string[][] = []

    for (const step of steps) await change(makeSteps, step)
    expect(await listTables()).toEqual(inSchema('public'))

    for (const step of steps.toReversed()) {
      await change(undoSteps, step)
      left.push(await listTables())
    }
    const [keys, log, usage] = [
      /(migrations|retired_secrets|api_keys)$/,
      /(bounds|changes|log_lock|revisions)$/,
      /(usage|usage_writers|expiry_notices)$/,
    ]
    const kept = (...kinds: RegExp[]) =>
      inSchema('public').filter((name) => kinds.some((kind) => kind.test(name)))
    expect(left).toEqual([kept(keys, log, usage), kept(keys, log), kept(keys), []])
    const functions = await rows(`SELECT proname FROM pg_proc WHERE proname LIKE 'api_key%'`)
    expect(functions).toEqual([])

    await createInstance().migrate()
    await useEverything(createInstance(), 'alice')
  })

  it('let nobody else use the functions of the log', async () => {
    await createInstance().migrate()
    const { role } = await createRole()

    const allowed = await rows(
      `SELECT proname FROM pg_proc
        WHERE proname LIKE 'api_key%' AND has_function_privilege($1, oid, 'EXECUTE')`,
      [role],
    )

    expect(allowed).toEqual([])
  })

  it('are harmless to meet twice, up and down', async () => {
    const queryInterface = sequelize.getQueryInterface()

    const { up, down } = migrations.initial()

    for (const times of ['once', 'twice']) {
      await up(queryInterface)
      expect([times, await listTables()]).toEqual([times, inSchema('public')])
    }
    await useEverything(createInstance(), 'alice')

    await down(queryInterface)
    await down(queryInterface)
    expect(await listTables()).toEqual([])
  })

  it('run by umzug with a history of its own, before and after migrate()', async () => {
    const apiKeys = createInstance()
    const runner = createRunner()
    await runner.up()
    await apiKeys.migrate()
    await useEverything(apiKeys, 'alice')
    await createRunner().up()
    expect(await apiKeys.list()).toMatchObject({ apiKeys: [{ userId: 'alice' }] })

    await runner.down({ to: 0 })
    expect(await listTables()).toEqual([])
  })

  it('run as a file of sequelize-cli, before and after migrate()', async () => {
    // The file is `module.exports = require('express-api-keys').migrations.initial()`.
    const cli = [sequelize.getQueryInterface(), Sequelize] as const
    const file = migrations.initial() as Record<
      'up' | 'down',
      (...args: typeof cli) => Promise<void>
    >
    const apiKeys = createInstance()

    await change(makeSteps, initialSteps('public')[0])
    await file.up(...cli)
    await apiKeys.migrate()
    await file.up(...cli)
    await useEverything(apiKeys, 'alice')

    await file.down(...cli)
    expect(await listTables()).toEqual([])
  })

  it('log what becomes of keys that were there before there was a log', async () => {
    await change(makeSteps, initialSteps('public')[0])
    const format = createSecretFormat({ keyPrefix: 'agpt', secrets: [], acceptUnkeyed: false })
    const { plainTextKey, hash, prefix, postfix } = format.mint()
    await insert('api_keys', {
      user_id: "'alice'",
      name: "'Deployment'",
      prefix: `'${prefix}'`,
      postfix: `'${postfix}'`,
      hash: `'${hash}'`,
      permissions: "'{READ_GRAPH}'",
    })
    const apiKeys = createInstance()

    await apiKeys.migrate()
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
    const { revision } = await apiKeys.health()
    await createInstance().revokeAll('alice')

    await until(async () => (await apiKeys.health()).revision !== revision)
    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
  })

  it('live in two schemas of one database, apart from each other', async () => {
    const [one, other] = [createInstance({ schema: 'one' }), createInstance({ schema: 'other' })]
    await Promise.all([one.migrate(), other.migrate()])

    const { apiKey } = await one.create({ userId: 'alice', name: 'A', permissions: ['READ_GRAPH'] })

    expect(await one.get(apiKey.id)).toEqual(apiKey)
    await expect(other.get(apiKey.id)).rejects.toMatchObject({ code: 'api_key_not_found' })
    const changes = 'SELECT key_id::text AS id, is_new AS "isNew" FROM'
    expect(await rows(`${changes} one.api_key_changes`)).toEqual([{ id: apiKey.id, isNew: true }])
    expect(await rows(`${changes} other.api_key_changes`)).toEqual([])
  })

  it.each<[{ table: string; schema?: string; column?: string }, string, string]>([
    [{ table: 'users' }, '"users"', 'id'],
    [{ table: 'People', schema: 'My "app"', column: 'The Id' }, '"My ""app"""."People"', 'The Id'],
  ])('refer to the users of the app: %j', async (where, table, column) => {
    if (where.schema) await sequelize.query(`CREATE SCHEMA ${quote(where.schema)}`)
    await sequelize.query(`CREATE TABLE ${table} (${quote(column)} uuid PRIMARY KEY)`)
    const [alice, bob, nobody] = [randomUUID(), randomUUID(), randomUUID()]
    await sequelize.query(`INSERT INTO ${table} VALUES ('${alice}'), ('${bob}')`)
    const apiKeys = createInstance({ schema: 'keys', users: { type: 'uuid', ...where } })
    await apiKeys.migrate()
    function create(userId: string) {
      return apiKeys.create({ userId, name: 'A', permissions: ['READ_GRAPH'] })
    }

    await create(alice)
    const { apiKey } = await create(bob)
    await expect(create(nobody)).rejects.toMatchObject({
      code: 'invalid_input',
      errors: [{ pointer: '#/userId' }],
    })
    await sequelize.query(`DELETE FROM ${table} WHERE ${quote(column)} = '${alice}'`)

    expect(await apiKeys.list()).toEqual({ apiKeys: [apiKey], nextCursor: null })
    expect((await apiKeys.events({ userId: alice })).events).toMatchObject([
      { action: 'deleted', actorType: 'database' },
      { action: 'created', actorType: 'system' },
    ])
  })
})

async function createUsers() {
  await sequelize.query(
    `CREATE TABLE users (id text PRIMARY KEY); INSERT INTO users VALUES ('alice')`,
  )
}

describe('the option users', () => {
  useDatabase('empty')

  const key = { userId: 'alice', name: 'A', permissions: ['READ_GRAPH'] } as const

  it('may come later: migrate() has the keys of a user who is deleted go from then on', async () => {
    await createUsers()
    await createInstance().migrate()
    const apiKeys = createInstance({ users: { table: 'users' } })
    await apiKeys.create(key)

    await apiKeys.migrate()
    await apiKeys.migrate()
    await sequelize.query('DELETE FROM users')

    expect(await apiKeys.list()).toEqual({ apiKeys: [], nextCursor: null })
    const references = await rows(
      `SELECT pg_get_constraintdef(oid) AS sql FROM pg_constraint
        WHERE contype = 'f' AND conrelid = 'api_keys'::regclass AND confrelid = 'users'::regclass`,
    )
    expect(references).toEqual([
      { sql: 'FOREIGN KEY (user_id) REFERENCES users(id) ON UPDATE CASCADE ON DELETE CASCADE' },
    ])
  })

  it('is kept where the app makes its table of users anew, or it is said what is in the way', async () => {
    await createUsers()
    const apiKeys = createInstance({ users: { table: 'users' } })
    await apiKeys.migrate()
    await apiKeys.create(key)
    await sequelize.query('DROP TABLE users CASCADE; CREATE TABLE users (id text PRIMARY KEY)')

    await expect(apiKeys.migrate()).rejects.toThrow(
      'migrate: there are keys of users that are not in "public"."users". Delete them first: ' +
        'DELETE FROM "public"."api_keys" WHERE user_id NOT IN (SELECT "id" FROM "public"."users")',
    )

    await sequelize.query(
      'DELETE FROM "public"."api_keys" WHERE user_id NOT IN (SELECT "id" FROM "public"."users")',
    )
    await apiKeys.migrate()
    await expect(apiKeys.create(key)).rejects.toMatchObject({ code: 'invalid_input' })
  })

  it('is for the owner of the tables to follow, and says how', async () => {
    await createUsers()
    await createInstance({ schema: 'keys' }).migrate()
    const { role, connection } = await createRole()
    await sequelize.query(`
      GRANT USAGE ON SCHEMA keys TO ${role};
      GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA keys TO ${role}`)
    const options = { schema: 'keys', users: { table: 'users' } }

    await expect(createInstance(options, connection).migrate()).rejects.toThrow(
      'migrate: "keys"."api_keys" has no foreign key to "public"."users", and this role may not add it ' +
        '(must be owner of table api_keys). Have the owner run: ALTER TABLE "keys"."api_keys" ' +
        'ADD FOREIGN KEY (user_id) REFERENCES "public"."users" ("id") ON UPDATE CASCADE ON DELETE CASCADE',
    )
    await createInstance(options).migrate()
    await createInstance(options, connection).migrate()
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
  ])('is refused by its name where it names %s', async (_, users, reason) => {
    await sequelize.query('CREATE TABLE users (id text PRIMARY KEY, name text)')

    const message = String(await createInstance({ users }).migrate().catch(String))

    expect(message).toMatch(
      /^Error: migrate: the foreign key to the users of the app, .* cannot be made: /,
    )
    expect(message).toContain(reason)
    expect(message).toContain('In the option "users"')
    expect(await listTables()).toEqual(['public.users'])
  })
})

describe('migrations in a schema of their own', () => {
  useDatabase('empty', [beforeAll, afterAll])

  it.each([
    ['text', "O'Brien :id $1", "O'Brien :id $1"],
    ['uuid', '7D444840-9DC0-11D1-B245-5FFDCE74FAD2', '7d444840-9dc0-11d1-b245-5ffdce74fad2'],
    ['integer', -2_147_483_648, -2_147_483_648],
    ['bigint', '9223372036854775807', '9223372036854775807'],
  ] as const)('make user ids of the type %s', async (type, userId, readBack) => {
    const apiKeys = createInstance({ schema: `ids of ${type}`, users: { type } })
    await apiKeys.migrate()

    expect(await useEverything(apiKeys, userId)).toBe(readBack)
    const columns = await rows(
      `SELECT DISTINCT data_type AS type FROM information_schema.columns
        WHERE table_schema = 'ids of ${type}' AND table_name = 'api_keys' AND column_name = 'user_id'`,
    )
    expect(columns).toEqual([{ type }])
  })

  it.each(['keys', 'My "keys"', "Schlüssel's", 'a.b', 'a:text', 'select'])(
    'live in a schema called %s, and make it where there is none',
    async (schema) => {
      const apiKeys = createInstance({ schema })

      await apiKeys.migrate()
      await apiKeys.migrate()
      await useEverything(apiKeys, 'alice')
      expect(await listTables()).toEqual(expect.arrayContaining(inSchema(schema)))

      const queryInterface = sequelize.getQueryInterface()
      await migrations.initial({ schema }).down(queryInterface)
      expect((await listTables()).filter((name) => name.startsWith(`${schema}.`))).toEqual([])
    },
  )
})

describe('migrate', () => {
  useDatabase('empty')

  it('succeeds in eight processes at once', async () => {
    const instances = Array.from({ length: 8 }, () =>
      createInstance({ schema: 'keys' }, database.connect()),
    )

    await Promise.all(instances.map((apiKeys) => apiKeys.migrate()))

    expect(await listTables()).toEqual(inSchema('keys'))
    expect(await rows('SELECT name FROM keys.api_key_migrations ORDER BY name')).toEqual(
      initialSteps('keys').map(({ name }) => ({ name })),
    )
  })

  it('needs no right to create anything where there is nothing to do', async () => {
    await createInstance({ schema: 'keys' }).migrate()
    const { role, connection } = await createRole()
    await sequelize.query(`
      GRANT USAGE ON SCHEMA keys TO ${role};
      GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA keys TO ${role}`)
    const limited = createInstance({ schema: 'keys' }, connection)

    await limited.migrate()
    await useEverything(limited, 'alice')
    expect(await limited.verifyAuditTrail()).toMatchObject({ isIntact: true, entries: 5 })
    expect(await limited.pruneAuditTrail({ olderThanDays: 1 })).toEqual({ events: 0 })
    await expect(createInstance({ schema: 'other' }, connection).migrate()).rejects.toThrow(
      'migrate: this role may not make or mend our tables in the schema "other" (permission denied for database',
    )
  })

  it('says which rights a role lacks that may not read the tables', async () => {
    await createInstance({ schema: 'keys' }).migrate()
    const { role, connection } = await createRole()
    const limited = createInstance({ schema: 'keys' }, connection)

    await expect(limited.migrate()).rejects.toThrow(
      'migrate: this role may not read our tables in the schema "keys" (permission denied for schema keys). Grant it USAGE on ' +
        'that schema, and SELECT, INSERT, UPDATE and DELETE on our tables.',
    )
    await sequelize.query(`GRANT USAGE ON SCHEMA keys TO ${role}`)
    await expect(limited.migrate()).rejects.toThrow(
      '(permission denied for table api_key_migrations). Grant it USAGE on that schema, and SELECT,',
    )
  })

  it('leaves a role that may use keys no right to the log but to read it', async () => {
    await createInstance({ schema: 'keys' }).migrate()
    const { role, connection } = await createRole()
    await sequelize.query(`
      GRANT USAGE ON SCHEMA keys TO ${role};
      GRANT SELECT ON ALL TABLES IN SCHEMA keys TO ${role};
      GRANT INSERT, UPDATE ON keys.api_keys, keys.api_key_bounds TO ${role};
      GRANT INSERT, UPDATE ON keys.api_key_usage, keys.api_key_usage_writers TO ${role};
      GRANT INSERT ON keys.api_key_events, keys.api_key_event_seals TO ${role};
      GRANT UPDATE ON keys.api_key_audit_head TO ${role};
      GRANT DELETE ON keys.api_key_unsealed_events TO ${role}`)

    await useEverything(createInstance({ schema: 'keys' }, connection), 'alice')

    for (const sql of [
      'INSERT INTO keys.api_key_revisions DEFAULT VALUES',
      'DELETE FROM keys.api_key_revisions',
      'UPDATE keys.api_key_changes SET is_new = false',
      'TRUNCATE keys.api_key_changes',
      'SELECT FROM keys.api_key_log_lock FOR UPDATE',
      'SELECT FROM keys.api_key_log_lock FOR KEY SHARE',
      'ALTER TABLE keys.api_keys DISABLE TRIGGER ALL',
      'DROP FUNCTION keys.api_key_gather_change CASCADE',
    ]) {
      await expect(connection.query(sql)).rejects.toThrow(/permission denied|must be owner/)
    }
  })

  it('needs no right to create a schema where there is one', async () => {
    const { role, connection } = await createRole()
    await sequelize.query(`CREATE SCHEMA keys; GRANT USAGE, CREATE ON SCHEMA keys TO ${role}`)
    const limited = createInstance({ schema: 'keys' }, connection)

    await limited.migrate()
    await useEverything(limited, 'alice')
    expect(await listTables()).toEqual(inSchema('keys'))
  })

  it.each(['api_keys', 'api_key_events'])(
    'refuses to share a schema with a table %s of the app',
    async (table) => {
      await sequelize.query(`CREATE TABLE ${table} (id int); INSERT INTO ${table} VALUES (7)`)

      await expect(createInstance().migrate()).rejects.toThrow(
        `migrate: relation "${table}" already exists in the schema "public", and it is not ours. It was left as it is. ` +
          'Give our tables a schema of their own with the option "schema".',
      )

      expect(await rows(`SELECT * FROM ${table}`)).toEqual([{ id: 7 }])
      await createInstance({ schema: 'keys' }).migrate()
    },
  )

  it('leaves nothing behind when it is killed half-way, and succeeds the next time', async () => {
    await sequelize.query('CREATE TABLE users (id text PRIMARY KEY)')
    const apiKeys = createInstance({ schema: 'keys', users: { table: 'users' } })
    // Sequelize says there that a dead connection cannot roll back.
    jest.spyOn(console, 'warn').mockImplementation()
    const lock = await sequelize.transaction()
    await sequelize.query('LOCK TABLE users', { transaction: lock })

    const outcome = apiKeys.migrate().catch((error: unknown) => error)
    const pid = await findBlockedSession(sequelize)
    await sequelize.query(`SELECT pg_terminate_backend(${pid})`)
    const failure = await outcome
    await lock.rollback()

    expect(failure).toMatchObject({ code: 'database_unavailable' })
    expect(await listTables()).toEqual(['public.users'])
    expect(await rows(`SELECT 1 FROM pg_namespace WHERE nspname = 'keys'`)).toEqual([])
    await apiKeys.migrate()
    expect(await listTables()).toEqual([...inSchema('keys'), 'public.users'])
  })
})

describe('without the migrations', () => {
  let plainTextKey: string

  useDatabase('empty', [beforeAll, afterAll])

  beforeAll(async () => {
    const elsewhere = createInstance({ schema: 'elsewhere' })
    await elsewhere.migrate()
    const created = await elsewhere.create({
      userId: 'alice',
      name: 'Deployment',
      permissions: ['READ_GRAPH'],
    })
    plainTextKey = created.plainTextKey
  })

  it.each<[string, (apiKeys: Instance) => Promise<unknown>]>([
    ['create', (it) => it.create({ userId: 'a', name: 'A', permissions: ['READ_GRAPH'] })],
    ['list', (apiKeys) => apiKeys.list()],
    ['get', (apiKeys) => apiKeys.get(randomUUID())],
    ['suspend', (apiKeys) => apiKeys.suspend(randomUUID())],
    ['revokeAll', (apiKeys) => apiKeys.revokeAll('alice')],
    ['events', (apiKeys) => apiKeys.events()],
    ['verifyAuditTrail', (apiKeys) => apiKeys.verifyAuditTrail()],
    ['auditHead', (apiKeys) => apiKeys.auditHead()],
    ['pruneAuditTrail', (apiKeys) => apiKeys.pruneAuditTrail({ olderThanDays: 1 })],
    ['userChanged', (apiKeys) => apiKeys.userChanged('alice')],
    ['verify', (apiKeys) => apiKeys.verify(plainTextKey)],
  ])('%s says what to do', async (_, call) => {
    await expect(call(createInstance())).rejects.toThrow(
      /^express-api-keys: the tables are missing or older than this version \(relation "public.api_key.*" does not exist\)\. Run "await apiKeys\.migrate\(\)", or the migrations with your own runner\.$/,
    )
  })
})

describe('constraints', () => {
  useDatabase('migrated', [beforeAll, afterAll])

  const key = {
    user_id: "'alice'",
    name: "'Deployment'",
    description: 'NULL',
    prefix: "'agpt_abc123'",
    postfix: "'abcd1234'",
    hash: 'md5(random()::text) || md5(random()::text)',
    secret_id: 'NULL',
    permissions: "'{READ_GRAPH}'",
    status: "'ACTIVE'",
    revoked_at: 'NULL',
  }
  const event = {
    api_key_id: 'gen_random_uuid()',
    user_id: "'alice'",
    action: "'created'",
    actor_type: "'user'",
    actor_id: "'alice'",
    reason: 'NULL',
  }
  const usage = {
    api_key_id: 'gen_random_uuid()',
    user_id: "'alice'",
    hour: "'2026-11-01T12:00:00Z'",
    verified: '1',
    denied: '0',
    rate_limited: '0',
  }
  const bound = { bound_ms: '1000', registered_at: 'now()' }
  const change = { mark: 'gen_random_uuid()', place: '1', is_new: 'false' }

  it.each([
    ['a key', 'api_keys', key, {}],
    ['a revoked key', 'api_keys', key, { status: "'REVOKED'", revoked_at: 'now()' }],
    ['a suspended key', 'api_keys', key, { status: "'SUSPENDED'" }],
    ['100 characters of name', 'api_keys', key, { name: "repeat('ä', 100)" }],
    ['a keyed hash', 'api_keys', key, { secret_id: "'0123456789abcdef'" }],
    ['a prefix of several words', 'api_keys', key, { prefix: "'acme_live_2_Abc123'" }],
    ['an address', 'api_keys', key, { last_used_from: "'2001:db8::203.0.113.7'" }],
    ['an event', 'api_key_events', event, {}],
    ['an event of nobody', 'api_key_events', event, { actor_type: "'system'", actor_id: 'NULL' }],
    ['an hour of usage', 'api_key_usage', usage, {}],
    ['an hour elsewhere', 'api_key_usage', usage, { hour: "'2026-11-01T12:00:00-07:00'" }],
  ])('let %s in', async (_, table, good, change) => {
    await expect(insert(table, { ...good, ...change })).resolves.toBeDefined()
  })

  const hash = `'${'0'.repeat(64)}'`

  it.each([
    ['no owner', { user_id: 'NULL' }, 'null value in column "user_id"'],
    ['no name', { name: 'NULL' }, 'null value in column "name"'],
    ['an empty name', { name: "''" }, 'api_keys_name_check'],
    ['101 characters of name', { name: "repeat('x', 101)" }, 'api_keys_name_check'],
    ['501 of description', { description: "repeat('x', 501)" }, 'api_keys_description_check'],
    ['a prefix without a name', { prefix: "'_abc123'" }, 'api_keys_prefix_check'],
    ['a prefix that shows more', { prefix: "'agpt_abc1234'" }, 'api_keys_prefix_check'],
    ['a postfix that shows more', { postfix: "'abcd12345'" }, 'api_keys_postfix_check'],
    ['no hash', { hash: 'NULL' }, 'null value in column "hash"'],
    ['plain text for a hash', { hash: "'agpt_7Qm3'" }, 'api_keys_hash_check'],
    ['a hash in upper case', { hash: `'${'A'.repeat(64)}'` }, 'api_keys_hash_check'],
    ['a secret for its id', { secret_id: "'correct horse'" }, 'api_keys_secret_id_check'],
    ['no permissions', { permissions: 'NULL' }, 'null value in column "permissions"'],
    ['an empty set of permissions', { permissions: "'{}'" }, 'api_keys_permissions_check'],
    ['NULL for a permission', { permissions: "'{READ,NULL}'" }, 'api_keys_permissions_check'],
    ['a table of permissions', { permissions: "'{{A},{B}}'" }, 'api_keys_permissions_check'],
    ['no status', { status: 'NULL' }, 'null value in column "status"'],
    ['another status', { status: "'EXPIRED'" }, 'api_keys_status_check'],
    ['REVOKED without a time', { status: "'REVOKED'" }, 'api_keys_check'],
    ['a time without REVOKED', { revoked_at: 'now()' }, 'api_keys_check'],
    ['a host for an address', { last_used_from: "'localhost'" }, 'last_used_from_check'],
  ])('keep a key with %s out', async (_, change, refusal) => {
    await expect(insert('api_keys', { ...key, ...change })).rejects.toThrow(refusal)
  })

  it('keep a second key of one hash out', async () => {
    await insert('api_keys', { ...key, hash })

    await expect(insert('api_keys', { ...key, hash })).rejects.toMatchObject({
      parent: { constraint: 'api_keys_hash_key' },
    })
  })

  it.each([
    ['no key', { api_key_id: 'NULL' }, 'api_key_events_check'],
    ['no owner', { user_id: 'NULL' }, 'api_key_events_check'],
    ['another action', { action: "'expired'" }, 'api_key_events_action_check'],
    ['another actor', { actor_type: "'robot'" }, 'api_key_events_actor_type_check'],
    ['a user without an id', { actor_id: 'NULL' }, 'api_key_events_check'],
    ['501 characters of reason', { reason: "repeat('x', 501)" }, 'api_key_events_reason_check'],
  ])('keep an event with %s out', async (_, change, refusal) => {
    await expect(insert('api_key_events', { ...event, ...change })).rejects.toThrow(refusal)
  })

  it.each([
    ['no key', { api_key_id: 'NULL' }, 'null value in column "api_key_id"'],
    ['no owner', { user_id: 'NULL' }, 'null value in column "user_id"'],
    ['a time within an hour', { hour: "'2026-11-01T12:30:00Z'" }, 'api_key_usage_hour_check'],
    ['no end of time', { hour: "'infinity'" }, 'api_key_usage_hour_check'],
    ['less than no use', { verified: '-1' }, 'api_key_usage_verified_check'],
    ['less than none denied', { denied: '-1' }, 'api_key_usage_denied_check'],
    ['less than none limited', { rate_limited: '-1' }, 'api_key_usage_rate_limited_check'],
  ])('keep usage with %s out', async (_, change, refusal) => {
    await expect(insert('api_key_usage', { ...usage, ...change })).rejects.toThrow(refusal)
  })

  it.each([
    [
      'a row beside the one to lock',
      'api_key_log_lock',
      { is_the_one: 'true' },
      'Validation error',
    ],
    ['a row that is not the one', 'api_key_log_lock', { is_the_one: 'false' }, '_check'],
    ['a row that is none', 'api_key_log_lock', { is_the_one: 'NULL' }, 'null value'],
    ['a bound of nothing', 'api_key_bounds', { ...bound, bound_ms: '0' }, '_bound_ms_check'],
    [
      'a bound longer than a timer',
      'api_key_bounds',
      { ...bound, bound_ms: '2147483648' },
      '_bound_ms_check',
    ],
    ['no bound', 'api_key_bounds', { ...bound, bound_ms: 'NULL' }, 'null value'],
    ['a bound of no time', 'api_key_bounds', { ...bound, registered_at: 'NULL' }, 'null value'],
    ['a number of their own', 'api_key_revisions', { revision: '1000' }, 'non-DEFAULT value'],
    ['an entry without a mark', 'api_key_revisions', { mark: 'NULL' }, 'null value'],
    ['an entry without a time', 'api_key_revisions', { created_at: 'NULL' }, 'null value'],
    ['a change of no entry', 'api_key_changes', { ...change, mark: 'NULL' }, 'null value'],
    ['a change of any kind', 'api_key_changes', { ...change, is_new: 'NULL' }, 'null value'],
    ['a change in no order', 'api_key_changes', { ...change, place: 'NULL' }, 'null value'],
  ])('keep %s out of the log', async (_, table, values, refusal) => {
    await expect(insert(table, values)).rejects.toThrow(refusal)
  })

  it.each(['DELETE FROM', 'TRUNCATE'])('keep an entry in the log after %s', async (remove) => {
    const [before] = await rows<{ mark: string }>('SELECT mark FROM api_key_revisions')

    await sequelize.query(`${remove} api_key_revisions`)

    const after = await rows<{ mark: string }>('SELECT mark FROM api_key_revisions')
    expect(after).toHaveLength(1)
    expect(after[0]?.mark).not.toBe(before?.mark)
  })
})
