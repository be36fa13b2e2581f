import { randomUUID } from 'node:crypto'

import {
  createApiKeys,
  type UserOwner,
  type ChangeOptions as AnyChangeOptions,
  type UserIdType,
} from '../../lib'
import { faultsOf, newKey } from '../support/keys'
import { useWorld } from '../support/world'

const { apiKeys, sequelize, database, createKey } = useWorld()

async function create(wishes?: Parameters<typeof createKey>[0]) {
  const { apiKey } = await createKey(wishes)
  return apiKey
}

/** The audit trail of a key, oldest first. */
type ChangeOptions = AnyChangeOptions<UserOwner<string>>

async function eventsOf({ id }: { id: string }) {
  const { events } = await apiKeys.events({ apiKeyId: id, limit: 100 })
  return events.toReversed()
}

async function changeEverything(transaction: ChangeOptions['transaction']) {
  const options = { transaction }
  const { apiKey } = await apiKeys.create(newKey({ userId: 'dave' }), options)
  const { id } = apiKey
  await apiKeys.update(id, { name: 'Backup' }, options)
  await apiKeys.setPermissions(id, ['READ_BLOCK'], options)
  await apiKeys.suspend(id, options)
  await apiKeys.reactivate(id, options)
  await apiKeys.revokeAll({ type: 'user', id: 'dave' }, options)
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

describe('every call that takes an id', () => {
  const calls: [string, (id: string, options?: ChangeOptions) => Promise<unknown>][] = [
    ['get', (id, options) => apiKeys.get(id, options)],
    ['update', (id, options) => apiKeys.update(id, { name: 'Stolen' }, options)],
    ['setPermissions', (id, options) => apiKeys.setPermissions(id, ['EXECUTE_GRAPH'], options)],
    ['suspend', (id, options) => apiKeys.suspend(id, options)],
    ['reactivate', (id, options) => apiKeys.reactivate(id, options)],
    ['revoke', (id, options) => apiKeys.revoke(id, options)],
    ['unrevoke', (id, options) => apiKeys.unrevoke(id, options)],
  ]

  it.each(calls)('%s finds a key for its owner only', async (_, call) => {
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

  it.each(calls)('%s finds no key by a missing or malformed id', async (_, call) => {
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
  ] as typeof calls)('%s refuses an undefined owner as a mistake', async (_, call) => {
    const { id } = await create()

    for (const userId of [undefined, null]) {
      await expect(call(id, { userId } as never)).rejects.toThrow(
        new TypeError(`userId is ${userId}: leave it out to mean all of them`),
      )
    }
    expect(await apiKeys.get(id)).toMatchObject({ name: 'Deployment', status: 'ACTIVE' })
  })

  it.each(calls)('%s refuses a transaction that is no transaction', async (_, call) => {
    const { id } = await create()
    const before = await apiKeys.get(id)

    for (const transaction of [true, 'now', {}]) {
      await expect(call(id, { transaction } as never)).rejects.toThrow(
        new TypeError('transaction must come from sequelize.transaction()'),
      )
    }
    expect(await apiKeys.get(id)).toEqual(before)
  })

  it.each<[string, (options: object) => Promise<unknown>]>([
    ['create', (options) => apiKeys.create(newKey(), options)],
    ['list', (options) => apiKeys.list({}, options)],
    ['revokeAll', (options) => apiKeys.revokeAll({ type: 'user', id: 'nobody' }, options)],
    ['events', (options) => apiKeys.events({}, options)],
  ])('%s takes no id, and has no option for the owner', async (_, call) => {
    await expect(call({ userId: 'alice' })).rejects.toThrow(
      new TypeError('userId goes into the first argument of this call'),
    )
  })

  it.each(calls.slice(1))('%s refuses unknown options', async (_, call) => {
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
        { pointer: '#/user', message: 'is not known here (did you mean userId?)' },
      ]),
    )
  })
})

describe('events', () => {
  it('report the life of a key: the changes, the actors and the reasons', async () => {
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

    const { owner } = apiKey
    const ofKey = { apiKeyId: id, owner, formerOwner: null, isErased: false }
    const common = { id: expect.stringMatching(/^\d+$/), ...ofKey }
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
          owner,
          environment: null,
          exposed: null,
          resources: null,
          createdAt: apiKey.createdAt.toISOString(),
          prefix: apiKey.prefix,
          postfix: apiKey.postfix,
          previousSecret: null,
          pendingRotation: null,
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

  it('are returned page by page, newest first, by key, owner and action', async () => {
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

  it.each([[{ actor: 'alice' }, '#/actor', 'is not known here (did you mean action?)']])(
    'refuse %j',
    async (filter, pointer, message) => {
      expect(await faultsOf(apiKeys.events(filter as never))).toEqual([{ pointer, message }])
    },
  )
})

describe('the transaction of the caller', () => {
  it('commits all changes that were made in it', async () => {
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

  it('takes back all changes that were made in it', async () => {
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
    expect(await keys.revokeAll({ type: 'user', id: given as string })).toEqual({ keys: 1 })
    const { events } = await keys.events({ userId: given })
    expect(events.map(({ owner }) => owner?.id)).toEqual([readBack, readBack, readBack])
    expect(events[1]).toMatchObject({ actorType: 'user', actorId: String(readBack) })
  })
})
