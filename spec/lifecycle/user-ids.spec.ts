import type { TestApiKeys } from '../support/app'
import { createKey, newKey } from '../support/keys'
import { useWorldForEach } from '../support/world'

const options = { users: { table: 'users' }, maxKeysPerOwner: 3 }
const world = useWorldForEach({ template: 'empty', options })
let apiKeys: TestApiKeys

beforeEach(async () => {
  await world.sequelize.query(`
    CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE TABLE users (id text COLLATE any_case PRIMARY KEY);
    INSERT INTO users VALUES ('alice'), ('bob')`)
  apiKeys = world.apiKeys
  await apiKeys.migrate()
})

describe('user ids that the column compares without regard to case', () => {
  it('find, limit and revoke the keys of a user in every spelling', async () => {
    const ids = [(await createKey(apiKeys)).id, (await createKey(apiKeys, { userId: 'ALICE' })).id]
    const { id: other } = await createKey(apiKeys, { userId: 'bob' })

    expect((await apiKeys.list({ userId: 'Alice' })).apiKeys).toHaveLength(2)
    expect(await apiKeys.get(String(ids[0]), { userId: 'Alice' })).toMatchObject({
      userId: 'alice',
    })
    expect(await apiKeys.countRevocable({ type: 'user', id: 'aliCE' })).toEqual({ keys: 2 })
    expect(await apiKeys.revokeUnused({ unusedForDays: 1, userId: 'Alice', dryRun: true })).toEqual(
      {
        keys: 0,
      },
    )

    expect(await apiKeys.revokeAll({ type: 'user', id: 'Alice' })).toEqual({ keys: 2 })
    for (const id of ids) expect(await apiKeys.get(id)).toMatchObject({ status: 'REVOKED' })
    expect(await apiKeys.get(other)).toMatchObject({ status: 'ACTIVE' })
  })

  it('limit the keys of a user, however many spellings come at once', async () => {
    const spellings = ['alice', 'Alice', 'aLice', 'alIce', 'aliCe', 'alicE', 'ALICE', 'aLICE']

    const results = await Promise.allSettled(
      spellings.map((userId) => apiKeys.create(newKey({ userId }))),
    )

    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(3)
  })
})
