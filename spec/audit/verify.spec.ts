import { endSql, headText, type Head } from '../../lib/audit/head'
import { hashOf } from '../../lib/audit/chain'
import { createSigner } from '../../lib/audit/signing'
import { msSql } from '../../models/api-key'
import { entryDigestSql } from '../../models/sealed-entry'
import { tablesOf } from '../../models/tables'
import { createKey } from '../support/keys'
import { always, shown, useTrail, type Tampering } from '../support/trail'

const { apiKeys, sequelize, rows, meddle, makeTrail, expectFaults, idAt, createOf } = useTrail()

const signature = { secretId: expect.any(String), mac: expect.stringMatching(/^[0-9a-f]{64}$/) }

describe('verifyAuditTrail', () => {
  it('finds no fault in an empty trail', async () => {
    expect(await apiKeys.verifyAuditTrail()).toEqual({
      isIntact: true,
      entries: 0,
      pruned: 0,
      adopted: 0,
      erased: 0,
      unsealed: 0,
      unverifiable: 0,
      head: { position: 0, hash: '', at: expect.any(String), ...signature },
      faults: [],
      cannotFind: [...always, expect.stringContaining('keep a head elsewhere')],
    })
  })

  it('compares every entry with its seal, and the trail with an older head', async () => {
    const { id } = await makeTrail()
    await createKey(apiKeys, {
      userId: 'O’Brien “”\u{1f511}',
      metadata: { b: [1e21, { 7: '', a: null }], __proto__x: 1 },
    })
    const head = await apiKeys.auditHead()
    await apiKeys.rotate((await createKey(apiKeys, { allowedIps: ['::1'] })).id)
    await apiKeys.revokeAll({ type: 'user', id: 'alice' })

    expect(await apiKeys.verifyAuditTrail({ head })).toEqual({
      isIntact: true,
      entries: 9,
      pruned: 0,
      adopted: 0,
      erased: 0,
      unsealed: 0,
      unverifiable: 0,
      head: {
        position: 9,
        hash: expect.stringMatching(/^[0-9a-f]{64}$/),
        at: expect.any(String),
        ...signature,
      },
      faults: [],
      cannotFind: [...always],
    })
    expect(head.position).toBe(6)
    expect(await apiKeys.get(id)).toMatchObject({ status: 'REVOKED' })
  })

  it.each<Tampering>([
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
          SET (action, reason, before, after, ref, salt, entry_mac, created_at) = (
            SELECT action, reason, before, after, ref, salt, entry_mac, created_at
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
      'an inserted entry without a seal',
      `INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type) SELECT api_key_id, owner_type, owner_id, 'suspended', 'system'
         FROM api_key_events LIMIT 1`,
      [
        ['inserted', null],
        ['contradicted', null],
      ],
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
    // The same holds when there are more entries.
    await createKey(apiKeys)
    const { isIntact, faults: later } = await apiKeys.verifyAuditTrail()
    expect(isIntact).toBe(false)
    expect(later.length).toBeGreaterThanOrEqual(faults.length)
  })
})

/** Makes the chain again from the present entries, like a forger who has read this library. */
async function forge() {
  const forger = createSigner({ secrets: [], acceptUnkeyed: false })
  const [own] = await rows<{ secretId: string | null }>(
    'SELECT secret_id AS "secretId" FROM api_key_audit_head',
  )
  const entries = await rows<{
    position: number
    eventId: string
    sealedAt: number
    digest: string
    stateDigest: string | null
  }>(
    `SELECT seal.position::int, event.id::text AS "eventId", (${msSql('sealed_at')})::float8 AS "sealedAt",
            ${entryDigestSql('event')} AS digest, state_digest AS "stateDigest"
       FROM api_key_event_seals AS seal JOIN api_key_events AS event ON event.id = seal.event_id
      ORDER BY seal.position`,
  )
  // The forger does not have the secret for a valid signature.
  const secretId = own?.secretId ?? null
  const statements: string[] = []
  let hash = ''
  for (const { position, ...entry } of entries) {
    hash = hashOf(hash, { ...entry, isGenuine: true, doubts: null, secretId, blockDigest: null })
    const { mac } = forger.sign('seal', hash)
    statements.push(
      `UPDATE api_key_event_seals SET digest = '${entry.digest}', block_digest = NULL, hash = '${hash}', mac = '${mac}' WHERE position = ${position}`,
    )
  }
  const [found] = await rows<{ json: string }>(endSql(tablesOf('public')))
  const { head } = JSON.parse(String(found?.json)) as { head: Head }
  const forged = forger.sign('head', headText({ ...head, hash }))
  statements.push(`UPDATE api_key_audit_head SET hash = '${hash}', mac = '${forged.mac}'`)
  await meddle(statements.join(';'))
  expect(own).toEqual({ secretId })
}

describe('verifyAuditTrail, against a forger who knows how the trail is made', () => {
  it('finds a chain that was made again without the secret', async () => {
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

  it('says that it cannot find a new chain without secrets', async () => {
    const unkeyed = createOf({})
    await makeTrail(unkeyed)
    await meddle(`UPDATE api_key_events SET reason = 'Found.' WHERE id = #3`)
    const { faults } = await unkeyed.verifyAuditTrail()
    await forge()

    const { isIntact, cannotFind } = await unkeyed.verifyAuditTrail()

    expect(shown(faults)).toEqual([['edited', 3]])
    expect(isIntact).toBe(true)
    expect(cannotFind).toContainEqual(expect.stringContaining('set the option `secrets`'))
  })

  it('finds an entry that passes for one of the library', async () => {
    const { id } = await createKey(apiKeys)
    const values = `'${id}', 'user', 'alice', 'suspended', 'admin', 'root', '{"status": "ACTIVE"}', '{"status": "SUSPENDED"}'`
    const [own] = await rows<{ entryMac: string }>(
      'SELECT entry_mac AS "entryMac" FROM api_key_events',
    )
    for (const mac of ['NULL', `'${own?.entryMac}'`]) {
      await sequelize.query(
        `INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type, actor_id, before, after, entry_mac)
         VALUES (${values}, ${mac})`,
      )
    }

    // Then the entry agrees with the key.
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
      'api_key_id, owner_type, owner_id, action, actor_type, actor_id, before, after, ref, salt, entry_mac'
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

  it('finds a trail that was restored as a whole only with a head that was kept elsewhere', async () => {
    const { id } = await createKey(apiKeys)
    await apiKeys.auditHead()
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
      ...always,
      expect.stringContaining('put back as a whole or started over'),
    ])
    expect(anchored.cannotFind).toEqual([...always])
    expect(shown(anchored.faults)).toEqual([['removed', 2]])
    expect(anchored.faults[0]?.message).toContain(
      'After a failover that lost changes, or a restore',
    )
    expect(shown(goneOn.faults)).toEqual([['edited', 2]])
  })

  it('lists the first 100 of many faults', async () => {
    const keys = await Promise.all(Array.from({ length: 60 }, () => createKey(apiKeys)))
    for (const { id } of keys) await apiKeys.revoke(id)
    await meddle(`UPDATE api_key_events SET reason = 'edited'`)

    const { isIntact, entries, faults } = await apiKeys.verifyAuditTrail()

    expect(isIntact).toBe(false)
    expect(entries).toBe(120)
    expect(faults).toHaveLength(100)
  })
})
