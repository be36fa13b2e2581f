import { entryDigestSql } from '../../models/sealed-entry'
import { createKey } from '../support/keys'
import { shown, useTrailForEach } from '../support/trail'

const { world, sealAll, meddle, makeTrail, makeOld, expectFaults } = useTrailForEach()

/** SQL for the id of an entry that nobody made. */
const id = `(SELECT max(id) + 1000 FROM api_key_events WHERE reason IS DISTINCT FROM 'forged')`

/** SQL for that entry. It blames an administrator, and contradicts no other entry. */
const forgedEntry = (own = id) => `
  INSERT INTO api_key_events (id, api_key_id, owner_type, owner_id, action, actor_type, actor_id, reason, before, after) OVERRIDING SYSTEM VALUE
  SELECT ${own}, api_key_id, owner_type, owner_id, 'updated', 'admin', 'root', 'forged', '{}', '{}'
    FROM api_key_events ORDER BY id DESC LIMIT 1;
  DELETE FROM api_key_unsealed_events`

/** SQL for a seal of that entry, which says that the library wrote it. */
const forgedSeal = (position: string, table = 'api_key_event_seals') => `
  INSERT INTO ${table} (position, event_id, is_genuine, digest, sealed_at, hash, secret_id)
  SELECT ${position}, event.id, true, ${entryDigestSql('event')}, last.sealed_at, last.hash, last.secret_id
    FROM api_key_events AS event, (SELECT * FROM api_key_event_seals ORDER BY position DESC LIMIT 1) AS last
   WHERE event.reason = 'forged'`

describe('verifyAuditTrail', () => {
  it('finds a sealed entry in a place that was pruned', async () => {
    await makeOld(400)
    await makeOld(1)
    expect(await world.apiKeys.pruneAuditTrail({ olderThanDays: 365 })).toEqual({ events: 1 })
    await expectFaults()

    await world.sequelize.query(`${forgedEntry()}; ${forgedSeal('1')}`)

    await expectFaults(['inserted', 1])
  })

  it('finds a sealed entry in the place of another', async () => {
    await makeTrail()

    await meddle(`
      CREATE TABLE more_seals () INHERITS (api_key_event_seals);
      ${forgedEntry()}; ${forgedSeal('5', 'more_seals')}`)

    await expectFaults(['inserted', 5], ['unguarded', null])
  })

  it('finds a sealed entry before the first place', async () => {
    await makeTrail()

    await meddle(`
      ALTER TABLE api_key_event_seals DROP CONSTRAINT api_key_event_seals_position_check;
      ${forgedEntry()}; ${forgedSeal('-1')}`)

    await expectFaults(['inserted', -1])
  })

  it('finds an entry that is gone, with another twice', async () => {
    await makeTrail()

    await meddle(`
      CREATE TABLE more_events () INHERITS (api_key_events);
      INSERT INTO more_events SELECT * FROM api_key_events WHERE id = #4;
      DELETE FROM api_key_events WHERE id = #2`)

    const { faults } = await world.apiKeys.verifyAuditTrail()
    const kinds = shown(faults)
    expect(kinds).toContainEqual(['unguarded', null])
  })

  it('finds an entry that is there twice', async () => {
    await makeTrail()
    await createKey(world.apiKeys)
    await sealAll()

    await meddle(`
      CREATE TABLE more_events () INHERITS (api_key_events);
      INSERT INTO more_events SELECT * FROM api_key_events WHERE id = #4`)

    const { faults } = await world.apiKeys.verifyAuditTrail()
    expect(shown(faults)).toContainEqual(['unguarded', null])
  })

  it.each([
    'api_key_events DROP CONSTRAINT api_key_events_pkey',
    'api_key_event_seals DROP CONSTRAINT api_key_event_seals_event_id_key',
    'api_key_event_seals DROP CONSTRAINT api_key_event_seals_pkey',
    'api_key_origins DROP CONSTRAINT api_key_origins_pkey',
    'api_key_audit_head DROP CONSTRAINT api_key_audit_head_pkey',
    'api_keys DROP CONSTRAINT api_keys_pkey CASCADE',
    'api_keys DROP CONSTRAINT api_keys_hash_key',
    'api_key_suspended_owners DROP CONSTRAINT api_key_suspended_owners_pkey',
    'api_key_suspended_owners DROP CONSTRAINT api_key_suspended_owners_user_id_key',
    'api_key_suspended_owners DROP CONSTRAINT api_key_suspended_owners_organization_id_key',
    'api_key_suspended_owners DROP CONSTRAINT api_key_suspended_owners_service_key',
  ])('finds a table that may have a row twice: %s', async (change) => {
    await makeTrail()

    await meddle(`ALTER TABLE ${change}`)

    await expectFaults(['unguarded', null])
  })

  it('finds a table that inherits from the keys', async () => {
    await makeTrail()

    await meddle('CREATE TABLE more_keys () INHERITS (api_keys)')

    await expectFaults(['unguarded', null])
  })

  it('finds an entry with the least id', async () => {
    await makeTrail()

    await meddle(forgedEntry(`'-9223372036854775808'`))

    await expectFaults(['inserted', null])
  })
})
