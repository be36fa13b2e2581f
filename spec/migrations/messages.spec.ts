import { Sequelize, type Options } from 'sequelize'

import type { StorageOptions } from '../../lib'
import { createDatabase, databaseAway } from '../support/database'
import { createInstance } from '../support/tables'
import { useWorldForEach } from '../support/world'

const world = useWorldForEach({ template: 'empty' })

function migrateWith(sequelize: Sequelize, options: StorageOptions = {}) {
  return createInstance(world, options, sequelize).migrate()
}

function failureOf(call: Promise<unknown>): Promise<Error & { code?: string }> {
  return call.then(
    () => new Error('nothing failed'),
    (error: Error) => error,
  )
}

/** Returns the address of the database with some parts replaced by wrong ones. */
function addressWith(change: (url: URL) => void): string {
  const url = new URL(world.database.url)
  change(url)
  return url.href
}

describe('migrate, if the database', () => {
  it.each([
    [
      'is down',
      () => databaseAway.connect(),
      'connect ECONNREFUSED',
      'Start it, or correct the host',
    ],
    [
      'has another name',
      () =>
        new Sequelize(
          addressWith((url) => (url.pathname = '/nothing_here')),
          { logging: false },
        ),
      'database "nothing_here" does not exist',
      'Create this database, or correct its name',
    ],
    [
      'does not know the role',
      () =>
        new Sequelize(
          addressWith((url) => (url.username = 'unknown_role')),
          { logging: false },
        ),
      '"unknown_role"',
      'Correct the user or the password',
    ],
    [
      'takes no changes',
      () => connectWith('-c default_transaction_read_only=on'),
      'in a read-only transaction',
      'this is a standby, or the role has default_transaction_read_only',
    ],
  ])('%s: names the reason and the remedy', async (_, connect, reason, toDo) => {
    const sequelize = connect()

    const failure = await failureOf(migrateWith(sequelize))
    await sequelize.close()

    expect(failure.message).toMatch(/^migrate: the database cannot be used \(/)
    expect(failure.message).toContain(reason)
    expect(failure.message).toContain(toDo)
    expect(failure.code).toBe('database_unavailable')
  })
})

function connectWith(options: string, more: Options = {}) {
  return world.database.connect({ dialectOptions: { options }, ...more })
}

describe('migrate, with users that keys cannot refer to', () => {
  it.each([
    [
      'a view',
      'CREATE TABLE people (id text PRIMARY KEY); CREATE VIEW users AS SELECT * FROM people',
      'referenced relation "users" is not a table',
    ],
    [
      'an unlogged table',
      'CREATE UNLOGGED TABLE users (id text PRIMARY KEY)',
      'constraints on permanent tables may reference only permanent tables',
    ],
    [
      'ids of another type',
      'CREATE TABLE users (id numeric PRIMARY KEY)',
      'are of incompatible types: text and numeric',
    ],
  ])('(%s): gives the reason and names the option', async (_, sql, reason) => {
    const sequelize = world.database.connect()
    await sequelize.query(sql)

    const failure = await failureOf(migrateWith(sequelize, { users: { table: 'users' } }))

    expect(failure.message).toMatch(/^migrate: the foreign key to the users of the app, /)
    expect(failure.message).toContain(reason)
    expect(failure.message).toContain('In the option "users", name a table')
  })
})

describe('migrate, with something in its way', () => {
  it.each([
    ['a view', 'CREATE VIEW api_keys AS SELECT 1', 'relation "api_keys" already exists'],
    [
      'a function',
      `CREATE FUNCTION api_key_gather_change() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
      'cannot change return type of existing function',
    ],
  ])('(%s of the app): asks for a schema of its own', async (_, sql, reason) => {
    const sequelize = world.database.connect()
    await sequelize.query(sql)

    const failure = await failureOf(migrateWith(sequelize))

    expect(failure.message).toContain(
      `migrate: ${reason} in the schema "public", and it is not ours.`,
    )
    await migrateWith(sequelize, { schema: 'keys' })
  })
})

const haveSequencesTakeLong = `
  CREATE FUNCTION public.take_long() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.2); END';
  CREATE EVENT TRIGGER take_long ON ddl_command_start WHEN TAG IN ('CREATE SEQUENCE') EXECUTE FUNCTION public.take_long()`

describe('migrate, whatever the settings of the session', () => {
  it.each([
    'quote_all_identifiers=on',
    'statement_timeout=100',
    'lock_timeout=1',
    'search_path=nothing_here',
    'DateStyle=German',
    'standard_conforming_strings=on',
    'default_transaction_isolation=serializable',
  ])('(%s): makes the tables, also over the tables that are there', async (setting) => {
    const sequelize = connectWith(`-c ${setting}`)
    const users = { table: 'users' }
    await sequelize.query('CREATE TABLE public.users (id text PRIMARY KEY)')
    if (setting.startsWith('statement_timeout')) await sequelize.query(haveSequencesTakeLong)

    await migrateWith(sequelize, { users })
    await sequelize.query('DROP TABLE public.api_key_migrations')
    await migrateWith(sequelize, { users })

    const [[indexes]] = await sequelize.query(
      `SELECT count(*)::int AS count FROM pg_indexes WHERE tablename = 'api_keys'`,
    )
    const fresh = await createDatabase('empty')
    const other = fresh.connect()
    await migrateWith(other)
    const [[expected]] = await other.query(
      `SELECT count(*)::int AS count FROM pg_indexes WHERE tablename = 'api_keys'`,
    )
    await fresh.drop()
    expect(indexes).toEqual(expected)
  })
})
