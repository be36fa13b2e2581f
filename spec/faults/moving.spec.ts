import { QueryTypes, Sequelize } from 'sequelize'

import { tablesOf } from '../../models/tables'
import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { newKey } from '../support/keys'
import { makeEmptyTables, startMove, type Move } from './replication'
import { createCleanup, monotonicMs, waitUntil } from './waiting'

const cleanup = createCleanup()

afterEach(() => cleanup.run())

const boundMs = 1_000

async function setUp() {
  const move = await startMove()
  cleanup.defer(() => move.remove())
  return { move, apiKeys: createOn(move.onSource) }
}

/** A process of the app, on one of the servers. */
function createOn(sequelize: Sequelize): TestApiKeys {
  const apiKeys = createTestApiKeys(
    { connect: () => sequelize },
    { maxStalenessMs: boundMs, secrets: ['a secret of at least 32 bytes, for specs'] },
  )
  cleanup.defer(() => apiKeys.close().catch(() => {}))
  return apiKeys
}

interface KnownKey {
  id: string
  plainTextKey: string
}

async function createKnownKey(apiKeys: TestApiKeys): Promise<KnownKey> {
  const { apiKey, plainTextKey } = await apiKeys.create(newKey())
  return { id: apiKey.id, plainTextKey }
}

/** The number of keys that are made by SQL. */
async function fill(sequelize: Sequelize, count: number) {
  await sequelize.query(
    `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
     SELECT 'many', 'Bulk', 'agpt_000000', '00000000', md5(n::text) || md5(n::text), '{READ_GRAPH}'
       FROM generate_series(1, ${count}) AS n`,
  )
}

/** Changes keys in every way until it is stopped, and returns the number of changes. */
function keepChanging(apiKeys: TestApiKeys, sequelize: Sequelize) {
  const over = new AbortController()
  let changes = 0

  async function change() {
    while (!over.signal.aborted) {
      const { id } = await createKnownKey(apiKeys)
      await apiKeys.update(id, { name: `name ${changes}` })
      await sequelize.query(`UPDATE api_keys SET status = 'SUSPENDED' WHERE id = '${id}'`)
      await apiKeys.rotate((await createKnownKey(apiKeys)).id)
      await sequelize.query(`DELETE FROM api_keys WHERE id = '${id}'`)
      changes++
    }
  }
  const changing = change()

  return async function stop() {
    over.abort()
    await changing
    return changes
  }
}

/** Removes the oldest entries of the log and of the audit trail, like pruning. */
async function prune(sequelize: Sequelize) {
  await sequelize.query(
    `SELECT set_config('${tablesOf('public').settings.pruning}', pg_current_xact_id()::text, true);
     DELETE FROM api_key_revisions WHERE revision = (SELECT min(revision) FROM api_key_revisions);
     DELETE FROM api_key_event_seals WHERE position = 1;
     DELETE FROM api_key_events WHERE id = (SELECT min(id) FROM api_key_events)`,
  )
}

/** The keys, their entries in the log with the numbers, and their entries in the audit trail. */
async function contentOf(sequelize: Sequelize) {
  const [content] = await sequelize.query<object>(
    `SELECT (SELECT json_agg(entry ORDER BY revision)::text FROM api_key_revisions AS entry) AS log,
            (SELECT count(*)::int FROM api_key_changes) AS changes,
            (SELECT json_agg(json_build_array(id, action, actor_type) ORDER BY id)::text FROM api_key_events) AS trail,
            (SELECT md5(string_agg(key::text, ' ' ORDER BY id)) FROM api_keys AS key) AS keys`,
    { type: QueryTypes.SELECT },
  )
  return content
}

/** Checks the promise of the library with two processes after a move. */
async function expectBoundHeld(makers: [TestApiKeys, TestApiKeys], { id, plainTextKey }: KnownKey) {
  const [maker, other] = makers
  for (const each of makers) {
    await waitUntil('the process follows the log', async () => {
      await each.verify(plainTextKey).catch(() => {})
      return (await each.health()).feed === 'following'
    })
    expect(await each.verify(plainTextKey)).toMatchObject({ valid: true })
  }

  await maker.revoke(id)
  const revokedAt = monotonicMs()

  expect(await maker.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
  let acceptedAt = -Infinity
  await waitUntil('the other process refuses the key', async () => {
    const sentAt = monotonicMs()
    const { valid } = await other.verify(plainTextKey)
    if (valid) acceptedAt = sentAt
    return !valid
  })
  expect(acceptedAt - revokedAt).toBeLessThan(boundMs)
}

/** A process on the target accepts nothing while the target may lag behind. */
async function expectNoLease(move: Move, plainTextKey: string) {
  const early = createOn(move.target.connect())
  await expect(early.verify(plainTextKey)).rejects.toMatchObject({ code: 'database_unavailable' })
  await waitUntil('the process knows what feeds the table', async () => {
    await early.verify(plainTextKey).catch(() => {})
    return (await early.health()).feed === 'subscriber'
  })
  expect((await early.health()).lease.isLive).toBe(false)
  return early
}

describe('a move by logical replication', () => {
  it.each([
    ['with transactions applied at their end', 'streaming = off'],
    ['with long transactions applied by parallel workers', 'streaming = parallel'],
  ])('of all tables, %s', async (_, options) => {
    const { move, apiKeys } = await setUp()
    await makeEmptyTables(move.onTarget)
    await fill(move.onSource, 2_000)
    const key = await createKnownKey(apiKeys)

    const stop = keepChanging(apiKeys, move.onSource)
    await move.begin('ALL TABLES', { with: options })
    const early = await expectNoLease(move, key.plainTextKey)
    // It seals nothing on the target, which would keep out the seals of the source.
    await early.verifyAuditTrail()
    await move.onSource.query(`UPDATE api_keys SET name = 'Renamed' WHERE user_id = 'many'`)
    expect(await stop()).toBeGreaterThan(0)
    await apiKeys.flush()
    await move.catchUp()

    expect(await move.countErrors()).toEqual({ apply: 0, sync: 0 })
    expect(await contentOf(move.onTarget)).toEqual(await contentOf(move.onSource))

    await apiKeys.close()
    await move.catchUp()
    await move.end()

    await expectBoundHeld([createOn(move.target.connect()), early], key)
    expect(await createOn(move.target.connect()).verifyAuditTrail()).toMatchObject({
      isIntact: true,
    })
  })

  it('of the keys alone, into tables that migrate() has made', async () => {
    const { move, apiKeys } = await setUp()
    await createOn(move.onTarget).migrate()
    await fill(move.onSource, 1_000)
    const key = await createKnownKey(apiKeys)

    await move.begin('TABLE api_keys, api_key_retired_secrets')
    const early = await expectNoLease(move, key.plainTextKey)
    await createKnownKey(apiKeys)
    await apiKeys.close()
    await move.catchUp()
    expect(await move.countErrors()).toEqual({ apply: 0, sync: 0 })
    await move.end()

    await expectBoundHeld([createOn(move.target.connect()), early], key)
    const { faults } = await createOn(move.target.connect()).verifyAuditTrail()
    expect(new Set(faults.map(({ kind }) => kind))).toEqual(new Set(['contradicted']))
  })

  it('of all our tables, by the subscription of a role that is no superuser', async () => {
    const { move, apiKeys } = await setUp()
    await move.onTarget.query(
      `CREATE ROLE app LOGIN PASSWORD 'app'; GRANT pg_create_subscription TO app;
       GRANT CREATE ON DATABASE postgres TO app; GRANT ALL ON SCHEMA public TO app`,
    )
    const url = new URL(move.target.url)
    url.username = 'app'
    url.password = 'app'
    const asApp = new Sequelize(url.href, { logging: false })
    cleanup.defer(() => asApp.close())
    await makeEmptyTables(asApp)
    const key = await createKnownKey(apiKeys)

    const stop = keepChanging(apiKeys, move.onSource)
    await move.begin('TABLES IN SCHEMA public', { by: asApp })
    await stop()
    await prune(move.onSource)
    await apiKeys.close()
    await move.catchUp()
    expect(await move.countErrors()).toEqual({ apply: 0, sync: 0 })
    expect(await contentOf(move.onTarget)).toEqual(await contentOf(move.onSource))
    await asApp.query('DROP SUBSCRIPTION moved')

    await expectBoundHeld([createOn(asApp), createOn(asApp)], key)
  })
})
