import type { TestApiKeys } from '../support/app'
import { ids, listAll } from '../support/lists'
import { useWorld } from '../support/world'

const world = useWorld()

describe('list', () => {
  it('neither repeats nor skips a key if few of very many keys match', async () => {
    const { apiKeys, database } = world
    await database.connect().query(
      `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions, status, revoked_at,
                             created_at, expires_at)
       SELECT 'user' || n, CASE WHEN n % 7 = 0 THEN 'seventh' ELSE 'other' END, 'agpt_abc123', 'abcd1234',
              md5('a' || n) || md5('b' || n),
              CASE WHEN n > 24000 AND n % 5 = 0 THEN '{READ_BLOCK}'::text[] ELSE '{READ_GRAPH}' END,
              CASE WHEN n % 11 = 0 THEN 'REVOKED' ELSE 'ACTIVE' END,
              CASE WHEN n % 11 = 0 THEN now() END,
              now() - n / 3 * interval '1 second',
              CASE WHEN n % 1000 = 0 THEN now() END
         FROM generate_series(1, 25000) AS n`,
    )
    const counts = async (filter: Parameters<TestApiKeys['list']>[0]) => {
      const all = await listAll(apiKeys, { limit: 100, ...filter })
      return [all.length, new Set(ids(all)).size]
    }

    expect(await counts({ text: 'seventh' })).toEqual([3571, 3571])
    expect(await counts({ permission: 'READ_BLOCK' })).toEqual([200, 200])
    expect(await counts({ permission: 'READ_BLOCK', sort: 'createdAt' })).toEqual([200, 200])
    expect(await counts({ permission: 'READ_GRAPH', text: 'seventh' })).toEqual([3542, 3542])
    expect(await counts({ permission: 'EXECUTE_BLOCK' })).toEqual([0, 0])
    expect(await counts({ isExpired: true })).toEqual([25, 25])
    expect(await counts({ isExpired: true, status: 'REVOKED' })).toEqual([2, 2])
    expect(await counts({ status: ['REVOKED', 'SUSPENDED'], text: 'other' })).toEqual([1948, 1948])
  })
})
