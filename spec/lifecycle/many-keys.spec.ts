import { fork } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { join } from 'node:path'

import { TooManyApiKeysError } from '../../lib'
import type { Permission } from '../support/app'
import { databaseAway } from '../support/database'
import { faultsOf, newKey, newUser } from '../support/keys'
import { until } from '../support/until'
import { useWorld, useWorldForEach } from '../support/world'
import { idempotencyKey, keysOfBatch } from './dying-batch'

const program = join(__dirname, 'dying-batch.ts')
const register = join(__dirname, '../support/register.js')

/** The input for a number of keys, each with its place in its name. */
function manyKeys(count: number, wishes: Parameters<typeof newKey>[0] = {}) {
  return Array.from({ length: count }, (_, index) => newKey({ name: `Key ${index}`, ...wishes }))
}

describe('createMany', () => {
  const world = useWorldForEach({ options: { maxKeysPerOwner: 2_000 } })

  async function countKeys() {
    const [row] = await world.rows<{ count: number }>('SELECT count(*)::int FROM api_keys')
    return Number(row?.count)
  }

  it('creates keys in the order given, each with a good secret of its own', async () => {
    const { apiKeys, failure } = await world.apiKeys.createMany([
      ...manyKeys(1_200),
      newKey({ userId: 'bob', permissions: ['READ_BLOCK'], metadata: { plan: 'gold' } }),
    ])

    expect(failure).toBeNull()
    expect(apiKeys.map(({ apiKey }) => apiKey.name)).toEqual([
      ...manyKeys(1_200).map(({ name }) => name),
      'Deployment',
    ])
    expect(new Set(apiKeys.map(({ plainTextKey }) => plainTextKey)).size).toBe(1_201)
    for (const { apiKey, plainTextKey } of [apiKeys[0], apiKeys[1_000], apiKeys[1_200]].filter(
      (created) => created !== undefined,
    )) {
      expect(await world.apiKeys.get(apiKey.id)).toEqual(apiKey)
      expect(await world.apiKeys.verify(String(plainTextKey))).toMatchObject({
        valid: true,
        apiKey: { id: apiKey.id, userId: apiKey.userId, permissions: apiKey.permissions },
      })
    }
  })

  it('writes an entry for each key, and the trail is intact', async () => {
    const options = { actor: { type: 'admin', id: 'root' }, address: '203.0.113.7' } as const
    const { apiKeys } = await world.apiKeys.createMany(manyKeys(1_001), options)

    const { events } = await world.apiKeys.events({ apiKeyId: apiKeys[1_000]?.apiKey.id })
    expect(events).toMatchObject([
      { action: 'created', actorType: 'admin', actorId: 'root', address: '203.0.113.7' },
    ])
    expect(await world.apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
    expect(
      await world.rows('SELECT count(*)::int AS count, action FROM api_key_events GROUP BY action'),
    ).toEqual([{ count: 1_001, action: 'created' }])
  })

  it('reports each key after the commit of its thousand, in order', async () => {
    const seen: [name: string, keys: number][] = []
    const counted: Promise<void>[] = []
    world.apiKeys.on('created', ({ apiKey, before, actor }) => {
      expect([before, actor]).toEqual([null, { type: 'system' }])
      counted.push(countKeys().then((keys) => void seen.push([apiKey.name, keys])))
    })

    await world.apiKeys.createMany(manyKeys(1_001))
    await Promise.all(counted)

    expect(counted).toHaveLength(1_001)
    expect(new Set(seen.map(([name]) => name)).size).toBe(1_001)
    expect(Math.min(...seen.map(([, keys]) => keys))).toBeGreaterThanOrEqual(1_000)
  })

  it('creates nothing of an empty list, without a statement', async () => {
    const before = world.statements.all.length

    expect(await world.apiKeys.createMany([])).toEqual({ apiKeys: [], failure: null })
    expect(world.statements.all.length).toBe(before)
  })

  it('creates further keys if it is called twice', async () => {
    const first = await world.apiKeys.createMany(manyKeys(3))
    const second = await world.apiKeys.createMany(manyKeys(3))

    const all = [...first.apiKeys, ...second.apiKeys]
    expect(new Set(all.map(({ apiKey }) => apiKey.id)).size).toBe(6)
    expect(await countKeys()).toBe(6)
  })

  it.each([
    ['nothing', undefined, '#/apiKeys', 'must be a list of API keys'],
    ['null', null, '#/apiKeys', 'must be a list of API keys'],
    ['text', 'a,b', '#/apiKeys', 'must be a list of API keys'],
    ['one key', newKey(), '#/apiKeys', 'must be a list of API keys'],
    ['what is like a list', { length: 1, 0: newKey() }, '#/apiKeys', 'must be a list of API keys'],
    ['10,001', manyKeys(10_001), '#/apiKeys', 'must have at most 10000 API keys'],
    ['a list with null', [newKey(), null], '#/apiKeys/1', 'must be a JSON object'],
    [
      'a list with a hole',
      Object.assign([newKey()], { length: 2 }),
      '#/apiKeys/1',
      'must be a JSON object',
    ],
  ])('refuses %s', async (_, given, pointer, message) => {
    expect(await faultsOf(world.apiKeys.createMany(given as never))).toEqual([{ pointer, message }])
    expect(await countKeys()).toBe(0)
  })

  it('refuses all keys if one of a thousand breaks a rule, and names its place', async () => {
    const keys = manyKeys(1_000)
    keys[617] = newKey({ name: '', permissions: ['READ_GRAPH', 'FLY' as Permission] })

    expect(await faultsOf(world.apiKeys.createMany(keys))).toEqual([
      { pointer: '#/apiKeys/617/name', message: 'must have 1 to 100 characters' },
      {
        pointer: '#/apiKeys/617/permissions/1',
        message: 'must be one of READ_GRAPH, EXECUTE_GRAPH, READ_BLOCK, EXECUTE_BLOCK',
      },
    ])
    expect(await countKeys()).toBe(0)
  })

  it('reports a hundred faults at most', async () => {
    const faults = await faultsOf(world.apiKeys.createMany(manyKeys(10_000, { name: '' })))

    expect(faults).toHaveLength(100)
    expect(faults[0]?.pointer).toBe('#/apiKeys/0/name')
  })

  it('applies the policies of the app to each key, and asks once for the permissions of a user', async () => {
    const asked: (string | number)[] = []
    const { apiKeys } = world.createProcess({
      reservedMetadata: ['plan'],
      maxLifetimeSeconds: 3_600,
      limits: { burst: { limit: 1, windowSeconds: 1 } },
      grantable({ id: userId }) {
        asked.push(userId)
        return userId === 'alice' ? ['READ_GRAPH'] : ['EXECUTE_GRAPH']
      },
    })
    const expiresAt = new Date(Date.now() + 60_000)
    const keys = manyKeys(40, { expiresAt })
    keys[3] = newKey({ expiresAt, metadata: { plan: 'gold' } })
    keys[20] = newKey({ expiresAt, limits: { burst: null } })
    keys[21] = newKey({})
    keys[39] = newKey({ expiresAt, userId: 'bob' })

    const call = apiKeys.createMany(keys, { actor: { type: 'user', id: 'alice' } })

    expect(await faultsOf(call)).toEqual([
      { pointer: '#/apiKeys/3/metadata/plan', message: 'is for administrators to write' },
      { pointer: '#/apiKeys/20/limits', message: 'is for administrators to write' },
      { pointer: '#/apiKeys/21/expiresAt', message: 'is required here' },
      { pointer: '#/apiKeys/39/permissions/0', message: 'may not be granted by this user' },
    ])
    expect(new Set(asked)).toEqual(new Set(['alice', 'bob']))
    expect(asked).toHaveLength(2)
    expect(await countKeys()).toBe(0)
  })

  it('counts the keys of a user exactly', async () => {
    const { apiKeys } = world.createProcess({ maxKeysPerOwner: 10 })
    await apiKeys.createMany(manyKeys(8))
    const keys = [newKey(), newKey({ userId: 'bob' }), newKey(), newKey(), newKey()]

    const error = await apiKeys.createMany(keys).catch((error: unknown) => error)

    expect(error).toBeInstanceOf(TooManyApiKeysError)
    expect(error).toMatchObject({
      code: 'too_many_api_keys',
      status: 409,
      errors: [
        { pointer: '#/apiKeys/3', message: 'is one more than its owner may have' },
        { pointer: '#/apiKeys/4', message: 'is one more than its owner may have' },
      ],
    })
    expect(await countKeys()).toBe(8)
    await apiKeys.createMany(keys.slice(0, 3))
    expect(await countKeys()).toBe(11)
  })

  it('counts exactly if many calls come at once, in two processes', async () => {
    const processes = [1, 2].map(() => world.createProcess({ maxKeysPerOwner: 100 }))

    const results = await Promise.allSettled(
      [1, 2, 3, 4].flatMap(() => processes.map(({ apiKeys }) => apiKeys.createMany(manyKeys(30)))),
    )

    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(3)
    expect(await countKeys()).toBe(90)
  })

  it('returns the keys of the thousands before, if a later thousand is refused', async () => {
    const keys = manyKeys(2_500, { userId: 'alice' })
    for (let index = 1_000; index < 2_500; index++) keys[index] = newKey({ userId: 'bob' })
    const { apiKeys } = world.createProcess({ maxKeysPerOwner: 1_200 })

    const { apiKeys: created, failure } = await apiKeys.createMany(keys)

    expect(created).toHaveLength(2_000)
    expect(failure).toMatchObject({ code: 'too_many_api_keys' })
    expect(failure).toHaveProperty(['errors', 0, 'pointer'], '#/apiKeys/2200')
    expect(await countKeys()).toBe(2_000)
    const last = await apiKeys.verify(String(created[1_999]?.plainTextKey))
    expect(last.valid).toBe(true)
  })

  it('is part of a transaction of the caller, and is refused in it as a whole', async () => {
    const created: string[] = []
    world.apiKeys.on('created', ({ apiKey }) => created.push(apiKey.name))
    const keys = manyKeys(1_500)

    const transaction = await world.sequelize.transaction()
    await world.apiKeys.createMany(keys, { transaction })
    await transaction.rollback()
    expect([await countKeys(), created]).toEqual([0, []])

    const { apiKeys } = world.createProcess({ maxKeysPerOwner: 1_200 })
    await expect(
      world.sequelize.transaction((own) => apiKeys.createMany(keys, { transaction: own })),
    ).rejects.toMatchObject({ code: 'too_many_api_keys' })
    expect(await countKeys()).toBe(0)
  })

  it('makes its process accept the keys as soon as a transaction of the caller has committed', async () => {
    const transaction = await world.sequelize.transaction()
    const { apiKeys } = await world.apiKeys.createMany(manyKeys(2), { transaction })
    const plainTextKey = String(apiKeys[1]?.plainTextKey)
    expect(await world.apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'unknown' })

    await transaction.commit()

    expect(await world.apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
  })

  it('gives way to a transaction that holds one of its users, and creates the keys after that', async () => {
    const transaction = await world.sequelize.transaction()
    await world.apiKeys.create(newKey({ userId: 'held' }), { transaction })
    const { apiKeys, statements } = world.createProcess()
    const creations = () => statements.all.filter((sql) => sql.includes('api_key_create'))

    const creating = apiKeys.createMany([newKey(), newKey({ userId: 'held' })])
    await until(() => creations().length > 1)
    await transaction.commit()

    expect((await creating).apiKeys).toHaveLength(2)
    expect(await countKeys()).toBe(3)
  })

  it('reports that the database is away', async () => {
    const { apiKeys } = world.createProcess({ sequelize: databaseAway.connect() })

    await expect(apiKeys.createMany(manyKeys(2))).rejects.toMatchObject({
      code: 'database_unavailable',
    })
  })

  it('refuses the owner among the options, because each key has its own', async () => {
    const options = { userId: 'alice' } as object

    await expect(world.apiKeys.createMany(manyKeys(1), options)).rejects.toThrow(TypeError)
  })

  it('leaves whole thousands if its process is killed in the third, and goes on if it is called again', async () => {
    const transaction = await world.sequelize.transaction()
    await world.apiKeys.create(newKey({ userId: 'held' }), { transaction })
    const dying = fork(program, [world.database.url], { execArgv: ['--require', register] })

    const lock = await world.holdLock('SELECT 1')
    await lock.waitedFor()
    dying.kill('SIGKILL')
    expect(await once(dying, 'exit')).toEqual([null, 'SIGKILL'])
    await transaction.rollback()
    expect(await countKeys()).toBe(2_000)

    const again = await world.apiKeys.createMany(keysOfBatch, { idempotencyKey })
    expect(again.failure).toBeNull()
    expect(again.apiKeys.map(({ apiKey }) => apiKey.name)).toEqual(
      keysOfBatch.map(({ name }) => name),
    )
    const isKnown = again.apiKeys.map(({ plainTextKey }) => plainTextKey === null)
    expect(isKnown.lastIndexOf(true)).toBe(1_999)
    expect(isKnown.indexOf(false)).toBe(2_000)
    expect(await countKeys()).toBe(3_500)
    expect(await world.apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })

    const repeated = await world.apiKeys.createMany(keysOfBatch, { idempotencyKey })
    expect(repeated.apiKeys.map(({ apiKey }) => apiKey.id)).toEqual(
      again.apiKeys.map(({ apiKey }) => apiKey.id),
    )
    expect(repeated.apiKeys.filter(({ plainTextKey }) => plainTextKey !== null)).toEqual([])
    expect(await countKeys()).toBe(3_500)
  })

  it('creates the keys of one idempotency key once, if two processes are called at once', async () => {
    const processes = [world, world.createProcess({ maxKeysPerOwner: 2_000 })]
    const keys = manyKeys(1_500)

    const results = await Promise.allSettled(
      processes.map(({ apiKeys }) => apiKeys.createMany(keys, { idempotencyKey })),
    )

    expect(await countKeys()).toBe(1_500)
    const plainTexts = results.flatMap((result) =>
      result.status === 'fulfilled'
        ? result.value.apiKeys.flatMap(({ plainTextKey }) => plainTextKey ?? [])
        : [],
    )
    expect(new Set(plainTexts).size).toBe(1_500)
  })

  it('refuses other keys with an idempotency key that was used, and leaves no claim of a refusal', async () => {
    const { apiKeys } = world.createProcess({ maxKeysPerOwner: 3 })
    await expect(apiKeys.createMany(manyKeys(4), { idempotencyKey })).rejects.toMatchObject({
      code: 'too_many_api_keys',
    })
    await apiKeys.createMany(manyKeys(3), { idempotencyKey })

    await expect(apiKeys.createMany(manyKeys(2), { idempotencyKey })).rejects.toMatchObject({
      code: 'idempotency_key_reused',
    })
    expect(await countKeys()).toBe(3)

    const actor = { type: 'admin', id: 'root' } as const
    const bobs = manyKeys(1, { userId: 'bob' })
    const other = await apiKeys.createMany(bobs, { actor, idempotencyKey })
    expect(other.apiKeys[0]?.plainTextKey).toEqual(expect.any(String))
  })
})

describe('createMany, with a table of users', () => {
  const world = useWorld({
    options: { users: { table: 'people', column: 'id' }, maxKeysPerOwner: Infinity },
    template: 'empty',
  })

  beforeAll(async () => {
    await world.sequelize.query(
      `CREATE TABLE people (id text PRIMARY KEY); INSERT INTO people VALUES ('alice'), ('bob')`,
    )
    await world.apiKeys.migrate()
  })

  it.each(['nobody', 'ali)ce', 'Nobody (really)'])(
    'names the keys whose owner is not a user: %s',
    async (userId) => {
      const keys = [newKey(), newKey({ userId }), newKey({ userId: 'bob' }), newKey({ userId })]

      expect(await faultsOf(world.apiKeys.createMany(keys))).toEqual([
        { pointer: '#/apiKeys/1/owner', message: 'is not a user' },
        { pointer: '#/apiKeys/3/owner', message: 'is not a user' },
      ])
      expect(await world.rows('SELECT FROM api_keys')).toEqual([])
    },
  )
})

describe('revokeMany', () => {
  const world = useWorld()

  async function createSome(count: number, wishes: Parameters<typeof newKey>[0] = {}) {
    const { apiKeys } = await world.apiKeys.createMany(manyKeys(count, wishes))
    return apiKeys.map(({ apiKey }) => apiKey.id)
  }

  async function statusesOf(ids: readonly string[]) {
    return Promise.all(ids.map(async (id) => (await world.apiKeys.get(id)).status))
  }

  it('revokes the keys of a list, and returns their number and the unknown ids', async () => {
    const ids = [
      ...(await createSome(2, { userId: newUser() })),
      ...(await createSome(1, { userId: newUser() })),
    ]
    const others = await createSome(1)
    const unknown = randomUUID()

    const list = [...ids, unknown, String(ids[0]?.toUpperCase())]
    const result = await world.apiKeys.revokeMany({ ids: list }, { reason: 'leaked' })

    expect(result).toEqual({ keys: 3, notFound: [unknown] })
    expect(await statusesOf([...ids, ...others])).toEqual([
      'REVOKED',
      'REVOKED',
      'REVOKED',
      'ACTIVE',
    ])
    const { events } = await world.apiKeys.events({ apiKeyId: ids[2], limit: 1 })
    expect(events).toMatchObject([{ action: 'revoked', reason: 'leaked', actorType: 'system' }])
    expect(await world.apiKeys.revokeMany({ ids })).toEqual({ keys: 0, notFound: [] })
  })

  it('only counts with dryRun', async () => {
    const ids = await createSome(3, { userId: newUser() })

    expect(await world.apiKeys.revokeMany({ ids, dryRun: true })).toEqual({ keys: 3, notFound: [] })
    expect(await statusesOf(ids)).toEqual(['ACTIVE', 'ACTIVE', 'ACTIVE'])
  })

  it('revokes nothing of an empty list', async () => {
    expect(await world.apiKeys.revokeMany({ ids: [] })).toEqual({ keys: 0, notFound: [] })
  })

  it('revokes the keys for which all criteria of a filter hold', async () => {
    const userId = newUser()
    const [kept = ''] = await createSome(1, { userId, permissions: ['READ_BLOCK'] })
    const [suspended = ''] = await createSome(1, { userId })
    await world.apiKeys.suspend(suspended)
    const found = await createSome(2, { userId, name: 'Nightly export' })
    await createSome(1, { userId: newUser(), name: 'Nightly export' })

    const filter = { userId, permission: 'READ_GRAPH', status: 'ACTIVE', text: 'night' } as const
    expect(await world.apiKeys.revokeMany(filter)).toEqual({ keys: 2, notFound: [] })
    expect(await statusesOf([kept, suspended, ...found])).toEqual([
      'ACTIVE',
      'SUSPENDED',
      'REVOKED',
      'REVOKED',
    ])
    expect(await world.apiKeys.revokeMany({ userId, isExpired: true })).toMatchObject({ keys: 0 })
    expect(await world.apiKeys.revokeMany({ userId })).toMatchObject({ keys: 2 })
  })

  it('works through thousands, each a transaction, and reports each key', async () => {
    const userId = newUser()
    const ids = await createSome(1_000, { userId })
    ids.push(...(await createSome(1, { userId: newUser() })))
    const revoked = new Set<string>()
    const stopListening = world.apiKeys.on('revoked', ({ apiKey }) => revoked.add(apiKey.id))

    expect(await world.apiKeys.revokeMany({ ids })).toEqual({ keys: 1_001, notFound: [] })
    stopListening()

    expect(revoked).toEqual(new Set(ids))
    expect(await world.apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })

  it('does not reach the keys of another prefix', async () => {
    const other = world.createProcess({ keyPrefix: 'other' })
    const { id } = await other.createKey()

    expect(await world.apiKeys.revokeMany({ ids: [id] })).toEqual({ keys: 0, notFound: [id] })
    expect((await other.apiKeys.get(id)).status).toBe('ACTIVE')
  })

  const eitherOr =
    'must have either ids, or some of owner, createdBy, status, isExpired, permission and text'

  it.each([
    ['no criterion, which would be about all keys', {}, '#', eitherOr],
    ['dryRun alone', { dryRun: true }, '#', eitherOr],
    ['ids beside a filter', { ids: [], userId: 'alice' }, '#', eitherOr],
    ['text for ids', { ids: 'all' }, '#/ids', 'must be a list of ids'],
    ['an id that is no UUID', { ids: [randomUUID(), 'a'] }, '#/ids/1', 'must be a UUID'],
    ['10,001 ids', { ids: manyKeys(10_001) }, '#/ids', 'must have at most 10000 ids'],
    [
      'a criterion that is not known',
      { userId: 'a', user: 1 },
      '#/user',
      'is not known here (did you mean userId?)',
    ],
    ['a dryRun that is text', { userId: 'a', dryRun: 'y' }, '#/dryRun', 'must be true or false'],
  ])('refuses %s', async (_, criteria, pointer, message) => {
    const call = world.apiKeys.revokeMany(criteria as never)

    expect(await faultsOf(call)).toEqual([{ pointer, message }])
  })

  it.each(['ids', 'userId', 'status', 'isExpired', 'permission', 'text'])(
    'refuses a criterion without its value, which would mean all keys: %s',
    async (name) => {
      const criteria = { userId: 'alice', [name]: undefined } as never

      await expect(world.apiKeys.revokeMany(criteria)).rejects.toThrow(TypeError)
    },
  )

  it('refuses a transaction of the caller', async () => {
    const transaction = await world.sequelize.transaction()
    const options = { transaction } as object

    await expect(world.apiKeys.revokeMany({ ids: [] }, options)).rejects.toThrow(TypeError)
    await transaction.rollback()
  })
})
