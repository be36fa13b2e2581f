import { setImmediate as pause } from 'node:timers/promises'

import { createApiKeys } from '../../lib'
import { createSecretFormat } from '../../lib/keys/secret'
import { permissions } from '../support/app'
import { withoutTriggers } from '../support/fill'
import { until } from '../support/until'
import { useWorld } from '../support/world'

/*
 * An organization with half of 40,000 keys is suspended, and deleted while its keys are in use. Lists of its keys read an index.
 */

const keyCount = 20_000
const known = Array.from({ length: 200 }, () =>
  createSecretFormat({ keyPrefixes: ['agpt'], secrets: [], acceptUnkeyed: false }).mint('agpt'),
)
/** The specs change some of the 100 newest keys of the organization, a half of which are known. */
const watched = known.slice(50)
const acme = { type: 'organization', id: 'acme' } as const

const world = useWorld()

function createProcess() {
  const apiKeys = createApiKeys({
    sequelize: world.database.connect(),
    keyPrefix: 'agpt',
    permissions,
    organizations: { table: 'organizations', type: 'text' },
    services: true,
    maxStalenessMs: 300,
    maxKeysPerOwner: Infinity,
  })
  world.database.closeFirst(apiKeys)
  return apiKeys
}

const [first, second] = [createProcess(), createProcess()]

beforeAll(async () => {
  await world.rows(
    `CREATE TABLE organizations (id text PRIMARY KEY); INSERT INTO organizations VALUES ('acme')`,
  )
  await first.migrate()
  const hashes = known.map(({ hash }) => `'${hash}'`).join()
  await withoutTriggers(
    world.sequelize,
    `INSERT INTO api_keys (user_id, organization_id, service, created_by, environment, name, prefix, postfix, hash, permissions, created_at)
     SELECT CASE n % 4 WHEN 1 THEN 'user' || n % 1000 END, CASE n % 2 WHEN 0 THEN 'acme' END,
            CASE n % 4 WHEN 3 THEN 'service' || n % 100 END, 'maker' || n % 50, CASE n % 10000 WHEN 2 THEN 'test' ELSE 'live' END,
            'Key ' || n, CASE n % 10000 WHEN 2 THEN 'test_abc123' ELSE 'agpt_abc123' END, 'abcd1234', coalesce(known.hash, md5('a' || n) || md5('b' || n)),
            '{READ_GRAPH}', now() - n * interval '1 second'
       FROM generate_series(1, ${2 * keyCount}) AS n
       LEFT JOIN unnest(ARRAY[${hashes}]) WITH ORDINALITY AS known (hash, place) ON n = place * 4`,
  )
  await world.rows('ANALYZE api_keys')
})

async function verdicts(apiKeys: typeof first) {
  return Promise.all(
    watched.map(async ({ plainTextKey }) => (await apiKeys.verify(plainTextKey)).valid),
  )
}

describe('an organization with 20,000 keys', () => {
  it.each([
    ['an organization', `organization_id = 'acme'`],
    ['a service', `service = 'service7'`],
    ['a maker', `created_by = 'maker7'`],
    ['an environment, which has a prefix of its own', `left(prefix, -7) = 'test'`],
    ['an environment of an organization', `organization_id = 'acme' AND left(prefix, -7) = 'test'`],
  ])('has pages of keys by %s that read an index', async (_, where) => {
    const [row] = await world.rows<{ 'QUERY PLAN': [{ Plan: object; 'Execution Time': number }] }>(
      `EXPLAIN (ANALYZE, FORMAT JSON)
       SELECT * FROM api_keys WHERE ${where} ORDER BY created_at DESC, id DESC LIMIT 21`,
    )
    const [explained] = row?.['QUERY PLAN'] ?? []

    expect(JSON.stringify(explained?.Plan)).toContain('Index Scan')
    expect(JSON.stringify(explained?.Plan)).not.toContain('Seq Scan')
  })

  it('is suspended by one row and one entry, and reactivated likewise', async () => {
    for (const each of [first, second]) expect(await verdicts(each)).not.toContain(false)
    const before = await world.rows('SELECT FROM api_key_changes')

    await first.suspendOwner(acme)

    expect(await world.rows('SELECT FROM api_key_changes')).toHaveLength(before.length + 1)
    expect(await verdicts(first)).not.toContain(true)
    await until(async () => !(await verdicts(second)).includes(true))
    await first.reactivateOwner(acme)
    await until(async () => !(await verdicts(second)).includes(false))
  })

  it('is deleted while its keys are read, changed and transferred: no process accepts one after the bound', async () => {
    const { apiKeys } = await first.list({ owner: acme, limit: 100 })
    const [moved, ...others] = apiKeys
    if (!moved) throw new Error('no key')
    const working = { isOver: false }
    const work = (async () => {
      while (!working.isOver) {
        await Promise.allSettled([verdicts(first), verdicts(second)])
        // Verdicts from the cache alone would leave the server no time to answer.
        await pause()
      }
    })()
    await first.transfer(moved.id, { type: 'service', id: 'importer' })

    const results = await Promise.allSettled([
      world.rows('DELETE FROM organizations'),
      ...others.slice(0, 20).map(({ id }) => first.suspend(id)),
      ...others.slice(20, 40).map(({ id }) => second.transfer(id, { type: 'user', id: 'alice' })),
      first.create({ owner: acme, name: 'Late', permissions: ['READ_GRAPH'] }),
      first.suspendOwner(acme),
    ])
    expect(results[0]).toMatchObject({ status: 'fulfilled' })
    await until(async () => !(await verdicts(second)).includes(true))
    await until(async () => !(await verdicts(first)).includes(true))
    working.isOver = true
    await work

    expect((await first.list({ owner: acme })).apiKeys).toEqual([])
    expect(await world.rows('SELECT FROM api_key_suspended_owners')).toEqual([])
    expect(await first.get(moved.id)).toMatchObject({ owner: { type: 'service', id: 'importer' } })
    for (const each of [first, second]) {
      expect(await each.health()).toMatchObject({ feed: 'following' })
    }
  })
})
