import { hashOf, entriesDigestSql, sealsDigestSql, type SealedEntry } from '../../lib/audit/chain'
import { createSigner } from '../../lib/audit/signing'
import { msSql } from '../../models/api-key'
import { entryDigestSql } from '../../models/sealed-entry'
import { signExport } from '../../lib/audit/head'
import { createKey, newKey } from '../support/keys'
import {
  secret,
  shown,
  useTrail,
  useTrailForEach,
  type Fault,
  type Tampering,
} from '../support/trail'

const world = useTrail()
const { apiKeys, sequelize, statements, rows, sealAll, meddle, expectFaults } = world

/** Makes a block of one entry, a block of five, and a block of one. The entries are of keys of their own. */
async function makeBlocks() {
  await createKey(apiKeys)
  await sealAll()
  await apiKeys.createMany(Array.from({ length: 5 }, () => newKey()))
  await sealAll()
  await createKey(apiKeys)
  await sealAll()
  expect(await closings()).toEqual([1, 6, 7])
}

/** Returns the places of the seals that close blocks. */
async function closings() {
  const sql =
    'SELECT position::int FROM api_key_event_seals WHERE block_digest IS NOT NULL ORDER BY position'
  return (await rows<{ position: number }>(sql)).map(({ position }) => position)
}

/** Returns how many statements of a verification have read seals or entries one by one. */
async function countReadings(...faults: Fault[]): Promise<number> {
  const { length } = statements.all
  await expectFaults(...faults)
  return statements.all
    .slice(length)
    .filter((text) => /to_json\(doubts\)|\bfound = digest/.test(text)).length
}

/** SQL that makes the digest of the block at 2 to 6 fit to its seals and entries. */
const fitBlock = `
  UPDATE api_key_event_seals SET block_digest = encode(sha256(convert_to(concat_ws(E'\\n', 'block',
           (SELECT hash FROM api_key_event_seals WHERE position = 1),
           (SELECT ${sealsDigestSql('seal', 'position < 6')} FROM (SELECT * FROM api_key_event_seals WHERE position BETWEEN 2 AND 6 ORDER BY position) AS seal),
           (SELECT ${entriesDigestSql('event', 'ORDER BY id')} FROM api_key_events AS event JOIN api_key_event_seals ON event_id = id WHERE position BETWEEN 2 AND 6)
         ), 'UTF8')), 'hex') WHERE position = 6`

/** SQL that makes the digests of entries in seals fit. */
const fitDigests = `
  UPDATE api_key_event_seals SET digest = ${entryDigestSql('event')} FROM api_key_events AS event WHERE event.id = event_id`

/** Makes the hashes from one place on fit, like a forger who has read this library. The forger has no secret. */
async function forgeHashes(from: number) {
  const forger = createSigner({ secrets: [], acceptUnkeyed: false })
  const seals = await rows<SealedEntry & { position: number; hash: string }>(
    `SELECT position::int, event_id::text AS "eventId", is_genuine AS "isGenuine", doubts, secret_id AS "secretId", digest, hash,
            state_digest AS "stateDigest", block_digest AS "blockDigest", (${msSql('sealed_at')})::float8 AS "sealedAt"
       FROM api_key_event_seals ORDER BY position`,
  )
  for (const [index, seal] of seals.entries()) {
    if (seal.position < from) continue
    if (seal.position === 6) {
      await meddle(fitBlock)
      const [closing] = await rows<{ digest: string }>(
        'SELECT block_digest AS digest FROM api_key_event_seals WHERE position = 6',
      )
      seal.blockDigest = closing?.digest ?? null
    }
    seal.hash = hashOf(seals[index - 1]?.hash ?? '', seal)
    const mac = seal.blockDigest === null ? 'NULL' : `'${forger.sign('seal', seal.hash).mac}'`
    await meddle(
      `UPDATE api_key_event_seals SET hash = '${seal.hash}', mac = ${mac} WHERE position = ${seal.position}`,
    )
  }
}

describe('verifyAuditTrail, of entries that were sealed at once', () => {
  it('looks at no seal and no entry alone if nothing has changed', async () => {
    await makeBlocks()

    expect(await countReadings()).toBe(0)
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({
      entries: 7,
      unsealed: 0,
      isIntact: true,
    })
  })

  it('looks at none alone whatever ids the other entries between them have', async () => {
    // Of different users: a transaction holds the lock of its user.
    const late = await sequelize.transaction()
    await apiKeys.create(newKey({ userId: 'bob' }), { transaction: late })
    await apiKeys.createMany(Array.from({ length: 3 }, () => newKey()))
    const later = await sequelize.transaction()
    await apiKeys.create(newKey({ userId: 'carol' }), { transaction: later })
    await createKey(apiKeys)
    await sealAll()
    await later.commit()
    await createKey(apiKeys)
    await sealAll()
    await late.commit()
    await sealAll()

    const ids = await rows<{ id: string }>(
      'SELECT event_id::text AS id FROM api_key_event_seals ORDER BY position',
    )
    expect(ids).not.toEqual(ids.toSorted((a, b) => Number(a.id) - Number(b.id)))
    expect(await countReadings()).toBe(0)
  })

  it.each<Tampering>([
    [
      'an edited entry',
      `UPDATE api_key_events SET reason = 'Found.' WHERE id = #4`,
      [['edited', 4]],
    ],
    [
      'an edited entry with digests that fit',
      `UPDATE api_key_events SET reason = 'Found.' WHERE id = #4; ${fitDigests}; ${fitBlock}`,
      [
        ['edited', 4],
        ['edited', 6],
      ],
    ],
    [
      'an edited entry with a digest of the block that fits',
      `UPDATE api_key_events SET reason = 'Found.' WHERE id = #4; ${fitBlock}`,
      [
        ['edited', 6],
        ['edited', 4],
      ],
    ],
    [
      'an edited last entry of the block',
      `UPDATE api_key_events SET reason = 'Found.' WHERE id = #6`,
      [['edited', 6]],
    ],
    [
      'a removed entry',
      'DELETE FROM api_key_events WHERE id = #3',
      [
        ['removed', 3],
        ['contradicted', null],
      ],
    ],
    [
      'an entry removed with its seal',
      'DELETE FROM api_key_events WHERE id = #3; DELETE FROM api_key_event_seals WHERE event_id = #3',
      [
        ['removed', 3],
        ['contradicted', null],
      ],
    ],
    [
      'two entries that changed places',
      `UPDATE api_key_events AS event
          SET (api_key_id, after, personal_after, ref, salt, entry_mac, created_at) = (
            SELECT api_key_id, after, personal_after, ref, salt, entry_mac, created_at
              FROM api_key_events AS other WHERE other.id = #3 + #4 - event.id
          )
        WHERE id IN (#3, #4)`,
      [
        ['reordered', 3],
        ['reordered', 4],
      ],
    ],
    [
      'another time in a seal',
      `UPDATE api_key_event_seals SET sealed_at = sealed_at + interval '1 ms' WHERE position = 3`,
      [['edited', 3]],
    ],
    [
      'another time in all seals',
      `UPDATE api_key_event_seals SET sealed_at = sealed_at + interval '1 ms' WHERE position BETWEEN 2 AND 6`,
      [2, 3, 4, 5, 6].map((position): Fault => ['edited', position]),
    ],
    [
      'another secret in a seal',
      `UPDATE api_key_event_seals SET secret_id = NULL WHERE position = 3`,
      [['edited', 3]],
    ],
    [
      'a seal that is no longer genuine',
      `UPDATE api_key_event_seals SET is_genuine = false WHERE position = 3`,
      [['edited', 3]],
    ],
    [
      'another state in a seal',
      `UPDATE api_key_event_seals SET state_digest = NULL WHERE position = 3`,
      [['edited', 3]],
    ],
    [
      'another hash in a seal',
      `UPDATE api_key_event_seals SET hash = repeat('a', 64) WHERE position = 3`,
      [
        ['edited', 3],
        ['edited', 4],
      ],
    ],
    [
      'doubts in a seal',
      `UPDATE api_key_event_seals SET doubts = '[' WHERE position = 3`,
      [
        ['head_changed', 3],
        ['edited', 3],
      ],
    ],
    [
      'a signature within the block',
      `UPDATE api_key_event_seals SET mac = repeat('a', 64) WHERE position = 3`,
      [['edited', 3]],
    ],
    [
      'no digest of the block',
      'UPDATE api_key_event_seals SET block_digest = NULL WHERE position = 6',
      [['edited', 6]],
    ],
    [
      'another digest of the block',
      `UPDATE api_key_event_seals SET block_digest = repeat('a', 64) WHERE position = 6`,
      [['edited', 6]],
    ],
    [
      'a digest within the block',
      `UPDATE api_key_event_seals SET block_digest = repeat('a', 64) WHERE position = 4`,
      [['edited', 4]],
    ],
    [
      'no signature of the block',
      'UPDATE api_key_event_seals SET mac = NULL WHERE position = 6; UPDATE api_key_audit_head SET mac = NULL',
      [['head_changed', 7]],
    ],
    [
      'another block removed',
      'DELETE FROM api_key_events WHERE id = #1; DELETE FROM api_key_event_seals WHERE position = 1',
      [
        ['removed', 1],
        ['contradicted', null],
      ],
    ],
  ])('finds %s', async (_, sql, faults) => {
    await makeBlocks()

    await meddle(sql)

    await expectFaults(...faults)
  })

  it('finds an entry without a seal whose id is between those of a block', async () => {
    await sequelize.transaction(async (transaction) => {
      await apiKeys.create(newKey(), { transaction })
      await sequelize.query(`SELECT nextval('api_key_event_register')`, { transaction })
      await apiKeys.create(newKey(), { transaction })
    })
    await sealAll()
    expect(await closings()).toEqual([2])

    await meddle(`
      INSERT INTO api_key_events (id, action, actor_type) OVERRIDING SYSTEM VALUE VALUES (#2 - 1, 'updated', 'system');
      DELETE FROM api_key_unsealed_events`)

    await expectFaults(['inserted', null])
  })

  it('finds an entry that was moved to another id of its block', async () => {
    await sequelize.transaction(async (transaction) => {
      await apiKeys.create(newKey(), { transaction })
      await sequelize.query(`SELECT nextval('api_key_event_register')`, { transaction })
      await apiKeys.create(newKey(), { transaction })
    })
    await sealAll()
    expect(await closings()).toEqual([2])

    await meddle(`
      CREATE TEMP TABLE moved ON COMMIT DROP AS SELECT * FROM api_key_events WHERE id = #2;
      DELETE FROM api_key_events WHERE id = #2;
      UPDATE moved SET id = id - 1;
      INSERT INTO api_key_events OVERRIDING SYSTEM VALUE SELECT * FROM moved`)

    await expectFaults(['removed', 2], ['inserted', null])
  })

  it('finds an edited entry with digests and hashes that fit, because the signature does not', async () => {
    await makeBlocks()
    await meddle(`UPDATE api_key_events SET reason = 'Found.' WHERE id = #4; ${fitDigests}`)
    await forgeHashes(4)

    const { faults } = await apiKeys.verifyAuditTrail()

    expect(shown(faults)).toEqual([
      ['edited', 6],
      ['edited', 7],
      ['edited', 7],
    ])
  })

  it('says each time that an entry was forged before it was sealed, and finds an edit beside it', async () => {
    await sequelize.transaction(async (transaction) => {
      await apiKeys.create(newKey(), { transaction })
      await sequelize.query(
        `INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type)
         VALUES (gen_random_uuid(), 'user', 'alice', 'retired_secret_used', 'system')`,
        { transaction },
      )
    })
    await sealAll()
    expect(await closings()).toEqual([])
    await expectFaults(['inserted', 2])

    await meddle(`UPDATE api_key_events SET reason = 'Found.' WHERE id = #1`)

    await expectFaults(['edited', 1], ['inserted', 2])
  })

  it('finds an edit beside an entry that was erased', async () => {
    await apiKeys.createMany([newKey({ userId: 'alice' }), newKey({ userId: 'bob' })])
    await sealAll()
    await apiKeys.eraseOwner({ type: 'user', id: 'alice' }, { reason: 'Request 1', revoke: true })
    await sealAll()
    await expectFaults()

    await meddle(`UPDATE api_key_events SET reason = 'Found.' WHERE id = #2`)

    await expectFaults(['edited', 2])
  })

  it('compares a head from within a block', async () => {
    await makeBlocks()
    const signer = createSigner({ secrets: [secret], acceptUnkeyed: false })
    const [seal] = await rows<{ hash: string }>(
      'SELECT hash FROM api_key_event_seals WHERE position = 4',
    )
    const head = signExport(signer, { position: 4, hash: seal?.hash ?? '' })
    const other = signExport(signer, { position: 4, hash: 'a'.repeat(64) })

    expect((await apiKeys.verifyAuditTrail({ head })).faults).toEqual([])
    expect(shown((await apiKeys.verifyAuditTrail({ head: other })).faults)).toEqual([['edited', 4]])
  })

  it('finds edited times in two blocks', async () => {
    await makeBlocks()
    await meddle(`
      UPDATE api_key_events SET created_at = now() - interval '400 days' WHERE id IN (#1, #2, #3);
      UPDATE api_key_event_seals SET sealed_at = now() - interval '400 days' WHERE position <= 3`)

    const { faults } = await apiKeys.verifyAuditTrail()

    expect(shown(faults)).toEqual([1, 2, 3].map((position) => ['edited', position]))
  })
})

/** SQL that removes the rules for the values of a column of seals. */
const free = (column: string) => `
  ALTER TABLE api_key_event_seals ALTER ${column} DROP NOT NULL, DROP CONSTRAINT IF EXISTS api_key_event_seals_${column}_check`

describe('verifyAuditTrail, of seals in a table without its rules', () => {
  const {
    world: ownWorld,
    sealAll: sealOwn,
    meddle: meddleOwn,
    expectFaults: expectOwn,
  } = useTrailForEach()

  async function makeBlock() {
    await ownWorld.apiKeys.createMany(Array.from({ length: 4 }, () => newKey()))
    await sealOwn()
    await expectOwn()
  }

  /** SQL for the line of a seal in the digest of its block, from its hash on. */
  const hashAndNextLine = `
    SELECT seal.hash || E'\\n' || next.position || ':' || next.event_id || ':' || next.is_genuine::text || ':' || next.digest || ':'
           || coalesce(next.state_digest, 'unknown') || ':' || next.hash AS text
      FROM api_key_event_seals AS seal JOIN api_key_event_seals AS next ON next.position = seal.position + 1 WHERE seal.position = 2`

  it.each<Tampering>([
    [
      'a seal without its time',
      `${free('sealed_at')}; UPDATE api_key_event_seals SET sealed_at = NULL WHERE position = 2`,
      [['edited', 2]],
    ],
    [
      'a seal without its hash',
      `${free('hash')}; UPDATE api_key_event_seals SET hash = NULL WHERE position = 2`,
      [
        ['edited', 2],
        ['edited', 3],
      ],
    ],
    [
      'a hash that has the next seal in it, which has another entry',
      `${free('hash')}; ${free('is_genuine')};
       UPDATE api_key_event_seals SET hash = line.text FROM (${hashAndNextLine}) AS line WHERE position = 2;
       UPDATE api_key_event_seals SET is_genuine = NULL, event_id = -5 WHERE position = 3;
       ALTER TABLE api_key_events ALTER id SET GENERATED BY DEFAULT;
       UPDATE api_key_events SET id = -5 WHERE id = #2;
       UPDATE api_key_events SET id = #2 WHERE id = #3`,
      [
        ['inserted', 3],
        ['edited', 2],
        ['edited', 3],
        ['contradicted', null],
      ],
    ],
    [
      'a hash that has all values of the seal in it, which has another entry',
      `${free('hash')};
       UPDATE api_key_events SET reason = 'Found.' WHERE id = #2;
       UPDATE api_key_event_seals SET (hash, digest) = (
         SELECT concat_ws(E'\\x1f', hash, seal.digest, event_id, left(is_genuine::text, 1), secret_id, mac,
                          coalesce(state_digest, 'unknown'), block_digest, date_part('epoch', sealed_at) * 1000, ''),
                ${entryDigestSql('event')}
           FROM api_key_event_seals AS seal JOIN api_key_events AS event ON id = event_id WHERE position = 2
       ) WHERE position = 2`,
      [
        ['edited', 2],
        ['edited', 3],
      ],
    ],
  ])('finds %s', async (_, sql, faults) => {
    await makeBlock()

    await meddleOwn(sql)

    await expectOwn(...faults)
  })

  it('says that the library did not write an entry whose seal no longer says so', async () => {
    await ownWorld.sequelize.query(`
      INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type)
      VALUES (gen_random_uuid(), 'user', 'alice', 'retired_secret_used', 'system')`)
    await sealOwn()
    await expectOwn(['inserted', 1])

    await meddleOwn(`${free('is_genuine')}; UPDATE api_key_event_seals SET is_genuine = NULL`)

    await expectOwn(['inserted', 1])
  })

  it('finds an entry that got an id below 1 before it was sealed', async () => {
    await makeBlock()

    await meddleOwn(`
      INSERT INTO api_key_events (id, action, actor_type) OVERRIDING SYSTEM VALUE VALUES (-5, 'updated', 'database');
      INSERT INTO api_key_unsealed_events (event_id) VALUES (-5)`)
    await sealOwn()

    await expectOwn(['inserted', 5])
  })
})
