import { randomUUID } from 'node:crypto'

import type { Sequelize } from 'sequelize'

import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { createKey, newKey } from '../support/keys'
import { recordStatements } from '../support/statements'
import { until } from '../support/until'

type Options = Parameters<typeof createTestApiKeys>[1]

let database: Database
let sequelize: Sequelize
let instances: TestApiKeys[] = []

beforeAll(async () => {
  database = await createDatabase()
  sequelize = database.connect()
})

afterEach(async () => {
  for (const instance of instances) await instance.close()
  instances = []
})

afterAll(() => database.drop())

/** Makes one more process of the library. */
function createInstance(options: Options = {}) {
  const apiKeys = createTestApiKeys(database, options)
  instances.push(apiKeys)
  return apiKeys
}

/** A key that both processes cache: the process that changes it, and the process to which the change is reported. */
async function createKnownKey(...verifiers: TestApiKeys[]) {
  const { apiKey, plainTextKey } = await createInstance().create(
    newKey({ permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'] }),
  )
  for (const verifier of verifiers) await expectValid(verifier, plainTextKey)
  return { id: apiKey.id, plainTextKey }
}

async function expectValid(apiKeys: TestApiKeys, plainTextKey: string) {
  expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
}

/** Waits until a process answers with this code. Jest limits the time. */
async function expectSoon(apiKeys: TestApiKeys, plainTextKey: string, code: string) {
  await until(async () => (await saysOf(apiKeys, plainTextKey)) === code)
}

async function saysOf(apiKeys: TestApiKeys, plainTextKey: string) {
  const verdict = await apiKeys.verify(plainTextKey)
  return verdict.valid ? verdict.apiKey : verdict.code
}

/** Without it, an UPDATE is not logged. */
const trigger = 'TRIGGER api_key_gather_update'

/** Makes a change while a trigger is disabled. */
async function unlogged(change: () => Promise<unknown>) {
  await sequelize.query(`ALTER TABLE api_keys DISABLE ${trigger}`)
  try {
    await change()
  } finally {
    await sequelize.query(`ALTER TABLE api_keys ENABLE ALWAYS ${trigger}`)
  }
}

describe('a change', () => {
  it('is known to its own process before it is answered', async () => {
    const apiKeys = createInstance({ listen: false, maxStalenessMs: 600_000 })
    const { id, plainTextKey } = await createKnownKey(apiKeys)

    await apiKeys.suspend(id)
    expect(await saysOf(apiKeys, plainTextKey)).toBe('suspended')
    await apiKeys.reactivate(id)
    await expectValid(apiKeys, plainTextKey)
    await apiKeys.setPermissions(id, ['READ_BLOCK'])
    expect(await saysOf(apiKeys, plainTextKey)).toMatchObject({ permissions: ['READ_BLOCK'] })
    await apiKeys.update(id, { name: 'Build server' })
    expect(await saysOf(apiKeys, plainTextKey)).toMatchObject({ name: 'Build server' })
    await apiKeys.revokeAll({ type: 'user', id: 'alice' })
    expect(await saysOf(apiKeys, plainTextKey)).toBe('revoked')
  })

  it('is known to its own process once a transaction of the caller is committed', async () => {
    const apiKeys = createInstance({ listen: false, maxStalenessMs: 600_000 })
    const { id, plainTextKey } = await createKnownKey(apiKeys)

    const transaction = await sequelize.transaction()
    await apiKeys.revoke(id, { transaction })
    await expectValid(apiKeys, plainTextKey)
    await transaction.commit()

    expect(await saysOf(apiKeys, plainTextKey)).toBe('revoked')
  })

  it('is known to its own process once the transaction around a savepoint is committed', async () => {
    const apiKeys = createInstance({ listen: false, maxStalenessMs: 600_000 })
    const { id, plainTextKey } = await createKnownKey(apiKeys)

    await sequelize.transaction(async (transaction) => {
      await sequelize.transaction({ transaction }, async (savepoint) => {
        await apiKeys.revoke(id, { transaction: savepoint })
      })
    })

    expect(await saysOf(apiKeys, plainTextKey)).toBe('revoked')
  })

  it('is known to its own process though a trigger is disabled', async () => {
    const apiKeys = createInstance({ maxStalenessMs: 600_000 })
    const { id, plainTextKey } = await createKnownKey(apiKeys)

    await unlogged(() => apiKeys.revoke(id))

    expect(await saysOf(apiKeys, plainTextKey)).toBe('revoked')
  })

  it('is known to its own process though a trigger is disabled and the key was being read', async () => {
    const { driver, holdLookUps, letGo } = recordStatements()
    const apiKeys = createInstance({
      maxStalenessMs: 600_000,
      sequelize: database.connect({ dialectModule: driver }),
    })
    const { id, plainTextKey } = await createKnownKey()
    const held = holdLookUps()
    const said = saysOf(apiKeys, plainTextKey)
    await held

    await unlogged(() => apiKeys.revoke(id))
    letGo()

    expect(await said).toBe('revoked')
  })

  it.each<[string, Options, string]>([
    ['at once', { maxStalenessMs: 600_000 }, 'up'],
    ['without LISTEN', { listen: false, maxStalenessMs: 300 }, 'off'],
    [
      'with LISTEN at an address that nobody answers',
      {
        listen: 'postgres://nobody@127.0.0.1:1/nothing',
        maxStalenessMs: 300,
      },
      'down',
    ],
  ])('reaches other processes %s', async (_, options, listener) => {
    const [maker, other] = [createInstance(), createInstance(options)]
    const { id, plainTextKey } = await createKnownKey(maker, other)
    await until(async () => (await other.health()).listener === listener)

    await maker.revoke(id)

    await expectSoon(other, plainTextKey, 'revoked')
    expect((await other.health()).listener).toBe(listener)
  })

  it('is notified at the address of the option listen', async () => {
    const other = createInstance({ listen: database.url, maxStalenessMs: 600_000 })
    const { id, plainTextKey } = await createKnownKey(other)
    await until(async () => (await other.health()).listener === 'up')

    await createInstance().revoke(id)

    await expectSoon(other, plainTextKey, 'revoked')
  })

  it.each([
    ['an UPDATE', `UPDATE api_keys SET status = 'REVOKED', revoked_at = now()`, 'revoked'],
    ['a DELETE', 'DELETE FROM api_keys', 'unknown'],
    ['TRUNCATE', 'TRUNCATE api_keys', 'unknown'],
    [
      'an UPDATE of its expiry',
      `UPDATE api_keys SET expires_at = now() - interval '1 s'`,
      'expired',
    ],
    ['another hash', `UPDATE api_keys SET hash = md5(hash) || md5(hash)`, 'unknown'],
    [
      'an UPDATE where replication is pretended',
      `SET LOCAL session_replication_role = 'replica';
       UPDATE api_keys SET status = 'SUSPENDED' WHERE status = 'ACTIVE'`,
      'suspended',
    ],
  ])('made by %s of plain SQL counts', async (_, sql, code) => {
    const apiKeys = createInstance({ maxStalenessMs: 600_000 })
    const { plainTextKey } = await createKnownKey(apiKeys)
    await until(async () => (await apiKeys.health()).listener === 'up')

    await sequelize.transaction((transaction) => sequelize.query(sql, { transaction }))

    await expectSoon(apiKeys, plainTextKey, code)
    await sequelize.query('TRUNCATE api_keys')
  })

  it('of many keys at once evicts all of them', async () => {
    const apiKeys = createInstance({ maxStalenessMs: 600_000 })
    const { plainTextKey } = await createKnownKey(apiKeys)
    await until(async () => (await apiKeys.health()).listener === 'up')

    await sequelize.query(
      `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
       SELECT 'many', 'Bulk', 'agpt_000000', '00000000', md5(n::text) || md5(n::text), '{READ_GRAPH}'
         FROM generate_series(1, 10001) AS n;
       UPDATE api_keys SET name = 'Changed' WHERE user_id = 'many'`,
    )
    await until(async () => (await apiKeys.health()).cache.keys === 0)

    await expectValid(apiKeys, plainTextKey)
    await sequelize.query('TRUNCATE api_keys')
  })

  it.each(['api_key_revisions', 'api_key_changes'])(
    'is not missed when %s is emptied',
    async (table) => {
      const apiKeys = createInstance({ maxStalenessMs: 300 })
      const { id, plainTextKey } = await createKnownKey(apiKeys)

      await sequelize.query(`TRUNCATE ${table}`)
      await createInstance().revoke(id)

      await expectSoon(apiKeys, plainTextKey, 'revoked')
      await until(async () => (await apiKeys.health()).feed === 'following')
    },
  )

  it('is not missed if a trigger is disabled, because nothing is relied on then', async () => {
    const apiKeys = createInstance({ maxStalenessMs: 300 })
    const { plainTextKey } = await createKnownKey(apiKeys)

    await sequelize.query(`ALTER TABLE api_keys DISABLE ${trigger}`)
    await sequelize.query(`UPDATE api_keys SET status = 'SUSPENDED' WHERE status = 'ACTIVE'`)
    await expectSoon(apiKeys, plainTextKey, 'suspended')
    expect((await apiKeys.health()).feed).toBe('untrusted')

    await sequelize.query(`UPDATE api_keys SET status = 'ACTIVE' WHERE status = 'SUSPENDED'`)
    await sequelize.query(`ALTER TABLE api_keys ENABLE ALWAYS ${trigger}`)
    await until(async () => typeof (await saysOf(apiKeys, plainTextKey)) === 'object')
    await until(async () => (await apiKeys.health()).feed === 'following')
  })

  it('is not missed when the row of the lock is gone: it fails, and says what to do', async () => {
    const apiKeys = createInstance()
    const { id, plainTextKey } = await createKnownKey(apiKeys)

    await sequelize.query('DELETE FROM api_key_log_lock')
    await expect(apiKeys.revoke(id)).rejects.toThrow(/row of .*api_key_log_lock.* is missing/)
    await expectValid(apiKeys, plainTextKey)

    await sequelize.query('INSERT INTO api_key_log_lock DEFAULT VALUES')
    await apiKeys.revoke(id)
    expect(await saysOf(apiKeys, plainTextKey)).toBe('revoked')
  })

  it('waits for no transaction that has changed keys and is not committed', async () => {
    const apiKeys = createInstance()
    const [first, second] = [await createKnownKey(apiKeys), await createKnownKey(apiKeys)]
    const open = await sequelize.transaction()
    await sequelize.query(`DELETE FROM api_keys WHERE id = '${first.id}'`, { transaction: open })

    await apiKeys.revoke(second.id)
    expect(await saysOf(apiKeys, second.plainTextKey)).toBe('revoked')
    await createKey(apiKeys)

    await open.rollback()
    await expectValid(apiKeys, first.plainTextKey)
  })
})

describe('everywhere', () => {
  it('waits as long as the longest bound that any process keeps', async () => {
    const own = await createDatabase()
    const [short, long] = [
      createTestApiKeys(own, { maxStalenessMs: 100 }),
      createTestApiKeys(own, { maxStalenessMs: 300, outageGraceMs: 200 }),
    ]
    const { apiKey, plainTextKey } = await short.create(newKey())
    await expectValid(short, plainTextKey)
    await expectValid(long, plainTextKey)

    const before = performance.now()
    await short.revoke(apiKey.id, { everywhere: true })

    expect(performance.now() - before).toBeGreaterThanOrEqual(500)
    for (const instance of [short, long]) await instance.close()
    await own.drop()
  })

  it('waits, too, if there is nothing left to change', async () => {
    const own = await createDatabase()
    const apiKeys = createTestApiKeys(own, { maxStalenessMs: 300 })
    const { apiKey } = await apiKeys.create(newKey())
    await apiKeys.revoke(apiKey.id)

    const before = performance.now()
    await apiKeys.revoke(apiKey.id, { everywhere: true })

    expect(performance.now() - before).toBeGreaterThanOrEqual(300)
    await own.drop()
  })

  it('fails with an explanation if row level security hides how long to wait', async () => {
    const own = await createDatabase()
    const [owner, role] = [own.connect(), `spec_${randomUUID().replaceAll('-', '')}`]
    await owner.query(
      `CREATE ROLE ${role}; GRANT ALL ON ALL TABLES IN SCHEMA public TO ${role};
       ALTER TABLE api_key_bounds ENABLE ROW LEVEL SECURITY`,
    )
    const apiKeys = createTestApiKeys(own, {
      sequelize: own.connect({ dialectOptions: { options: `-c role=${role}` } }),
    })
    const { apiKey } = await apiKeys.create(newKey())

    const revoked = apiKeys.revoke(apiKey.id, { everywhere: true })

    await expect(revoked).rejects.toThrow(/row level security hides the rows of api_key_bounds/)
    expect(await apiKeys.get(apiKey.id)).toMatchObject({ status: 'REVOKED' })
    await owner.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`)
    await own.drop()
  })

  it('is registered before anything is relied on, also after the bound was removed', async () => {
    const apiKeys = createInstance({ maxStalenessMs: 7_777 })
    const { plainTextKey } = await createKnownKey(apiKeys)
    await sequelize.query('DELETE FROM api_key_bounds')

    const { plainTextKey: cold } = await createKnownKey()
    await expectValid(apiKeys, cold)
    await expectValid(apiKeys, plainTextKey)

    const [bounds] = await sequelize.query('SELECT bound_ms::int FROM api_key_bounds')
    expect(bounds).toEqual([{ bound_ms: 7_777 }])
  })
})
