import { QueryTypes, type Sequelize } from 'sequelize'
import type { Client } from 'pg'

import { createSecretFormat } from '../../lib/keys/secret'
import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'
import { until } from '../support/until'

/** A step of a query plan, as `EXPLAIN (FORMAT JSON)` shows it. */
interface PlanNode {
  'Node Type': string
  'Relation Name'?: string
  'Rows Removed by Filter'?: number
  'Rows Removed by Index Recheck'?: number
  Plans?: PlanNode[]
}

const rowCount = 100_000
const minted = Array.from({ length: 200 }, () =>
  createSecretFormat({ keyPrefix: 'agpt', secrets: [], acceptUnkeyed: false }).mint(),
)

let database: Database
let sequelize: Sequelize
/** Gives `plans` the plan of every statement that it runs. */
let explained: Sequelize
let apiKeys: TestApiKeys
let plans: PlanNode[] = []

beforeAll(async () => {
  database = await createDatabase()
  sequelize = database.connect()
  await fillTables()

  explained = database.connect({
    hooks: {
      async afterConnect(connection) {
        const client = connection as Client
        client.on('notice', ({ message = '' }) => {
          if (message.includes('plan:')) {
            plans.push(JSON.parse(message.slice(message.indexOf('{'))).Plan)
          }
        })
        await client.query(`
          LOAD 'auto_explain';
          SET auto_explain.log_min_duration = 0;
          SET auto_explain.log_format = json;
          SET auto_explain.log_level = notice;
          SET auto_explain.log_analyze = on;
          SET client_min_messages = notice`)
      },
    },
  })
  apiKeys = createTestApiKeys(database, { sequelize: explained, maxKeysPerUser: 1_000 })
  await apiKeys.list()
})

afterAll(async () => {
  await apiKeys.close()
  await database.drop()
})

beforeEach(() => {
  plans = []
})

/** Makes keys of 1,000 users, 200 of them with a plain text known here, and their audit trail. */
async function fillTables() {
  await sequelize.query(
    `INSERT INTO api_keys
       (user_id, name, description, prefix, postfix, hash, permissions, status, revoked_at,
        created_at, expires_at)
     SELECT 'user' || n % 1000, 'Key ' || n, 'Description of number ' || n,
            'agpt_abc123', 'abcd1234',
            coalesce(known.hash, md5('a' || n) || md5('b' || n)),
            CASE WHEN n % 10000 = 7 THEN '{EXECUTE_BLOCK}'::text[] ELSE '{READ_GRAPH}' END,
            CASE n % 100 WHEN 1 THEN 'REVOKED' WHEN 2 THEN 'SUSPENDED' ELSE 'ACTIVE' END,
            CASE n % 100 WHEN 1 THEN now() END,
            now() - n * interval '1 second',
            CASE n % 100 WHEN 3 THEN now() - interval '1 day' END
       FROM generate_series(1, ${rowCount}) AS n
       LEFT JOIN unnest($1::text[]) WITH ORDINALITY AS known (hash, place) ON n = place * 500`,
    { bind: [minted.map(({ hash }) => hash)] },
  )
  // The statistics are of all rows, so that the plans are the same every time.
  await sequelize.query(`
    INSERT INTO api_key_events (api_key_id, user_id, action, actor_type)
      SELECT id, user_id, 'created', 'system' FROM api_keys;
    INSERT INTO api_key_events (api_key_id, user_id, action, actor_type)
      SELECT id, user_id, 'revoked', 'system' FROM api_keys WHERE status = 'REVOKED';
    WITH entry AS (
      INSERT INTO api_key_revisions (created_at)
        SELECT now() FROM generate_series(1, 20000) RETURNING mark
    )
    INSERT INTO api_key_changes (mark, key_id, is_new, is_first)
      SELECT mark, gen_random_uuid(), false, false FROM entry;
    SET default_statistics_target = 400;
    ANALYZE api_keys, api_key_events, api_key_revisions, api_key_changes`)
}

async function select<Row extends object>(sql: string) {
  return sequelize.query<Row>(sql, { type: QueryTypes.SELECT })
}

/** Some key of a user, by the status it has. */
async function findId(userId: string, status: 'ACTIVE' | 'SUSPENDED' = 'ACTIVE') {
  const { apiKeys: found } = await apiKeys.list({ userId, status, limit: 1 })
  plans = []
  return String(found[0]?.id)
}

/** Those that grow: the triggers of a table and the bounds of processes are few. */
const growing = new Set(['api_keys', 'api_key_events', 'api_key_revisions', 'api_key_changes'])

function tablesReadWhole() {
  const nodes = plans.flatMap(withChildren)
  return nodes
    .filter((node) => node['Node Type'] === 'Seq Scan')
    .map((node) => String(node['Relation Name']))
    .filter((table) => growing.has(table))
}

/** How many rows were read for nothing. */
function countRowsInVain() {
  return plans.flatMap(withChildren).reduce((count, node) => {
    const {
      'Rows Removed by Filter': filtered = 0,
      'Rows Removed by Index Recheck': rechecked = 0,
    } = node
    return count + filtered + rechecked
  }, 0)
}

function tablesReached() {
  return new Set(plans.flatMap(withChildren).flatMap((node) => node['Relation Name'] ?? []))
}

function withChildren(node: PlanNode): PlanNode[] {
  return [node, ...(node.Plans ?? []).flatMap(withChildren)]
}

async function countHotUpdates() {
  const [counts] = await sequelize.query<{ hot: string }>(
    `SELECT n_tup_hot_upd AS hot FROM pg_stat_user_tables
      WHERE relname = 'api_keys'`,
    { type: QueryTypes.SELECT },
  )
  return Number(counts?.hot)
}

describe('the indexes', () => {
  it.each<[string, () => Promise<unknown>]>([
    ['verify, of a known key', () => apiKeys.verify(String(minted[99]?.plainTextKey))],
    [
      'the note of its last use',
      async () => {
        await apiKeys.verify(String(minted[99]?.plainTextKey))
        plans = []
        await apiKeys.flush()
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
    ['revokeAll', () => apiKeys.revokeAll('user8')],
  ])('serve %s', async (_, call) => {
    await call()

    expect(tablesReached()).toContain('api_keys')
    expect(tablesReadWhole()).toEqual([])
    expect(countRowsInVain()).toBeLessThan(rowCount / 50)
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
  ] as const)('serve lists of %j, page after page', async (filter) => {
    const { nextCursor } = await apiKeys.list(filter)
    if (nextCursor) await apiKeys.list({ ...filter, cursor: nextCursor })

    expect(tablesReached()).toContain('api_keys')
    expect(tablesReadWhole()).toEqual([])
    expect(countRowsInVain()).toBeLessThan(rowCount / 50)
  })

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

    expect(tablesReached()).toContain('api_key_events')
    expect(tablesReadWhole()).toEqual([])
    expect(countRowsInVain()).toBeLessThan(rowCount / 50)
  })

  it('serve the audit trail of a key', async () => {
    await apiKeys.events({ apiKeyId: await findId('user11') })

    expect(tablesReached()).toContain('api_key_events')
    expect(tablesReadWhole()).toEqual([])
    expect(countRowsInVain()).toBeLessThan(rowCount / 50)
  })

  it('would be missed where a statement has none', async () => {
    await explained.query(`SELECT id FROM api_keys WHERE postfix = 'nobody’s'`)

    expect(tablesReadWhole()).toEqual(['api_keys'])
    expect(countRowsInVain()).toBeGreaterThanOrEqual(rowCount)
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
    const single = createTestApiKeys(database)

    const before = await countHotUpdates()
    for (const { plainTextKey } of minted) await single.verify(plainTextKey)
    await single.flush()
    // A session tells what it has done when it ends.
    await single.close()
    await until(async () => (await countHotUpdates()) >= before + minted.length)

    expect(await countHotUpdates()).toBe(before + minted.length)
  })
})
