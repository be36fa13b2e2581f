import type { Sequelize } from 'sequelize'

import { createApiKeys } from '../../lib'
import { createDatabase, type Database } from '../support/database'

const permissions = ['READ_GRAPH'] as const
const key = { userId: 'alice', name: 'Deployment', permissions }

let database: Database
let sequelize: Sequelize

beforeEach(async () => {
  database = await createDatabase()
  sequelize = database.connect()
})

afterEach(() => database.drop())

function createInstance() {
  const apiKeys = createApiKeys({ sequelize: database.connect(), keyPrefix: 'agpt', permissions })
  database.closeFirst(apiKeys)
  return apiKeys
}

/** Makes and revokes a key, and expects it to work and the trail to be whole. */
async function expectToWork(apiKeys = createInstance()) {
  const { apiKey, plainTextKey } = await apiKeys.create(key)
  const good = await apiKeys.verify(plainTextKey)
  const { feed } = await apiKeys.health()
  await apiKeys.rotate(apiKey.id)
  await apiKeys.revoke(apiKey.id)
  const { isIntact, faults } = await apiKeys.verifyAuditTrail()

  expect(good).toMatchObject({ valid: true })
  expect(feed).toBe('following')
  expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: false })
  expect([isIntact, faults]).toEqual([true, []])
}

describe('migrate, over what is left of the tables', () => {
  it('makes all of them anew after dropAllTables(), which leaves the functions', async () => {
    await createInstance().create(key)
    await sequelize.getQueryInterface().dropAllTables()

    await createInstance().migrate()

    await expectToWork()
    expect((await createInstance().list()).apiKeys).toHaveLength(1)
  })

  it.each([
    ['TRUNCATE', 'TRUNCATE api_key_migrations'],
    ['DROP TABLE', 'DROP TABLE api_key_migrations'],
  ])('goes on with the tables if %s took their history', async (_, sql) => {
    const { apiKey } = await createInstance().create(key)
    await sequelize.query(sql)

    await createInstance().migrate()

    await expectToWork()
    expect(await createInstance().get(apiKey.id)).toMatchObject({ name: 'Deployment' })
  })

  it.each([
    'api_keys',
    'api_key_events',
    'api_key_revisions',
    'api_key_changes',
    'api_key_log_lock',
    'api_key_bounds',
    'api_key_retired_secrets',
    'api_key_user_changes',
    'api_key_usage',
    'api_key_usage_writers',
    'api_key_expiry_notices',
  ])('makes %s anew', async (table) => {
    await createInstance().migrate()
    await sequelize.query(`DROP TABLE ${table} CASCADE`)

    await createInstance().migrate()

    await expectToWork()
  })

  it('makes the chain of the audit trail anew over the entries that there are', async () => {
    await createInstance().create(key)
    await sequelize.query(
      `DROP TABLE api_key_event_seals, api_key_unsealed_events, api_key_audit_head`,
    )

    await createInstance().migrate()

    await expectToWork()
    expect(await createInstance().verifyAuditTrail()).toMatchObject({ entries: 4 })
  })

  it('makes the chain anew, and finds an entry in it that the library did not write', async () => {
    await createInstance().create(key)
    await sequelize.query(`
      INSERT INTO api_key_events (api_key_id, user_id, action, actor_type)
      VALUES (gen_random_uuid(), 'alice', 'retired_secret_used', 'system');
      DROP TABLE api_key_event_seals, api_key_unsealed_events, api_key_audit_head`)
    const apiKeys = createInstance()

    await apiKeys.migrate()

    const { faults } = await apiKeys.verifyAuditTrail()
    expect(faults).toMatchObject([{ kind: 'inserted', position: 2 }])
  })

  it.each(['api_key_log_lock', 'api_key_revisions', 'api_key_audit_head'])(
    'puts back the row of %s',
    async (table) => {
      await sequelize.query(`
        ALTER TABLE ${table} DISABLE TRIGGER USER;
        DELETE FROM ${table};
        ALTER TABLE ${table} ENABLE TRIGGER USER`)

      await createInstance().migrate()

      const [rows] = await sequelize.query(`SELECT FROM ${table}`)
      expect(rows).toHaveLength(1)
      await expectToWork()
    },
  )

  it.each([
    ['switched off', 'ALTER TABLE api_keys DISABLE TRIGGER api_key_gather_update', 'gather_update'],
    ['half off', 'ALTER TABLE api_key_changes ENABLE TRIGGER api_key_number', 'api_key_number'],
    ['dropped', 'DROP TRIGGER api_key_tell_delete ON api_keys', 'api_key_tell_delete'],
    [
      'calling an empty function',
      `CREATE OR REPLACE FUNCTION api_key_refuse_rewriting() RETURNS trigger LANGUAGE plpgsql
         AS 'BEGIN RETURN NULL; END'`,
      'api_key_refuse_update',
    ],
  ])('mends a trigger that is %s, and warns', async (_, sql, name) => {
    const warnings = jest.spyOn(process, 'emitWarning').mockImplementation()
    await sequelize.query(sql)

    await createInstance().migrate()
    await createInstance().migrate()

    const given = warnings.mock.calls.map(([text, options]) => [String(text), options])
    warnings.mockRestore()
    expect(given).toEqual([
      [expect.stringContaining(name), { type: 'ApiKeysWarning', code: 'API_KEYS_TRIGGERS_MENDED' }],
    ])
    await expectToWork()
  })

  it.each([
    ['gone with its function', 'DROP FUNCTION api_key_keep_hashes_unique() CASCADE'],
    ['gone', 'DROP TRIGGER api_key_keep_hashes_unique_insert ON api_keys'],
    ['off', 'ALTER TABLE api_keys DISABLE TRIGGER api_key_keep_hashes_unique_insert'],
    [
      'calling an empty function',
      `CREATE OR REPLACE FUNCTION api_key_keep_hashes_unique() RETURNS trigger LANGUAGE plpgsql
         AS 'BEGIN RETURN NULL; END'`,
    ],
  ])('has no hash both current and retired, if what refuses it was %s', async (_, sql) => {
    const apiKeys = createInstance()
    const { apiKey } = await apiKeys.create(key)
    await apiKeys.rotate(apiKey.id)
    await sequelize.query(sql)

    await createInstance().migrate()

    const copy = sequelize.query(
      `INSERT INTO api_keys (id, user_id, name, permissions, prefix, postfix, hash, event_ref)
       SELECT gen_random_uuid(), user_id, name, permissions, prefix, postfix, previous_hash, gen_random_uuid()
         FROM api_keys`,
    )
    await expect(copy).rejects.toMatchObject({
      parent: { message: 'express-api-keys: a hash is current and retired' },
    })
  })

  it('deletes retired secrets with their key, if the trigger that does so was gone', async () => {
    const apiKeys = createInstance()
    const { apiKey } = await apiKeys.create(key)
    await apiKeys.rotate(apiKey.id)
    await sequelize.query('DROP TRIGGER api_key_forget_retired_row ON api_keys')

    await createInstance().migrate()

    await sequelize.query('DELETE FROM api_keys')
    expect((await sequelize.query('SELECT FROM api_key_retired_secrets'))[0]).toEqual([])
  })

  it('leaves what a newer version of the library has made', async () => {
    await sequelize.query(`
      INSERT INTO api_key_migrations VALUES ('0099-of-a-newer-version');
      ALTER TABLE api_key_changes ENABLE REPLICA TRIGGER api_key_number`)

    await createInstance().migrate()

    const [triggers] = await sequelize.query(
      `SELECT tgenabled FROM pg_trigger WHERE tgname = 'api_key_number'`,
    )
    expect(triggers).toEqual([{ tgenabled: 'R' }])
  })

  it('ends rotations whose old secrets are not retired any more', async () => {
    const apiKeys = createInstance()
    const { apiKey, plainTextKey } = await apiKeys.create(key)
    await apiKeys.rotate(apiKey.id)
    await sequelize.query('DROP TABLE api_key_retired_secrets CASCADE')

    await createInstance().migrate()

    expect(await createInstance().get(apiKey.id)).toMatchObject({ previousSecret: null })
    expect(await createInstance().verify(plainTextKey)).toEqual({ valid: false, code: 'unknown' })
  })

  it('takes tables without comments for ours if the history says so, as after a dump without them', async () => {
    const { apiKey } = await createInstance().create(key)
    await sequelize.query('COMMENT ON TABLE api_keys IS NULL; DROP TABLE api_key_usage')

    await createInstance().migrate()

    await expectToWork()
    expect(await createInstance().get(apiKey.id)).toMatchObject({ name: 'Deployment' })
  })

  it('leaves a table of the app alone that has one of our names', async () => {
    await sequelize.query(`
      DROP TABLE api_key_migrations, api_key_usage;
      CREATE TABLE api_key_usage (id int); INSERT INTO api_key_usage VALUES (7)`)

    await expect(createInstance().migrate()).rejects.toThrow(
      'migrate: relation "api_key_usage" already exists in the schema "public", and it is not ours.',
    )

    expect((await sequelize.query('SELECT * FROM api_key_usage'))[0]).toEqual([{ id: 7 }])
  })
})
