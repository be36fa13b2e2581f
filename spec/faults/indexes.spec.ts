import { createHash } from 'node:crypto'

import { QueryTypes, type Sequelize } from 'sequelize'

import { createSecretFormat } from '../../lib/keys/secret'
import { createOwnChanges } from '../../lib/database/own-changes'
import { createChangeLog } from '../../lib/freshness/change-log'
import { systemClock } from '../../lib/database/clock'
import { otherPrefixesSql } from '../../models/api-key'
import { tablesOf } from '../../models/tables'
import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { withoutTriggers } from '../support/fill'
import { environmentOptions, newKeyOf, withEnvironments } from '../support/environments'
import { newKey } from '../support/keys'
import { readPlans, type Plans } from '../support/plans'
import { until } from '../support/until'

const rowCount = 100_000
/** The id of a key that was used. */
const idOfUsage = createHash('md5')
  .update('key 7')
  .digest('hex')
  .replace(/(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
const minted = Array.from({ length: 200 }, () =>
  createSecretFormat({ keyPrefixes: ['agpt'], secrets: [], acceptUnkeyed: false }).mint('agpt'),
)

let database: Database
let sequelize: Sequelize
/** Gives `plans` the plans of its statements. */
let explained: Sequelize
/** Verifies nothing, so it sends no polls. */
let apiKeys: TestApiKeys
let verifier: TestApiKeys
let plans: Plans

beforeAll(async () => {
  database = await createDatabase()
  sequelize = database.connect()
  await fillTables()

  plans = readPlans(database)
  explained = plans.sequelize
  apiKeys = createTestApiKeys(database, { sequelize: explained, maxKeysPerOwner: 1_000 })
  await apiKeys.list()
})

afterAll(() => database.drop())

beforeEach(async () => {
  // The plans of a spec would be beside those of the sealing that the spec before has begun.
  await until(async () => (await apiKeys.health()).audit.waiting === 0)
  verifier = createTestApiKeys(database, {
    sequelize: explained,
    listen: false,
    lastUsedResolutionMs: 0,
  })
  plans.forget()
})

afterEach(() => verifier.close())

/**
 * Makes keys of 1,000 users, with their audit trail. The plain text of 200 keys is known here. Also makes a long log of
 * changes, of which a hundredth is old, and the usage of 1,000 hours.
 */
async function fillTables() {
  const hashes = minted.map(({ hash }) => `'${hash}'`).join()
  await withoutTriggers(
    sequelize,
    `INSERT INTO api_keys
       (user_id, name, description, prefix, postfix, hash, permissions, status, revoked_at,
        created_at, expires_at, event_ref)
     SELECT 'user' || n % 1000, 'Key ' || n, 'Description of number ' || n,
            'agpt_abc123', 'abcd1234',
            coalesce(known.hash, md5('a' || n) || md5('b' || n)),
            CASE WHEN n % 10000 = 7 THEN '{EXECUTE_BLOCK}'::text[] ELSE '{READ_GRAPH}' END,
            CASE n % 100 WHEN 1 THEN 'REVOKED' WHEN 2 THEN 'SUSPENDED' ELSE 'ACTIVE' END,
            CASE n % 100 WHEN 1 THEN now() END,
            now() - n * interval '1 second',
            CASE n % 100 WHEN 3 THEN now() - interval '1 day' END,
            gen_random_uuid()
       FROM generate_series(1, ${rowCount}) AS n
       LEFT JOIN unnest(ARRAY[${hashes}]) WITH ORDINALITY AS known (hash, place) ON n = place * 500;
     INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type, actor_id)
     SELECT id, 'user', user_id, 'created', 'database', session_user FROM api_keys`,
  )
  // The statistics are of all rows, so that the plans are the same every time.
  await sequelize.query(`
    INSERT INTO api_key_events (api_key_id, owner_type, owner_id, action, actor_type)
      SELECT id, 'user', user_id, 'revoked', 'system' FROM api_keys WHERE status = 'REVOKED';
    INSERT INTO api_key_event_seals (position, event_id, is_genuine, digest, block_digest, sealed_at, hash, mac)
      SELECT id, id, true, '', md5('e' || id) || md5('f' || id), now(), md5('a' || id) || md5('b' || id), md5('c' || id) || md5('d' || id)
        FROM api_key_events;
    DELETE FROM api_key_unsealed_events;
    UPDATE api_key_revisions SET created_at = now() - interval '3 hours';
    WITH entry AS (
      INSERT INTO api_key_revisions (created_at)
        SELECT now() - CASE WHEN n <= ${rowCount / 100} THEN interval '2 hours' ELSE interval '1 s' END
          FROM generate_series(1, ${rowCount}) AS n RETURNING mark
    )
    INSERT INTO api_key_changes (mark, place, key_id, is_new)
      SELECT mark, 0, gen_random_uuid(), false FROM entry;
    INSERT INTO api_key_usage (api_key_id, owner_type, owner_id, hour, verified, denied, rate_limited)
      SELECT md5('key ' || n % 5000)::uuid, 'user', 'user' || n % 5000,
             date_trunc('hour', now()) - n / 30 * interval '1 hour', n % 10, 0, 0
        FROM generate_series(1, 30000) AS n;
    SET default_statistics_target = 400;
    ANALYZE api_keys, api_key_events, api_key_event_seals, api_key_revisions, api_key_changes,
      api_key_usage`)
}

async function select<Row extends object>(sql: string) {
  return sequelize.query<Row>(sql, { type: QueryTypes.SELECT })
}

/** Finds a key of a user by its status. */
async function findId(userId: string, status: 'ACTIVE' | 'SUSPENDED' = 'ACTIVE') {
  const { apiKeys: found } = await apiKeys.list({ userId, status, limit: 1 })
  plans.forget()
  return String(found[0]?.id)
}

async function countEntries() {
  const [count] = await select<{ entries: number; changes: number }>(
    `SELECT (SELECT count(*)::int FROM api_key_revisions) AS entries,
            (SELECT count(*)::int FROM api_key_changes) AS changes`,
  )
  return count
}

function verifyAll() {
  return Promise.all(minted.map(({ plainTextKey }) => verifier.verify(plainTextKey)))
}

describe('the indexes', () => {
  it.each<[string, () => Promise<unknown>]>([
    [
      // So many that Postgres makes one plan for all of them.
      'verify, of known keys one after another',
      async () => {
        for (const { plainTextKey } of minted.slice(0, 20)) await verifier.verify(plainTextKey)
      },
    ],
    ['verify, of many keys at once', () => verifyAll()],
    [
      'verify, without prepared statements',
      async () => {
        const options = { sequelize: explained, preparedStatements: false }
        const plain = createTestApiKeys(database, options)
        await plain.verify(String(minted[99]?.plainTextKey))
        await plain.close()
      },
    ],
    [
      'the note of a use',
      async () => {
        await verifier.verify(String(minted[99]?.plainTextKey))
        plans.forget()
        await verifier.flush()
      },
    ],
    [
      'the note of many uses',
      async () => {
        await verifyAll()
        plans.forget()
        await verifier.flush()
      },
    ],
    ['create', () => apiKeys.create(newKey({ userId: 'user2' }))],
    ['get', async () => apiKeys.get(await findId('user3'))],
    ['get, of an owner', async () => apiKeys.get(await findId('user3'), { userId: 'user3' })],
    ['update', async () => apiKeys.update(await findId('user4'), { name: 'Other' })],
    [
      'update, of an expired key',
      async () => {
        const { apiKeys: mine } = await apiKeys.list({ userId: 'user3', limit: 100 })
        const expired = mine.find(({ expiresAt }) => expiresAt)
        await apiKeys.update(String(expired?.id), { expiresAt: null })
      },
    ],
    [
      'setPermissions',
      async () => apiKeys.setPermissions(await findId('user5'), ['EXECUTE_GRAPH']),
    ],
    ['suspend', async () => apiKeys.suspend(await findId('user6'))],
    ['reactivate', async () => apiKeys.reactivate(await findId('user2', 'SUSPENDED'))],
    ['revoke', async () => apiKeys.revoke(await findId('user7'), { userId: 'user7' })],
    ['revokeAll', () => apiKeys.revokeAll({ type: 'user', id: 'user8' })],
  ])('serve %s', async (_, call) => {
    await call()

    expect(plans.tablesReached()).toContain('api_keys')
    expect(plans.tablesReadWhole()).toEqual([])
    expect(plans.countRowsInVain()).toBeLessThan(rowCount / 50)
  })

  it.each([
    [{}],
    [{ limit: 100 }],
    [{ userId: 'user9' }],
    [{ userId: 'nobody' }],
    [{ status: 'ACTIVE' }],
    [{ status: 'REVOKED' }],
    [{ permission: 'READ_GRAPH' }],
    [{ permission: 'EXECUTE_BLOCK' }],
    [{ permission: 'EXECUTE_GRAPH' }],
    [{ text: 'description' }],
    [{ text: 'number 4711' }],
    [{ text: 'nowhere' }],
    [{ userId: 'user9', status: 'SUSPENDED', permission: 'READ_GRAPH', text: 'key' }],
    [{ status: 'REVOKED', permission: 'EXECUTE_BLOCK' }],
    [{ status: ['SUSPENDED', 'REVOKED'] }],
    [{ isExpired: true }],
    [{ isExpired: true, status: 'REVOKED' }],
    [{ isExpired: false }],
    [{ sort: 'createdAt' }],
    [{ sort: 'createdAt', permission: 'EXECUTE_BLOCK' }],
    [{ userId: 'user9', sort: 'lastUsedAt' }],
    [{ text: 'agpt_abc123' }],
    [{ text: 'agpt_nobody' }],
    [{ text: 'description nowhere' }],
  ] as const)('serve lists of %j, page after page', async (filter) => {
    const { nextCursor } = await apiKeys.list(filter)
    if (nextCursor) await apiKeys.list({ ...filter, cursor: nextCursor })

    expect(plans.tablesReached()).toContain('api_keys')
    expect(plans.tablesReadWhole()).toEqual([])
    expect(plans.countRowsInVain()).toBeLessThan(rowCount / 50)
  })

  it.each(['READ_GRAPH', 'READ_BLOCK', 'EXECUTE_GRAPH', 'FORMER', 'UNKNOWN'])(
    'serve lists of the permission %s if permissions imply one another, page after page',
    async (permission) => {
      const implying = createTestApiKeys(database, {
        sequelize: explained,
        permissions: {
          READ_GRAPH: 'Read graphs',
          EXECUTE_GRAPH: { description: 'Execute graphs', implies: ['READ_BLOCK'] },
          READ_BLOCK: 'Read blocks',
          EXECUTE_BLOCK: { description: 'Execute blocks', implies: ['READ_BLOCK'] },
        },
        formerPermissions: { FORMER: 'READ_BLOCK' },
      })
      const filter = { permission: permission as 'READ_BLOCK' }
      const { nextCursor } = await implying.list(filter)
      if (nextCursor) await implying.list({ ...filter, cursor: nextCursor })

      expect(plans.tablesReached()).toContain('api_keys')
      expect(plans.tablesReadWhole()).toEqual([])
      expect(plans.countRowsInVain()).toBeLessThan(rowCount / 50)
    },
  )

  it('serve the renaming of a permission that few keys have', async () => {
    await apiKeys.renamePermission('EXECUTE_BLOCK', 'READ_BLOCK', { dryRun: true })
    await apiKeys.dropPermission('UNKNOWN')

    expect(plans.tablesReached()).toContain('api_keys')
    expect(plans.tablesReadWhole()).toEqual([])
    expect(plans.countRowsInVain()).toBeLessThan(rowCount / 50)
  })

  it.each([[{}], [{ status: 'ACTIVE' }], [{ userId: 'user9' }]] as const)(
    'serve lists of %j of an instance that has few keys beside another one’s',
    async (filter) => {
      const other = createTestApiKeys(database, { sequelize: explained, keyPrefix: 'other' })
      await other.list(filter)

      expect(plans.tablesReached()).toContain('api_keys')
      expect(plans.tablesReadWhole()).toEqual([])
      expect(plans.countRowsInVain()).toBeLessThan(rowCount / 50)
    },
  )

  it.each([
    [{}],
    [{ userId: 'user10' }],
    [{ userId: 'nobody' }],
    [{ action: 'created' }],
    [{ action: 'revoked' }],
    [{ action: 'permissions_changed' }],
    [{ userId: 'user1', action: 'revoked' }],
  ] as const)('serve the audit trail of %j, page after page', async (filter) => {
    const { nextCursor } = await apiKeys.events(filter)
    if (nextCursor) await apiKeys.events({ ...filter, cursor: nextCursor })

    expect(plans.tablesReached()).toContain('api_key_events')
    expect(plans.tablesReadWhole()).toEqual([])
    expect(plans.countRowsInVain()).toBeLessThan(rowCount / 50)
  })

  it('serve the audit trail of a key', async () => {
    await apiKeys.events({ apiKeyId: await findId('user11') })

    expect(plans.tablesReached()).toContain('api_key_events')
    expect(plans.tablesReadWhole()).toEqual([])
    expect(plans.countRowsInVain()).toBeLessThan(rowCount / 50)
  })

  it('serve the sealing of the audit trail', async () => {
    await apiKeys.update(await findId('user13'), { name: 'Other' })
    plans.forget()

    await until(async () => (await apiKeys.health()).audit.waiting === 0)

    // The keys are read only behind a reliable end of the chain.
    const reached = plans.tablesReached()
    reached.delete('api_keys')
    expect(reached).toEqual(new Set(['api_key_events', 'api_key_event_seals']))
    expect(plans.tablesReadWhole()).toEqual([])
    expect(plans.countRowsInVain()).toBeLessThan(rowCount / 50)
  })

  it('serve polls, however long the log is', async () => {
    await verifier.verify(String(minted[99]?.plainTextKey))
    const { revision } = await verifier.health()
    await apiKeys.update(await findId('user12'), { name: 'Other' })
    plans.forget()

    await until(async () => (await verifier.health()).revision !== revision)

    // A process that verifies keys also seals entries, at times of its own.
    const reached = plans.tablesReached()
    reached.delete('api_key_events')
    reached.delete('api_key_event_seals')
    reached.delete('api_keys')
    expect(reached).toEqual(new Set(['api_key_revisions', 'api_key_changes']))
    expect(plans.tablesReadWhole()).toEqual([])
    expect(plans.countRowsInVain()).toBeLessThan(rowCount / 50)
  })

  it('serve the removal of old entries of the log, and only of these', async () => {
    const log = createChangeLog({
      connection: { query: () => Promise.reject(new Error('not for this')) },
      sequelize: explained,
      tables: tablesOf('public'),
      followed: 'keys',
      boundMs: 1_000,
      ownChanges: createOwnChanges(systemClock),
    })
    const [old] = await select<{ entries: number; changes: number }>(
      `SELECT count(DISTINCT entry.mark)::int AS entries, count(change.mark)::int AS changes
         FROM api_key_revisions AS entry LEFT JOIN api_key_changes AS change USING (mark)
        WHERE created_at < now() - interval '1 hour'`,
    )
    const before = await countEntries()

    await log.prune()

    expect(plans.tablesReached()).toEqual(new Set(['api_key_revisions', 'api_key_changes']))
    expect(plans.countRowsInVain()).toBeLessThan(rowCount / 50)
    expect(await countEntries()).toEqual({
      entries: Number(before?.entries) - Number(old?.entries),
      changes: Number(before?.changes) - Number(old?.changes),
    })
  })

  it.each<[string, () => Promise<unknown>]>([
    ['a key', async () => apiKeys.usage(await findId('user3'), { by: 'day' })],
    ['a key among all', () => apiKeys.totalUsage({ apiKeyId: idOfUsage, by: 'day' })],
    ['a user', () => apiKeys.totalUsage({ userId: 'user3', by: 'day' })],
    ['everyone', () => apiKeys.totalUsage()],
    ['long ago', () => apiKeys.pruneUsage({ olderThanDays: 41, dryRun: true })],
    ['long ago, to remove it', () => apiKeys.pruneUsage({ olderThanDays: 41 })],
  ])('serve the usage of %s', async (_, call) => {
    await call()

    expect(plans.tablesReached()).toContain('api_key_usage')
    expect(plans.tablesReadWhole()).toEqual([])
    expect(plans.countRowsInVain()).toBeLessThan(rowCount / 50)
  })

  it('would be missed by a statement without an index', async () => {
    await explained.query(`SELECT id FROM api_keys WHERE postfix = 'nobody’s'`)

    expect(plans.tablesReadWhole()).toEqual(['api_keys'])
    expect(plans.countRowsInVain()).toBeGreaterThanOrEqual(rowCount)
  })

  it('leave lastUsedAt out, so that noting a use writes to none of them', async () => {
    const indexes = await select<{ definition: string }>(
      `SELECT pg_get_indexdef(indexrelid) AS definition FROM pg_index
        WHERE indrelid = 'api_keys'::regclass`,
    )

    expect(indexes.length).toBeGreaterThan(4)
    expect(indexes.filter(({ definition }) => definition.includes('last_used_at'))).toEqual([])
  })

  it('let the note of a use be a HOT update', async () => {
    // A table in which nothing else is updated.
    const own = await createDatabase()
    const observer = own.connect()
    await observer.query(
      `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
       SELECT 'user', 'Key', 'agpt_abc123', 'abcd1234',
              coalesce(known.hash, md5('a' || n) || md5('b' || n)), '{READ_GRAPH}'
         FROM generate_series(1, 10000) AS n
         LEFT JOIN unnest($1::text[]) WITH ORDINALITY AS known (hash, place) ON n = place * 50`,
      { bind: [minted.map(({ hash }) => hash)] },
    )
    async function countUpdates() {
      const [counts] = await observer.query<{ all: number; hot: number }>(
        `SELECT n_tup_upd::int AS all, n_tup_hot_upd::int AS hot FROM pg_stat_user_tables
          WHERE relname = 'api_keys'`,
        { type: QueryTypes.SELECT },
      )
      return counts
    }

    const user = createTestApiKeys(own)
    await Promise.all(minted.map(({ plainTextKey }) => user.verify(plainTextKey)))
    // A session reports its statistics when it ends.
    await user.close()
    await until(async () => (await countUpdates())?.all !== 0)

    expect(await countUpdates()).toEqual({ all: minted.length, hot: minted.length })
    await own.drop()
  })

  describe('of an app with environments and former prefixes', () => {
    let environments: TestApiKeys

    beforeAll(async () => {
      environments = createTestApiKeys(database, {
        ...environmentOptions({
          environments: {
            live: { prefix: 'agpt_live', formerPrefixes: ['agpt', 'older'] },
            test: { prefix: 'agpt_test', formerPrefixes: ['older_test'] },
          },
        }),
        sequelize: explained,
      })
      for (let n = 0; n < 10; n++) {
        await withEnvironments(environments).create(newKeyOf('test', { userId: 'user9' }))
      }
      await until(async () => (await environments.health()).audit.waiting === 0)
    })

    it.each([
      [{}],
      [{ environment: 'live' }],
      [{ environment: 'test' }],
      [{ environment: 'test', userId: 'user9' }],
      [{ environment: 'live', userId: 'user9', sort: 'name' }],
      [{ environment: 'test', status: 'ACTIVE' }],
      [{ environment: 'live', permission: 'EXECUTE_BLOCK' }],
      [{ environment: 'test', permission: 'READ_GRAPH', text: 'deployment' }],
      [{ text: 'agpt_test_' }],
    ] as const)('serve lists of %j, page after page', async (filter) => {
      const { list } = withEnvironments(environments)
      const { nextCursor } = await list(filter)
      if (nextCursor) await list({ ...filter, cursor: nextCursor })

      expect(plans.tablesReached()).toContain('api_keys')
      expect(plans.tablesReadWhole()).toEqual([])
      expect(plans.countRowsInVain()).toBeLessThan(rowCount / 50)
    })

    it('serve create', async () => {
      await withEnvironments(environments).create(newKeyOf('test', { userId: 'user2' }))

      expect(plans.tablesReached()).toContain('api_keys')
      expect(plans.tablesReadWhole()).toEqual([])
      expect(plans.countRowsInVain()).toBeLessThan(rowCount / 50)
    })

    it('serve the search for prefixes that no instance accepts', async () => {
      await select(
        `SELECT * FROM (${otherPrefixesSql('api_keys', ['agpt'])}) AS other
          WHERE other.key_prefix = 'agpt_test'`,
      )
      const [plan] = await select<{ 'QUERY PLAN': string }>(
        `EXPLAIN ${otherPrefixesSql('api_keys', ['agpt'])}`,
      )

      expect(plan?.['QUERY PLAN']).not.toContain('Seq Scan on api_keys')
    })
  })
})
