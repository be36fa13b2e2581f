import { randomUUID } from 'node:crypto'

import { Sequelize } from 'sequelize'
import { memoryStorage, Umzug } from 'umzug'

import { migrations } from '../../lib'
import { initialSteps } from '../../migrations'
import { makeSteps, undoSteps, type Step } from '../../migrations/step'
import { exclusively } from '../../migrations/transaction'
import { quote } from '../../models/names'
import { createSecretFormat } from '../../lib/keys/secret'
import { until } from '../support/until'
import {
  createInstance,
  createRole,
  insert,
  listTables,
  tablesIn,
  useEverything,
} from '../support/tables'
import { useWorld, useWorldForEach, type World } from '../support/world'

/** Makes or undoes some of the steps of the migration. */
function change(
  { sequelize }: World,
  work: typeof makeSteps | typeof undoSteps,
  ...steps: (Step | undefined)[]
) {
  const given = steps.filter((step) => step !== undefined)
  return exclusively(sequelize, 'public', (run) => work(run, 'public', given))
}

/** A runner of the app with a history of its own. */
function createRunner({ sequelize }: World) {
  const context = sequelize.getQueryInterface()
  const { name, up, down } = migrations.initial()
  return new Umzug({
    migrations: [{ name: `app-${name}`, up: () => up(context), down: () => down(context) }],
    storage: memoryStorage(),
    logger: undefined,
  })
}

/** The tables of the library in `public` whose names match. */
function matching(...kinds: RegExp[]) {
  return tablesIn('public').filter((name) => kinds.some((kind) => kind.test(name)))
}

describe('migrations', () => {
  const world = useWorldForEach({ template: 'empty' })

  it('go up, down and up again', async () => {
    const steps = initialSteps('public')
    const left: string[][] = []

    for (const step of steps) await change(world, makeSteps, step)
    expect(await listTables(world)).toEqual(tablesIn('public'))

    for (const step of steps.toReversed()) {
      await change(world, undoSteps, step)
      left.push(await listTables(world))
    }
    const [keys, log, usage] = [
      /(migrations|retired_secrets|salts|suspended_owners|requests|api_keys)$/,
      /(bounds|changes|log_lock|revisions)$/,
      /(usage|usage_writers|expiry_notices)$/,
    ]
    expect(left).toEqual([matching(keys, log, usage), matching(keys, log), matching(keys), []])
    const functions = await world.rows(`SELECT proname FROM pg_proc WHERE proname LIKE 'api_key%'`)
    expect(functions).toEqual([])

    await createInstance(world).migrate()
    await useEverything(createInstance(world), 'alice')
  })

  it('let only their own role call the functions of the triggers', async () => {
    await createInstance(world).migrate()
    const { role } = await createRole(world)

    const allowed = await world.rows(
      `SELECT proname FROM pg_proc
        WHERE prorettype = 'trigger'::regtype AND proname LIKE 'api_key%' AND has_function_privilege($1, oid, 'EXECUTE')`,
      [role],
    )

    expect(allowed).toEqual([])
  })

  it('make triggers with short conditions, because the server copies them for each statement', async () => {
    await createInstance(world).migrate()

    const long = await world.rows(
      `SELECT tgname FROM pg_trigger WHERE tgname LIKE 'api_key%' AND octet_length(tgqual::text) > 2000`,
    )

    expect(long).toEqual([])
  })

  it('let a role without rights on the keys do nothing by the function that creates keys', async () => {
    await createInstance(world).migrate()
    const { connection } = await createRole(world)

    const call = connection.query(
      `SELECT * FROM api_key_create('[]', '[]', '[{"user_id": "alice"}]', '{"user": 1}', '{}', 0, '10s', NULL)`,
    )

    await expect(call).rejects.toThrow('permission denied for table api_keys')
  })

  it('change nothing the second time, up and down', async () => {
    const queryInterface = world.sequelize.getQueryInterface()

    const { up, down } = migrations.initial()

    for (const times of ['once', 'twice']) {
      await up(queryInterface)
      expect([times, await listTables(world)]).toEqual([times, tablesIn('public')])
    }
    await useEverything(createInstance(world), 'alice')

    await down(queryInterface)
    await down(queryInterface)
    expect(await listTables(world)).toEqual([])
  })

  it('run by umzug with a history of its own, before and after migrate()', async () => {
    const apiKeys = createInstance(world)
    const runner = createRunner(world)
    await runner.up()
    await apiKeys.migrate()
    await useEverything(apiKeys, 'alice')
    await createRunner(world).up()
    expect(await apiKeys.list()).toMatchObject({ apiKeys: [{ userId: 'alice' }] })

    await runner.down({ to: 0 })
    expect(await listTables(world)).toEqual([])
  })

  it('run as a file of sequelize-cli, before and after migrate()', async () => {
    // The file is `module.exports = require('express-api-keys').migrations.initial()`.
    const cli = [world.sequelize.getQueryInterface(), Sequelize] as const
    const file = migrations.initial() as Record<
      'up' | 'down',
      (...args: typeof cli) => Promise<void>
    >
    const apiKeys = createInstance(world)

    await change(world, makeSteps, initialSteps('public')[0])
    await file.up(...cli)
    await apiKeys.migrate()
    await file.up(...cli)
    await useEverything(apiKeys, 'alice')

    await file.down(...cli)
    expect(await listTables(world)).toEqual([])
  })

  it('log changes of keys that are older than the log', async () => {
    await change(world, makeSteps, initialSteps('public')[0])
    const format = createSecretFormat({ keyPrefixes: ['agpt'], secrets: [], acceptUnkeyed: false })
    const { plainTextKey, hash, prefix, postfix } = format.mint('agpt')
    await insert(world, 'api_keys', {
      user_id: "'alice'",
      name: "'Deployment'",
      prefix: `'${prefix}'`,
      postfix: `'${postfix}'`,
      hash: `'${hash}'`,
      permissions: "'{READ_GRAPH}'",
    })
    const apiKeys = createInstance(world)

    await apiKeys.migrate()
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
    const { revision } = await apiKeys.health()
    await createInstance(world).revokeAll({ type: 'user', id: 'alice' })

    await until(async () => (await apiKeys.health()).revision !== revision)
    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
  })

  it('live apart in two schemas of one database', async () => {
    const [one, other] = [
      createInstance(world, { schema: 'one' }),
      createInstance(world, { schema: 'other' }),
    ]
    await Promise.all([one.migrate(), other.migrate()])

    const { apiKey } = await one.create({ userId: 'alice', name: 'A', permissions: ['READ_GRAPH'] })
    const suspended = await one.suspend(apiKey.id)

    expect(await one.get(apiKey.id)).toEqual(suspended)
    await expect(other.get(apiKey.id)).rejects.toMatchObject({ code: 'api_key_not_found' })
    const changes = 'SELECT key_id::text AS id, is_new AS "isNew" FROM'
    expect(await world.rows(`${changes} one.api_key_changes`)).toEqual([
      { id: apiKey.id, isNew: false },
    ])
    expect(await world.rows(`${changes} other.api_key_changes`)).toEqual([])
  })

  it.each<[{ table: string; schema?: string; column?: string }, string, string]>([
    [{ table: 'users' }, '"users"', 'id'],
    [{ table: 'People', schema: 'My "app"', column: 'The Id' }, '"My ""app"""."People"', 'The Id'],
  ])('refer to the users of the app: %j', async (where, table, column) => {
    if (where.schema) await world.sequelize.query(`CREATE SCHEMA ${quote(where.schema)}`)
    await world.sequelize.query(`CREATE TABLE ${table} (${quote(column)} uuid PRIMARY KEY)`)
    const [alice, bob, nobody] = [randomUUID(), randomUUID(), randomUUID()]
    await world.sequelize.query(`INSERT INTO ${table} VALUES ('${alice}'), ('${bob}')`)
    const apiKeys = createInstance(world, { schema: 'keys', users: { type: 'uuid', ...where } })
    await apiKeys.migrate()
    function create(userId: string) {
      return apiKeys.create({ userId, name: 'A', permissions: ['READ_GRAPH'] })
    }

    await create(alice)
    const { apiKey } = await create(bob)
    await expect(create(nobody)).rejects.toMatchObject({
      code: 'invalid_input',
      errors: [{ pointer: '#/owner' }],
    })
    await world.sequelize.query(`DELETE FROM ${table} WHERE ${quote(column)} = '${alice}'`)

    expect(await apiKeys.list()).toEqual({ apiKeys: [apiKey], nextCursor: null })
    expect((await apiKeys.events({ userId: alice })).events).toMatchObject([
      { action: 'deleted', actorType: 'database' },
      { action: 'created', actorType: 'system' },
    ])
  })
})

describe('migrations in a schema of their own', () => {
  const world = useWorld({ template: 'empty' })

  it.each([
    ['text', "O'Brien :id $1", "O'Brien :id $1"],
    ['uuid', '7D444840-9DC0-11D1-B245-5FFDCE74FAD2', '7d444840-9dc0-11d1-b245-5ffdce74fad2'],
    ['integer', -2_147_483_648, -2_147_483_648],
    ['bigint', '9223372036854775807', '9223372036854775807'],
  ] as const)('make user ids of the type %s', async (type, userId, readBack) => {
    const apiKeys = createInstance(world, { schema: `ids of ${type}`, users: { type } })
    await apiKeys.migrate()

    expect(await useEverything(apiKeys, userId)).toBe(readBack)
    const columns = await world.rows(
      `SELECT DISTINCT data_type AS type FROM information_schema.columns
        WHERE table_schema = 'ids of ${type}' AND table_name = 'api_keys' AND column_name = 'user_id'`,
    )
    expect(columns).toEqual([{ type }])
  })

  it.each(['keys', 'My "keys"', "Schlüssel's", 'a.b', 'a:text', 'select'])(
    'live in a schema called %s, and make it if it is missing',
    async (schema) => {
      const apiKeys = createInstance(world, { schema })

      await apiKeys.migrate()
      await apiKeys.migrate()
      await useEverything(apiKeys, 'alice')
      expect(await listTables(world)).toEqual(expect.arrayContaining(tablesIn(schema)))

      const queryInterface = world.sequelize.getQueryInterface()
      await migrations.initial({ schema }).down(queryInterface)
      expect((await listTables(world)).filter((name) => name.startsWith(`${schema}.`))).toEqual([])
    },
  )
})
