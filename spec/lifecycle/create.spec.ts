import { randomUUID } from 'node:crypto'

import type { ApiKeyRecord } from '../../lib'
import type { Permission, TestApp, TestApiKeys } from '../support/app'
import { findBlockedSession } from '../support/blocked'
import { setClock } from '../support/clock'
import { faultsOf, newKey } from '../support/keys'
import { useWorld } from '../support/world'

const { apiKeys, rows, sequelize, createKey, createProcess } = useWorld()

afterEach(() => jest.useRealTimers())

const permissionRule = 'must be one of READ_GRAPH, EXECUTE_GRAPH, READ_BLOCK, EXECUTE_BLOCK'

async function create(wishes?: Parameters<typeof createKey>[0]) {
  const { apiKey } = await createKey(wishes)
  return apiKey
}

/** Makes a key expire. */
async function expire({ id }: ApiKeyRecord<TestApp>) {
  await rows(`UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE id = $1`, [id])
}

function limitTo(maxKeysPerOwner: number) {
  return createProcess({ maxKeysPerOwner }).apiKeys
}

describe('create', () => {
  it('creates a key and returns its plain text', async () => {
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
      owner: { type: 'user', id: 'alice' },
      userId: 'alice',
      createdAt: expect.any(Date),
      updatedAt: apiKey.createdAt,
      lastUsedAt: null,
      lastUsedFrom: null,
      expiresAt: new Date('2098-12-31T22:00:00.123Z'),
      isExpired: false,
      revokedAt: null,
      previousSecret: null,
      pendingRotation: null,
      ownerSuspended: false,
      createdBy: null,
    })
    expect(await apiKeys.get(apiKey.id)).toEqual(apiKey)
  })

  it('creates a key of a user, a name and a permission alone', async () => {
    const apiKey = await create({ name: 'x', description: undefined, expiresAt: undefined })

    expect(apiKey).toMatchObject({ name: 'x', description: null, expiresAt: null })
  })

  it('reports every fault at once', async () => {
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
        { pointer: '#/owner', message: 'is required' },
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
    narrow = createProcess({
      async grantable({ id: userId }) {
        asked.push(userId)
        return userId === 'carol' ? ['READ_GRAPH', 'READ_BLOCK'] : []
      },
    }).apiKeys
  })

  it('narrows the permissions that a user may give to a new key', async () => {
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

  it('narrows the permissions that a user may give to an existing key', async () => {
    const { id } = await create({ userId: 'carol', permissions: ['EXECUTE_GRAPH'] })

    expect(await faultsOf(narrow.setPermissions(id, ['READ_GRAPH', 'EXECUTE_GRAPH']))).toEqual([
      { pointer: '#/permissions/1', message: 'may not be granted by this user' },
    ])
    await narrow.setPermissions(id, ['READ_BLOCK'])
    expect(await apiKeys.get(id)).toMatchObject({ permissions: ['READ_BLOCK'] })
  })

  it.each([undefined, null, 'READ_GRAPH'])('must return a list, not %p', async (granted) => {
    const wrong = createProcess({ grantable: () => granted as never }).apiKeys

    await expect(wrong.create(newKey())).rejects.toThrow(
      new TypeError('createApiKeys: the option grantable must return a list of permissions'),
    )
  })

  it('is not called for a key of another user', async () => {
    const { id } = await create({ userId: 'carol' })

    await expect(
      narrow.setPermissions(id, ['EXECUTE_GRAPH'], { userId: 'mallory' }),
    ).rejects.toMatchObject({ code: 'api_key_not_found' })
  })
})

describe('maxKeysPerOwner', () => {
  it('is exact under 50 concurrent creates, and counts each user by itself', async () => {
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

  it('counts suspended keys, but no revoked or expired keys', async () => {
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

  it('uses the same clock as verification', async () => {
    const limited = limitTo(1)
    const userId = randomUUID()
    const expiresAt = new Date(Date.now() + 3_600_000)
    const { plainTextKey } = await limited.create(newKey({ userId, expiresAt }))

    setClock(expiresAt)

    expect(await limited.verify(plainTextKey)).toEqual({ valid: false, code: 'expired' })
    await limited.create(newKey({ userId }))
  })

  it('counts keys of a transaction that is not yet committed', async () => {
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

  it('holds if a key gets a later expiry just before it would have expired', async () => {
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

  it('allows a change of the expiry of a living key', async () => {
    const limited = limitTo(1)
    const userId = randomUUID()
    const [first] = [await create({ userId }), await create({ userId })]
    const expiresAt = new Date('2099-01-01T00:00:00Z')

    await expect(limited.update(first.id, { expiresAt })).resolves.toMatchObject({ expiresAt })
  })

  it('lets an expired key keep its expiry while other fields change', async () => {
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

it('Postgres holds no plain text of a key', async () => {
  const { plainTextKey } = await createKey()

  const stored = await rows(`SELECT row_to_json(k)::text AS row FROM api_keys k
      UNION ALL SELECT row_to_json(e)::text FROM api_key_events e`)
  expect(JSON.stringify(stored)).not.toContain(plainTextKey.slice('agpt_'.length + 6, -8))
})
