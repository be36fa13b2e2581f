import { stateDigestSql } from '../../models/audit-trail'
import { entryDigestSql } from '../../models/sealed-entry'
import { tablesOf } from '../../models/tables'
import { withoutTriggers } from '../support/fill'
import { createKey, newKey } from '../support/keys'
import { secret, useTrail, type Tampering } from '../support/trail'

const {
  apiKeys,
  sequelize,
  statements,
  rows,
  sealAll,
  meddle,
  makeTrail,
  expectFaults,
  idAt,
  createProcess,
} = useTrail()

/** Verifies the trail, and returns how many statements have read entries of keys. */
async function countReadings(): Promise<number> {
  const { length } = statements.all
  await expectFaults()
  return statements.all.slice(length).filter((text) => /FETCH|api_key_id = ANY\('\{\w/.test(text))
    .length
}

async function stateDigests() {
  const seals = await rows<{ digest: string | null }>(
    'SELECT state_digest AS digest FROM api_key_event_seals ORDER BY position',
  )
  return seals.map(({ digest }) => digest)
}

/** SQL for the digest of a key whose last entry was an entry. */
const digestSql = stateDigestSql('key', {
  last: 'event',
  origin: 'origin',
  digests: `(
    SELECT string_agg(${entryDigestSql('entry')}, '' ORDER BY id) FROM api_key_events AS entry
     WHERE entry.api_key_id = event.api_key_id AND entry.id <= event.id)`,
})
const origin = 'LEFT JOIN api_key_origins AS origin ON origin.api_key_id = key.id'

/** SQL that makes the seals of the last entries fit to the keys. */
const fitStates = `
  UPDATE api_key_event_seals SET state_digest = ${digestSql}
    FROM api_key_events AS event JOIN api_keys AS key ON key.id = event.api_key_id ${origin}
   WHERE event.id = event_id AND position = (SELECT max(position) FROM api_key_event_seals)`

/** The setting that lets a transaction delete entries. */
const { pruning } = tablesOf('public').settings

describe('entries that were false for a moment, while others were sealed', () => {
  it('are found if one was added without a place in the queue, and removed later', async () => {
    const { id } = await createKey(apiKeys)
    await sealAll()
    await sequelize.query(`
      BEGIN;
      UPDATE api_keys SET permissions = '{EXECUTE_GRAPH}';
      DELETE FROM api_key_unsealed_events;
      COMMIT`)
    await apiKeys.update(id, { name: 'Backup' })
    await sealAll()

    await sequelize.query(`
      BEGIN;
      SELECT set_config('${pruning}', pg_current_xact_id()::text, true);
      DELETE FROM api_key_events WHERE NOT EXISTS (SELECT FROM api_key_event_seals WHERE event_id = id);
      COMMIT`)

    await expectFaults(['contradicted', null])
  })

  it.each<[string, string]>([
    [
      'edited with its key',
      `UPDATE api_key_events SET after = jsonb_set(after::jsonb, '{permissions}', '["EXECUTE_GRAPH"]') WHERE id = #1;
       UPDATE api_keys SET permissions = '{EXECUTE_GRAPH}'`,
    ],
    [
      'taken out, a suspension',
      `DELETE FROM api_key_events WHERE id = #2;
       UPDATE api_keys SET (status, event_ref) = (SELECT 'ACTIVE', ref FROM api_key_events WHERE id = #1)`,
    ],
  ])('are found if one was %s, and is back', async (_, sql) => {
    const { id } = await createKey(apiKeys)
    await apiKeys.suspend(id)
    await sealAll()
    await sequelize.query('CREATE TABLE kept_events AS TABLE api_key_events')
    await meddle(sql)
    await apiKeys.update(id, { name: 'Backup' })
    await sealAll()

    await meddle(`
      DELETE FROM api_key_events WHERE id IN (SELECT id FROM kept_events);
      INSERT INTO api_key_events OVERRIDING SYSTEM VALUE SELECT * FROM kept_events`)

    const { faults } = await apiKeys.verifyAuditTrail()
    expect(new Set(faults.map(({ kind }) => kind))).toEqual(new Set(['contradicted']))
  })
})

describe('the keys of entries that are sealed', () => {
  it('are looked up one by one, whatever the number of all keys', async () => {
    await withoutTriggers(
      sequelize,
      `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions, created_at)
       SELECT 'user-' || number, 'Key', 'agpt_000000', '00000000', encode(sha256(number::text::bytea), 'hex'), '{READ_GRAPH}', now() - interval '1 day'
         FROM generate_series(1, 20000) AS number`,
    )
    const { apiKeys: instance, statements: sent } = createProcess({ secrets: [secret] })
    for (let page = 0; page < 3; page++) {
      await instance.createMany(Array.from({ length: 300 }, () => newKey()))
      await instance.flush()
    }
    await sequelize.query('ANALYZE')

    const reading = sent.all.findLast((sql) => sql.includes('WITH own AS')) ?? ''
    const plan = await rows<{ 'QUERY PLAN': string }>(
      `EXPLAIN ${reading.slice(reading.indexOf('WITH own AS'))}`,
    )
    const scans = plan.flatMap(
      (line) => /\w+ Scan .*on api_key(?:s|_origins)\b/.exec(line['QUERY PLAN'])?.[0] ?? [],
    )
    expect(scans).toHaveLength(3)
    expect(scans.filter((scan) => scan.startsWith('Seq'))).toEqual([])
  })
})

describe('verifyAuditTrail, of keys that agreed with their entries when these were sealed', () => {
  it('reads no entry of keys that are still the same', async () => {
    await makeTrail()
    await sequelize.query('DELETE FROM api_keys')
    await createKey(apiKeys)
    await sealAll()

    const digests = await stateDigests()
    expect(digests.map((digest) => digest?.length)).toEqual([64, 64, 64, 64, 64, 64, 64])
    expect(await countReadings()).toBe(0)
  })

  it('reads no entry of a key that was changed twice before a seal', async () => {
    await createKey(apiKeys)
    await sealAll()
    await sequelize.transaction(async (transaction) => {
      const { id } = (await apiKeys.create(newKey(), { transaction })).apiKey
      await apiKeys.suspend(id, { transaction })
    })

    await sealAll()
    expect((await stateDigests()).map((digest) => digest?.length)).toEqual([64, undefined, 64])
    expect(await countReadings()).toBe(0)
  })

  it.each<Tampering>([
    [
      'another state in a seal',
      `UPDATE api_key_event_seals SET state_digest = repeat('a', 64) WHERE position = 5`,
      [['edited', 5]],
    ],
    [
      'no state in a seal',
      'UPDATE api_key_event_seals SET state_digest = NULL WHERE position = 5',
      [['edited', 5]],
    ],
    [
      'a changed key, with a seal that fits',
      `UPDATE api_keys SET name = 'Mine'; ${fitStates}`,
      [
        ['edited', 5],
        ['contradicted', null],
      ],
    ],
    [
      'a key as it was two changes before',
      `UPDATE api_keys SET (status, revoked_at, event_ref) =
         (SELECT 'SUSPENDED', NULL::timestamptz, ref FROM api_key_events WHERE id = #3)`,
      [
        ['contradicted', null],
        ['contradicted', null],
      ],
    ],
  ])('finds %s', async (_, sql, faults) => {
    await makeTrail()

    await meddle(sql)

    await expectFaults(...faults)
  })

  it('finds a key that is back after its deletion', async () => {
    await createKey(apiKeys)
    await sequelize.query('CREATE TABLE kept_key AS TABLE api_keys')
    await sequelize.query('DELETE FROM api_keys')
    await sealAll()
    await expectFaults()

    await meddle('INSERT INTO api_keys SELECT * FROM kept_key')

    await expectFaults(['contradicted', null])
  })

  it('finds an entry between older ones that was sealed behind them', async () => {
    const { id } = await createKey(apiKeys)
    await sequelize.query(`SELECT nextval('api_key_event_register')`)
    await apiKeys.update(id, { name: 'Backup' })
    const last = BigInt(await idAt(2))
    await expectFaults()

    await sequelize.query(
      `INSERT INTO api_key_events (id, api_key_id, owner_type, owner_id, action, actor_type, actor_id, before, after)
       OVERRIDING SYSTEM VALUE
       VALUES (${last - 1n}, $1, 'user', 'alice', 'updated', 'database', 'postgres', '{"name": "Deployment"}', '{"name": "Mine"}')`,
      { bind: [id] },
    )

    await expectFaults(['contradicted', null])
  })

  it('vouches for no key with more than 50 entries, and still finds what became of it', async () => {
    const { id } = await createKey(apiKeys)
    await sequelize.query(
      `DO $$ BEGIN FOR n IN 1..50 LOOP UPDATE api_keys SET name = 'Key ' || n; END LOOP; END $$`,
    )
    await sealAll()
    expect((await stateDigests()).filter((digest) => digest !== null)).toEqual([])
    await expectFaults()

    await meddle(`UPDATE api_keys SET name = 'Mine'`)

    const { faults } = await apiKeys.verifyAuditTrail()
    expect(faults).toMatchObject([
      {
        kind: 'contradicted',
        eventId: await idAt(51),
        message: `The trail and the key ${id} do not agree on name.`,
      },
    ])
  })

  it('finds a TRUNCATE with the keys back', async () => {
    await createKey(apiKeys)
    await sealAll()
    await sequelize.query('CREATE TABLE kept_key AS TABLE api_keys')
    await sequelize.query('TRUNCATE api_keys')
    await sealAll()
    await expectFaults()

    await meddle('INSERT INTO api_keys SELECT * FROM kept_key')

    await expectFaults(['contradicted', null])
  })

  it('vouches again for a key that was changed in several processes at once', async () => {
    const others = [1, 2].map(() => createProcess({ secrets: [secret] }))
    const { id } = await createKey(apiKeys)
    const names = Array.from({ length: 12 }, (_, index) => `Key ${index}`)
    await Promise.all(
      names.map((name, index) =>
        ([apiKeys, ...others.map((one) => one.apiKeys)][index % 3] ?? apiKeys).update(id, { name }),
      ),
    )
    for (const one of others) await one.apiKeys.flush()
    await sealAll()

    expect((await stateDigests()).at(-1)).toHaveLength(64)
    await expectFaults()
  })

  it('says nothing about an owner who was erased from the entries of a key that changed hands', async () => {
    const { id } = await createKey(apiKeys, { userId: 'alice' })
    await sealAll()
    const [before] = await rows<{ sealed: string; made: string }>(
      `SELECT state_digest AS sealed, ${digestSql} AS made
         FROM api_key_event_seals JOIN api_key_events AS event ON event.id = event_id JOIN api_keys AS key ON key.id = event.api_key_id ${origin}`,
    )
    expect(before?.made).toBe(before?.sealed)
    await sequelize.query('CREATE TABLE kept_key AS TABLE api_keys')

    await apiKeys.transfer(id, { type: 'user', id: 'bob' })
    await apiKeys.eraseOwner({ type: 'user', id: 'alice' }, { reason: 'request 1' })

    const [after] = await rows<{ made: string }>(
      `SELECT ${digestSql} AS made
         FROM api_key_event_seals JOIN api_key_events AS event ON event.id = event_id JOIN kept_key AS key ON key.id = event.api_key_id ${origin}
        WHERE position = 1`,
    )
    expect(after?.made).not.toBe(before?.sealed)
    expect((await stateDigests())[0]).toBe(before?.sealed)
    await expectFaults()
  })
})
