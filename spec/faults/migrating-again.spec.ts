import { createInstance } from '../support/tables'
import { useWorldForEach } from '../support/world'

const key = { userId: 'alice', name: 'Deployment', permissions: ['READ_GRAPH'] } as const

const world = useWorldForEach()

/** Makes and revokes a key, and expects it to work and the trail to be whole. */
async function expectToWork(apiKeys = createInstance(world)) {
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

describe('migrate, over the tables that are left', () => {
  it('makes all of them again after dropAllTables(), which leaves the functions', async () => {
    await createInstance(world).create(key)
    await world.sequelize.getQueryInterface().dropAllTables()

    await createInstance(world).migrate()

    await expectToWork()
    expect((await createInstance(world).list()).apiKeys).toHaveLength(1)
  })

  it.each([
    ['TRUNCATE', 'TRUNCATE api_key_migrations'],
    ['DROP TABLE', 'DROP TABLE api_key_migrations'],
  ])('keeps the tables if %s took their history', async (_, sql) => {
    const { apiKey } = await createInstance(world).create(key)
    await world.sequelize.query(sql)

    await createInstance(world).migrate()

    await expectToWork()
    expect(await createInstance(world).get(apiKey.id)).toMatchObject({ name: 'Deployment' })
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
    'api_key_requests',
  ])('makes %s again', async (table) => {
    await createInstance(world).migrate()
    await world.sequelize.query(`DROP TABLE ${table} CASCADE`)

    await createInstance(world).migrate()

    await expectToWork()
  })

  it('makes the chain of the audit trail again over all entries', async () => {
    await createInstance(world).create(key)
    await world.sequelize.query(
      `DROP TABLE api_key_event_seals, api_key_unsealed_events, api_key_audit_head`,
    )

    await createInstance(world).migrate()

    await expectToWork()
    expect(await createInstance(world).verifyAuditTrail()).toMatchObject({ entries: 4 })
  })

  it('makes the chain again, and finds an entry in it that the library did not write', async () => {
    await createInstance(world).create(key)
    await world.sequelize.query(`
      INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type)
      VALUES (gen_random_uuid(), 'user', 'alice', 'retired_secret_used', 'system');
      DROP TABLE api_key_event_seals, api_key_unsealed_events, api_key_audit_head`)
    const apiKeys = createInstance(world)

    await apiKeys.migrate()

    const { faults } = await apiKeys.verifyAuditTrail()
    expect(faults).toMatchObject([{ kind: 'inserted', position: 2 }])
  })

  it.each(['api_key_log_lock', 'api_key_revisions', 'api_key_audit_head'])(
    'restores the row of %s',
    async (table) => {
      await world.sequelize.query(`
        ALTER TABLE ${table} DISABLE TRIGGER USER;
        DELETE FROM ${table};
        ALTER TABLE ${table} ENABLE TRIGGER USER`)

      await createInstance(world).migrate()

      const rows = await world.rows(`SELECT FROM ${table}`)
      expect(rows).toHaveLength(1)
      await expectToWork()
    },
  )

  it.each([
    ['switched off', 'ALTER TABLE api_keys DISABLE TRIGGER api_key_gather_update', 'gather_update'],
    ['half off', 'ALTER TABLE api_key_changes ENABLE TRIGGER api_key_number', 'api_key_number'],
    ['dropped', 'DROP TRIGGER api_key_record_delete ON api_keys', 'api_key_record_delete'],
    [
      'calling an empty function',
      `CREATE OR REPLACE FUNCTION api_key_refuse_rewriting() RETURNS trigger LANGUAGE plpgsql
         AS 'BEGIN RETURN NULL; END'`,
      'api_key_refuse_update',
    ],
  ])('restores a trigger that is %s, and warns', async (_, sql, name) => {
    const warnings = jest.spyOn(process, 'emitWarning').mockImplementation()
    await world.sequelize.query(sql)

    await createInstance(world).migrate()
    await createInstance(world).migrate()

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
  ])('refuses a hash that is current and retired again, if its trigger was %s', async (_, sql) => {
    const apiKeys = createInstance(world)
    const { apiKey } = await apiKeys.create(key)
    await apiKeys.rotate(apiKey.id)
    await world.sequelize.query(sql)

    await createInstance(world).migrate()

    const copy = world.sequelize.query(
      `INSERT INTO api_keys (id, user_id, name, permissions, prefix, postfix, hash, event_ref)
       SELECT gen_random_uuid(), user_id, name, permissions, prefix, postfix, previous_hash, gen_random_uuid()
         FROM api_keys`,
    )
    await expect(copy).rejects.toMatchObject({
      parent: { message: 'express-api-keys: a hash is current and retired' },
    })
  })

  it('deletes retired secrets with their key again, if the trigger for it was gone', async () => {
    const apiKeys = createInstance(world)
    const { apiKey } = await apiKeys.create(key)
    await apiKeys.rotate(apiKey.id)
    await world.sequelize.query('DROP TRIGGER api_key_delete_retired_row ON api_keys')

    await createInstance(world).migrate()

    await world.sequelize.query('DELETE FROM api_keys')
    expect(await world.rows('SELECT FROM api_key_retired_secrets')).toEqual([])
  })

  it('keeps everything that a newer version of the library has made', async () => {
    await world.sequelize.query(`
      INSERT INTO api_key_migrations VALUES ('0099-of-a-newer-version');
      ALTER TABLE api_key_changes ENABLE REPLICA TRIGGER api_key_number`)

    await createInstance(world).migrate()

    const triggers = await world.rows(
      `SELECT tgenabled FROM pg_trigger WHERE tgname = 'api_key_number'`,
    )
    expect(triggers).toEqual([{ tgenabled: 'R' }])
  })

  it('ends rotations whose old secrets are no longer among the retired secrets', async () => {
    const apiKeys = createInstance(world)
    const { apiKey, plainTextKey } = await apiKeys.create(key)
    await apiKeys.rotate(apiKey.id)
    await world.sequelize.query('DROP TABLE api_key_retired_secrets CASCADE')

    await createInstance(world).migrate()

    expect(await createInstance(world).get(apiKey.id)).toMatchObject({ previousSecret: null })
    expect(await createInstance(world).verify(plainTextKey)).toEqual({
      valid: false,
      code: 'unknown',
    })
  })

  it('recognises its tables by the history, for example after a dump without comments', async () => {
    const { apiKey } = await createInstance(world).create(key)
    await world.sequelize.query('COMMENT ON TABLE api_keys IS NULL; DROP TABLE api_key_usage')

    await createInstance(world).migrate()

    await expectToWork()
    expect(await createInstance(world).get(apiKey.id)).toMatchObject({ name: 'Deployment' })
  })

  it('refuses to touch a table of the app that has one of our names', async () => {
    await world.sequelize.query(`
      DROP TABLE api_key_migrations, api_key_usage;
      CREATE TABLE api_key_usage (id int); INSERT INTO api_key_usage VALUES (7)`)

    await expect(createInstance(world).migrate()).rejects.toThrow(
      'migrate: relation "api_key_usage" already exists in the schema "public", and it is not ours.',
    )

    expect(await world.rows('SELECT * FROM api_key_usage')).toEqual([{ id: 7 }])
  })
})
