import { randomUUID } from 'node:crypto'

import { initialSteps } from '../../migrations'
import { findBlockedSession } from '../support/blocked'
import {
  createInstance,
  createRole,
  listTables,
  tablesIn,
  useEverything,
  type Instance,
} from '../support/tables'
import { useWorld, useWorldForEach } from '../support/world'

describe('migrate', () => {
  const world = useWorldForEach({ template: 'empty' })

  it('succeeds in eight processes at once', async () => {
    const instances = Array.from({ length: 8 }, () =>
      createInstance(world, { schema: 'keys' }, world.database.connect()),
    )

    await Promise.all(instances.map((apiKeys) => apiKeys.migrate()))

    expect(await listTables(world)).toEqual(tablesIn('keys'))
    expect(await world.rows('SELECT name FROM keys.api_key_migrations ORDER BY name')).toEqual(
      initialSteps('keys').map(({ name }) => ({ name })),
    )
  })

  it('needs no right to create anything if nothing is missing', async () => {
    await createInstance(world, { schema: 'keys' }).migrate()
    const { role, connection } = await createRole(world)
    await world.sequelize.query(`
      GRANT USAGE ON SCHEMA keys TO ${role};
      GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA keys TO ${role}`)
    const limited = createInstance(world, { schema: 'keys' }, connection)

    await limited.migrate()
    await useEverything(limited, 'alice')
    expect(await limited.verifyAuditTrail()).toMatchObject({ isIntact: true, entries: 5 })
    expect(await limited.pruneAuditTrail({ olderThanDays: 1 })).toEqual({ events: 0 })
    await expect(createInstance(world, { schema: 'other' }, connection).migrate()).rejects.toThrow(
      'migrate: this role may not make or mend our tables in the schema "other" (permission denied for database',
    )
  })

  it('names the rights that a role lacks to read the tables', async () => {
    await createInstance(world, { schema: 'keys' }).migrate()
    const { role, connection } = await createRole(world)
    const limited = createInstance(world, { schema: 'keys' }, connection)

    await expect(limited.migrate()).rejects.toThrow(
      'migrate: this role may not read our tables in the schema "keys" (permission denied for schema keys). Grant it USAGE on ' +
        'that schema, and SELECT, INSERT, UPDATE and DELETE on our tables.',
    )
    await world.sequelize.query(`GRANT USAGE ON SCHEMA keys TO ${role}`)
    await expect(limited.migrate()).rejects.toThrow(
      '(permission denied for table api_key_migrations). Grant it USAGE on that schema, and SELECT,',
    )
  })

  it('gives a role that may use keys no right to the log but to read it', async () => {
    await createInstance(world, { schema: 'keys' }).migrate()
    const { role, connection } = await createRole(world)
    await world.sequelize.query(`
      GRANT USAGE ON SCHEMA keys TO ${role};
      GRANT SELECT ON ALL TABLES IN SCHEMA keys TO ${role};
      GRANT INSERT, UPDATE ON keys.api_keys, keys.api_key_bounds TO ${role};
      GRANT INSERT, UPDATE ON keys.api_key_usage, keys.api_key_usage_writers TO ${role};
      GRANT INSERT ON keys.api_key_events, keys.api_key_event_seals TO ${role};
      GRANT UPDATE ON keys.api_key_audit_head TO ${role};
      GRANT DELETE ON keys.api_key_unsealed_events TO ${role}`)

    await useEverything(createInstance(world, { schema: 'keys' }, connection), 'alice')

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

  it('needs no right to create a schema that is there', async () => {
    const { role, connection } = await createRole(world)
    await world.sequelize.query(`CREATE SCHEMA keys; GRANT USAGE, CREATE ON SCHEMA keys TO ${role}`)
    const limited = createInstance(world, { schema: 'keys' }, connection)

    await limited.migrate()
    await useEverything(limited, 'alice')
    expect(await listTables(world)).toEqual(tablesIn('keys'))
  })

  it.each(['api_keys', 'api_key_events'])(
    'refuses to share a schema with a table %s of the app',
    async (table) => {
      await world.sequelize.query(`CREATE TABLE ${table} (id int); INSERT INTO ${table} VALUES (7)`)

      await expect(createInstance(world).migrate()).rejects.toThrow(
        `migrate: relation "${table}" already exists in the schema "public", and it is not ours. It was left as it is. ` +
          'Give our tables a schema of their own with the option "schema".',
      )

      expect(await world.rows(`SELECT * FROM ${table}`)).toEqual([{ id: 7 }])
      await createInstance(world, { schema: 'keys' }).migrate()
    },
  )

  it('leaves nothing behind when it is killed half-way, and succeeds the next time', async () => {
    await world.sequelize.query('CREATE TABLE users (id text PRIMARY KEY)')
    const apiKeys = createInstance(world, { schema: 'keys', users: { table: 'users' } })
    // Sequelize says there that a dead connection cannot roll back.
    jest.spyOn(console, 'warn').mockImplementation()
    const lock = await world.sequelize.transaction()
    await world.sequelize.query('LOCK TABLE users', { transaction: lock })

    const outcome = apiKeys.migrate().catch((error: unknown) => error)
    const pid = await findBlockedSession(world.sequelize)
    await world.sequelize.query(`SELECT pg_terminate_backend(${pid})`)
    const failure = await outcome
    await lock.rollback()

    expect(failure).toMatchObject({ code: 'database_unavailable' })
    expect(await listTables(world)).toEqual(['public.users'])
    expect(await world.rows(`SELECT 1 FROM pg_namespace WHERE nspname = 'keys'`)).toEqual([])
    await apiKeys.migrate()
    expect(await listTables(world)).toEqual([...tablesIn('keys'), 'public.users'])
  })
})

describe('without the migrations', () => {
  let plainTextKey: string

  const world = useWorld({ template: 'empty' })

  beforeAll(async () => {
    const elsewhere = createInstance(world, { schema: 'elsewhere' })
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
    ['revokeAll', (apiKeys) => apiKeys.revokeAll({ type: 'user', id: 'alice' })],
    ['events', (apiKeys) => apiKeys.events()],
    ['verifyAuditTrail', (apiKeys) => apiKeys.verifyAuditTrail()],
    ['auditHead', (apiKeys) => apiKeys.auditHead()],
    ['pruneAuditTrail', (apiKeys) => apiKeys.pruneAuditTrail({ olderThanDays: 1 })],
    ['ownerChanged', (apiKeys) => apiKeys.ownerChanged({ type: 'user', id: 'alice' })],
    ['verify', (apiKeys) => apiKeys.verify(plainTextKey)],
  ])('%s names the remedy', async (_, call) => {
    await expect(call(createInstance(world))).rejects.toThrow(
      /^express-api-keys: the tables are missing or older than this version \((relation|type|function) "?public\.api_key.* does not exist\)\. Run "await apiKeys\.migrate\(\)", or the migrations with your own runner\.$/,
    )
  })
})
