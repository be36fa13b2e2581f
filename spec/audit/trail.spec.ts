import { randomBytes, randomUUID } from 'node:crypto'

import { QueryTypes, type Sequelize } from 'sequelize'

import type { ApiKeyRecord, AuditFault } from '../../lib'
import { contentSql } from '../../lib/audit/entry'
import { endSql, headText, type Head } from '../../lib/audit/head'
import { hashOf } from '../../lib/audit/seal'
import { createSigner } from '../../lib/audit/signing'
import { tablesOf } from '../../models/tables'
import { createTestApiKeys, type Permission, type TestApiKeys } from '../support/app'
import { findBlockedSession } from '../support/blocked'
import { createDatabase, type Database } from '../support/database'
import { createKey, faultsOf, newKey } from '../support/keys'

type Key = ApiKeyRecord<Permission, string>

const [secret, otherSecret] = [randomBytes(32), randomBytes(32)]

let database: Database
let sequelize: Sequelize
let apiKeys: TestApiKeys

beforeEach(async () => {
  database = await createDatabase()
  sequelize = database.connect()
  apiKeys = createOf({ secrets: [secret] })
})

afterEach(() => database.drop())

function createOf(options: Parameters<typeof createTestApiKeys>[1]) {
  return createTestApiKeys(database, { sequelize, ...options })
}

function apiKeysOf(other: Sequelize) {
  return createOf({ sequelize: other })
}

async function sessionsIn(state: string): Promise<number> {
  const sessions = await rows(
    'SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = $1',
    [state],
  )
  return sessions.length
}

async function rows<Row extends object>(sql: string, bind: unknown[] = []): Promise<Row[]> {
  return sequelize.query<Row>(sql, { type: QueryTypes.SELECT, bind })
}

/** The id of the entry at a place in the chain. */
async function idAt(position: number): Promise<string> {
  const [seal] = await rows<{ id: string }>(
    'SELECT event_id::text AS id FROM api_key_event_seals WHERE position = $1',
    [position],
  )
  if (!seal) throw new Error(`there is no entry at ${position}`)
  return seal.id
}

/** SQL with the ids of entries in place of `#3`, for example. */
async function withIds(sql: string): Promise<string> {
  let text = sql
  for (const [name, position] of sql.matchAll(/#(\d+)/g)) {
    text = text.replace(name, await idAt(Number(position)))
  }
  return text
}

/** Does what a superuser can do who has no secret: with the triggers off, and on again after it. */
async function meddle(sql: string) {
  const triggers = await rows<{ table: string; name: string }>(
    `SELECT tgrelid::regclass::text AS "table", tgname AS name FROM pg_trigger
      WHERE NOT tgisinternal AND tgenabled = 'A'`,
  )
  const all = (action: string) =>
    triggers.map(({ table, name }) => `ALTER TABLE ${table} ${action} TRIGGER ${name};`).join('')
  await sequelize.query(
    `BEGIN; ${all('DISABLE')} ${await withIds(sql)}; ${all('ENABLE ALWAYS')} COMMIT`,
  )
}

/** Makes a trail of five entries, of one key. */
async function makeTrail(): Promise<Key> {
  const { id } = await createKey(apiKeys)
  await apiKeys.update(id, { name: 'Backup' })
  await apiKeys.suspend(id, { reason: 'Lost.' })
  await apiKeys.reactivate(id)
  return apiKeys.revoke(id, { actor: { type: 'admin', id: 'root' } })
}

function shown(faults: readonly AuditFault[]) {
  return faults.map(({ kind, position }) => [kind, position])
}

async function expectFaults(...expected: [AuditFault['kind'], number | null][]) {
  const { isIntact, faults } = await apiKeys.verifyAuditTrail()

  expect(shown(faults)).toEqual(expected)
  expect(isIntact).toBe(expected.length === 0)
}

const insertKey = `
  INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
  VALUES ('mallory', 'By hand', 'agpt_abc123', 'abcd1234', md5('a') || md5('b'), '{READ_GRAPH}')`

/** Makes the chain anew from what the entries say now, as anybody can who has read how it is made. */
async function forge() {
  const forger = createSigner({ secrets: [], acceptUnkeyed: false })
  const [own] = await rows<{ secretId: string | null }>(
    'SELECT secret_id AS "secretId" FROM api_key_audit_head',
  )
  const entries = await rows<{ position: number; eventId: string; content: string }>(
    `SELECT seal.position::int, event.id::text AS "eventId", ${contentSql('event')} AS content
       FROM api_key_event_seals AS seal JOIN api_key_events AS event ON event.id = seal.event_id
      ORDER BY seal.position`,
  )
  // A signature of the secret's would be better; the forger has none.
  const secretId = own?.secretId ?? null
  const statements: string[] = []
  let hash = ''
  for (const { position, eventId, content } of entries) {
    hash = hashOf(hash, { eventId, isGenuine: true, doubts: null, secretId, content })
    const { mac } = forger.sign('seal', hash)
    statements.push(
      `UPDATE api_key_event_seals SET hash = '${hash}', mac = '${mac}' WHERE position = ${position}`,
    )
  }
  const [found] = await rows<{ json: string }>(endSql(tablesOf('public')))
  const { head } = JSON.parse(String(found?.json)) as { head: Head }
  const forged = forger.sign('head', headText({ ...head, hash }))
  statements.push(`UPDATE api_key_audit_head SET hash = '${hash}', mac = '${forged.mac}'`)
  await meddle(statements.join(';'))
  expect(own).toEqual({ secretId })
}

async function verifyWith(options: Parameters<typeof createOf>[0]) {
  const { isIntact, unverifiable, faults, cannotFind } = await createOf(options).verifyAuditTrail()
  return { isIntact, unverifiable, faults: shown(faults), cannotFind: cannotFind.slice(2) }
}

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

/** Makes a key whose entry is as old as that, as waiting would. */
async function makeOld(days: number) {
  const time = `clock_timestamp() - ${days} * interval '1 day' - interval '1 minute'`
  const setDefault = (sql: string) =>
    sequelize.query(`ALTER TABLE api_keys ALTER COLUMN created_at SET DEFAULT ${sql}`)
  await setDefault(time)
  const transaction = await sequelize.transaction()
  const { apiKey } = await apiKeys.create(newKey(), { transaction })
  await transaction.commit()
  await setDefault('now()')
  await meddle(`UPDATE api_key_events SET created_at = ${time} WHERE api_key_id = '${apiKey.id}'`)
  await apiKeys.auditHead()
  return apiKey
}

const signature = { secretId: expect.any(String), mac: expect.stringMatching(/^[0-9a-f]{64}$/) }

const always = expect.stringContaining('looks like one of a trigger')

describe('verifyAuditTrail', () => {
  it('finds nothing wrong where nothing is', async () => {
    expect(await apiKeys.verifyAuditTrail()).toEqual({
      isIntact: true,
      entries: 0,
      pruned: 0,
      unsealed: 0,
      unverifiable: 0,
      head: { position: 0, hash: '', at: expect.any(String), ...signature },
      faults: [],
      cannotFind: [always, expect.stringContaining('keep a head elsewhere')],
    })
  })

  it('holds every entry against its seal, and itself against a head from before', async () => {
    const { id } = await makeTrail()
    await createKey(apiKeys, {
      userId: 'O’Brien “”\u{1f511}',
      metadata: { b: [1e21, { 7: '', a: null }], __proto__x: 1 },
    })
    const head = await apiKeys.auditHead()
    await apiKeys.rotate((await createKey(apiKeys, { allowedIps: ['::1'] })).id)
    await apiKeys.revokeAll('alice')

    expect(await apiKeys.verifyAuditTrail({ head })).toEqual({
      isIntact: true,
      entries: 9,
      pruned: 0,
      unsealed: 0,
      unverifiable: 0,
      head: {
        position: 9,
        hash: expect.stringMatching(/^[0-9a-f]{64}$/),
        at: expect.any(String),
        ...signature,
      },
      faults: [],
      cannotFind: [always],
    })
    expect(head.position).toBe(6)
    expect(await apiKeys.get(id)).toMatchObject({ status: 'REVOKED' })
  })

  it.each<[string, string, [AuditFault['kind'], number | null][]]>([
    ['an edit', `UPDATE api_key_events SET reason = 'Found.' WHERE id = #3`, [['edited', 3]]],
    [
      'an edited time',
      `UPDATE api_key_events SET created_at = created_at - interval '1 ms' WHERE id = #3`,
      [['edited', 3]],
    ],
    [
      'an edit of the last one',
      `UPDATE api_key_events SET actor_id = 'eve' WHERE id = #5`,
      [['edited', 5]],
    ],
    [
      'a removed entry',
      'DELETE FROM api_key_events WHERE id = #2',
      [
        ['removed', 2],
        ['contradicted', null],
      ],
    ],
    [
      'the last one removed',
      'DELETE FROM api_key_events WHERE id = #5',
      [
        ['removed', 5],
        ['contradicted', null],
        ['contradicted', null],
      ],
    ],
    [
      'an entry removed with its seal',
      'DELETE FROM api_key_events WHERE id = #4; DELETE FROM api_key_event_seals WHERE event_id = #4',
      [
        ['removed', 4],
        ['contradicted', null],
      ],
    ],
    [
      'the last one removed with its seal',
      'DELETE FROM api_key_events WHERE id = #5; DELETE FROM api_key_event_seals WHERE event_id = #5',
      [
        ['removed', 5],
        ['contradicted', null],
        ['contradicted', null],
      ],
    ],
    [
      'the last one removed with its seal and a head that fits',
      `DELETE FROM api_key_events WHERE id = #5; DELETE FROM api_key_event_seals WHERE event_id = #5;
       UPDATE api_key_audit_head SET (position, hash, mac, secret_id) =
         (SELECT position, hash, mac, secret_id FROM api_key_event_seals WHERE position = 4)`,
      [
        ['head_changed', 4],
        ['contradicted', null],
        ['contradicted', null],
      ],
    ],
    [
      'two entries that changed places',
      `UPDATE api_key_events AS event
          SET (action, reason, before, after, ref, entry_mac, created_at) = (
            SELECT action, reason, before, after, ref, entry_mac, created_at
              FROM api_key_events AS other WHERE other.id = #3 + #4 - event.id
          )
        WHERE id IN (#3, #4)`,
      [
        ['reordered', 3],
        ['reordered', 4],
        ['contradicted', null],
        ['contradicted', null],
      ],
    ],
    [
      'seals that changed places',
      `UPDATE api_key_event_seals SET position = 10 + position WHERE position IN (2, 3);
       UPDATE api_key_event_seals SET position = 15 - position WHERE position > 10`,
      [
        ['reordered', 2],
        ['reordered', 3],
        ['reordered', 4],
      ],
    ],
    [
      'an inserted entry that nobody has sealed',
      `INSERT INTO api_key_events (api_key_id, user_id, action, actor_type) SELECT api_key_id, user_id, 'suspended', 'system'
         FROM api_key_events LIMIT 1`,
      [['inserted', null]],
    ],
    ['a head that is gone', 'DELETE FROM api_key_audit_head', [['head_changed', 5]]],
    [
      'a head that was put back to the beginning',
      `UPDATE api_key_audit_head SET position = 0, hash = '', mac = NULL, secret_id = NULL`,
      [['head_changed', 5]],
    ],
    [
      'everything removed',
      'DELETE FROM api_key_events; DELETE FROM api_key_event_seals',
      [
        ['removed', 1],
        ['contradicted', null],
      ],
    ],
  ])('finds %s', async (_, sql, faults) => {
    await makeTrail()

    await meddle(sql)

    await expectFaults(...faults)
    // And still, when there is more.
    await createKey(apiKeys)
    const { isIntact, faults: later } = await apiKeys.verifyAuditTrail()
    expect(isIntact).toBe(false)
    expect(later.length).toBeGreaterThanOrEqual(faults.length)
  })
})

describe('verifyAuditTrail, where somebody knows how the trail is made', () => {
  it('finds a chain that was made anew without the secret', async () => {
    await makeTrail()
    await meddle(`UPDATE api_key_events SET reason = 'Found.' WHERE id = #3`)
    await forge()

    const { isIntact, faults } = await apiKeys.verifyAuditTrail()

    expect(isIntact).toBe(false)
    expect(shown(faults)).toEqual([
      ...[1, 2, 3, 4, 5].map((position) => ['edited', position]),
      ['head_changed', 5],
    ])
  })

  it('says without secrets that it cannot', async () => {
    apiKeys = createOf({})
    await makeTrail()
    await meddle(`UPDATE api_key_events SET reason = 'Found.' WHERE id = #3`)
    const { faults } = await apiKeys.verifyAuditTrail()
    await forge()

    const { isIntact, cannotFind } = await apiKeys.verifyAuditTrail()

    expect(shown(faults)).toEqual([['edited', 3]])
    expect(isIntact).toBe(true)
    expect(cannotFind).toContainEqual(expect.stringContaining('set the option `secrets`'))
  })

  it('finds an entry that passes for one of the library', async () => {
    const { id } = await createKey(apiKeys)
    const values = `'${id}', 'alice', 'suspended', 'admin', 'root', '{"status": "ACTIVE"}', '{"status": "SUSPENDED"}'`
    const [own] = await rows<{ entryMac: string }>(
      'SELECT entry_mac AS "entryMac" FROM api_key_events',
    )
    for (const mac of ['NULL', `'${own?.entryMac}'`]) {
      await sequelize.query(
        `INSERT INTO api_key_events (api_key_id, user_id, action, actor_type, actor_id, before, after, entry_mac)
         VALUES (${values}, ${mac})`,
      )
    }

    // It agrees with the key then.
    await meddle(`UPDATE api_keys SET status = 'SUSPENDED'`)
    const { faults } = await apiKeys.verifyAuditTrail()

    expect(shown(faults)).toEqual([
      ['inserted', 2],
      ['inserted', 3],
      ['contradicted', null],
    ])
  })

  it('finds a copy of an entry', async () => {
    const { id } = await createKey(apiKeys)
    await apiKeys.suspend(id)
    await apiKeys.reactivate(id)
    const columns =
      'api_key_id, user_id, action, actor_type, actor_id, before, after, ref, entry_mac'
    await sequelize.query(
      `INSERT INTO api_key_events (${columns}) SELECT ${columns} FROM api_key_events WHERE action = 'suspended'`,
    )
    await meddle(`UPDATE api_keys SET status = 'SUSPENDED'`)

    const { faults } = await apiKeys.verifyAuditTrail()

    expect(faults).toMatchObject([
      { kind: 'inserted', eventId: await idAt(4), message: 'The entry repeats another one.' },
      { kind: 'contradicted', eventId: await idAt(4) },
    ])
  })

  it('finds an entry of the database that tells of nothing that was', async () => {
    const { id } = await createKey(apiKeys)
    await sequelize.query(
      `INSERT INTO api_key_events (api_key_id, user_id, action, actor_type, actor_id, before, after)
       VALUES ($1, 'alice', 'updated', 'database', 'postgres', '{"name": "Deployment"}', '{"name": "Backup"}')`,
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
    ['a deleted key', 'DELETE FROM api_keys', 'whether there is one'],
    [
      'another hash',
      'UPDATE api_keys SET hash = md5(hash) || md5(hash), event_ref = gen_random_uuid()',
      'its last change',
    ],
    ['a key made by hand', insertKey, 'whether there is one'],
  ])('finds %s that left no entry', async (_, sql, name) => {
    await createKey(apiKeys)

    await meddle(sql)

    const { faults } = await apiKeys.verifyAuditTrail()
    expect(faults).toMatchObject([
      { kind: 'contradicted', message: expect.stringMatching(`do not agree on ${name}\\.$`) },
    ])
  })

  it('finds another owner of a key whose making was pruned', async () => {
    const { id } = await makeOld(3)
    await apiKeys.suspend(id)
    await apiKeys.pruneAuditTrail({ olderThanDays: 1 })
    await expectFaults()

    await meddle(`UPDATE api_keys SET user_id = 'mallory'`)

    const { faults } = await apiKeys.verifyAuditTrail()
    expect(faults).toMatchObject([{ message: expect.stringMatching(/do not agree on userId\.$/) }])
  })

  it('looks at contradictions, however many look like one', async () => {
    const { id } = await createKey(apiKeys)
    await sequelize.query(
      `INSERT INTO api_key_events (api_key_id, user_id, action, actor_type, actor_id, before, after)
       SELECT $1, 'alice', 'updated', 'database', '',
              CASE n % 2 WHEN 0 THEN '{"limits": null, "a": 1}'::jsonb ELSE '{}' END, '{"b": 2}'
         FROM generate_series(1, 2200) AS n`,
      { bind: [id] },
    )
    await meddle(`UPDATE api_keys SET name = 'Backup'`)

    await expectFaults(['contradicted', null])
  })

  it('says so where there are more contradictions than it looks at', async () => {
    const { id } = await createKey(apiKeys)
    // Numbers that JavaScript does not tell apart.
    await sequelize.query(
      `INSERT INTO api_key_events (api_key_id, user_id, action, actor_type, actor_id, before, after)
       SELECT $1, 'alice', 'updated', 'database', '',
              '{"metadata": {"n": 9007199254740992}}', '{"metadata": {"n": 9007199254740993}}'
         FROM generate_series(1, 1100) AS n`,
      { bind: [id] },
    )

    const { isIntact, faults } = await apiKeys.verifyAuditTrail()

    expect(isIntact).toBe(false)
    expect(faults).toContainEqual(
      expect.objectContaining({
        message: expect.stringContaining('more places than were looked at'),
      }),
    )
  })

  it('finds triggers that are off', async () => {
    await createKey(apiKeys)
    await sequelize.query('ALTER TABLE api_keys DISABLE TRIGGER api_key_tell_update')
    await sequelize.query('DROP TRIGGER api_key_refuse_delete ON api_key_event_seals')

    const { faults, head } = await apiKeys.verifyAuditTrail()

    expect(faults.map(({ kind }) => kind)).toEqual(['unguarded', 'unguarded'])
    expect(faults.map(({ message }) => message).toSorted()).toEqual([
      'The trigger api_key_refuse_delete on api_key_event_seals is gone, switched off or not as it was made.',
      'The trigger api_key_tell_update on api_keys is gone, switched off or not as it was made.',
    ])
    expect(head).toBeNull()
  })

  it('finds a trail that was put back as a whole only by a head that was kept elsewhere', async () => {
    const { id } = await createKey(apiKeys)
    await sequelize.query('CREATE TABLE kept AS SELECT * FROM api_key_audit_head')
    await sequelize.query('CREATE TABLE kept_key AS SELECT * FROM api_keys')
    await apiKeys.suspend(id)
    const head = await apiKeys.auditHead()
    await meddle(`
      DELETE FROM api_key_events WHERE id > #1;
      DELETE FROM api_key_event_seals WHERE position > 1;
      DELETE FROM api_key_audit_head; INSERT INTO api_key_audit_head SELECT * FROM kept;
      DELETE FROM api_keys; INSERT INTO api_keys SELECT * FROM kept_key`)

    const alone = await apiKeys.verifyAuditTrail()
    const anchored = await apiKeys.verifyAuditTrail({ head })
    await apiKeys.suspend(id)
    const goneOn = await apiKeys.verifyAuditTrail({ head })

    expect(alone.isIntact).toBe(true)
    expect(alone.cannotFind).toEqual([
      always,
      expect.stringContaining('put back as a whole or begun anew'),
    ])
    expect(anchored.cannotFind).toEqual([always])
    expect(shown(anchored.faults)).toEqual([['removed', 2]])
    expect(shown(goneOn.faults)).toEqual([['edited', 2]])
  })

  it('lists 100 faults of many, and knows that there are', async () => {
    const keys = await Promise.all(Array.from({ length: 60 }, () => createKey(apiKeys)))
    for (const { id } of keys) await apiKeys.revoke(id)
    await meddle(`UPDATE api_key_events SET reason = 'edited'`)

    const { isIntact, entries, faults } = await apiKeys.verifyAuditTrail()

    expect(isIntact).toBe(false)
    expect(entries).toBe(120)
    expect(faults).toHaveLength(100)
  })
})

describe('secrets of the audit trail', () => {
  const fine = { isIntact: true, unverifiable: 0, faults: [], cannotFind: [] }
  const gone = [expect.stringContaining('not among `secrets`')]

  it('may be replaced: what the new one seals vouches for what the old one did', async () => {
    await makeTrail()

    await createKey(createOf({ secrets: [otherSecret, secret] }))

    expect(await verifyWith({ secrets: [otherSecret, secret] })).toEqual(fine)
    expect(await verifyWith({ secrets: [otherSecret] })).toEqual(fine)
    await meddle(`UPDATE api_key_events SET reason = 'Found.' WHERE id = #3`)
    expect(await verifyWith({ secrets: [otherSecret] })).toMatchObject({ faults: [['edited', 3]] })
  })

  it('may be replaced with no change in between', async () => {
    await makeTrail()

    expect(await verifyWith({ secrets: [otherSecret, secret] })).toEqual(fine)
    expect(await verifyWith({ secrets: [otherSecret] })).toEqual(fine)
  })

  it('are missed where they are gone too soon, which is told apart from tampering', async () => {
    await makeTrail()
    const early = createOf({ secrets: [otherSecret] })

    expect(await verifyWith({ secrets: [otherSecret] })).toEqual({
      isIntact: false,
      unverifiable: 5,
      faults: [],
      cannotFind: gone,
    })
    await expect(early.auditHead()).rejects.toMatchObject({ code: 'audit_trail_not_intact' })
    await createKey(early)
    expect(await verifyWith({ secrets: [otherSecret] })).toEqual({
      isIntact: false,
      unverifiable: 5,
      faults: [],
      cannotFind: gone,
    })
    expect(await verifyWith({ secrets: [otherSecret, secret] })).toEqual(fine)
  })

  it('may come to processes one after the other', async () => {
    const [old, young] = [apiKeys, createOf({ secrets: [otherSecret, secret] })]
    for (const each of [old, young, old, young]) await createKey(each)
    const transaction = await sequelize.transaction()
    await young.create(newKey(), { transaction })
    await transaction.commit()
    await createKey(old)

    expect(await verifyWith({ secrets: [otherSecret, secret] })).toEqual(fine)
  })

  it('do not let a claim of a secret that nobody has pass', async () => {
    const { id } = await makeTrail()
    await meddle(`
      DELETE FROM api_key_events WHERE id = #5; DELETE FROM api_key_event_seals WHERE position = 5;
      UPDATE api_keys SET status = 'ACTIVE', revoked_at = NULL WHERE id = '${id}';
      UPDATE api_key_audit_head SET secret_id = repeat('f', 16), (position, hash) =
        (SELECT position, hash FROM api_key_event_seals WHERE position = 4)`)

    expect(await verifyWith({ secrets: [secret] })).toMatchObject({ unverifiable: 1 })
    await createKey(apiKeys)
    expect(await verifyWith({ secrets: [secret] })).toMatchObject({ unverifiable: 1 })
  })

  it('may be added later, together with acceptUnkeyed', async () => {
    apiKeys = createOf({})
    await makeTrail()

    expect(await verifyWith({ secrets: [secret] })).toMatchObject({ isIntact: false, faults: [] })
    await createKey(createOf({ secrets: [secret], acceptUnkeyed: true }))

    expect(await verifyWith({ secrets: [secret] })).toEqual(fine)
  })
})

describe('a change that is not made through the library', () => {
  const by = ['database', 'postgres']

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
      [{ action: 'updated', before: { userId: 'alice' }, after: { userId: 'mallory' } }],
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
            userId: 'alice',
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
    ['an UPDATE of nothing', 'UPDATE api_keys SET name = name, last_used_at = now()', []],
    [
      'an UPDATE where triggers are held off as by a replica',
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

  it('leaves entries that go together with those of the library', async () => {
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

  it('is told of where it is made by a role that may no more than change keys', async () => {
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

describe('the audit trail', () => {
  it('lets nobody else take the place of a warning', async () => {
    const insertion = sequelize.query(`
      INSERT INTO api_key_events (api_key_id, user_id, action, actor_type, actor_id)
      VALUES (gen_random_uuid(), 'alice', 'retired_secret_used', 'database', 'x')`)

    await expect(insertion).rejects.toThrow('violates check constraint')
  })

  it('is not changed', async () => {
    await createKey(apiKeys)

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

  it('takes in what transactions of the caller write when it is committed', async () => {
    const { id } = await createKey(apiKeys)
    const transaction = await sequelize.transaction()
    await apiKeys.suspend(id, { transaction })
    const rolledBack = await sequelize.transaction()
    await apiKeys.create(newKey({ userId: 'bob' }), { transaction: rolledBack })

    // Nobody waits for them, and what has a greater id may come first.
    await createKey(apiKeys)
    const meanwhile = await apiKeys.verifyAuditTrail()
    await transaction.commit()
    await rolledBack.rollback()
    const [waiting] = await rows<{ count: number }>(
      'SELECT count(*)::int AS count FROM api_key_unsealed_events',
    )
    const after = await apiKeys.verifyAuditTrail()

    expect(meanwhile).toMatchObject({ isIntact: true, entries: 2, unsealed: 0 })
    expect(waiting).toEqual({ count: 1 })
    expect(after).toMatchObject({ isIntact: true, entries: 3, unsealed: 0 })
  })

  it('locks its end after everything else', async () => {
    const { id } = await createKey(apiKeys)
    const lock = await sequelize.transaction()
    await sequelize.query('SELECT FROM api_key_audit_head FOR UPDATE', { transaction: lock })

    const suspended = apiKeys.suspend(id)
    await findBlockedSession(sequelize)
    const [row] = await rows<{ isFree: boolean }>(
      `SELECT NOT EXISTS (SELECT FROM api_keys WHERE id = $1 AND status = 'SUSPENDED') AS "isFree"`,
      [id],
    )
    await lock.rollback()

    expect(row).toEqual({ isFree: true })
    expect(await suspended).toMatchObject({ status: 'SUSPENDED' })
    await expectFaults()
  })

  it('lets a change through whose entry it cannot take in, and takes it in with the next', async () => {
    const [{ id }, other] = [await createKey(apiKeys), await createKey(apiKeys)]
    const lock = await sequelize.transaction()
    await sequelize.query('SELECT FROM api_key_audit_head FOR UPDATE', { transaction: lock })

    const revoked = await apiKeys.revoke(id)
    const [waiting] = await rows<{ ids: string[] }>(
      'SELECT json_agg(event_id::text) AS ids FROM api_key_unsealed_events',
    )
    await lock.rollback()
    await apiKeys.revoke(other.id)

    expect(revoked).toMatchObject({ status: 'REVOKED' })
    expect(waiting).toEqual({ ids: [await idAt(3)] })
    expect(await rows('SELECT FROM api_key_unsealed_events')).toEqual([])
    await expectFaults()
  })

  it('does not wait for a process that has stopped at its end', async () => {
    const { id } = await createKey(apiKeys)
    const stopping = database.connect()
    const stopped = new Promise<() => void>((hasStopped) => {
      stopping.addHook('afterConnect', (connection) => {
        // A client of the driver's, whose answers can be held back as by a process that stands still.
        const client = connection as { query(sql: string, ...rest: unknown[]): unknown }
        const query = client.query.bind(client)
        client.query = (sql, ...rest) => {
          const answer = rest.at(-1)
          if (!sql.includes('FOR UPDATE') || typeof answer !== 'function')
            return query(sql, ...rest)
          return query(sql, (...told: unknown[]) => hasStopped(() => answer(...told)))
        }
      })
    })
    const refused = apiKeysOf(stopping)
      .suspend(id)
      .catch((error: unknown) => error)
    const goOn = await stopped

    while ((await sessionsIn('idle in transaction')) > 0);
    const revoked = await apiKeys.revoke(id)
    goOn()

    expect(revoked).toMatchObject({ status: 'REVOKED' })
    expect(await refused).toMatchObject({ code: 'database_unavailable' })
    await expectFaults()
  })

  it('leaves the settings of a session as they were', async () => {
    const one = database.connect({ pool: { max: 1 } })
    const settings = () =>
      one.query(
        `SELECT current_setting('lock_timeout') AS lock,
                current_setting('idle_in_transaction_session_timeout') AS idle`,
        { type: QueryTypes.SELECT },
      )
    await one.query(`SET lock_timeout = '11s'; SET idle_in_transaction_session_timeout = '12s'`)

    await createKey(apiKeysOf(one))

    expect(await settings()).toEqual([{ lock: '11s', idle: '12s' }])
  })

  it('is one chain whoever writes it: 8 writers, 50 changes each', async () => {
    const keys = await Promise.all(Array.from({ length: 4 }, () => createKey(apiKeys)))
    const other = createTestApiKeys(database, { secrets: [secret] })
    async function write(writer: number) {
      const own = writer % 2 === 0 ? apiKeys : other
      for (let change = 0; change < 50; change++) {
        const id = String(keys[(writer + change) % keys.length]?.id)
        const name = `${writer} ${change}`
        if (change % 5 === 0) await createKey(own, { userId: `writer ${writer}` })
        else if (change % 5 === 1) await own.suspend(id)
        else if (change % 5 === 2) await own.reactivate(id)
        else if (change % 5 === 3) await own.update(id, { name })
        else if (writer === 7) {
          await sequelize.query('UPDATE api_keys SET name = $2 WHERE id = $1', { bind: [id, name] })
        } else {
          await sequelize.transaction(async (transaction) => {
            await own.update(id, { name }, { transaction })
          })
        }
      }
    }

    await Promise.all(Array.from({ length: 8 }, (_, writer) => write(writer)))

    const [{ count } = { count: 0 }] = await rows<{ count: number }>(
      'SELECT count(*)::int AS count FROM api_key_events',
    )
    const { isIntact, entries, unsealed, faults } = await apiKeys.verifyAuditTrail()
    expect({ isIntact, unsealed, faults }).toEqual({ isIntact: true, unsealed: 0, faults: [] })
    expect(entries).toBe(count)
  })

  it('seals 100 entries of others with a change, and 3,000 of its own after it', async () => {
    await sequelize.query(`
      INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
      SELECT 'alice', 'Key ' || n, 'agpt_abc123', 'abcd1234', md5('a' || n) || md5('b' || n), '{READ_GRAPH}'
        FROM generate_series(1, 3000) AS n`)
    await createKey(apiKeys, { userId: 'bob' })
    const [left] = await rows<{ count: number }>(
      'SELECT count(*)::int AS count FROM api_key_unsealed_events',
    )

    expect(left).toEqual({ count: 2_900 })
    expect(await apiKeys.revokeAll('alice')).toEqual({ keys: 3_000 })
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({
      isIntact: true,
      entries: 6_001,
      faults: [],
    })
  })

  it('takes entries that wait for a seal twice, or that are gone', async () => {
    await createKey(apiKeys)
    await sequelize.query(
      `INSERT INTO api_key_unsealed_events (event_id) VALUES (${await idAt(1)}), (77)`,
    )
    await sequelize.query(
      `INSERT INTO api_key_unsealed_events (event_id) VALUES (${await idAt(1)})`,
    )

    await createKey(apiKeys)

    await expectFaults()
  })

  it.each([
    `{"secretId": "SECRET"}`,
    `{"secretId": "SECRET", "mac": 5}`,
    `{"secretId": "SECRET", "mac": "${'é'.repeat(64)}", "checkpoint": 5}`,
    '[',
  ])('is verified where a seal doubts what was never a head: %s', async (doubts) => {
    await createKey(apiKeys)
    await meddle(
      `UPDATE api_key_event_seals SET doubts = replace($doubts$${doubts}$doubts$, 'SECRET', secret_id)`,
    )

    await expectFaults(['head_changed', 1], ['edited', 1])
  })

  it.each<[string, string, [AuditFault['kind'], number | null][]]>([
    ...['infinity', '-infinity', '20000-01-01', '0044-03-15 BC'].map(
      (time): [string, string, [AuditFault['kind'], number | null][]] => [
        `a head that says that entries up to ${time} were pruned`,
        `UPDATE api_key_audit_head SET pruned_before = '${time}'`,
        [['head_changed', 2]],
      ],
    ),
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
      'two heads',
      `ALTER TABLE api_key_audit_head DROP CONSTRAINT api_key_audit_head_pkey;
       INSERT INTO api_key_audit_head SELECT * FROM api_key_audit_head`,
      [
        ['unreadable', null],
        ['head_changed', 2],
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
      'an entry nested deeper than can be followed',
      `UPDATE api_key_events
          SET before = (repeat('[', 5000) || repeat(']', 5000))::jsonb,
              after = ('{"name":' || repeat('[', 5000) || repeat(']', 5000) || '}')::jsonb
        WHERE id = #1`,
      [
        ['edited', 1],
        ['contradicted', null],
      ],
    ],
    [
      'metadata that cannot be jsonb',
      `ALTER TABLE api_keys DROP CONSTRAINT api_keys_metadata_check;
       UPDATE api_keys SET metadata = ('{"a":' || repeat('9', 140000) || '}')::json`,
      [['unreadable', null]],
    ],
  ])('is verified, and changed, with %s', async (_, sql, faults) => {
    await createKey(apiKeys)
    await createKey(apiKeys)

    await meddle(sql)

    await expectFaults(...faults)
    await createKey(apiKeys)
    expect((await apiKeys.verifyAuditTrail()).isIntact).toBe(false)
  })

  it('takes in an entry nested deeper than can be followed, as one of somebody else', async () => {
    await sequelize.query(
      `INSERT INTO api_key_events (api_key_id, user_id, action, actor_type, actor_id, before, entry_mac)
       VALUES (gen_random_uuid(), '', 'updated', 'user', '', (repeat('[', 5000) || repeat(']', 5000))::jsonb,
               ':' || repeat('0', 64))`,
    )

    await createKey(apiKeys)

    await expectFaults(['inserted', 1], ['contradicted', null])
  })

  it('is verified whatever somebody has written into it', async () => {
    const { id } = await createKey(apiKeys)
    for (const json of ['5', '[]', 'null', '"x"', '{"metadata": "{"}', '{"a": {"b": []}}']) {
      await sequelize.query(
        `INSERT INTO api_key_events (api_key_id, user_id, action, actor_type, actor_id, before, after)
         VALUES ($1, '', 'updated', 'database', '', $2, $2)`,
        { bind: [id, json] },
      )
    }
    await sequelize.query(`UPDATE api_keys SET user_id = ''`)

    await expectFaults(['contradicted', null], ['contradicted', null])
  })

  it('lets no claim in a head that is not ours pass', async () => {
    await createKey(apiKeys)
    await meddle(
      `UPDATE api_key_audit_head SET last_pruned_id = 1000000, pruned_before = '2999-01-01'`,
    )
    await createKey(apiKeys)
    await sequelize.query(`
      INSERT INTO api_key_events (api_key_id, user_id, action, actor_type)
      VALUES (gen_random_uuid(), 'alice', 'retired_secret_used', 'system')`)
    await meddle(insertKey)

    await expectFaults(['head_changed', 2], ['inserted', 3], ['contradicted', null])
  })

  it('finds an entry that was kept from being sealed', async () => {
    await createKey(apiKeys)
    const transaction = await sequelize.transaction()
    await apiKeys.create(newKey(), { transaction })
    await transaction.commit()
    await sequelize.query('DELETE FROM api_key_unsealed_events')

    await expectFaults(['inserted', null])
  })
})

describe('pruneAuditTrail', () => {
  it('removes what is older, up to the first that is not', async () => {
    const keys = [await makeOld(400), await makeOld(365), await makeOld(30), await makeOld(365)]
    const head = await apiKeys.auditHead()

    const wouldBe = await apiKeys.pruneAuditTrail({ olderThanDays: 365, dryRun: true })
    const before = await apiKeys.verifyAuditTrail()
    const pruned = await apiKeys.pruneAuditTrail({ olderThanDays: 365 })
    const again = await apiKeys.pruneAuditTrail({ olderThanDays: 365 })

    expect([wouldBe, pruned, again]).toEqual([{ events: 2 }, { events: 2 }, { events: 0 }])
    expect(before).toMatchObject({ isIntact: true, entries: 4, pruned: 0 })
    const { events } = await apiKeys.events()
    expect(events.map(({ apiKeyId }) => apiKeyId)).toEqual([keys[3]?.id, keys[2]?.id])
    expect(await apiKeys.verifyAuditTrail({ head })).toMatchObject({
      isIntact: true,
      entries: 2,
      pruned: 2,
      faults: [],
      cannotFind: [always],
    })
    for (const { id } of keys) await apiKeys.revoke(id)
    await expectFaults()
  })

  it('may remove everything, and the trail goes on', async () => {
    const { id } = await makeOld(3)
    const old = await apiKeys.auditHead()
    await makeOld(2)

    expect(await apiKeys.pruneAuditTrail({ olderThanDays: 1 })).toEqual({ events: 2 })

    await expectFaults()
    expect(await apiKeys.verifyAuditTrail({ head: old })).toMatchObject({
      isIntact: true,
      cannotFind: [always, expect.stringContaining('was pruned')],
    })
    await apiKeys.revoke(id)
    await expectFaults()
    expect((await apiKeys.auditHead()).position).toBe(3)
    expect(await apiKeys.pruneAuditTrail({ olderThanDays: 1 })).toEqual({ events: 0 })
  })

  it.each<[string, string, [AuditFault['kind'], number | null][]]>([
    [
      'forged',
      `UPDATE api_key_audit_head SET pruned_before = '2000-01-01'`,
      [
        ['checkpoint_changed', 2],
        ['head_changed', 3],
        ['contradicted', null],
        ['contradicted', null],
      ],
    ],
    [
      'removed',
      `UPDATE api_key_audit_head SET checkpoint_hash = ''`,
      [
        ['checkpoint_changed', 2],
        ['removed', 1],
        ['head_changed', 3],
      ],
    ],
    [
      'replaced by one for more',
      `DELETE FROM api_key_events WHERE id = #3;
       UPDATE api_key_audit_head SET (checkpoint_position, checkpoint_hash) =
         (SELECT position, hash FROM api_key_event_seals WHERE position = 3);
       DELETE FROM api_key_event_seals`,
      [
        ['checkpoint_changed', 3],
        ['head_changed', 3],
        ['contradicted', null],
      ],
    ],
    ...['infinity', '20000-01-01'].map(
      (time): [string, string, [AuditFault['kind'], number | null][]] => [
        `of ${time}`,
        `UPDATE api_key_audit_head SET pruned_before = '${time}'`,
        [
          ['checkpoint_changed', 2],
          ['head_changed', 3],
        ],
      ],
    ),
    [
      'signed otherwise',
      `UPDATE api_key_audit_head SET mac = hash`,
      [
        ['checkpoint_changed', 2],
        ['head_changed', 3],
      ],
    ],
  ])('finds its checkpoint %s', async (_, sql, faults) => {
    await makeOld(3)
    await makeOld(2)
    await createKey(apiKeys)
    await apiKeys.pruneAuditTrail({ olderThanDays: 1 })

    await meddle(sql)

    await expectFaults(...faults)
    await createKey(apiKeys)
    expect((await apiKeys.verifyAuditTrail()).isIntact).toBe(false)
  })

  it('covers nothing up', async () => {
    await makeOld(3)
    await meddle(`UPDATE api_key_audit_head SET mac = repeat('0', 64)`)

    await expect(apiKeys.pruneAuditTrail({ olderThanDays: 1 })).rejects.toMatchObject({
      code: 'audit_trail_not_intact',
    })
    await expect(apiKeys.auditHead()).rejects.toMatchObject({ code: 'audit_trail_not_intact' })
    expect((await apiKeys.events()).events).toHaveLength(1)
  })

  it.each([
    ['edited', `UPDATE api_key_events SET reason = 'Found.' WHERE id = #2`],
    ['removed', 'DELETE FROM api_key_events WHERE id = #2'],
    [
      'removed with its seal',
      'DELETE FROM api_key_events WHERE id = #2; DELETE FROM api_key_event_seals WHERE event_id = #2',
    ],
    ['back-dated', `UPDATE api_key_events SET created_at = '2020-01-01' WHERE id = #4`],
    ['sealed by somebody else', `UPDATE api_key_event_seals SET mac = hash WHERE position = 3`],
    ['doubted', `UPDATE api_key_event_seals SET doubts = '{}' WHERE position = 2`],
  ])('covers no entry up that was %s', async (_, sql) => {
    for (const days of [5, 4, 3]) await makeOld(days)
    await createKey(apiKeys)
    await meddle(sql)
    const { faults } = await apiKeys.verifyAuditTrail()

    await expect(apiKeys.pruneAuditTrail({ olderThanDays: 1 })).rejects.toMatchObject({
      code: 'audit_trail_not_intact',
    })

    expect((await apiKeys.verifyAuditTrail()).faults).toEqual(faults)
  })

  it('takes what a secret sealed that is gone, where one that is there vouches for it', async () => {
    await makeOld(3)
    const thirdSecret = randomBytes(32)
    await createKey(createOf({ secrets: [thirdSecret, secret] }))
    await createKey(createOf({ secrets: [otherSecret, thirdSecret, secret] }))
    apiKeys = createOf({ secrets: [otherSecret] })
    const pruning = { olderThanDays: 1 }
    const seal = 'UPDATE api_key_event_seals SET mac = '
    const [last] = await rows<{ mac: string }>(
      'SELECT mac FROM api_key_event_seals WHERE position = 3',
    )
    await meddle(`${seal} repeat('0', 64) WHERE position = 3`)
    const broken = await apiKeys.pruneAuditTrail(pruning).catch((error: unknown) => error)
    await meddle(`${seal} '${last?.mac}' WHERE position = 3`)

    expect(broken).toMatchObject({ code: 'audit_trail_not_intact' })
    expect(await apiKeys.pruneAuditTrail(pruning)).toEqual({ events: 1 })
  })

  it('refuses what makes no sense', async () => {
    const rule = 'must be a whole number of days from 1 to 36500'
    for (const [options, pointer, message] of [
      [{}, '#/olderThanDays', 'is required'],
      [{ olderThanDays: 0 }, '#/olderThanDays', rule],
      [{ olderThanDays: 0.5 }, '#/olderThanDays', rule],
      [{ olderThanDays: 36_501 }, '#/olderThanDays', rule],
      [{ olderThanDays: 1, dryRun: 'no' }, '#/dryRun', 'must be true or false'],
      [{ olderThanDays: 1, all: true }, '#/all', 'is not known here'],
    ]) {
      expect(await faultsOf(apiKeys.pruneAuditTrail(options as never))).toEqual([
        { pointer, message },
      ])
    }
  })
})

describe('the use of a retired secret', () => {
  it.each([
    ['203.0.113.7', '203.0.113.7'],
    ['::ffff:203.0.113.7', '203.0.113.7'],
    [`unknown'; DROP TABLE api_keys; --`, null],
    [undefined, null],
  ])(
    'leaves an entry that is ours, with the address that it came from: %s',
    async (ip, address) => {
      const userId = `O'Brien {“a”,\\} \u{1f511}`
      const { apiKey, plainTextKey } = await apiKeys.create(newKey({ userId }))
      await apiKeys.rotate(apiKey.id, { gracePeriodSeconds: 0 })

      for (let use = 0; use < 2; use++) {
        expect(await apiKeys.verify(plainTextKey, { ip })).toEqual({
          valid: false,
          code: 'retired',
        })
        await apiKeys.flush()
      }

      const { events } = await apiKeys.events({ limit: 2 })
      expect(events).toMatchObject([
        { action: 'retired_secret_used', actorType: 'system', userId, address, before: null },
        { action: 'rotated' },
      ])
      expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, entries: 3 })
    },
  )
})
