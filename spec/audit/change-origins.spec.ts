import { randomUUID } from 'node:crypto'

import { createKey, newKey } from '../support/keys'
import { useTrail } from '../support/trail'

const { apiKeys, sequelize, rows, meddle, expectFaults } = useTrail()

const role = `spec_${randomUUID().replaceAll('-', '')}`

beforeAll(() =>
  rows(`CREATE ROLE ${role}; GRANT SELECT, INSERT, UPDATE, DELETE ON api_keys TO ${role}`),
)

/** Runs statements in one transaction, by a role that has rights on the keys alone. */
async function changeByRole(sql: string) {
  await sequelize.query(`BEGIN; SET LOCAL ROLE ${role}; ${sql}; COMMIT`)
}

/** The actions and the kinds of actors of all entries, oldest first. */
async function entries(): Promise<string[]> {
  const { events } = await apiKeys.events({ limit: 100 })
  return events.toReversed().map(({ action, actorType }) => `${action} by ${actorType}`)
}

const otherHash = `md5('x') || md5('y')`

describe('a role that may write keys and no entries', () => {
  it('leaves an entry for a key that it inserts with a reference and an old time', async () => {
    await changeByRole(`
      INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions, event_ref, created_at)
      VALUES ('mallory', 'By hand', 'agpt_abc123', 'abcd1234', ${otherHash}, '{READ_GRAPH}', gen_random_uuid(), '2000-01-01')`)

    expect(await entries()).toEqual(['created by database'])
    await expectFaults()
  })

  it('leaves entries for a hash that it exchanges under a new reference, and for the old reference put back', async () => {
    await createKey(apiKeys)

    await changeByRole(`
      CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT event_ref FROM api_keys;
      UPDATE api_keys SET hash = ${otherHash}, event_ref = gen_random_uuid();
      UPDATE api_keys SET event_ref = (SELECT event_ref FROM kept)`)

    expect(await entries()).toEqual([
      'created by system',
      'rotated by database',
      'updated by database',
    ])
    await expectFaults()
  })

  it('leaves an entry for a status that it changes with an old reference of the same key', async () => {
    const { id } = await createKey(apiKeys)
    const [old] = await rows<{ ref: string }>('SELECT event_ref::text AS ref FROM api_keys')
    await apiKeys.suspend(id)

    await changeByRole(`UPDATE api_keys SET status = 'ACTIVE', event_ref = '${old?.ref}'`)

    expect(await entries()).toEqual([
      'created by system',
      'suspended by system',
      'reactivated by database',
    ])
    // The row no longer names the last entry of the library.
    await expectFaults(['contradicted', null])
  })

  it('leaves an entry for a change with the newest reference, which an older transaction has written', async () => {
    await createKey(apiKeys)
    const [key] = await rows<{ ref: string }>('SELECT event_ref::text AS ref FROM api_keys')

    await changeByRole(`
      UPDATE api_keys SET event_ref = NULL;
      UPDATE api_keys SET status = 'SUSPENDED', event_ref = '${key?.ref}'`)

    expect(await entries()).toEqual([
      'created by system',
      'updated by database',
      'suspended by database',
    ])
    await expectFaults()
  })

  it('leaves an entry for a change with a reference that it sets after a savepoint', async () => {
    await createKey(apiKeys)

    await changeByRole(`
      SAVEPOINT one; UPDATE api_keys SET status = 'SUSPENDED', event_ref = gen_random_uuid(); RELEASE SAVEPOINT one;
      SAVEPOINT two; UPDATE api_keys SET event_ref = NULL; ROLLBACK TO SAVEPOINT two`)

    expect(await entries()).toEqual(['created by system', 'suspended by database'])
    await expectFaults(['contradicted', null])
  })

  it('leaves an entry for a key that it deletes', async () => {
    await createKey(apiKeys)

    await changeByRole('DELETE FROM api_keys')

    expect(await entries()).toEqual(['created by system', 'deleted by database'])
    await expectFaults()
  })
})

describe('a change by the library', () => {
  it('has one entry, in savepoints of the caller as well, and none if the savepoint was rolled back', async () => {
    const { id } = await createKey(apiKeys)

    await sequelize.transaction(async (outer) => {
      await apiKeys.suspend(id, { transaction: outer })
      await sequelize.transaction({ transaction: outer }, async (transaction) => {
        await apiKeys.reactivate(id, { transaction })
        await apiKeys.create(newKey(), { transaction })
      })
      await sequelize
        .transaction({ transaction: outer }, async (transaction) => {
          await apiKeys.revoke(id, { transaction })
          throw new Error('not now')
        })
        .catch(() => {})
      await apiKeys.update(id, { name: 'Backup' }, { transaction: outer })
    })

    expect(await entries()).toEqual(
      ['created', 'suspended', 'reactivated', 'created', 'updated'].map(
        (action) => `${action} by system`,
      ),
    )
    await expectFaults()
  })

  it('and a change by SQL have an entry each, in one transaction', async () => {
    const { id } = await createKey(apiKeys)

    await sequelize.transaction(async (transaction) => {
      await apiKeys.suspend(id, { transaction })
      await sequelize.query(`UPDATE api_keys SET status = 'ACTIVE'`, { transaction })
      await apiKeys.update(id, { name: 'Backup' }, { transaction })
      await sequelize.query(`UPDATE api_keys SET name = 'By hand', event_ref = gen_random_uuid()`, {
        transaction,
      })
    })

    expect(await entries()).toEqual([
      'created by system',
      'suspended by system',
      'reactivated by database',
      'updated by system',
      'updated by database',
    ])
  })

  it('has one entry, although old secrets of the key are used at the same time', async () => {
    const { apiKey, plainTextKey } = await apiKeys.create(newKey())
    await apiKeys.rotate(apiKey.id, { gracePeriodSeconds: 0 })
    await apiKeys.verify(plainTextKey)
    await apiKeys.flush()

    await apiKeys.suspend(apiKey.id)

    expect(await entries()).toEqual(
      ['created', 'rotated', 'retired_secret_used', 'suspended'].map(
        (action) => `${action} by system`,
      ),
    )
    await expectFaults()
  })

  it('has one entry per key if many keys are revoked or deleted at once', async () => {
    for (let made = 0; made < 3; made++) await createKey(apiKeys)
    await apiKeys.revokeAll({ type: 'user', id: 'alice' })
    await meddle(`UPDATE api_keys SET revoked_at = '2000-01-01'`)

    await apiKeys.pruneRevoked({ olderThanDays: 1 })

    expect(await entries()).toEqual(
      ['created', 'revoked', 'deleted'].flatMap((action) =>
        Array.from({ length: 3 }, () => `${action} by system`),
      ),
    )
    await expectFaults()
  })
})

describe('the digests of hashes in the trail', () => {
  it('distinguish the secrets of a key, and no call shows them', async () => {
    const { apiKey } = await apiKeys.create(newKey())
    await apiKeys.rotate(apiKey.id, { gracePeriodSeconds: 60 })
    await apiKeys.endRotation(apiKey.id)

    const stored = await rows<{ before: Digests | null; after: Digests }>(
      'SELECT before, after FROM api_key_events ORDER BY id',
    )
    const [created, rotated, ended] = stored
    const [{ digest } = { digest: '' }] = await rows<{ digest: string }>(
      `SELECT encode(sha256(convert_to(hash, 'UTF8')), 'hex') AS digest FROM api_keys`,
    )

    expect(created?.after).toMatchObject({ previousHashDigest: null })
    expect(rotated?.before).toMatchObject({
      hashDigest: created?.after.hashDigest,
      previousHashDigest: null,
    })
    expect(rotated?.after).toMatchObject({
      hashDigest: digest,
      previousHashDigest: created?.after.hashDigest,
    })
    expect(ended?.before).toMatchObject({ previousHashDigest: created?.after.hashDigest })
    expect(ended?.after).toMatchObject({ previousHashDigest: null })
    const { events } = await apiKeys.events()
    expect(JSON.stringify(events)).not.toMatch(/digest/i)
    await expectFaults()
  })
})

interface Digests {
  hashDigest?: string
  previousHashDigest?: string | null
}
