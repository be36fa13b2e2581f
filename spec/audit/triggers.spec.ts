import { randomUUID } from 'node:crypto'

import { createKey, newKey } from '../support/keys'
import { insertKey, useTrail, useTrailForEach } from '../support/trail'

const { apiKeys, sequelize, expectFaults } = useTrail()

/** The entries, oldest first. */
async function readEntries() {
  const { events } = await apiKeys.events({ limit: 100 })
  return events.toReversed().map(({ action, actorType, actorId, before, after }) => ({
    action,
    by: [actorType, actorId],
    before,
    after,
  }))
}

describe('a change that is not made through the library', () => {
  const by = ['database', 'postgres']

  it.each<[string, () => Promise<unknown>, string[]]>([
    ['of the library', () => createKey(apiKeys), ['created', 'updated']],
    [
      'of a batch',
      () => apiKeys.createMany([newKey(), newKey()]),
      ['created', 'created', 'updated', 'updated'],
    ],
    ['by hand', () => sequelize.query(insertKey), ['created', 'updated']],
  ])('of a trigger of the app is noted after the new key %s', async (_, make, actions) => {
    await sequelize.query(`
      CREATE FUNCTION describe() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN UPDATE public.api_keys SET description = 'New.' WHERE id = NEW.id; RETURN NULL; END$$;
      CREATE TRIGGER describe AFTER INSERT ON api_keys FOR EACH ROW EXECUTE FUNCTION describe()`)
    try {
      await make()
    } finally {
      await sequelize.query('DROP FUNCTION describe CASCADE')
    }

    const entries = await readEntries()
    expect(entries.slice(-actions.length).map(({ action }) => action)).toEqual(actions)
    await expectFaults()
  })

  it('is noted for each of many keys, without a look at the entries of the others', async () => {
    const read = await sequelize.transaction(async (transaction) => {
      await sequelize.query(
        `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
         SELECT 'alice', 'By hand', 'agpt_000000', '00000000', encode(sha256(number::text::bytea), 'hex'), '{}'
           FROM generate_series(1, 500) AS number`,
        { transaction },
      )
      const [[row]] = await sequelize.query(
        `SELECT pg_stat_get_xact_tuples_returned('api_key_events_api_key_id_id_idx'::regclass)::integer AS read`,
        { transaction },
      )
      return row
    })

    const [[noted]] = await sequelize.query(
      `SELECT count(*)::integer AS count FROM api_key_events WHERE action = 'created' AND actor_type = 'database'`,
    )
    expect([noted, read]).toEqual([{ count: 500 }, { read: 0 }])
  })

  it.each<[string, string, object[]]>([
    [
      'an UPDATE',
      `UPDATE api_keys SET name = 'By hand', description = 'x', expires_at = '2099-01-01 00:00:00.5Z'`,
      [
        {
          action: 'updated',
          before: { name: 'Deployment', description: null, expiresAt: null },
          after: { name: 'By hand', description: 'x', expiresAt: '2099-01-01T00:00:00.500Z' },
        },
      ],
    ],
    [
      'a suspension',
      `UPDATE api_keys SET status = 'SUSPENDED'`,
      [{ action: 'suspended', before: { status: 'ACTIVE' }, after: { status: 'SUSPENDED' } }],
    ],
    [
      'two changes in a row',
      `UPDATE api_keys SET status = 'SUSPENDED'; UPDATE api_keys SET status = 'ACTIVE'`,
      [{ action: 'suspended' }, { action: 'reactivated' }],
    ],
    [
      'a revocation',
      `UPDATE api_keys SET status = 'REVOKED', revoked_at = now()`,
      [{ action: 'revoked', after: { status: 'REVOKED' } }],
    ],
    [
      'a revocation that is undone by hand, twice',
      `UPDATE api_keys SET status = 'REVOKED', revoked_at = now();
       UPDATE api_keys SET status = 'ACTIVE', revoked_at = NULL;
       UPDATE api_keys SET status = 'REVOKED', revoked_at = now();
       UPDATE api_keys SET status = 'SUSPENDED', revoked_at = NULL`,
      [
        { action: 'revoked' },
        { action: 'unrevoked', before: { status: 'REVOKED' }, after: { status: 'ACTIVE' } },
        { action: 'revoked' },
        { action: 'unrevoked', before: { status: 'REVOKED' }, after: { status: 'SUSPENDED' } },
      ],
    ],
    [
      'other permissions',
      `UPDATE api_keys SET permissions = '{READ_BLOCK}'`,
      [
        {
          action: 'permissions_changed',
          before: { permissions: ['READ_GRAPH'] },
          after: { permissions: ['READ_BLOCK'] },
        },
      ],
    ],
    [
      'another hash',
      `UPDATE api_keys SET hash = md5(hash) || md5(hash)`,
      [{ action: 'rotated', before: {}, after: {} }],
    ],
    [
      'another owner',
      `UPDATE api_keys SET user_id = 'mallory'`,
      [
        {
          action: 'transferred',
          before: { owner: { type: 'user', id: 'alice' } },
          after: { owner: { type: 'user', id: 'mallory' } },
        },
      ],
    ],
    [
      'metadata that jsonb cannot hold',
      String.raw`UPDATE api_keys SET metadata = '{"a": "\u0000", "b": 1e999999}'`,
      [{ action: 'updated', after: { metadata: String.raw`{"a": "\u0000", "b": 1e999999}` } }],
    ],
    [
      'another id',
      `UPDATE api_keys SET id = gen_random_uuid()`,
      [{ action: 'deleted' }, { action: 'created' }],
    ],
    [
      'a DELETE',
      'DELETE FROM api_keys',
      [
        {
          action: 'deleted',
          after: null,
          before: {
            owner: { type: 'user', id: 'alice' },
            name: 'Deployment',
            description: null,
            permissions: ['READ_GRAPH'],
            status: 'ACTIVE',
            createdAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
            expiresAt: null,
            allowedIps: null,
            metadata: {},
            prefix: expect.stringMatching(/^agpt_/),
            postfix: expect.any(String),
            previousSecret: null,
          },
        },
      ],
    ],
    [
      'an INSERT',
      insertKey,
      [{ action: 'created', before: null, after: expect.objectContaining({ name: 'By hand' }) }],
    ],
    ['TRUNCATE', 'TRUNCATE api_keys', [{ action: 'truncated', before: null, after: null }]],
    [
      'TRUNCATE, and the key put back',
      `CREATE TABLE kept AS SELECT * FROM api_keys; TRUNCATE api_keys;
       UPDATE kept SET event_ref = NULL, name = 'Restored'; INSERT INTO api_keys SELECT * FROM kept`,
      [{ action: 'truncated' }, { action: 'created' }],
    ],
    [
      'a suspension of an owner, another reason, and its end',
      `INSERT INTO api_key_suspended_owners (user_id) VALUES ('alice');
       UPDATE api_key_suspended_owners SET reason = 'left'; DELETE FROM api_key_suspended_owners`,
      [
        { action: 'owner_suspended', before: null, after: null },
        { action: 'owner_reactivated', before: null, after: null },
      ],
    ],
    [
      'a suspension that is given to another owner, and TRUNCATE',
      `INSERT INTO api_key_suspended_owners (user_id, event_ref) VALUES ('alice', gen_random_uuid());
       UPDATE api_key_suspended_owners SET user_id = NULL, service = 'importer'; TRUNCATE api_key_suspended_owners`,
      [
        { action: 'owner_suspended' },
        { action: 'owner_reactivated' },
        { action: 'owner_suspended' },
        { action: 'owner_reactivated' },
      ],
    ],
    ['another maker', `UPDATE api_keys SET created_by = 'mallory'`, [{ action: 'updated' }]],
    ['another source', `UPDATE api_keys SET source = 'knox'`, [{ action: 'updated' }]],
    ['an UPDATE of nothing', 'UPDATE api_keys SET name = name, last_used_at = now()', []],
    [
      'an UPDATE in a session that claims to replicate',
      `BEGIN; SET LOCAL session_replication_role = replica; UPDATE api_keys SET name = 'x'; COMMIT`,
      [{ action: 'updated' }],
    ],
  ])('leaves an entry: %s', async (_, sql, expected) => {
    await createKey(apiKeys)

    await sequelize.query(sql)

    const [created, ...rest] = await readEntries()
    expect(created).toMatchObject({ action: 'created', by: ['system', null] })
    expect(rest).toMatchObject(expected.map((entry) => ({ by, ...entry })))
    await expectFaults()
    await createKey(apiKeys)
    await expectFaults()
  })

  it('leaves entries that agree with those of the library', async () => {
    const { id } = await createKey(apiKeys)
    const metadata = String.raw`{"big": 9007199254740993, "face": "\ud83d\ude00"}`
    await sequelize.query('UPDATE api_keys SET metadata = $1', { bind: [metadata] })
    await apiKeys.update(id, { metadata: { plan: String.raw`\u0000` }, name: 'Backup' })
    await sequelize.query(`UPDATE api_keys SET expires_at = 'infinity'`)
    await sequelize.query(`UPDATE api_keys SET expires_at = '20000-01-01T00:00:00.5Z'`)
    await apiKeys.rotate(id)
    await apiKeys.update(id, { expiresAt: new Date('2099-01-01') })
    await sequelize.query('UPDATE api_keys SET previous_works_until = now()')
    await apiKeys.endRotation(id)
    await apiKeys.rotate(id, { gracePeriodSeconds: 0 })

    await expectFaults()
  })

  it('leaves an entry if a role makes it that may only change keys', async () => {
    const role = `spec_${randomUUID().replaceAll('-', '')}`
    await sequelize.query(`
      CREATE ROLE ${role}; GRANT SELECT, INSERT, UPDATE, DELETE ON api_keys TO ${role};
      BEGIN; SET LOCAL ROLE ${role}; ${insertKey}; DELETE FROM api_keys; COMMIT`)

    expect(await readEntries()).toMatchObject([{ action: 'created' }, { action: 'deleted' }])
    await expectFaults()
  })
})

const refusedStatements = [
  ['api_key_events', 'UPDATE api_key_events SET reason = NULL'],
  ['api_key_events', 'UPDATE api_key_events SET reason = NULL WHERE false'],
  ['api_key_events', 'DELETE FROM api_key_events'],
  ['api_key_events', 'TRUNCATE api_key_events'],
  ['api_key_events', 'SET LOCAL session_replication_role = replica; DELETE FROM api_key_events'],
  ['api_key_event_seals', 'UPDATE api_key_event_seals SET position = 9'],
  ['api_key_event_seals', 'DELETE FROM api_key_event_seals'],
  ['api_key_event_seals', 'TRUNCATE api_key_event_seals'],
]

describe('the tables of the audit trail', () => {
  it('refuse a warning that the library did not write', async () => {
    const insertion = sequelize.query(`
      INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type, actor_id)
      VALUES (gen_random_uuid(), 'user', 'alice', 'retired_secret_used', 'database', 'x')`)

    await expect(insertion).rejects.toThrow('violates check constraint')
  })

  it('refuse an entry that passes for one of the library without a signature, so that a trigger notes the change', async () => {
    const { id } = await createKey(apiKeys)
    const lie = (entry: string) =>
      sequelize.transaction(async (transaction) => {
        const ref = randomUUID()
        await sequelize.query(
          `INSERT INTO api_key_events (ref, api_key_id, owner_type, owner_id, action, actor_type, actor_id, entry_mac, before, after)
           VALUES ('${ref}', '${id}', 'user', 'alice', 'updated', ${entry}, '{}', '{}')`,
          { transaction },
        )
        const sql = `UPDATE api_keys SET hash = md5(hash) || md5(hash), event_ref = '${ref}'`
        await sequelize.query(sql, { transaction })
      })

    await expect(lie(`'database', 'postgres', NULL`)).rejects.toThrow('violates check constraint')
    await expect(lie(`'system', NULL, NULL`)).rejects.toThrow('violates check constraint')
    await expect(lie(`'database', 'postgres', ':1:' || repeat('0', 64)`)).rejects.toThrow(
      'violates check constraint',
    )
    await expectFaults()
  })

  it('refuse a number after which there would soon be none, and take the changes that follow', async () => {
    const { id } = await createKey(apiKeys)
    const greatest = '9223372036854775807'
    const event = sequelize.query(
      `INSERT INTO api_key_events (id, api_key_id, owner_type, owner_id, action, actor_type, actor_id) OVERRIDING SYSTEM VALUE
       VALUES (${greatest}, '${id}', 'user', 'alice', 'updated', 'database', 'postgres')`,
    )
    await expect(event).rejects.toThrow('is more than a year ahead')
    const revision = sequelize.query(
      `INSERT INTO api_key_revisions (revision) OVERRIDING SYSTEM VALUE VALUES (${greatest})`,
    )
    await expect(revision).rejects.toThrow('is more than a year ahead')

    await apiKeys.revoke(id)

    await expectFaults()
  })

  it('take changes after a clock was years ahead', async () => {
    const { id } = await createKey(apiKeys)
    await apiKeys.flush()
    for (const name of ['api_key_event_register', 'api_key_revision_register']) {
      await sequelize.query(
        `SELECT setval('${name}', (extract(epoch FROM now() + interval '3 years') * 1000000)::bigint)`,
      )
    }

    await sequelize.query(`UPDATE api_keys SET name = 'By hand'`)
    await apiKeys.revoke(id)

    await expectFaults()
  })

  it('refuse every update, and every deletion but by pruning', async () => {
    await createKey(apiKeys)
    await apiKeys.flush()

    for (const [table, sql] of refusedStatements) {
      const attempt = sequelize.transaction((transaction) =>
        sequelize.query(String(sql), { transaction }),
      )
      await expect(attempt).rejects.toThrow(
        `express-api-keys: ${table} keeps the audit trail, which is not changed`,
      )
    }
    await expectFaults()
  })
})

describe('triggers that are off', () => {
  const trail = useTrailForEach()

  it('finds triggers that are off', async () => {
    const { apiKeys, sequelize } = trail.world
    await createKey(apiKeys)
    await sequelize.query('ALTER TABLE api_keys DISABLE TRIGGER api_key_record_update')
    await sequelize.query('DROP TRIGGER api_key_refuse_delete ON api_key_event_seals')
    await sequelize.query('ALTER TABLE api_key_events DISABLE TRIGGER api_key_check_row')

    const { faults, head } = await apiKeys.verifyAuditTrail()

    expect(faults.map(({ kind }) => kind)).toEqual(['unguarded', 'unguarded', 'unguarded'])
    expect(faults.map(({ message }) => message).toSorted()).toEqual([
      'The trigger api_key_check_row on public.api_key_events is gone, switched off or not as it was made.',
      'The trigger api_key_record_update on public.api_keys is gone, switched off or not as it was made.',
      'The trigger api_key_refuse_delete on public.api_key_event_seals is gone, switched off or not as it was made.',
    ])
    expect(head).toBeNull()
  })

  it('finds a function that creates keys in another way', async () => {
    const { apiKeys, sequelize } = trail.world
    await createKey(apiKeys)
    const [row] = await trail.world.rows<{ sql: string }>(
      `SELECT pg_get_functiondef('api_key_create'::regproc) AS sql`,
    )
    await sequelize.query(String(row?.sql).replace(/LIMIT (\w+\.maximum)/, 'LIMIT $1 - 1'))

    const { faults } = await apiKeys.verifyAuditTrail()
    await apiKeys.migrate()

    expect(faults).toMatchObject([
      {
        kind: 'unguarded',
        message:
          'The function "public"."api_key_create" is gone, switched off or not as it was made.',
      },
    ])
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })
})
