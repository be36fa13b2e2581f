import { randomUUID } from 'node:crypto'

import { QueryTypes, type Sequelize } from 'sequelize'

import {
  createApiKeys,
  type ApiKeyRecord,
  type ChangeOptions,
  type Status,
  type UserIdType,
} from '../../lib'
import { createTestApiKeys, type Permission, type TestApiKeys } from '../support/app'
import { findBlockedSession } from '../support/blocked'
import { setClock } from '../support/clock'
import { createDatabase, type Database } from '../support/database'
import { createKey, faultsOf, newKey } from '../support/keys'

const permissionRule = 'must be one of READ_GRAPH, EXECUTE_GRAPH, READ_BLOCK, EXECUTE_BLOCK'

let database: Database
let sequelize: Sequelize
let apiKeys: TestApiKeys

beforeAll(async () => {
  database = await createDatabase()
  sequelize = database.connect()
  apiKeys = createTestApiKeys(database)
})

afterAll(() => database.drop())

afterEach(() => jest.useRealTimers())

function create(wishes?: Parameters<typeof createKey>[1]) {
  return createKey(apiKeys, wishes)
}

/** Lets a key expire, as waiting would. */
async function expire({ id }: ApiKeyRecord<Permission, string>) {
  await sequelize.query(`UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE id = $1`, {
    bind: [id],
  })
}

/** The audit trail of a key, oldest first. */
async function eventsOf({ id }: { id: string }) {
  const { events } = await apiKeys.events({ apiKeyId: id, limit: 100 })
  return events.toReversed()
}

function limitTo(maxKeysPerUser: number) {
  return createTestApiKeys(database, { maxKeysPerUser })
}

async function changeEverything(transaction: ChangeOptions['transaction']) {
  const options = { transaction }
  const { apiKey } = await apiKeys.create(newKey({ userId: 'dave' }), options)
  const { id } = apiKey
  await apiKeys.update(id, { name: 'Backup' }, options)
  await apiKeys.setPermissions(id, ['READ_BLOCK'], options)
  await apiKeys.suspend(id, options)
  await apiKeys.reactivate(id, options)
  await apiKeys.revokeAll('dave', options)
  return id
}

function createOf(type: UserIdType) {
  const keys = createApiKeys({
    sequelize,
    schema: `ids of ${type}`,
    keyPrefix: 'agpt',
    permissions: ['READ_GRAPH'],
    users: { type },
  })
  database.closeFirst(keys)
  return keys
}

describe('create', () => {
  it('makes a key and gives its plain text away', async () => {
    const { apiKey, plainTextKey } = await apiKeys.create({
      userId: 'alice',
      name: '  Deployment ',
      description: ' of\nthe graphs ',
      permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'],
      expiresAt: '2099-01-01T00:00:00.123+02:00',
    })

    expect(apiKey).toEqual({
      id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      name: 'Deployment',
      description: 'of\nthe graphs',
      prefix: plainTextKey.slice(0, 11),
      postfix: plainTextKey.slice(-8),
      status: 'ACTIVE',
      permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'],
      allowedIps: null,
      metadata: {},
      limits: null,
      userId: 'alice',
      createdAt: expect.any(Date),
      updatedAt: apiKey.createdAt,
      lastUsedAt: null,
      lastUsedFrom: null,
      expiresAt: new Date('2098-12-31T22:00:00.123Z'),
      isExpired: false,
      revokedAt: null,
      previousSecret: null,
    })
    expect(await apiKeys.get(apiKey.id)).toEqual(apiKey)
  })

  it('makes a key of the least there is to say', async () => {
    const apiKey = await create({ name: 'x', description: undefined, expiresAt: undefined })

    expect(apiKey).toMatchObject({ name: 'x', description: null, expiresAt: null })
  })

  it('lists every fault at once', async () => {
    const call = apiKeys.create({
      name: '',
      description: `${'x'.repeat(501)}\0`,
      permissions: ['NOPE', 'READ_GRAPH', 'READ_GRAPH'],
      expiresAt: new Date(0),
      color: 'red',
    } as never)

    expect(new Set(await faultsOf(call))).toEqual(
      new Set([
        { pointer: '#/name', message: 'must have 1 to 100 characters' },
        { pointer: '#/description', message: 'must have at most 500 characters' },
        { pointer: '#/description', message: 'must not contain control characters' },
        { pointer: '#/permissions/0', message: permissionRule },
        { pointer: '#/permissions/2', message: 'must not be repeated' },
        { pointer: '#/expiresAt', message: 'must be in the future' },
        { pointer: '#/userId', message: 'is required' },
        { pointer: '#/color', message: 'is not known here' },
      ]),
    )
  })

  it.each([undefined, 'x'])('refuses %p for a key', async (input) => {
    expect(await faultsOf(apiKeys.create(input as never))).toEqual([
      { pointer: '#', message: 'must be a JSON object' },
    ])
  })
})

describe('grantable', () => {
  const asked: unknown[] = []
  let narrow: TestApiKeys

  beforeAll(() => {
    narrow = createTestApiKeys(database, {
      async grantable(userId) {
        asked.push(userId)
        return userId === 'carol' ? ['READ_GRAPH', 'READ_BLOCK'] : []
      },
    })
  })

  it('narrows what a user may give to a new key', async () => {
    const permissions: Permission[] = ['READ_GRAPH', 'EXECUTE_GRAPH', 'EXECUTE_BLOCK']

    expect(await faultsOf(narrow.create(newKey({ userId: 'carol', permissions })))).toEqual([
      { pointer: '#/permissions/1', message: 'may not be granted by this user' },
      { pointer: '#/permissions/2', message: 'may not be granted by this user' },
    ])
    await expect(narrow.create(newKey({ userId: 'carol' }))).resolves.toMatchObject({
      apiKey: { permissions: ['READ_GRAPH'] },
    })
    expect(asked).toEqual(['carol', 'carol'])
  })

  it('narrows what a user may give to a key they have', async () => {
    const { id } = await create({ userId: 'carol', permissions: ['EXECUTE_GRAPH'] })

    expect(await faultsOf(narrow.setPermissions(id, ['READ_GRAPH', 'EXECUTE_GRAPH']))).toEqual([
      { pointer: '#/permissions/1', message: 'may not be granted by this user' },
    ])
    await narrow.setPermissions(id, ['READ_BLOCK'])
    expect(await apiKeys.get(id)).toMatchObject({ permissions: ['READ_BLOCK'] })
  })

  it.each([undefined, null, 'READ_GRAPH'])('must return a list, not %p', async (granted) => {
    const wrong = createTestApiKeys(database, { grantable: () => granted as never })

    await expect(wrong.create(newKey())).rejects.toThrow(
      new TypeError('createApiKeys: the option grantable must return a list of permissions'),
    )
  })

  it('is not asked about another user’s key', async () => {
    const { id } = await create({ userId: 'carol' })

    await expect(
      narrow.setPermissions(id, ['EXECUTE_GRAPH'], { userId: 'mallory' }),
    ).rejects.toMatchObject({ code: 'api_key_not_found' })
  })
})

describe('maxKeysPerUser', () => {
  it('is exact under 50 concurrent creates, for each user by themselves', async () => {
    const [one, other] = [limitTo(7), limitTo(7)]
    const [userId, neighbour] = [randomUUID(), randomUUID()]

    const results = await Promise.allSettled([
      ...Array.from({ length: 25 }, () => one.create(newKey({ userId }))),
      ...Array.from({ length: 25 }, () => other.create(newKey({ userId }))),
      one.create(newKey({ userId: neighbour })),
    ])

    const refusals = results.flatMap((result) =>
      result.status === 'rejected' ? [result.reason] : [],
    )
    expect(refusals).toHaveLength(43)
    expect(new Set(refusals.map(({ code }) => code))).toEqual(new Set(['too_many_api_keys']))
    expect((await apiKeys.list({ userId })).apiKeys).toHaveLength(7)
    expect((await apiKeys.list({ userId: neighbour })).apiKeys).toHaveLength(1)
  })

  it('counts keys that are suspended, not those revoked or expired', async () => {
    const limited = limitTo(2)
    const userId = randomUUID()
    await create({ status: 'SUSPENDED', userId })
    await create({ status: 'REVOKED', userId })
    await expire(await create({ userId }))

    await limited.create(newKey({ userId }))

    await expect(limited.create(newKey({ userId }))).rejects.toMatchObject({
      code: 'too_many_api_keys',
    })
  })

  it('goes by the same clock as verification', async () => {
    const limited = limitTo(1)
    const userId = randomUUID()
    const expiresAt = new Date(Date.now() + 3_600_000)
    const { plainTextKey } = await limited.create(newKey({ userId, expiresAt }))

    setClock(expiresAt)

    expect(await limited.verify(plainTextKey)).toEqual({ valid: false, code: 'expired' })
    await limited.create(newKey({ userId }))
  })

  it('counts what a transaction has yet to commit', async () => {
    const limited = limitTo(1)
    const userId = randomUUID()
    const transaction = await sequelize.transaction()
    await limited.create(newKey({ userId }), { transaction })

    const second = limited.create(newKey({ userId })).catch((error: unknown) => error)
    await findBlockedSession(sequelize)
    await transaction.commit()

    expect(await second).toMatchObject({ code: 'too_many_api_keys' })
  })

  it('holds when expired keys are revived, and under concurrent revivals', async () => {
    const limited = limitTo(2)
    const userId = randomUUID()
    const expired = await Promise.all(Array.from({ length: 10 }, () => create({ userId })))
    for (const apiKey of expired) await expire(apiKey)
    await limited.create(newKey({ userId }))

    const results = await Promise.allSettled(
      expired.map(({ id }) => limited.update(id, { expiresAt: null })),
    )

    const refusals = results.flatMap((result) =>
      result.status === 'rejected' ? [result.reason] : [],
    )
    expect(refusals).toHaveLength(9)
    expect(new Set(refusals.map(({ code }) => code))).toEqual(new Set(['too_many_api_keys']))
  })

  it('holds when a key is let live on just before it would have made room', async () => {
    const limited = limitTo(1)
    const userId = randomUUID()
    const expiresAt = new Date(Date.now() + 3_600_000)
    const { apiKey } = await limited.create(newKey({ userId, expiresAt }))
    const transaction = await sequelize.transaction()
    await limited.update(apiKey.id, { expiresAt: null }, { transaction })

    setClock(expiresAt)
    const second = limited.create(newKey({ userId })).catch((error: unknown) => error)
    await findBlockedSession(sequelize)
    await transaction.commit()

    expect(await second).toMatchObject({ code: 'too_many_api_keys' })
  })

  it('does not keep the expiry of a living key from changing', async () => {
    const limited = limitTo(1)
    const userId = randomUUID()
    const [first] = [await create({ userId }), await create({ userId })]
    const expiresAt = new Date('2099-01-01T00:00:00Z')

    await expect(limited.update(first.id, { expiresAt })).resolves.toMatchObject({ expiresAt })
  })

  it('lets an expired key keep its expiry while other things change', async () => {
    const limited = limitTo(1)
    const userId = randomUUID()
    const expired = await create({ userId })
    await expire(expired)
    await create({ userId })

    await expect(limited.update(expired.id, { name: 'Old' })).resolves.toMatchObject({
      name: 'Old',
    })
  })
})

describe('verify', () => {
  it('says whose key it is and what it may', async () => {
    const expiresAt = new Date('2099-01-01T00:00:00.123Z')
    const { apiKey, plainTextKey } = await apiKeys.create(newKey({ expiresAt }))

    const verdict = await apiKeys.verify(plainTextKey)

    expect(verdict).toEqual({
      valid: true,
      apiKey: {
        id: apiKey.id,
        userId: 'alice',
        name: 'Deployment',
        permissions: ['READ_GRAPH'],
        expiresAt,
      },
    })
    expect(Object.isFrozen(verdict.valid && verdict.apiKey)).toBe(true)
    expect(Object.isFrozen(verdict.valid && verdict.apiKey.permissions)).toBe(true)
  })

  it('refuses a key while it is suspended, and for ever once it is revoked', async () => {
    const { apiKey, plainTextKey } = await apiKeys.create(newKey())

    await apiKeys.suspend(apiKey.id)
    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'suspended' })

    await apiKeys.reactivate(apiKey.id)
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })

    await apiKeys.revoke(apiKey.id)
    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
  })

  it('refuses a key from the very millisecond at which it expires', async () => {
    const expiresAt = new Date(Date.now() + 3_600_000)
    const { plainTextKey } = await apiKeys.create(newKey({ expiresAt }))

    setClock(new Date(expiresAt.getTime() - 1))
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })

    setClock(expiresAt)
    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'expired' })
  })

  it('accepts an expired key again that was given more time', async () => {
    const { apiKey, plainTextKey } = await apiKeys.create(newKey())
    await expire(apiKey)
    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'expired' })

    await apiKeys.update(apiKey.id, { expiresAt: null })
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
  })

  it('refuses a key whose expiry is a time that nobody can tell', async () => {
    const { apiKey, plainTextKey } = await apiKeys.create(newKey())
    await sequelize.query(`UPDATE api_keys SET expires_at = 'infinity' WHERE id = $1`, {
      bind: [apiKey.id],
    })

    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'expired' })
  })

  it.each([undefined, null, 42, {}, []])('finds %p malformed', async (plainTextKey) => {
    expect(await apiKeys.verify(plainTextKey as never)).toEqual({ valid: false, code: 'malformed' })
  })

  it('finds a key unknown whose row is gone', async () => {
    const { apiKey, plainTextKey } = await apiKeys.create(newKey())
    await sequelize.query('DELETE FROM api_keys WHERE id = $1', { bind: [apiKey.id] })

    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'unknown' })
  })
})

describe('hasPermission', () => {
  const apiKey = { permissions: ['READ_GRAPH', 'READ_BLOCK'] }

  it.each([
    ['READ_GRAPH', true],
    ['EXECUTE_GRAPH', false],
    [['READ_GRAPH', 'READ_BLOCK'], true],
    [['READ_GRAPH', 'EXECUTE_GRAPH'], false],
  ] as const)('%j of READ_GRAPH and READ_BLOCK: %p', (permission, held) => {
    expect(apiKeys.hasPermission(apiKey, permission)).toBe(held)
  })

  it.each([
    [
      'READ',
      'hasPermission: "READ" is not one of the app\'s permissions. ' +
        'It must be one of READ_GRAPH, EXECUTE_GRAPH, READ_BLOCK, EXECUTE_BLOCK.',
    ],
    [[], 'hasPermission: needs at least one permission'],
  ])('takes %j for the mistake that it is', (permission, message) => {
    expect(() => apiKeys.hasPermission(apiKey, permission as Permission)).toThrow(
      new TypeError(message),
    )
  })
})

describe('the states', () => {
  type Change = (id: string) => Promise<ApiKeyRecord<Permission, string>>

  const changes = {
    suspend: (id) => apiKeys.suspend(id),
    reactivate: (id) => apiKeys.reactivate(id),
    revoke: (id) => apiKeys.revoke(id),
    update: (id) => apiKeys.update(id, { name: 'Other' }),
    setPermissions: (id) => apiKeys.setPermissions(id, ['READ_BLOCK']),
    'update with nothing': (id) => apiKeys.update(id, {}),
    'update with the same': (id) => apiKeys.update(id, { name: 'Deployment', expiresAt: null }),
    'setPermissions with the same': (id) => apiKeys.setPermissions(id, ['READ_GRAPH']),
  } satisfies Record<string, Change>

  it.each<[keyof typeof changes, Status, Status, Record<string, unknown>]>([
    ['suspend', 'ACTIVE', 'SUSPENDED', { action: 'suspended', before: { status: 'ACTIVE' } }],
    [
      'reactivate',
      'SUSPENDED',
      'ACTIVE',
      { action: 'reactivated', before: { status: 'SUSPENDED' } },
    ],
    ['revoke', 'ACTIVE', 'REVOKED', { action: 'revoked', before: { status: 'ACTIVE' } }],
    ['revoke', 'SUSPENDED', 'REVOKED', { action: 'revoked', before: { status: 'SUSPENDED' } }],
    ['update', 'ACTIVE', 'ACTIVE', { action: 'updated', before: { name: 'Deployment' } }],
    ['update', 'SUSPENDED', 'SUSPENDED', { action: 'updated', after: { name: 'Other' } }],
    ['setPermissions', 'ACTIVE', 'ACTIVE', { action: 'permissions_changed' }],
    ['setPermissions', 'SUSPENDED', 'SUSPENDED', { action: 'permissions_changed' }],
  ])('%s takes a key from %s to %s', async (name, from, to, event) => {
    const before = await create({ status: from })
    const trail = await eventsOf(before)

    const after = await changes[name](before.id)

    expect(after).toEqual(await apiKeys.get(before.id))
    expect(after.status).toBe(to)
    expect(after.revokedAt).toEqual(to === 'REVOKED' ? after.updatedAt : null)
    expect(after.updatedAt.getTime()).toBeGreaterThanOrEqual(before.updatedAt.getTime())
    expect(after.createdAt).toEqual(before.createdAt)
    expect(await eventsOf(before)).toEqual([...trail, expect.objectContaining(event)])
  })

  it.each<[keyof typeof changes, Status]>([
    ['suspend', 'SUSPENDED'],
    ['reactivate', 'ACTIVE'],
    ['revoke', 'REVOKED'],
    ['update with nothing', 'ACTIVE'],
    ['update with the same', 'ACTIVE'],
    ['setPermissions with the same', 'ACTIVE'],
    ['update with nothing', 'SUSPENDED'],
    ['update with the same', 'SUSPENDED'],
    ['setPermissions with the same', 'SUSPENDED'],
  ])('%s leaves a key that is %s as it was, without a word', async (name, status) => {
    const before = await create({ status })
    const trail = await eventsOf(before)

    expect(await changes[name](before.id)).toEqual(before)
    expect(await apiKeys.get(before.id)).toEqual(before)
    expect(await eventsOf(before)).toEqual(trail)
  })

  it.each<[keyof typeof changes]>([
    ['suspend'],
    ['reactivate'],
    ['update'],
    ['setPermissions'],
    ['update with nothing'],
    ['update with the same'],
    ['setPermissions with the same'],
  ])('%s is refused once a key is revoked', async (name) => {
    const before = await create({ status: 'REVOKED' })
    const trail = await eventsOf(before)

    await expect(changes[name](before.id)).rejects.toMatchObject({ code: 'api_key_revoked' })
    expect(await apiKeys.get(before.id)).toEqual(before)
    expect(await eventsOf(before)).toEqual(trail)
  })

  it.each(['suspend', 'revoke', 'update'] as const)(
    '%s takes an expired key, too',
    async (name) => {
      const expired = await create()
      await expire(expired)

      await expect(changes[name](expired.id)).resolves.toMatchObject({ id: expired.id })
    },
  )

  it('keep a set of permissions apart from its order', async () => {
    const apiKey = await create({ permissions: ['READ_GRAPH', 'READ_BLOCK'] })

    expect(await apiKeys.setPermissions(apiKey.id, ['READ_BLOCK', 'READ_GRAPH'])).toEqual(apiKey)
  })
})

describe('update', () => {
  it('changes what is named and keeps the rest', async () => {
    const { id } = await create({ description: 'of graphs', expiresAt: '2099-01-01T00:00:00Z' })

    expect(await apiKeys.update(id, { name: ' Backup ', description: undefined })).toMatchObject({
      name: 'Backup',
      description: 'of graphs',
      expiresAt: new Date('2099-01-01T00:00:00Z'),
    })
    expect(await apiKeys.update(id, { description: null, expiresAt: null })).toMatchObject({
      name: 'Backup',
      description: null,
      expiresAt: null,
    })
  })

  it('refuses what it does not change, and every fault at once', async () => {
    const { id } = await create()
    const changes = {
      name: null,
      description: 7,
      expiresAt: '2001-01-01T00:00:00Z',
      permissions: ['READ_GRAPH'],
      userId: 'mallory',
    }

    expect(new Set(await faultsOf(apiKeys.update(id, changes as never)))).toEqual(
      new Set([
        { pointer: '#/name', message: 'must be text' },
        { pointer: '#/description', message: 'must be text' },
        { pointer: '#/expiresAt', message: 'must be in the future' },
        {
          pointer: '#/permissions',
          message: 'is not changed here: use PUT /:id/permissions, or setPermissions()',
        },
        { pointer: '#/userId', message: 'is not known here' },
      ]),
    )
  })
})

describe('setPermissions', () => {
  it('replaces the whole set', async () => {
    const { id } = await create({ permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'] })

    await apiKeys.setPermissions(id, ['EXECUTE_GRAPH', 'READ_BLOCK'])

    expect(await apiKeys.get(id)).toMatchObject({ permissions: ['EXECUTE_GRAPH', 'READ_BLOCK'] })
  })

  it.each([[undefined, { pointer: '#/permissions', message: 'is required' }]])(
    'refuses %j',
    async (permissions, fault) => {
      const { id } = await create()

      expect(await faultsOf(apiKeys.setPermissions(id, permissions as never))).toEqual([fault])
    },
  )
})

describe('revokeAll', () => {
  it('misses no key that is being made', async () => {
    const userId = randomUUID()
    const transaction = await sequelize.transaction()
    const { plainTextKey } = await apiKeys.create(newKey({ userId }), { transaction })

    const revoked = apiKeys.revokeAll(userId)
    await findBlockedSession(sequelize)
    await transaction.commit()

    expect(await revoked).toEqual({ keys: 1 })
    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
  })

  it('revokes every key of a user and no other, and says how many', async () => {
    const [userId, neighbour] = [randomUUID(), randomUUID()]
    const keys = [
      await create({ userId }),
      await create({ status: 'SUSPENDED', userId }),
      await create({ status: 'REVOKED', userId }),
    ]
    const other = await create({ userId: neighbour })
    const actor = { type: 'admin', id: 'root' } as const

    expect(await apiKeys.revokeAll(userId, { actor, reason: 'left' })).toEqual({ keys: 2 })

    const { apiKeys: after } = await apiKeys.list({ userId })
    expect(after.map(({ status }) => status)).toEqual(['REVOKED', 'REVOKED', 'REVOKED'])
    expect(after.find(({ id }) => id === keys[2]?.id)).toEqual(keys[2])
    expect(await apiKeys.get(other.id)).toEqual(other)
    const { events } = await apiKeys.events({ userId, action: 'revoked' })
    expect(events).toMatchObject([
      { before: { status: expect.any(String) }, after: { status: 'REVOKED' }, reason: 'left' },
      { before: { status: expect.any(String) }, actorType: 'admin', actorId: 'root' },
      { apiKeyId: keys[2]?.id, actorType: 'system' },
    ])
    expect(new Set(events.map(({ before }) => before?.status))).toEqual(
      new Set(['ACTIVE', 'SUSPENDED']),
    )
  })

  it('finds nothing more to do the second time', async () => {
    const userId = randomUUID()
    await create({ userId })
    await apiKeys.revokeAll(userId)
    const before = await apiKeys.list({ userId })

    expect(await apiKeys.revokeAll(userId)).toEqual({ keys: 0 })
    expect(await apiKeys.list({ userId })).toEqual(before)
    expect((await apiKeys.events({ userId })).events).toHaveLength(2)
  })

  it('takes on a user with 2,000 keys', async () => {
    const userId = randomUUID()
    await sequelize.query(
      `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
       SELECT $1, 'Key ' || n, 'agpt_abc123', 'abcd1234', md5($1 || n) || md5('b' || n), '{READ_GRAPH}'
         FROM generate_series(1, 2000) AS n`,
      { bind: [userId] },
    )

    expect(await apiKeys.revokeAll(userId)).toEqual({ keys: 2_000 })
    expect(await apiKeys.list({ userId, status: 'ACTIVE' })).toMatchObject({ apiKeys: [] })
    expect(await apiKeys.list({ userId, status: 'REVOKED', limit: 100 })).toMatchObject({
      nextCursor: expect.any(String),
    })
  })
})

describe('every call that takes an id', () => {
  const calls: [string, (id: string, options?: ChangeOptions) => Promise<unknown>][] = [
    ['get', (id, options) => apiKeys.get(id, options)],
    ['update', (id, options) => apiKeys.update(id, { name: 'Stolen' }, options)],
    ['setPermissions', (id, options) => apiKeys.setPermissions(id, ['EXECUTE_GRAPH'], options)],
    ['suspend', (id, options) => apiKeys.suspend(id, options)],
    ['reactivate', (id, options) => apiKeys.reactivate(id, options)],
    ['revoke', (id, options) => apiKeys.revoke(id, options)],
  ]

  it.each(calls)('%s finds the owner’s key, and no other user’s', async (_, call) => {
    const apiKey = await create({ userId: 'alice' })
    const trail = await eventsOf(apiKey)

    await expect(call(apiKey.id, { userId: 'mallory' })).rejects.toMatchObject({
      name: 'ApiKeysError',
      code: 'api_key_not_found',
    })
    expect(await apiKeys.get(apiKey.id)).toEqual(apiKey)
    expect(await eventsOf(apiKey)).toEqual(trail)
    await expect(call(apiKey.id, { userId: 'alice' })).resolves.toMatchObject({ id: apiKey.id })
  })

  it.each(calls)('%s finds none by an id that nobody has or that is none', async (_, call) => {
    const odd = ['', 'x', "'; DROP TABLE api_keys; --", `${randomUUID()} `, 42, null, undefined, {}]

    for (const id of [randomUUID(), ...odd]) {
      await expect(call(id as string)).rejects.toMatchObject({
        code: 'api_key_not_found',
        message: 'There is no such API key.',
      })
    }
  })

  it.each([
    ...calls,
    ['list', (_, options) => apiKeys.list({ ...options })],
    ['events', (_, options) => apiKeys.events({ ...options })],
  ] as typeof calls)('%s takes an undefined owner for the mistake that it is', async (_, call) => {
    const { id } = await create()

    for (const userId of [undefined, null]) {
      await expect(call(id, { userId } as never)).rejects.toThrow(
        new TypeError(`userId is ${userId}: leave it out to mean all of them`),
      )
    }
    expect(await apiKeys.get(id)).toMatchObject({ name: 'Deployment', status: 'ACTIVE' })
  })

  it.each(calls)('%s takes no transaction that is none', async (_, call) => {
    const { id } = await create()
    const before = await apiKeys.get(id)

    for (const transaction of [true, 'now', {}]) {
      await expect(call(id, { transaction } as never)).rejects.toThrow(
        new TypeError('transaction must be one that sequelize.transaction() has made'),
      )
    }
    expect(await apiKeys.get(id)).toEqual(before)
  })

  it.each<[string, (options: object) => Promise<unknown>]>([
    ['create', (options) => apiKeys.create(newKey(), options)],
    ['list', (options) => apiKeys.list({}, options)],
    ['revokeAll', (options) => apiKeys.revokeAll('nobody', options)],
    ['events', (options) => apiKeys.events({}, options)],
  ])('%s is none of them, and has no owner among its options', async (_, call) => {
    await expect(call({ userId: 'alice' })).rejects.toThrow(
      new TypeError('userId goes into the first argument of this call'),
    )
  })

  it.each(calls.slice(1))('%s refuses options that it does not have', async (_, call) => {
    const { id } = await create()
    const options = {
      actor: { type: 'robot' },
      address: 'localhost',
      reason: 'x'.repeat(501),
      user: 'alice',
    } as never

    expect(new Set(await faultsOf(call(id, options)))).toEqual(
      new Set([
        {
          pointer: '#/actor',
          message: 'must be { type: "system" }, or { type: "user", id } or { type: "admin", id }',
        },
        { pointer: '#/address', message: 'must be an IP address' },
        { pointer: '#/reason', message: 'must have 1 to 500 characters' },
        { pointer: '#/user', message: 'is not known here' },
      ]),
    )
  })
})

describe('events', () => {
  it('tell the life of a key: what changed, by whom, why', async () => {
    const actor = { type: 'admin', id: 7n } as const
    const { apiKey } = await apiKeys.create(
      newKey({ permissions: ['READ_GRAPH', 'READ_BLOCK'], expiresAt: '2099-01-01T00:00:00Z' }),
      { actor: { type: 'user', id: 'alice' } },
    )
    const { id } = apiKey
    await apiKeys.update(id, { name: 'Backup', expiresAt: null }, { userId: 'alice' })
    await apiKeys.setPermissions(id, ['READ_BLOCK'], {
      userId: 'alice',
      actor,
      address: '::ffff:7f00:1',
    })
    await apiKeys.suspend(id, { actor, reason: ' leaked? ' })
    await apiKeys.reactivate(id, { actor: { type: 'system' } })
    await apiKeys.revoke(id, { reason: 'leaked' })

    const common = { id: expect.stringMatching(/^\d+$/), apiKeyId: id, userId: 'alice' }
    const rest = { ...common, address: null, createdAt: expect.any(Date) }
    const system = { actorType: 'system', actorId: null }
    expect(await eventsOf(apiKey)).toEqual([
      {
        ...rest,
        action: 'created',
        actorType: 'user',
        actorId: 'alice',
        reason: null,
        before: null,
        after: {
          name: 'Deployment',
          description: null,
          permissions: ['READ_GRAPH', 'READ_BLOCK'],
          status: 'ACTIVE',
          expiresAt: '2099-01-01T00:00:00.000Z',
          allowedIps: null,
          metadata: {},
          limits: null,
          userId: 'alice',
          createdAt: apiKey.createdAt.toISOString(),
          prefix: apiKey.prefix,
          postfix: apiKey.postfix,
          previousSecret: null,
        },
      },
      {
        ...rest,
        action: 'updated',
        actorType: 'user',
        actorId: 'alice',
        reason: null,
        before: { name: 'Deployment', expiresAt: '2099-01-01T00:00:00.000Z' },
        after: { name: 'Backup', expiresAt: null },
      },
      {
        ...rest,
        action: 'permissions_changed',
        actorType: 'admin',
        actorId: '7',
        address: '127.0.0.1',
        reason: null,
        before: { permissions: ['READ_GRAPH', 'READ_BLOCK'] },
        after: { permissions: ['READ_BLOCK'] },
      },
      {
        ...rest,
        action: 'suspended',
        actorType: 'admin',
        actorId: '7',
        reason: 'leaked?',
        before: { status: 'ACTIVE' },
        after: { status: 'SUSPENDED' },
      },
      {
        ...rest,
        ...system,
        action: 'reactivated',
        reason: null,
        before: { status: 'SUSPENDED' },
        after: { status: 'ACTIVE' },
      },
      {
        ...rest,
        ...system,
        action: 'revoked',
        reason: 'leaked',
        before: { status: 'ACTIVE' },
        after: { status: 'REVOKED' },
      },
    ])
  })

  it('come newest first, a page at a time, by key, owner and action', async () => {
    const userId = randomUUID()
    const [first, second] = [await create({ userId }), await create({ userId })]
    for (const { id } of [first, second, first]) {
      await apiKeys.suspend(id)
      await apiKeys.reactivate(id)
    }

    const page = await apiKeys.events({ userId, limit: 5 })
    const next = await apiKeys.events({ userId, limit: 5, cursor: String(page.nextCursor) })
    const all = [...page.events, ...next.events]

    expect(next.nextCursor).toBeNull()
    expect(all).toHaveLength(8)
    expect(all.map(({ id }) => BigInt(id))).toEqual(
      all.map(({ id }) => BigInt(id)).toSorted((a, b) => Number(b - a)),
    )
    expect((await apiKeys.events({ apiKeyId: second.id })).events).toEqual(
      all.filter(({ apiKeyId }) => apiKeyId === second.id),
    )
    expect((await apiKeys.events({ userId, action: 'suspended' })).events).toEqual(
      all.filter(({ action }) => action === 'suspended'),
    )
  })

  it.each([[{ actor: 'alice' }, '#/actor', 'is not known here']])(
    'refuse %j',
    async (filter, pointer, message) => {
      expect(await faultsOf(apiKeys.events(filter as never))).toEqual([{ pointer, message }])
    },
  )
})

describe('the transaction of the caller', () => {
  it('commits with everything that was done in it', async () => {
    const transaction = await sequelize.transaction()
    const id = await changeEverything(transaction)

    expect(await apiKeys.get(id, { transaction })).toMatchObject({ status: 'REVOKED' })
    expect((await apiKeys.list({ userId: 'dave' }, { transaction })).apiKeys).toHaveLength(1)
    expect((await apiKeys.events({ apiKeyId: id }, { transaction })).events).toHaveLength(6)
    await expect(apiKeys.get(id)).rejects.toMatchObject({ code: 'api_key_not_found' })
    expect(await eventsOf({ id })).toEqual([])

    await transaction.commit()
    expect(await apiKeys.get(id)).toMatchObject({ name: 'Backup', status: 'REVOKED' })
    expect(await eventsOf({ id })).toHaveLength(6)
  })

  it('takes everything back that was done in it', async () => {
    const apiKey = await create({ userId: 'dave' })
    const trail = await eventsOf(apiKey)
    const transaction = await sequelize.transaction()
    const id = await changeEverything(transaction)

    await transaction.rollback()

    await expect(apiKeys.get(id)).rejects.toMatchObject({ code: 'api_key_not_found' })
    expect(await eventsOf({ id })).toEqual([])
    expect(await apiKeys.get(apiKey.id)).toEqual(apiKey)
    expect(await eventsOf(apiKey)).toEqual(trail)
  })

  it('goes on after a refusal', async () => {
    const transaction = await sequelize.transaction()
    const { apiKey } = await apiKeys.create(newKey(), { transaction })
    await apiKeys.revoke(apiKey.id, { transaction })

    await expect(apiKeys.suspend(apiKey.id, { transaction })).rejects.toMatchObject({
      code: 'api_key_revoked',
    })
    await expect(apiKeys.get(randomUUID(), { transaction })).rejects.toMatchObject({
      code: 'api_key_not_found',
    })
    await transaction.commit()
    expect(await apiKeys.get(apiKey.id)).toMatchObject({ status: 'REVOKED' })
  })
})

describe('user ids', () => {
  it.each([
    ['text', 42, '42'],
    ['uuid', '7D444840-9DC0-11D1-B245-5FFDCE74FAD2', '7d444840-9dc0-11d1-b245-5ffdce74fad2'],
    ['integer', '007', 7],
    ['bigint', 9_007_199_254_740_993n, '9007199254740993'],
  ] as const)('of the type %s become one form: %p is %p', async (type, given, readBack) => {
    const keys = createOf(type)
    await keys.migrate()

    const { apiKey, plainTextKey } = await keys.create({
      userId: given,
      name: 'A',
      permissions: ['READ_GRAPH'],
    })
    const { id } = apiKey

    expect(apiKey.userId).toBe(readBack)
    expect(await keys.verify(plainTextKey)).toMatchObject({ apiKey: { userId: readBack } })
    expect(await keys.get(id, { userId: given })).toMatchObject({ userId: readBack })
    expect(await keys.suspend(id, { userId: readBack })).toMatchObject({ userId: readBack })
    expect(await keys.list({ userId: given })).toMatchObject({ apiKeys: [{ userId: readBack }] })
    expect(await keys.revokeAll(given)).toEqual({ keys: 1 })
    const { events } = await keys.events({ userId: given })
    expect(events.map(({ userId }) => userId)).toEqual([readBack, readBack, readBack])
    expect(events[1]).toMatchObject({ actorType: 'user', actorId: String(readBack) })
  })
})

it('what Postgres holds of all this is no plain text', async () => {
  const { plainTextKey } = await apiKeys.create(newKey())

  const rows = await sequelize.query(
    `SELECT row_to_json(k)::text AS row FROM api_keys k
      UNION ALL SELECT row_to_json(e)::text FROM api_key_events e`,
    { type: QueryTypes.SELECT },
  )
  expect(JSON.stringify(rows)).not.toContain(plainTextKey.slice('agpt_'.length + 6, -8))
})
