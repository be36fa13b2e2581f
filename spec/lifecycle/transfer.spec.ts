import { createApiKeys, type Owner } from '../../lib'
import { ownerLockSql } from '../../migrations/create-function'
import { tablesOf } from '../../models/tables'
import { permissions } from '../support/app'
import { faultsOf, newUser } from '../support/keys'
import { until } from '../support/until'
import { useWorld } from '../support/world'

const world = useWorld({ options: { maxKeysPerOwner: 3 } })

/** What each owner may do; all else may do all. */
const roles = new Map<string, readonly (typeof permissions)[number][]>()

/** What happens while the app is asked about an owner. */
const whileAsked = jest.fn(async (_owner: Owner) => {})

function createInstance(options: { lastUsedResolutionMs?: number } = {}) {
  const apiKeys = createApiKeys({
    sequelize: world.database.connect(),
    keyPrefix: 'agpt',
    permissions,
    organizations: { type: 'text' },
    services: true,
    maxKeysPerOwner: 3,
    resources: { graph: (_ids, owner) => owner.id !== 'without graphs' },
    async grantable(owner) {
      await whileAsked(owner)
      return roles.get(owner.id) ?? permissions
    },
    maxStalenessMs: 300,
    ...options,
  })
  world.database.closeFirst(apiKeys)
  return apiKeys
}

const apiKeys = createInstance()

const acme = { type: 'organization', id: 'acme' } as const
const importer = { type: 'service', id: 'importer' } as const

function user() {
  return { type: 'user', id: newUser() } as const
}

async function createKey(owner: Parameters<typeof apiKeys.transfer>[1] = user()) {
  return apiKeys.create({ owner, name: 'Deployment', permissions: ['READ_GRAPH'] })
}

describe('transfer', () => {
  it('shows the new owner when the key was last used, and from where only since it has the key', async () => {
    const everyUse = { lastUsedResolutionMs: 0 }
    const [one, other] = [createInstance(everyUse), createInstance(everyUse)]
    const [{ apiKey, plainTextKey }, to] = [await createKey(), user()]
    const { id } = apiKey
    await one.verify(plainTextKey, { ip: '203.0.113.7' })
    await one.flush()
    await one.verify(plainTextKey, { ip: '203.0.113.8' })
    await other.verify(plainTextKey, { ip: '203.0.113.9' })

    const moved = await other.transfer(id, to)
    const unwritten = await Promise.all([one, other].map((each) => each.get(id)))
    await Promise.all([one.flush(), other.flush()])
    const written = await apiKeys.get(id)

    for (const record of [moved, ...unwritten, written]) {
      expect(record).toMatchObject({ lastUsedAt: expect.any(Date), lastUsedFrom: null })
    }
    await until(async () => {
      const verdict = await one.verify(plainTextKey, { ip: '203.0.113.10' })
      return verdict.valid && verdict.apiKey.owner.id === to.id
    })
    await one.flush()
    expect(await apiKeys.get(id)).toMatchObject({ lastUsedFrom: '203.0.113.10' })
  })

  it.each([
    ['a user', user()] as const,
    ['an organization', acme] as const,
    ['a service', importer] as const,
  ])(
    'gives a key to %s: the key works on, and every process knows its owner within the bound',
    async (_, to) => {
      const { apiKey, plainTextKey } = await createKey()
      expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })

      const record = await apiKeys.transfer(apiKey.id, to)

      expect(record).toMatchObject({ id: apiKey.id, owner: to, status: 'ACTIVE' })
      expect(await apiKeys.get(apiKey.id)).toEqual(record)
      expect(await apiKeys.get(apiKey.id, { owner: to })).toEqual(record)
      await expect(apiKeys.get(apiKey.id, { owner: apiKey.owner })).rejects.toMatchObject({
        code: 'api_key_not_found',
      })
      expect(await apiKeys.verify(plainTextKey)).toMatchObject({
        valid: true,
        apiKey: { owner: to },
      })
      await apiKeys.revoke(apiKey.id)
      expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
    },
  )

  it('leaves one entry, which both owners find, and each owner sees the entries of its own time', async () => {
    const [from, to] = [user(), user()]
    const { apiKey } = await createKey(from)
    await apiKeys.transfer(apiKey.id, to, { reason: 'left', actor: { type: 'admin', id: 'root' } })
    await apiKeys.suspend(apiKey.id)

    const actionsOf = async (owner: typeof from) =>
      (await apiKeys.events({ owner })).events.map(({ action }) => action)
    expect(await actionsOf(from)).toEqual(['transferred', 'created'])
    expect(await actionsOf(to)).toEqual(['suspended', 'transferred'])
    const { events } = await apiKeys.events({ apiKeyId: apiKey.id, action: 'transferred' })
    expect(events).toMatchObject([
      {
        owner: to,
        formerOwner: from,
        actorType: 'admin',
        reason: 'left',
        before: { owner: from },
        after: { owner: to },
      },
    ])
  })

  it('tells the usage of both owners apart within an hour', async () => {
    const [from, to] = [user(), user()]
    const { apiKey, plainTextKey } = await createKey(from)
    await apiKeys.verify(plainTextKey)
    await apiKeys.transfer(apiKey.id, to)
    for (let use = 0; use < 2; use++) await apiKeys.verify(plainTextKey)

    const acceptedOf = async (owner: typeof from) =>
      (await apiKeys.totalUsage({ owner })).totals.accepted
    expect((await apiKeys.usage(apiKey.id, {}, { owner: to })).totals.accepted).toBe(2)
    expect((await apiKeys.usage(apiKey.id)).totals.accepted).toBe(3)
    expect([await acceptedOf(from), await acceptedOf(to)]).toEqual([1, 2])
    expect((await apiKeys.usage(apiKey.id, {}, { owner: to })).totals.accepted).toBe(2)
  })

  it('leaves a suspended key suspended, and both secrets of a rotation work', async () => {
    const { apiKey, plainTextKey } = await createKey()
    const { plainTextKey: next } = await apiKeys.rotate(apiKey.id)
    await apiKeys.suspend(apiKey.id)

    expect(await apiKeys.transfer(apiKey.id, user())).toMatchObject({ status: 'SUSPENDED' })

    await apiKeys.reactivate(apiKey.id)
    for (const key of [plainTextKey, next]) {
      expect(await apiKeys.verify(key)).toMatchObject({ valid: true })
    }
  })

  it('changes nothing if the key has the owner already, and writes no entry', async () => {
    const { apiKey } = await createKey()

    expect(await apiKeys.transfer(apiKey.id, apiKey.owner)).toEqual(apiKey)

    expect((await apiKeys.events({ apiKeyId: apiKey.id })).events).toHaveLength(1)
  })

  it('refuses a revoked key, and a suspended owner, but takes keys from one', async () => {
    const [from, to] = [user(), user()]
    const [{ apiKey, plainTextKey }, { apiKey: revoked }] = [
      await createKey(from),
      await createKey(from),
    ]
    await apiKeys.revoke(revoked.id)
    await apiKeys.suspendOwner(to)

    await expect(apiKeys.transfer(revoked.id, user())).rejects.toMatchObject({
      code: 'api_key_revoked',
    })
    await expect(apiKeys.transfer(apiKey.id, to)).rejects.toMatchObject({ code: 'owner_suspended' })

    await apiKeys.suspendOwner(from)
    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'suspended' })
    expect(await apiKeys.transfer(apiKey.id, user())).toMatchObject({ ownerSuspended: false })
    await until(async () => (await apiKeys.verify(plainTextKey)).valid)
  })

  it('counts a living key towards the keys of its new owner, and no expired key', async () => {
    const to = user()
    for (let keys = 0; keys < 3; keys++) await createKey(to)
    const { apiKey } = await createKey()
    const { apiKey: expired } = await createKey()
    await world.rows('UPDATE api_keys SET expires_at = now() WHERE id = $1', [expired.id])

    await expect(apiKeys.transfer(apiKey.id, to)).rejects.toMatchObject({
      code: 'too_many_api_keys',
    })
    expect(await apiKeys.transfer(expired.id, to)).toMatchObject({ owner: to, isExpired: true })
  })

  it('refuses an owner who may not hold the permissions or the resources, and names them', async () => {
    const to = user()
    roles.set(to.id, ['EXECUTE_GRAPH'])
    const { apiKey } = await createKey()
    const { apiKey: bound } = await apiKeys.create({
      owner: user(),
      name: 'Deployment',
      permissions: ['READ_GRAPH'],
      resources: { graph: ['7'] },
    })

    expect(await faultsOf(apiKeys.transfer(apiKey.id, to))).toEqual([
      { pointer: '#/permissions/0', message: 'may not be granted by this user' },
    ])
    expect(
      await faultsOf(apiKeys.transfer(bound.id, { type: 'service', id: 'without graphs' })),
    ).toEqual([{ pointer: '#/resources/graph', message: 'may not be bound by this owner' }])
    expect(await apiKeys.transfer(bound.id, importer)).toMatchObject({
      resources: { graph: ['7'] },
    })
  })

  it('refuses nonsense, and a key that is not there', async () => {
    const { apiKey } = await createKey()
    const unchecked = apiKeys.transfer as (...args: unknown[]) => Promise<unknown>

    for (const owner of [undefined, null, 7, {}, { type: 'team', id: '7' }, { type: 'user' }]) {
      await expect(unchecked(apiKey.id, owner)).rejects.toMatchObject({ code: 'invalid_input' })
    }
    for (const id of ['nonsense', '7d444840-9dc0-11d1-b245-5ffdce74fad2']) {
      await expect(unchecked(id, acme)).rejects.toMatchObject({ code: 'api_key_not_found' })
    }
    await expect(unchecked(apiKey.id, acme, { owner: user() })).rejects.toMatchObject({
      code: 'api_key_not_found',
    })
  })

  it('is part of a transaction of the caller', async () => {
    const { apiKey } = await createKey()
    const transaction = await world.sequelize.transaction()
    await apiKeys.transfer(apiKey.id, importer, { transaction })
    await transaction.rollback()

    expect(await apiKeys.get(apiKey.id)).toEqual(apiKey)
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })
})

describe('a key that gets another owner while it is changed', () => {
  it('gets no permission that its new owner may not give', async () => {
    const [from, to] = [user(), user()]
    roles.set(to.id, ['READ_GRAPH'])
    const { apiKey } = await createKey(from)
    whileAsked.mockImplementationOnce(async () => void (await apiKeys.transfer(apiKey.id, to)))

    const changing = apiKeys.setPermissions(apiKey.id, ['READ_GRAPH', 'EXECUTE_GRAPH'])

    expect(await faultsOf(changing)).toEqual([
      { pointer: '#/permissions/1', message: 'may not be granted by this user' },
    ])
    expect(await apiKeys.get(apiKey.id)).toMatchObject({ owner: to, permissions: ['READ_GRAPH'] })
  })

  it('gets the permissions if its new owner may give them, too', async () => {
    const to = user()
    const { apiKey } = await createKey()
    whileAsked.mockClear()
    whileAsked.mockImplementationOnce(async () => void (await apiKeys.transfer(apiKey.id, to)))

    const record = await apiKeys.setPermissions(apiKey.id, ['EXECUTE_GRAPH'])

    expect(record).toMatchObject({ owner: to, permissions: ['EXECUTE_GRAPH'] })
    const asked = whileAsked.mock.calls.map(([owner]) => owner)
    expect(asked).toEqual([apiKey.owner, to, to])
  })

  it('is no longer within the reach of its owner before', async () => {
    const [from, to] = [user(), user()]
    const { apiKey } = await createKey(from)
    whileAsked.mockImplementationOnce(async () => void (await apiKeys.transfer(apiKey.id, to)))

    await expect(
      apiKeys.setPermissions(apiKey.id, ['EXECUTE_GRAPH'], { owner: from }),
    ).rejects.toMatchObject({ code: 'api_key_not_found' })
  })

  it('counts towards the keys of its new owner if it begins to live again', async () => {
    const [from, to] = [user(), user()]
    const lockOf = ({ id }: typeof from) =>
      `SELECT pg_advisory_xact_lock(${ownerLockSql(tablesOf('public'), 'key')})
         FROM json_populate_record(NULL::api_keys, '{"user_id": "${id}"}') AS key`
    const { apiKey } = await createKey(from)
    await world.rows('UPDATE api_keys SET expires_at = now() WHERE id = $1', [apiKey.id])
    for (let keys = 0; keys < 2; keys++) await createKey(to)
    const before = await world.holdLock(lockOf(from))

    const changing = apiKeys.update(apiKey.id, { expiresAt: null })
    await before.waitedFor()
    await world.rows('UPDATE api_keys SET user_id = $2 WHERE id = $1', [apiKey.id, to.id])
    const creating = await world.sequelize.transaction()
    await apiKeys.create(
      { owner: to, name: 'Third', permissions: ['READ_GRAPH'] },
      { transaction: creating },
    )
    await before.release()
    await Promise.race([changing, before.waitedFor()])
    await creating.commit()

    await expect(changing).rejects.toMatchObject({ code: 'too_many_api_keys' })
  })
})
