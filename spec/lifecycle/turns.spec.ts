import type { Sequelize } from 'sequelize'

import type { TestApiKeys } from '../support/app'
import { newKey } from '../support/keys'
import { useWorldForEach, type Lock } from '../support/world'

const world = useWorldForEach()
/** The app's Sequelize, with few connections, for which no caller waits long. */
let sequelize: Sequelize
let apiKeys: TestApiKeys
let lock: Lock

beforeEach(async () => {
  sequelize = world.database.connect({ pool: { max: 4, acquire: 5_000 } })
  ;({ apiKeys } = world.createProcess({ sequelize }))
  await world.createKey()
})

/** Makes every management call wait. */
async function holdTables() {
  lock = await world.holdLock('LOCK TABLE api_keys, api_key_events, api_key_usage')
}

const many = Array.from({ length: 30 })

describe('management calls', () => {
  it('leave the app connections of its pool', async () => {
    await holdTables()

    const calls = many.flatMap(() => [
      apiKeys.create(newKey()),
      apiKeys.list({ userId: 'alice' }),
      apiKeys.countRevocable({ type: 'user', id: 'alice' }),
      apiKeys.events(),
      apiKeys.totalUsage(),
    ])
    await lock.waitedFor()
    const answers = await Promise.all([
      sequelize.query('SELECT 1 AS one', { plain: true }),
      sequelize.query('SELECT 1 AS one', { plain: true }),
    ])
    await lock.release()

    expect(answers).toEqual([{ one: 1 }, { one: 1 }])
    expect(await Promise.all(calls)).toHaveLength(150)
    expect(await apiKeys.countRevocable({ type: 'user', id: 'alice' })).toEqual({ keys: 31 })
  })

  it('are made in turn between users', async () => {
    await holdTables()
    const done: string[] = []
    async function create(userId: string) {
      await apiKeys.create(newKey({ userId }))
      done.push(userId)
    }

    const calls = [...many.map(() => create('alice')), create('bob')]
    await lock.waitedFor()
    await lock.release()
    await Promise.all(calls)

    expect(done).toHaveLength(31)
    // Few calls are under way at once, and may end in any order.
    expect(done.indexOf('bob')).toBeLessThan(15)
  })

  it('go on after calls that fail', async () => {
    const failures = many.map(() =>
      apiKeys.get('00000000-0000-4000-8000-000000000000').catch(() => 'not found'),
    )

    expect(await Promise.all(failures)).toEqual(many.map(() => 'not found'))
    expect((await apiKeys.list()).apiKeys).toHaveLength(1)
  })

  it('wait no longer for their turn than for a connection', async () => {
    const impatient = world.createProcess({
      sequelize: world.database.connect({ pool: { max: 2, acquire: 1_000 } }),
    }).apiKeys
    await holdTables()
    const running = impatient.list()

    await expect(impatient.list()).rejects.toMatchObject({ code: 'database_unavailable' })

    await lock.release()
    await expect(running).resolves.toMatchObject({ nextCursor: null })
    await expect(impatient.list()).resolves.toMatchObject({ nextCursor: null })
  })

  it('need no further connection in a transaction of the caller, nor does grantable, which is handed it', async () => {
    const small = world.database.connect({ pool: { max: 1, acquire: 500 } })
    const given: unknown[] = []
    const { apiKeys: own } = world.createProcess({
      sequelize: small,
      async grantable({ id: userId }, { transaction }) {
        given.push(transaction)
        await small.query('SELECT $1', { bind: [userId], transaction: transaction ?? null })
        return ['READ_GRAPH', 'READ_BLOCK']
      },
    })

    const [created, changed, passed] = await small.transaction(async (transaction) => {
      const { apiKey } = await own.create(newKey(), { transaction })
      const after = await own.setPermissions(apiKey.id, ['READ_BLOCK'], { transaction })
      return [apiKey, after, transaction] as const
    })

    expect(changed).toMatchObject({ id: created.id, permissions: ['READ_BLOCK'] })
    expect(given).toEqual([passed, passed])
    await expect(own.create(newKey())).resolves.toBeDefined()
    expect(given[2]).toBeUndefined()
  })
})

describe('maxKeysPerOwner', () => {
  it('is 1,000 unless the app says otherwise', async () => {
    await world.rows(`
      INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
      SELECT 'bob', 'Key ' || n, 'agpt_abc123', 'abcd1234', md5('a' || n) || md5('b' || n), '{READ_GRAPH}'
        FROM generate_series(1, 999) AS n`)

    await expect(apiKeys.create(newKey({ userId: 'bob' }))).resolves.toBeDefined()
    await expect(apiKeys.create(newKey({ userId: 'bob' }))).rejects.toMatchObject({
      code: 'too_many_api_keys',
    })
    const { apiKeys: unlimited } = world.createProcess({ maxKeysPerOwner: Infinity })
    await expect(unlimited.create(newKey({ userId: 'bob' }))).resolves.toBeDefined()
  })
})
