import { tablesOf } from '../../models/tables'
import { createKey } from '../support/keys'
import { insertKey, secret, useTrail } from '../support/trail'

const {
  apiKeys,
  sequelize,
  createProcess,
  meddle,
  makeOld,
  ageSeals,
  expectFaults,
  idAt,
  holdLock,
} = useTrail()

describe('verifyAuditTrail, beside the keys', () => {
  it('finds an entry of the database for a change that was never made', async () => {
    const { id } = await createKey(apiKeys)
    await sequelize.query(
      `INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type, actor_id, before, after)
       VALUES ($1, 'user', 'alice', 'updated', 'database', 'postgres', '{"name": "Deployment"}', '{"name": "Backup"}')`,
      { bind: [id] },
    )

    const { faults } = await apiKeys.verifyAuditTrail()

    expect(faults).toEqual([
      {
        kind: 'contradicted',
        position: null,
        eventId: await idAt(2),
        message: `The trail and the key ${id} do not agree on name.`,
      },
    ])
  })

  it.each([
    ['a changed key', `UPDATE api_keys SET expires_at = '2099-01-01'`, 'expiresAt'],
    ['a key with another owner', `UPDATE api_keys SET user_id = 'mallory'`, 'userId'],
    ['a deleted key', 'DELETE FROM api_keys', 'its existence'],
    ['another hash', 'UPDATE api_keys SET hash = md5(hash) || md5(hash)', 'hashDigest'],
    [
      'a reference to no entry',
      'UPDATE api_keys SET event_ref = gen_random_uuid()',
      'its last change',
    ],
    ['another hash alone', 'UPDATE api_keys SET hash = md5(hash) || md5(hash)', 'hashDigest'],
    ['a key made by hand', insertKey, 'its existence'],
    [
      'a key that is made by hand, and claims to be older than the trail',
      `${insertKey}; UPDATE api_keys SET created_at = '2000-01-01' WHERE user_id = 'mallory'`,
      'its existence',
    ],
  ])('finds %s that left no entry', async (_, sql, name) => {
    await createKey(apiKeys)

    await meddle(sql)

    const { faults } = await apiKeys.verifyAuditTrail()
    expect(faults).toMatchObject([
      { kind: 'contradicted', message: expect.stringMatching(`do not agree on ${name}\\.$`) },
    ])
  })

  it('agrees with a revocation that was undone, and finds a revoked key that is active without an entry', async () => {
    const forgiving = createProcess({ secrets: [secret], undoMinutes: 10 }).apiKeys
    const { id } = await createKey(apiKeys)
    for (const call of ['revoke', 'unrevoke', 'revoke'] as const) await forgiving[call](id)
    await forgiving.flush()
    await expectFaults()

    await meddle(`UPDATE api_keys SET status = 'ACTIVE', revoked_at = NULL`)

    const { faults } = await apiKeys.verifyAuditTrail()
    expect(faults).toMatchObject([
      {
        kind: 'contradicted',
        eventId: await idAt(4),
        message: `The trail and the key ${id} do not agree on status.`,
      },
    ])
  })

  it('finds a key made by hand that has an entry, though not of its creation', async () => {
    await meddle(insertKey)
    await sequelize.query(`
      INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type, actor_id, before, after)
      SELECT id, 'user', user_id, 'updated', 'database', 'postgres', '{}', '{}' FROM api_keys`)

    const { faults } = await apiKeys.verifyAuditTrail()

    expect(faults).toMatchObject([
      { kind: 'contradicted', message: expect.stringMatching(/do not agree on its creation\.$/) },
    ])
  })

  it('finds a key made by hand whose entry does not describe it', async () => {
    await meddle(insertKey)
    await sequelize.query(`
      INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type, actor_id, after)
      SELECT id, 'user', user_id, 'created', 'database', 'postgres', '{"name": "By hand"}' FROM api_keys`)

    const { faults } = await apiKeys.verifyAuditTrail()

    expect(faults).toMatchObject([
      { kind: 'contradicted', message: expect.stringMatching(/do not agree on its creation\.$/) },
    ])
  })

  it.each([
    ['made', `INSERT INTO api_key_suspended_owners (user_id) VALUES ('mallory')`, 'mallory'],
    ['ended', 'DELETE FROM api_key_suspended_owners', 'alice'],
    [
      'given to another owner',
      `UPDATE api_key_suspended_owners SET user_id = 'bob'`,
      'alice',
      'bob',
    ],
    ['ended with all others', 'TRUNCATE api_key_suspended_owners', 'alice'],
  ])(
    'finds a suspension of an owner that was %s with the triggers off',
    async (_, sql, ...names) => {
      await apiKeys.suspendOwner({ type: 'user', id: 'carol' })
      await apiKeys.reactivateOwner({ type: 'user', id: 'carol' })
      await apiKeys.suspendOwner({ type: 'user', id: 'alice' })
      await expectFaults()

      await meddle(sql)

      const { isIntact, faults } = await apiKeys.verifyAuditTrail()
      expect(isIntact).toBe(false)
      expect(faults.every(({ kind }) => kind === 'contradicted')).toBe(true)
      expect(faults.map(({ message }) => message).toSorted()).toEqual(
        names.map((name) => `The trail and the user ${name} do not agree on the suspension.`),
      )
    },
  )

  it('finds an entry of a suspension that was put before the end of another one', async () => {
    const alice = { type: 'user', id: 'alice' } as const
    await apiKeys.suspendOwner(alice)
    await apiKeys.reactivateOwner(alice)
    await expectFaults()

    const lock = await holdLock('SELECT FROM api_key_audit_head FOR UPDATE')
    await apiKeys.suspendOwner(alice)
    await sequelize.query(`
      BEGIN;
      SELECT set_config('${tablesOf('public').settings.pruning}', pg_current_xact_id()::text, true);
      CREATE TEMP TABLE moved ON COMMIT DROP AS SELECT * FROM api_key_events ORDER BY id DESC LIMIT 1;
      DELETE FROM api_key_events WHERE id = (SELECT id FROM moved);
      DELETE FROM api_key_suspended_owners;
      DELETE FROM api_key_events WHERE actor_type = 'database';
      DELETE FROM api_key_unsealed_events;
      UPDATE moved SET id = (SELECT min(id) - 1 FROM api_key_events);
      INSERT INTO api_key_events OVERRIDING SYSTEM VALUE SELECT * FROM moved;
      COMMIT`)
    await lock.release()

    const { faults } = await apiKeys.verifyAuditTrail()
    const message = 'The trail and the user alice do not agree on the suspension.'
    expect(faults).toMatchObject([{ kind: 'contradicted', message }])
  })

  it('agrees with suspensions that were changed by hand', async () => {
    await apiKeys.suspendOwner({ type: 'user', id: 'alice' })
    await sequelize.query(`UPDATE api_key_suspended_owners SET user_id = 'bob'`)
    await expectFaults()
    await sequelize.query('TRUNCATE api_key_suspended_owners')
    await expectFaults()
    await apiKeys.suspendOwner({ type: 'user', id: 'alice' })
    await expectFaults()
  })

  it('agrees with a suspension whose entry was pruned, until and after its end', async () => {
    const owner = { type: 'user', id: 'alice' } as const
    await apiKeys.suspendOwner(owner)
    await meddle(`UPDATE api_key_events SET created_at = created_at - interval '10 days'`)
    await ageSeals()
    await apiKeys.suspendOwner({ type: 'user', id: 'carol' })

    expect(await apiKeys.pruneAuditTrail({ olderThanDays: 1 })).toEqual({ events: 1 })

    await expectFaults()
    await apiKeys.reactivateOwner(owner)
    await expectFaults()
  })

  it('finds another owner of a key whose creation was pruned', async () => {
    const { id } = await makeOld(3)
    await apiKeys.suspend(id)
    await apiKeys.pruneAuditTrail({ olderThanDays: 1 })
    await expectFaults()

    await meddle(`UPDATE api_keys SET user_id = 'mallory'`)

    const { faults } = await apiKeys.verifyAuditTrail()
    expect(faults).toMatchObject([{ message: expect.stringMatching(/do not agree on userId\.$/) }])
  })

  it('finds a contradiction among many entries that look like one', async () => {
    const { id } = await createKey(apiKeys)
    await sequelize.query(
      `INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type, actor_id, before, after)
       SELECT $1, 'user', 'alice', 'updated', 'database', '',
              CASE n % 2 WHEN 0 THEN '{"limits": null, "a": 1}'::jsonb ELSE '{}' END, '{"b": 2}'
         FROM generate_series(1, 2200) AS n`,
      { bind: [id] },
    )
    await meddle(`UPDATE api_keys SET name = 'Backup'`)

    await expectFaults(['contradicted', null])
  })

  it('finds each contradiction among many values that JavaScript cannot distinguish', async () => {
    const { id } = await createKey(apiKeys)
    await sequelize.query(
      `INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type, actor_id, before, after)
       SELECT $1, 'user', 'alice', 'updated', 'database', '',
              '{"metadata": {"n": 9007199254740992}}', '{"metadata": {"n": 9007199254740993}}'
         FROM generate_series(1, 1100) AS n`,
      { bind: [id] },
    )

    // The first of them does not agree with the entry of the creation, and the last does not agree with the key.
    await expectFaults(['contradicted', null], ['contradicted', null])
    const { faults } = await apiKeys.verifyAuditTrail()
    expect(faults.map(({ eventId }) => eventId)).toEqual([await idAt(2), await idAt(1101)])
  })
})
