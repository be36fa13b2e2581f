import { groupDigestSql, keptSaltSql } from '../../models/sealed-entry'
import { tablesOf } from '../../models/tables'
import { createKey } from '../support/keys'
import { otherSecret, secret, shown, useTrail, type Fault, type Tampering } from '../support/trail'
import { until } from '../support/until'

const world = useTrail()
const { apiKeys, sequelize, rows, meddle, makeOld, holdLock, expectFaults, createOf } = world

const alice = { type: 'user', id: 'alice' } as const
const erasing = { reason: 'Request 4711', revoke: true }
const { erasing: setting } = tablesOf('public').settings

/** SQL that erases the name of an entry as the library does, but without a note. */
const erasedByHand = `
  UPDATE api_key_events AS event
     SET personal_before = NULL, personal_after = NULL, reason = NULL, salt = ${keptSaltSql('event', (group) => String(group === 3))},
         erased = ARRAY[NULL, NULL, NULL, ${groupDigestSql('event', 3)}]`

/** Makes four entries: of a key of Alice, which is erased, and of a key of Bob behind the note. */
async function eraseAlice() {
  await createKey(apiKeys, { userId: 'alice', name: 'Of Alice' })
  await apiKeys.flush()
  const { events } = await apiKeys.eraseOwner(alice, erasing)
  expect(events).toBe(3)
  const bobs = await createKey(apiKeys, { userId: 'bob', name: 'Of Bob' })
  await apiKeys.flush()
  return bobs
}

/** SQL for a note by a forger, who lists the entry of Bob. */
const forgedNote = (actor: string, mac: string) => `
  INSERT INTO api_key_events (action, actor_type, actor_id, reason, ref, entry_mac, after)
  SELECT 'owner_erased', '${actor}', 'root', 'Forged', gen_random_uuid(), ${mac}, json_build_object('erased', json_build_object('0001', ARRAY['#5']))`

const kinds = (list: readonly Fault[]) => list.map((fault) => fault.join(' ')).toSorted()

const parts = (salt?: Buffer) =>
  [0, 16, 32, 48].map((from) => salt?.subarray(from, from + 16).toString('hex'))

describe('an erased trail', () => {
  it.each<Tampering>([
    [
      'a value in the place of an erased one',
      `UPDATE api_key_events SET reason = 'Forged' WHERE id = #1`,
      [['edited', 1]],
    ],
    [
      'another kept digest',
      `UPDATE api_key_events SET erased[1] = sha256('x') WHERE id = #1`,
      [['edited', 1]],
    ],
    [
      'a change of a value that stays',
      `UPDATE api_key_events SET created_at = now() WHERE id = #1`,
      [['edited', 1]],
    ],
    ['an erased entry removed', 'DELETE FROM api_key_events WHERE id = #1', [['removed', 1]]],
    [
      'the note removed',
      'DELETE FROM api_key_events WHERE id = #4',
      [
        ['removed', 4],
        ['edited', 1],
        ['edited', 2],
        ['edited', 3],
      ],
    ],
    [
      'a note that lists fewer entries',
      `UPDATE api_key_events SET after = '{"erased": {}, "unproven": []}' WHERE id = #4`,
      [
        ['edited', 4],
        ['edited', 1],
        ['edited', 2],
        ['edited', 3],
      ],
    ],
    ['an erasing without a note', `${erasedByHand} WHERE id = #5`, [['edited', 5]]],
    [
      'an edit that passes for an erasing, with a note of no secret',
      `${erasedByHand}, after = '{"permissions": ["ADMIN"]}' WHERE id = #5;
       ${forgedNote('admin', `':1:' || repeat('0', 64)`)}`,
      [
        ['edited', 5],
        ['inserted', null],
        ['contradicted', null],
        ['edited', 5],
      ],
    ],
    [
      'an erasing with a note of a trigger',
      `${erasedByHand} WHERE id = #5; ${forgedNote('database', 'NULL')}`,
      [
        ['inserted', null],
        ['edited', 5],
      ],
    ],
    [
      'an erasing with a copy of the note',
      `${erasedByHand} WHERE id = #5;
       INSERT INTO api_key_events (action, actor_type, reason, ref, salt, entry_mac, after)
       SELECT action, actor_type, reason, ref, salt, entry_mac, json_build_object('erased', json_build_object('0001', ARRAY['#5']))
         FROM api_key_events WHERE id = #4`,
      [
        ['inserted', null],
        ['edited', 5],
      ],
    ],
  ])('shows %s', async (_, sql, faults) => {
    await eraseAlice()
    await expectFaults()

    await meddle(sql)

    const { faults: found } = await apiKeys.verifyAuditTrail()
    expect(new Set(kinds(shown(found)))).toEqual(new Set(kinds(faults)))
  })

  it('shows values that are there again', async () => {
    await createKey(apiKeys, { userId: 'alice', name: 'Of Alice' })
    await apiKeys.flush()
    await sequelize.query('CREATE TABLE kept AS SELECT * FROM api_key_events')
    await apiKeys.eraseOwner(alice, erasing)
    await expectFaults()

    await meddle(`
      UPDATE api_key_events AS event SET (owner_id, personal_after, salt, erased) = (kept.owner_id, kept.personal_after, kept.salt, kept.erased)
        FROM kept WHERE kept.id = event.id`)

    const { faults } = await apiKeys.verifyAuditTrail()
    expect(faults).toMatchObject([
      { kind: 'edited', position: 1, message: 'The entry has personal values that were erased.' },
    ])
  })

  it('is kept by a trigger: a role may erase, but write no value, and bring none back', async () => {
    await eraseAlice()
    const asEraser = (sql: string) =>
      sequelize.transaction((transaction) =>
        sequelize.query(
          `SELECT set_config('${setting}', pg_current_xact_id()::text, true); ${sql} WHERE action = 'created'`,
          { transaction },
        ),
      )

    for (const sql of [
      `UPDATE api_key_events SET reason = 'Forged'`,
      `UPDATE api_key_events SET action = 'updated'`,
      `UPDATE api_key_events SET personal_after = NULL`,
      `UPDATE api_key_events SET erased = NULL`,
      `UPDATE api_key_events SET salt = salt`,
    ]) {
      await expect(asEraser(sql)).rejects.toThrow('keeps the audit trail, which is not changed')
    }
    await expectFaults()

    await asEraser(erasedByHand.replace("= 'created'", "= 'created' AND erased IS NULL")).catch(
      () => {},
    )
    await expect(sequelize.query(erasedByHand)).rejects.toThrow('keeps the audit trail')
  })

  it('verifies with an older head, after the secret was exchanged, and without the old secret', async () => {
    await createKey(apiKeys, { userId: 'alice', name: 'Of Alice' })
    const head = await apiKeys.auditHead()
    await apiKeys.eraseOwner(alice, erasing)
    const both = createOf({ secrets: [otherSecret, secret] })
    await createKey(both, { userId: 'bob' })
    expect(await both.verifyAuditTrail({ head })).toMatchObject({ isIntact: true, erased: 3 })

    const after = await createOf({ secrets: [otherSecret] }).verifyAuditTrail()

    expect(after).toMatchObject({ isIntact: true, erased: 3, unverifiable: 0 })
  })

  it('says what it can no longer find', async () => {
    await eraseAlice()

    const { cannotFind } = await apiKeys.verifyAuditTrail()

    expect(cannotFind).toContainEqual(expect.stringContaining('whose entries were erased'))
  })
})

describe('erasing', () => {
  it('leaves no text that a guess could be compared with', async () => {
    await createKey(apiKeys, { userId: 'alice', name: 'Of Alice' })
    await apiKeys.flush()
    const [before] = await rows<{ salt: Buffer }>(
      `SELECT salt FROM api_key_events WHERE action = 'created'`,
    )

    await apiKeys.eraseOwner(alice, erasing)

    const [after] = await rows<{ salt: Buffer }>(
      `SELECT salt FROM api_key_events WHERE action = 'created'`,
    )
    const gone = '0'.repeat(32)
    expect(parts(before?.salt)).not.toContain(gone)
    expect(parts(after?.salt)).toEqual([gone, parts(before?.salt)[1], parts(before?.salt)[2], gone])
  })

  it('is done once by two processes at once', async () => {
    for (let each = 0; each < 5; each++) await createKey(apiKeys, { userId: 'alice' })
    const other = createOf({ sequelize: world.database.connect(), secrets: [secret] })

    const both = await Promise.all([apiKeys, other].map((each) => each.eraseOwner(alice, erasing)))

    expect(both.reduce((sum, { events }) => sum + events, 0)).toBe(15)
    expect(await rows(`SELECT FROM api_key_events WHERE owner_id = 'alice'`)).toEqual([])
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, erased: 15 })
  })

  it('waits for an entry that a transaction has locked, and has erased the others by then', async () => {
    const { id } = await createKey(apiKeys, { userId: 'alice' })
    await createKey(apiKeys, { userId: 'alice' })
    await apiKeys.flush()
    const lock = await holdLock(`SELECT FROM api_key_events WHERE api_key_id = '${id}' FOR UPDATE`)

    const call = apiKeys.eraseOwner(alice, erasing)
    await until(
      async () => (await rows('SELECT FROM api_key_events WHERE erased IS NOT NULL')).length === 5,
    )
    await expectFaults()
    await lock.release()

    expect((await call).events).toBe(6)
    await expectFaults()
  })

  it('goes on after it was stopped half-way, and verifies in between', async () => {
    await sequelize.query(`
      INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type, actor_id, after)
      SELECT gen_random_uuid(), 'user', 'alice', 'deleted', 'database', 'x', '{}' FROM generate_series(1, 4500)`)
    await apiKeys.auditHead()
    await sequelize.query(`
      CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF (SELECT count(*) FROM api_key_events WHERE erased IS NOT NULL) > 0 THEN RAISE 'stopped'; END IF; RETURN NEW; END $$;
      CREATE TRIGGER stop BEFORE INSERT ON api_key_events FOR EACH ROW WHEN (NEW.action = 'owner_erased') EXECUTE FUNCTION stop()`)

    await expect(apiKeys.eraseOwner(alice, erasing)).rejects.toThrow('stopped')
    const between = await apiKeys.verifyAuditTrail()
    await sequelize.query('DROP TRIGGER stop ON api_key_events; DROP FUNCTION stop()')
    const { events } = await apiKeys.eraseOwner(alice, erasing)

    expect(between).toMatchObject({ isIntact: true, erased: 2_000 })
    expect(events).toBe(2_500)
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, erased: 4_500 })
    expect((await apiKeys.events({ action: 'owner_erased' })).events).toHaveLength(3)
  })

  it('reports an entry that the library did not write, also after it was erased', async () => {
    await createKey(apiKeys, { userId: 'alice' })
    await sequelize.query(`
      INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type, actor_id, ref, entry_mac)
      SELECT gen_random_uuid(), 'user', 'alice', 'deleted', 'admin', 'root', gen_random_uuid(), entry_mac FROM api_key_events`)
    await expectFaults(['inserted', 2])

    await apiKeys.eraseOwner(alice, erasing)

    await expectFaults(['inserted', 2])
  })
})

describe('a note of a secret that the app does not have', () => {
  it('is unverifiable, and lets nothing be pruned', async () => {
    await makeOld(400)
    await createKey(apiKeys, { userId: 'bob' })
    await meddle(`${erasedByHand} WHERE id = #1`)
    await sequelize.query(`
      INSERT INTO api_key_events (action, actor_type, ref, entry_mac, after)
      SELECT 'owner_erased', 'system', gen_random_uuid(), repeat('f', 16) || ':1:' || repeat('0', 64),
             json_build_object('erased', json_build_object('0001', json_agg(id::text))) FROM api_key_events WHERE erased IS NOT NULL`)

    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: false, unverifiable: 1 })
    await expect(apiKeys.pruneAuditTrail({ olderThanDays: 365 })).rejects.toMatchObject({
      code: 'audit_trail_not_intact',
    })
  })
})

describe('pruning and erasing', () => {
  it('erase what pruned entries said of keys, and the trail goes on', async () => {
    const { id } = await makeOld(400)
    await createKey(apiKeys, { userId: 'bob' })
    await apiKeys.pruneAuditTrail({ olderThanDays: 365 })
    const state = () =>
      rows<{ state: object }>(`SELECT state FROM api_key_origins WHERE api_key_id = '${id}'`)
    expect(await state()).toMatchObject([{ state: { userId: 'alice', name: 'Deployment' } }])

    await apiKeys.eraseOwner(alice, erasing)

    expect(await state()).toEqual([
      { state: expect.not.objectContaining({ userId: 'alice', name: 'Deployment' }) },
    ])
    await expectFaults()
    await meddle(`UPDATE api_key_origins SET state = state - 'isErased'`)
    await expectFaults(['checkpoint_changed', 1])
  })

  it('prune erased entries of a key that has another owner by now, and still compare what was not personal', async () => {
    const { id } = await makeOld(400)
    await apiKeys.transfer(id, { type: 'user', id: 'bob' })
    await apiKeys.eraseOwner(alice, erasing)
    expect(await apiKeys.pruneAuditTrail({ olderThanDays: 365 })).toEqual({ events: 1 })

    await expectFaults()
    await apiKeys.update(id, { name: 'Of Bob' })
    await expectFaults()
    await meddle(`UPDATE api_keys SET permissions = '{ADMIN}'`)
    expect((await apiKeys.verifyAuditTrail()).isIntact).toBe(false)
  })

  it('refuse to prune an erasing without a note', async () => {
    await makeOld(400)
    await createKey(apiKeys, { userId: 'bob' })
    await meddle(`${erasedByHand} WHERE id = #1`)

    await expect(apiKeys.pruneAuditTrail({ olderThanDays: 365 })).rejects.toMatchObject({
      code: 'audit_trail_not_intact',
    })
  })
})
