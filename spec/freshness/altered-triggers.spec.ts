import { expectSoon, revokeSql, useLog } from '../support/log'
import { until } from '../support/until'

const { world, createInstance, createKnownKey, run } = useLog()

describe('triggers that were altered', () => {
  const alterations = [
    [
      'a function is emptied',
      `CREATE OR REPLACE FUNCTION api_key_gather_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
         SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NULL; END'`,
    ],
    [
      'a function is run with the rights of its caller',
      'ALTER FUNCTION api_key_number_changes() SECURITY INVOKER',
    ],
    [
      'a function has another search_path',
      'ALTER FUNCTION api_key_number_entry() RESET search_path',
    ],
    [
      'a trigger never fires',
      `DROP TRIGGER api_key_gather_update ON api_keys;
       CREATE TRIGGER api_key_gather_update AFTER UPDATE ON api_keys
         FOR EACH ROW WHEN (false) EXECUTE FUNCTION api_key_gather_change();
       ALTER TABLE api_keys ENABLE ALWAYS TRIGGER api_key_gather_update`,
    ],
    [
      'a trigger fires on fewer occasions',
      `DO $$
         DECLARE definition text;
         BEGIN
           SELECT pg_get_triggerdef(oid) INTO definition FROM pg_trigger WHERE tgname = 'api_key_close_gap';
           DROP TRIGGER api_key_close_gap ON api_key_revisions;
           EXECUTE replace(definition, ' OR TRUNCATE', '');
         END $$;
       ALTER TABLE api_key_revisions ENABLE ALWAYS TRIGGER api_key_close_gap`,
    ],
    ['numbers go down', 'ALTER SEQUENCE api_key_revision_register INCREMENT -1 MINVALUE -9 '],
    ['numbers may begin again', 'ALTER SEQUENCE api_key_revision_register CYCLE'],
  ] as const

  it.each(alterations)('are not relied on, such as when %s', async (_, alteration) => {
    const apiKeys = createInstance({ maxStalenessMs: 300 })
    const { id, plainTextKey } = await createKnownKey(apiKeys)

    await run(alteration)
    await until(async () => {
      await apiKeys.verify(plainTextKey)
      return (await apiKeys.health()).feed === 'untrusted'
    })
    await run(revokeSql(id)).catch(() => {})

    await expectSoon(apiKeys, plainTextKey, 'revoked')
  })

  it('are none in a database that quotes all identifiers', async () => {
    await run(`
      DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET quote_all_identifiers = on', current_database());
      END $$`)
    const sequelize = world.database.connect()
    const [shown] = await sequelize.query('SHOW quote_all_identifiers')
    expect(shown).toEqual({ quote_all_identifiers: 'on' })

    const { faults } = await createInstance({ sequelize }).verifyAuditTrail()

    expect(faults).toEqual([])
  })

  it.each([
    [
      'api_key_record_update on public.api_keys',
      `DROP TRIGGER api_key_record_update ON api_keys;
       CREATE TRIGGER api_key_record_update AFTER UPDATE ON api_keys
         FOR EACH ROW WHEN (false) EXECUTE FUNCTION api_key_record_change();
       ALTER TABLE api_keys ENABLE ALWAYS TRIGGER api_key_record_update`,
    ],
    [
      'api_key_queue_events on public.api_key_events',
      `CREATE OR REPLACE FUNCTION api_key_queue_events() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
         SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NULL; END'`,
    ],
  ])('are found by verification of the audit trail: %s', async (name, alteration) => {
    const apiKeys = createInstance()
    await run(alteration)

    const { faults } = await apiKeys.verifyAuditTrail()

    expect(faults).toEqual([
      expect.objectContaining({ kind: 'unguarded', message: expect.stringContaining(name) }),
    ])
  })
})
