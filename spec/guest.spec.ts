/** @jest-environment node */
import { AsyncLocalStorage } from 'node:async_hooks'
import { randomUUID } from 'node:crypto'
import { inspect } from 'node:util'

import { types } from 'pg'
import { DataTypes, QueryTypes, Sequelize, Transaction, type Options } from 'sequelize'

import { createTestApiKeys, type TestApiKeys } from './support/app'
import { createDatabase, type Database } from './support/database'

let database: Database

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

/** Makes every call of the library once, for a user of its own. */
async function useEverything(apiKeys: TestApiKeys) {
  const userId = randomUUID()
  const { apiKey, plainTextKey } = await apiKeys.create({
    userId,
    name: 'CI',
    permissions: ['READ_GRAPH'],
    expiresAt: '2999-12-31T23:59:59Z',
  })
  await apiKeys.update(apiKey.id, { name: 'Build server' })
  await apiKeys.setPermissions(apiKey.id, ['READ_GRAPH', 'READ_BLOCK'])
  await apiKeys.suspend(apiKey.id)
  await apiKeys.reactivate(apiKey.id)
  const verdict = await apiKeys.verify(plainTextKey)
  await apiKeys.flush()
  const revoked = await apiKeys.revoke(apiKey.id)

  const { apiKeys: listed } = await apiKeys.list({
    userId,
    text: 'build',
    permission: 'READ_BLOCK',
  })
  const { events } = await apiKeys.events({ apiKeyId: apiKey.id })
  return { verdict, revoked, listed, got: await apiKeys.get(apiKey.id), events }
}

function expectAllWorked({
  verdict,
  revoked,
  listed,
  got,
  events,
}: Awaited<ReturnType<typeof useEverything>>) {
  expect(verdict).toEqual({
    valid: true,
    apiKey: {
      id: got.id,
      owner: got.owner,
      userId: got.userId,
      name: 'Build server',
      permissions: ['READ_GRAPH', 'READ_BLOCK'],
      expiresAt: new Date('2999-12-31T23:59:59Z'),
    },
  })
  expect(revoked).toMatchObject({
    name: 'Build server',
    status: 'REVOKED',
    revokedAt: expect.any(Date),
  })
  expect(got).toEqual({ ...revoked, lastUsedAt: expect.any(Date) })
  expect(listed).toEqual([got])
  expect(events.map(({ action }) => action)).toEqual([
    'revoked',
    'reactivated',
    'suspended',
    'permissions_changed',
    'updated',
    'created',
  ])
}

describe('a guest in the app’s Sequelize', () => {
  const hook = jest.fn(() => {
    throw new Error('a hook of the app ran for a table of ours')
  })

  beforeEach(() => hook.mockClear())

  it.each<[string, Options]>([
    [
      'model defaults',
      {
        define: {
          underscored: true,
          paranoid: true,
          timestamps: false,
          freezeTableName: true,
          schema: 'app',
          version: true,
          defaultScope: { where: { tenant: 'x' } },
          scopes: { mine: { where: { tenant: 'x' } } },
          hooks: {
            beforeFind: hook,
            beforeCreate: hook,
            beforeBulkUpdate: hook,
            beforeValidate: hook,
          },
          validate: { never: hook },
        },
      },
    ],
    [
      'timestamps of its own',
      { define: { timestamps: true, createdAt: 'born', updatedAt: false } },
    ],
    ['hooks on everything', { hooks: { beforeDefine: hook, beforeFind: hook, beforeQuery: hook } }],
    ['raw queries', { query: { raw: true } }],
    ['unquoted identifiers', { quoteIdentifiers: false }],
    ['short aliases', { minifyAliases: true }],
    ['no nulls', { omitNull: true }],
    ['checked types', { typeValidation: true }],
    ['another isolation level', { isolationLevel: Transaction.ISOLATION_LEVELS.SERIALIZABLE }],
    ['another schema', { schema: 'app' }],
    ['another time zone', { timezone: '+05:45' }],
  ])('works with every setting of the app: %s', async (_, options) => {
    const apiKeys = createTestApiKeys(database, { sequelize: database.connect(options) })

    expectAllWorked(await useEverything(apiKeys))

    expect(hook).not.toHaveBeenCalled()
  })

  it('works with drivers that read times, bigints and integers their own way', async () => {
    const before = [20, 1184].map((oid) => [oid, types.getTypeParser(oid)] as const)
    types.setTypeParser(20, BigInt)
    types.setTypeParser(1184, (text) => text)
    try {
      expectAllWorked(await useEverything(createTestApiKeys(database)))
    } finally {
      for (const [oid, parser] of before) types.setTypeParser(oid, parser)
    }
  })

  it('works with another copy of Sequelize than the library would load', async () => {
    const sequelize = await connectByAnotherCopy()
    const apiKeys = createTestApiKeys(database, { sequelize, maxKeysPerOwner: 5 })

    const { got } = await useEverything(apiKeys)
    const { apiKey } = await apiKeys.create({
      userId: got.userId,
      name: 'Second',
      permissions: ['READ_GRAPH'],
    })
    await apiKeys.rotate(apiKey.id)
    const { nextCursor } = await apiKeys.list({ userId: got.userId, limit: 1 })
    const secondPage = await apiKeys.list({
      userId: got.userId,
      limit: 1,
      cursor: nextCursor ?? '',
    })

    expect(secondPage.apiKeys).toMatchObject([{ id: got.id }])
    expect(await apiKeys.revokeAll({ type: 'user', id: got.userId })).toEqual({ keys: 1 })
    expect(await apiKeys.pruneRevoked({ olderThanDays: 90 })).toEqual({ keys: 0 })
    expect(await apiKeys.get(apiKey.id)).toMatchObject({ status: 'REVOKED' })
    await sequelize.close()
    await expect(apiKeys.get(apiKey.id)).rejects.toThrow('closed')
  })

  it('names the failures of another copy of Sequelize, and keeps hashes out of them', async () => {
    const nowhere = await connectByAnotherCopy('postgres://127.0.0.1:1/nowhere')
    const sequelize = await connectByAnotherCopy()
    const apiKeys = createTestApiKeys(database, { sequelize })
    const key = { userId: 'carol', name: 'Taken', permissions: ['READ_GRAPH' as const] }

    await expect(
      createTestApiKeys(database, { sequelize: nowhere }).create(key),
    ).rejects.toMatchObject({ code: 'database_unavailable' })
    const failure: unknown = await sequelize
      .transaction(async (transaction) => {
        await apiKeys.create(key, { transaction })
        await sequelize.query('CREATE UNIQUE INDEX ON api_keys (name)', { transaction })
        await apiKeys.create(key, { transaction })
      })
      .catch((error: unknown) => error)
    await sequelize.close()

    expect(failure).toMatchObject({ name: 'SequelizeUniqueConstraintError' })
    expect(inspect(failure, { depth: 10 })).not.toMatch(/[0-9a-f]{64}/)
  })

  it('goes to the primary for everything', async () => {
    const { hostname: host, port, username, password, pathname } = new URL(database.url)
    const primary = { host, port, username, password, database: pathname.slice(1) }
    const sequelize = database.connect({
      // Nothing listens on port 1: a read that went to the replica would fail.
      replication: { write: primary, read: [{ ...primary, port: '1' }] },
    })

    expectAllWorked(await useEverything(createTestApiKeys(database, { sequelize })))
  })

  it('leaves a model ApiKey of the app as it is, before or after the library', async () => {
    const sequelize = database.connect()
    const first = sequelize.define('ApiKeyEvent', { vendor: DataTypes.TEXT })
    const apiKeys = createTestApiKeys(database, { sequelize })
    const second = sequelize.define(
      'ApiKey',
      { vendor: DataTypes.TEXT },
      { tableName: 'vendor_keys' },
    )

    await sequelize.sync()
    await second.create({ vendor: 'stripe' })
    const results = await useEverything(apiKeys)

    expectAllWorked(results)
    expect(sequelize.models).toEqual({ ApiKeyEvent: first, ApiKey: second })
    expect(await second.count()).toBe(1)
  })

  it('survives sync({ force: true }), drop() and truncate() of the app', async () => {
    const sequelize = database.connect()
    const apiKeys = createTestApiKeys(database, { sequelize })
    const Graph = sequelize.define('Graph', { name: DataTypes.TEXT })
    const { plainTextKey } = await apiKeys.create({
      userId: 'alice',
      name: 'CI',
      permissions: ['READ_GRAPH'],
    })

    await sequelize.sync({ force: true, alter: true })
    await Graph.create({ name: 'g' })
    await sequelize.truncate()
    await sequelize.drop()

    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
  })

  it('hands the app’s logger statements and times, and no parameters', async () => {
    const given: unknown[][] = []
    const logging = (...args: unknown[]) => given.push(args)
    const sequelize = database.connect({ logging, benchmark: true, logQueryParameters: true })

    expectAllWorked(await useEverything(createTestApiKeys(database, { sequelize })))

    const [row] = await sequelize.query<{ hash: string }>(
      'SELECT hash FROM api_keys ORDER BY created_at DESC LIMIT 1',
      {
        type: QueryTypes.SELECT,
        logging: false,
      },
    )
    expect(given).not.toHaveLength(0)
    expect(given.flat().every((arg) => typeof arg === 'string' || typeof arg === 'number')).toBe(
      true,
    )
    expect(given.flat().join()).not.toContain(row?.hash)
  })

  it('changes nothing in the app’s Sequelize', () => {
    const sequelize = database.connect({ define: { underscored: true } })
    const before = Object.entries(sequelize)
    const options = Object.entries(optionsOf(sequelize))

    createTestApiKeys(database, { sequelize })

    expect(Object.entries(sequelize)).toEqual(before)
    expect(Object.entries(optionsOf(sequelize))).toEqual(options)
    expect(sequelize.models).toEqual({})
  })
})

/** Connects by another copy of Sequelize, like apps in monorepos, with `npm link`, or with pnpm and differing peers. */
async function connectByAnotherCopy(url = database.url): Promise<Sequelize> {
  let sequelize: Sequelize | undefined
  await jest.isolateModulesAsync(async () => {
    const copy = await import('sequelize')
    // pg loads the rest of itself when it connects.
    sequelize = new copy.Sequelize(url, { logging: false })
  })
  if (!sequelize || sequelize instanceof Sequelize) throw new Error('there is only one copy')
  return sequelize
}

function optionsOf(sequelize: Sequelize): Options {
  return (sequelize as Sequelize & { options: Options }).options
}

describe('an ambient transaction (CLS)', () => {
  const storage = new AsyncLocalStorage<Map<string, unknown>>()
  const namespace = {
    run: (work: (context: object) => unknown) =>
      storage.run(new Map(storage.getStore()), () => work({})),
    bind: (work: unknown) => work,
    get: (name: string) => storage.getStore()?.get(name),
    set: (name: string, value: unknown) => storage.getStore()?.set(name, value),
  }

  beforeAll(() => {
    Sequelize.useCLS(namespace)
  })

  it('is never joined: changes of the library stay when the app rolls back', async () => {
    const sequelize = database.connect()
    const apiKeys = createTestApiKeys(database, { sequelize, maxKeysPerOwner: 5 })

    const results = await new Promise<Awaited<ReturnType<typeof useEverything>>>(
      (resolve, reject) => {
        sequelize
          .transaction(async () => {
            resolve(await useEverything(apiKeys))
            throw new Error('rolled back')
          })
          .catch((error: Error) => error.message !== 'rolled back' && reject(error))
      },
    )

    expectAllWorked(results)
    expect(await apiKeys.list({ userId: results.got.userId })).toMatchObject({
      apiKeys: [{ status: 'REVOKED' }],
    })
  })

  it('stays the ambient transaction after calls of the library', async () => {
    const sequelize = database.connect()
    const apiKeys = createTestApiKeys(database, { sequelize })

    await sequelize.transaction(async (transaction) => {
      await useEverything(apiKeys)

      expect(namespace.get('transaction')).toBe(transaction)
    })
  })

  it('is joined if the app passes it', async () => {
    const sequelize = database.connect()
    const apiKeys = createTestApiKeys(database, { sequelize })

    await expect(
      sequelize.transaction(async (transaction) => {
        await apiKeys.create(
          { userId: 'bob', name: 'CI', permissions: ['READ_GRAPH'] },
          { transaction },
        )
        throw new Error('rolled back')
      }),
    ).rejects.toThrow('rolled back')

    expect(await apiKeys.list({ userId: 'bob' })).toEqual({ apiKeys: [], nextCursor: null })
  })
})
