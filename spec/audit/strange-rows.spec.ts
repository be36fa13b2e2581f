import { createSigner } from '../../lib/audit/signing'
import { createKey } from '../support/keys'
import { insertKey, secret, useTrail, useTrailForEach, type Tampering } from '../support/trail'

const { apiKeys, sequelize, rows, meddle, expectFaults } = useTrail()

describe('an audit trail with rows that the library never writes', () => {
  it.each([
    `{"secretId": "SECRET"}`,
    `{"secretId": "SECRET", "mac": 5}`,
    `{"secretId": "SECRET", "mac": "${'é'.repeat(64)}", "checkpoint": 5}`,
    '[',
  ])('is verified if a seal doubts a value that was never a head: %s', async (doubts) => {
    await createKey(apiKeys)
    await meddle(
      `UPDATE api_key_event_seals SET doubts = replace($doubts$${doubts}$doubts$, 'SECRET', secret_id)`,
    )

    await expectFaults(['head_changed', 1], ['edited', 1])
  })

  it.each<Tampering>([
    ...['infinity', '-infinity', '20000-01-01', '0044-03-15 BC'].map((time): Tampering => [
      `a head that says that entries up to ${time} were pruned`,
      `UPDATE api_key_audit_head SET pruned_before = '${time}'`,
      [['head_changed', 2]],
    ]),
    [
      'a head beyond the largest safe integer',
      `UPDATE api_key_audit_head SET position = 9223372036854775807, checkpoint_position = 9223372036854775807,
         last_pruned_id = 9223372036854775807`,
      [
        ['checkpoint_changed', 2 ** 63],
        ['head_changed', 2],
        ['contradicted', null],
        ['contradicted', null],
      ],
    ],
    [
      'a seal of a secret that never was',
      `UPDATE api_key_event_seals SET secret_id = repeat('f', 16) WHERE position = 1`,
      [['edited', 1]],
    ],
    [
      'a seal of no secret',
      'UPDATE api_key_event_seals SET secret_id = NULL WHERE position = 1',
      [['edited', 1]],
    ],
    [
      'a seal at the last place there is',
      'UPDATE api_key_event_seals SET position = 9223372036854775807 WHERE position = 2',
      [
        ['removed', 2],
        ['inserted', 2 ** 63],
      ],
    ],
    [
      'an entry that is nested too deep',
      `UPDATE api_key_events
          SET before = (repeat('[', 5000) || repeat(']', 5000))::jsonb,
              after = ('{"status":' || repeat('[', 5000) || repeat(']', 5000) || '}')::jsonb
        WHERE id = #1`,
      [
        ['edited', 1],
        ['contradicted', null],
        ['contradicted', null],
      ],
    ],
  ])('is verified, and changed, with %s', async (_, sql, faults) => {
    await createKey(apiKeys)
    await createKey(apiKeys)

    await meddle(sql)

    await expectFaults(...faults)
    await createKey(apiKeys)
    expect((await apiKeys.verifyAuditTrail()).isIntact).toBe(false)
  })

  it('is verified with a sealed entry that is nested too deep', async () => {
    await sequelize.query(
      `INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type, actor_id, before, entry_mac)
       VALUES (gen_random_uuid(), 'user', '', 'updated', 'user', '', (repeat('[', 5000) || repeat(']', 5000))::jsonb,
               $1 || ':1:' || repeat('0', 64))`,
      { bind: [createSigner({ secrets: [secret], acceptUnkeyed: false }).secretId] },
    )

    await createKey(apiKeys)

    await expectFaults(['inserted', 1], ['contradicted', null])
  })

  it('is verified whatever JSON its entries hold', async () => {
    const { id } = await createKey(apiKeys)
    for (const json of ['5', '[]', 'null', '"x"', '{"metadata": "{"}', '{"a": {"b": []}}']) {
      await sequelize.query(
        `INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type, actor_id, before, after)
         VALUES ($1, 'user', '', 'updated', 'database', '', $2, $2)`,
        { bind: [id, json] },
      )
    }
    await sequelize.query(`UPDATE api_keys SET user_id = ''`)

    await expectFaults(['contradicted', null], ['contradicted', null])
  })

  it('goes on to be sealed behind a head beyond the largest safe integer', async () => {
    await createKey(apiKeys)
    await meddle(`UPDATE api_key_audit_head SET position = 9223372036854775807,
      checkpoint_position = 9223372036854775807, last_pruned_id = 9223372036854775807`)

    await createKey(apiKeys)
    await apiKeys.flush()

    expect(await rows('SELECT FROM api_key_unsealed_events')).toEqual([])
    await expectFaults(['head_changed', 2], ['contradicted', null])
  })

  it('accepts no claims of a head from before the first seal', async () => {
    await meddle(`UPDATE api_key_audit_head SET pruned_before = '2999-01-01'`)
    await expectFaults(['head_changed', 0])
    await createKey(apiKeys)

    await expectFaults(['head_changed', 1])
  })

  it('accepts no claims of a head that the library did not sign', async () => {
    await createKey(apiKeys)
    await meddle(
      `UPDATE api_key_audit_head SET last_pruned_id = 1000000, pruned_before = '2999-01-01'`,
    )
    await createKey(apiKeys)
    await sequelize.query(`
      INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type)
      VALUES (gen_random_uuid(), 'user', 'alice', 'retired_secret_used', 'system')`)
    await meddle(insertKey)

    await expectFaults(['head_changed', 2], ['inserted', 3], ['contradicted', null])
  })
})

describe('an audit trail in tables that were damaged', () => {
  const { world, meddle, expectFaults } = useTrailForEach()

  it.each<Tampering>([
    [
      'two heads',
      `ALTER TABLE api_key_audit_head DROP CONSTRAINT api_key_audit_head_pkey;
       INSERT INTO api_key_audit_head SELECT * FROM api_key_audit_head`,
      [
        ['unreadable', null],
        ['head_changed', 2],
        ['unguarded', null],
      ],
    ],
    [
      'metadata that cannot be jsonb',
      `UPDATE api_keys SET metadata = ('{"a":' || repeat('9', 140000) || '}')::json`,
      [
        ['contradicted', null],
        ['contradicted', null],
      ],
    ],
  ])('is verified, and changed, with %s', async (_, sql, faults) => {
    await createKey(world.apiKeys)
    await createKey(world.apiKeys)

    await meddle(sql)

    await expectFaults(...faults)
    await createKey(world.apiKeys)
    expect((await world.apiKeys.verifyAuditTrail()).isIntact).toBe(false)
  })
})
