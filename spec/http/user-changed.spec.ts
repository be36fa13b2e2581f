import { randomUUID } from 'node:crypto'

import { createApiKeys } from '../../lib'
import { createTestApiKeys, permissions } from '../support/app'
import { createDatabase } from '../support/database'
import { faultsOf, newKey } from '../support/keys'
import { holdingOf, useRoles } from '../support/roles'
import { until } from '../support/until'

const [read, execute] = permissions

const { database, sequelize, rows, asked, hold, createInstance, createKey } = useRoles()

beforeAll(() =>
  rows(`
    CREATE FUNCTION report_roles() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        INSERT INTO api_key_user_changes (user_id) VALUES (OLD.user_id);
        RETURN NULL;
      END $$`),
)

describe('ownerChanged', () => {
  it('takes effect when the transaction of the caller commits, and not before', async () => {
    const apiKeys = createInstance({ listen: false, maxStalenessMs: 600_000 })
    const { key } = await createKey()
    await holdingOf(apiKeys, key)

    const transaction = await sequelize.transaction()
    await sequelize.query(`DELETE FROM roles WHERE permission = '${execute}'`, { transaction })
    await apiKeys.ownerChanged({ type: 'user', id: 'alice' }, { transaction })
    expect(await holdingOf(apiKeys, key)).toEqual([read, execute])
    await transaction.commit()

    expect(await holdingOf(apiKeys, key)).toEqual([read])
    expect(asked).toEqual(['alice', 'alice'])
  })

  it('changes nothing if the transaction is rolled back', async () => {
    const [apiKeys, other] = [createInstance(), createInstance()]
    const { key } = await createKey()
    await holdingOf(other, key)

    const transaction = await sequelize.transaction()
    await apiKeys.ownerChanged({ type: 'user', id: 'alice' }, { transaction })
    await transaction.rollback()
    const { revision } = await other.health()
    await apiKeys.ownerChanged({ type: 'user', id: 'bob' })
    await until(async () => (await other.health()).revision !== revision)

    expect(await holdingOf(other, key)).toEqual([read, execute])
    expect(asked).toEqual(['alice'])
  })

  it('reaches verifying processes from a process without verification and grantable', async () => {
    const other = createInstance({ maxStalenessMs: 600_000 })
    const reporter = createInstance({ grantable: undefined })
    const { key } = await createKey()
    await holdingOf(other, key)
    await until(async () => (await other.health()).listener === 'up')

    await hold('alice', [])
    await reporter.ownerChanged({ type: 'user', id: 'alice' })

    await until(async () => String(await holdingOf(other, key)) === '')
    expect((await reporter.health()).feed).toBe('idle')
  })

  it('resolves with everywhere when no process uses the old roles', async () => {
    // The database, which specs share, also has the bounds of processes of other specs.
    const own = await createDatabase()
    let held = [read, execute]
    const options = { grantable: () => held, maxStalenessMs: 300 }
    const [apiKeys, other] = [
      createTestApiKeys(own, options),
      createTestApiKeys(own, { ...options, listen: false }),
    ]
    const { plainTextKey } = await apiKeys.create(newKey({ permissions: held }))
    for (const each of [apiKeys, other]) await holdingOf(each, plainTextKey)

    held = [read]
    await apiKeys.ownerChanged({ type: 'user', id: 'alice' }, { everywhere: true })

    expect(await holdingOf(other, plainTextKey)).toEqual([read])
    await own.drop()
  })

  it.each([undefined, null, '', {}, 'x'.repeat(256)])('refuses %p for a user', async (userId) => {
    expect(
      await faultsOf(createInstance().ownerChanged({ type: 'user', id: userId as never })),
    ).toMatchObject([{ pointer: '#/owner/id' }])
  })

  it('refuses options that make no sense', async () => {
    const apiKeys = createInstance()
    const transaction = await sequelize.transaction()

    await expect(
      apiKeys.ownerChanged({ type: 'user', id: 'alice' }, { transaction, everywhere: true }),
    ).rejects.toThrow('everywhere needs a change that is committed: leave out the transaction')
    await expect(
      apiKeys.ownerChanged({ type: 'user', id: 'alice' }, { everywhere: 1 as never }),
    ).rejects.toThrow('everywhere must be true or false')
    await expect(
      apiKeys.ownerChanged({ type: 'user', id: 'alice' }, { reason: 'moved on' } as never),
    ).rejects.toThrow('ownerChanged: there is no option reason')
    await transaction.rollback()
  })

  it.each([
    ['integer', 7, '07'],
    ['bigint', '9223372036854775807', 9223372036854775807n],
    ['uuid', '7d444840-9dc0-11d1-b245-5ffdce74fad2', '7D444840-9DC0-11D1-B245-5FFDCE74FAD2'],
  ] as const)('reports users whose ids are of the type %s', async (type, userId, written) => {
    let held = [read]
    const seen: unknown[] = []
    const apiKeys = createApiKeys({
      sequelize,
      schema: `ids of ${type}`,
      users: { type },
      keyPrefix: 'agpt',
      permissions: [read],
      grantable({ id: userId }) {
        seen.push(userId)
        return held
      },
    })
    await apiKeys.migrate()
    const { plainTextKey } = await apiKeys.create({ userId, name: 'A', permissions: [read] })
    await apiKeys.verify(plainTextKey)

    held = []
    await apiKeys.ownerChanged({ type: 'user', id: written as string })

    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ apiKey: { permissions: [] } })
    expect(seen).toEqual([userId, userId, userId])
    await apiKeys.close()
  })
})

describe('a change of roles by plain SQL', () => {
  it.each([
    ['a user', `INSERT INTO api_key_user_changes (user_id) VALUES ('bob'), ('alice')`],
    ['every user', 'INSERT INTO api_key_user_changes (user_id) VALUES (NULL)'],
    [
      'a user, under the role of replication',
      `SET LOCAL session_replication_role = 'replica';
       INSERT INTO api_key_user_changes VALUES ('alice')`,
    ],
  ])('is noticed when the table names %s', async (_, sql) => {
    const apiKeys = createInstance({ maxStalenessMs: 600_000 })
    const { key } = await createKey()
    await holdingOf(apiKeys, key)
    await until(async () => (await apiKeys.health()).listener === 'up')

    await hold('alice', [read])
    await sequelize.transaction((transaction) => sequelize.query(sql, { transaction }))

    await until(async () => String(await holdingOf(apiKeys, key)) === read)
    expect(await rows('SELECT * FROM api_key_user_changes')).toEqual([])
  })

  it('is noticed through a trigger of the app, in one entry with changes of keys', async () => {
    const apiKeys = createInstance({ maxStalenessMs: 600_000 })
    const [{ key }, doomed] = [await createKey(), await createKey()]
    for (const each of [key, doomed.key]) await holdingOf(apiKeys, each)
    await until(async () => (await apiKeys.health()).listener === 'up')
    const { revision } = await apiKeys.health()
    await rows(
      'CREATE TRIGGER report_roles AFTER DELETE ON roles FOR EACH ROW EXECUTE FUNCTION report_roles()',
    )

    await rows(
      `BEGIN;
       DELETE FROM api_keys WHERE id = '${doomed.id}';
       DELETE FROM roles WHERE permission = '${execute}';
       COMMIT`,
    )

    await until(async () => String(await holdingOf(apiKeys, key)) === read)
    expect(await holdingOf(apiKeys, doomed.key)).toBe('unknown')
    const since = await rows(`SELECT 1 FROM api_key_revisions WHERE revision > ${revision}`)
    expect(since).toHaveLength(1)
    await rows('DROP TRIGGER report_roles ON roles')
  })

  it('needs no right but to insert', async () => {
    const apiKeys = createInstance({ maxStalenessMs: 600_000 })
    const { key } = await createKey()
    await holdingOf(apiKeys, key)
    await until(async () => (await apiKeys.health()).listener === 'up')
    const role = `spec_${randomUUID().replaceAll('-', '')}`
    await rows(`CREATE ROLE ${role}; GRANT INSERT ON api_key_user_changes TO ${role}`)
    const reporter = database.connect({ dialectOptions: { options: `-c role=${role}` } })

    await hold('alice', [])
    await reporter.query(`INSERT INTO api_key_user_changes VALUES ('alice')`)

    await until(async () => String(await holdingOf(apiKeys, key)) === '')
    await expect(reporter.query('SELECT FROM api_key_user_changes')).rejects.toThrow('permission')
    await rows(`DROP OWNED BY ${role}; DROP ROLE ${role}`)
  })

  it('is not missed if the trigger is disabled, because the cache is then not trusted', async () => {
    const [apiKeys, without] = [
      createInstance({ maxStalenessMs: 300 }),
      createInstance({ maxStalenessMs: 300, grantable: undefined }),
    ]
    const { key } = await createKey()
    for (const each of [apiKeys, without]) await holdingOf(each, key)

    await rows('ALTER TABLE api_key_user_changes DISABLE TRIGGER api_key_gather_user')
    await hold('alice', [read])
    await rows(`INSERT INTO api_key_user_changes VALUES ('alice')`)
    await until(async () => String(await holdingOf(apiKeys, key)) === read)
    await until(async () => (await apiKeys.health()).feed === 'untrusted')
    expect(await holdingOf(without, key)).toEqual([read, execute])
    expect((await without.health()).feed).toBe('following')

    await rows('TRUNCATE api_key_user_changes')
    await rows('ALTER TABLE api_key_user_changes ENABLE ALWAYS TRIGGER api_key_gather_user')
    await until(async () => (await apiKeys.health()).feed === 'following')
  })

  it('needs the table of changed users, and says so', async () => {
    const own = await createDatabase()
    const apiKeys = createTestApiKeys(own, { grantable: () => [read] })
    const { plainTextKey } = await apiKeys.create(newKey())
    await own.connect().query('DROP TABLE api_key_user_changes')

    for (const call of [
      () => apiKeys.verify(plainTextKey),
      () => apiKeys.ownerChanged({ type: 'user', id: 'alice' }),
    ]) {
      await expect(call()).rejects.toThrow(
        /^express-api-keys: the tables are missing or older than this version/,
      )
    }
    await own.drop()
  })
})
