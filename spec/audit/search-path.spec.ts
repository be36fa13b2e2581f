import { createTestApiKeys } from '../support/app'
import { createKey } from '../support/keys'
import { secret, useTrailForEach } from '../support/trail'

const { world } = useTrailForEach()

describe('a schema before pg_catalog in the search path', () => {
  it('hides no entry that was edited, with functions and operators of its own', async () => {
    const { apiKeys, sequelize, database } = world
    await createKey(apiKeys, { name: 'Deployment' })
    const { head } = await apiKeys.verifyAuditTrail()
    const { pathname } = new URL(database.url)
    const [seal] = await world.rows<{ digest: string }>('SELECT digest FROM api_key_event_seals')
    await sequelize.query(`
      ALTER TABLE api_key_events DISABLE TRIGGER USER;
      UPDATE api_key_events SET reason = 'because';
      CREATE SCHEMA hostile;
      CREATE FUNCTION hostile.encode(bytea, text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT '${seal?.digest}' $$;
      CREATE FUNCTION hostile.is_different(text, text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT false';
      CREATE OPERATOR hostile.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.is_different);
      ALTER DATABASE ${pathname.slice(1)} SET search_path = hostile, pg_catalog, public`)
    const other = createTestApiKeys(database, { secrets: [secret] })

    const { faults } = await other.verifyAuditTrail({ head: head ?? undefined })

    expect(faults).toContainEqual(expect.objectContaining({ kind: 'edited', position: 1 }))
  })
})
