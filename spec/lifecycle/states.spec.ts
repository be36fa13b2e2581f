import { randomUUID } from 'node:crypto'

import type { ApiKeyRecord, Status } from '../../lib'
import type { TestApp } from '../support/app'
import { findBlockedSession } from '../support/blocked'
import { faultsOf, newKey } from '../support/keys'
import { useWorld } from '../support/world'

const { apiKeys, rows, sequelize, createKey } = useWorld()

async function create(wishes?: Parameters<typeof createKey>[0]) {
  const { apiKey } = await createKey(wishes)
  return apiKey
}

/** Makes a key expire. */
async function expire({ id }: ApiKeyRecord<TestApp>) {
  await rows(`UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE id = $1`, [id])
}

/** The audit trail of a key, oldest first. */
async function eventsOf({ id }: { id: string }) {
  const { events } = await apiKeys.events({ apiKeyId: id, limit: 100 })
  return events.toReversed()
}

describe('the states', () => {
  type Change = (id: string) => Promise<ApiKeyRecord<TestApp>>

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
  ])('%s changes a key from %s to %s', async (name, from, to, event) => {
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
  ])('%s leaves a key that is %s unchanged, without an event', async (name, status) => {
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
  ])('%s is refused for a revoked key', async (name) => {
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

  it('compare sets of permissions without their order', async () => {
    const apiKey = await create({ permissions: ['READ_GRAPH', 'READ_BLOCK'] })

    expect(await apiKeys.setPermissions(apiKey.id, ['READ_BLOCK', 'READ_GRAPH'])).toEqual(apiKey)
  })
})

describe('update', () => {
  it('changes only the named fields', async () => {
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

  it('refuses fields that it does not change, and reports every fault at once', async () => {
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
  it('misses no key that is created during the call', async () => {
    const userId = randomUUID()
    const transaction = await sequelize.transaction()
    const { plainTextKey } = await apiKeys.create(newKey({ userId }), { transaction })

    const revoked = apiKeys.revokeAll({ type: 'user', id: userId })
    await findBlockedSession(sequelize)
    await transaction.commit()

    expect(await revoked).toEqual({ keys: 1 })
    expect(await apiKeys.verify(plainTextKey)).toEqual({ valid: false, code: 'revoked' })
  })

  it('revokes exactly the keys of the user, and returns their number', async () => {
    const [userId, neighbour] = [randomUUID(), randomUUID()]
    const keys = [
      await create({ userId }),
      await create({ status: 'SUSPENDED', userId }),
      await create({ status: 'REVOKED', userId }),
    ]
    const other = await create({ userId: neighbour })
    const actor = { type: 'admin', id: 'root' } as const

    expect(
      await apiKeys.revokeAll({ type: 'user', id: userId }, { actor, reason: 'left' }),
    ).toEqual({ keys: 2 })

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

  it('does nothing the second time', async () => {
    const userId = randomUUID()
    await create({ userId })
    await apiKeys.revokeAll({ type: 'user', id: userId })
    const before = await apiKeys.list({ userId })

    expect(await apiKeys.revokeAll({ type: 'user', id: userId })).toEqual({ keys: 0 })
    expect(await apiKeys.list({ userId })).toEqual(before)
    expect((await apiKeys.events({ userId })).events).toHaveLength(2)
  })

  it('revokes 2,000 keys of a user', async () => {
    const userId = randomUUID()
    await rows(
      `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions)
       SELECT $1, 'Key ' || n, 'agpt_abc123', 'abcd1234', md5($1 || n) || md5('b' || n), '{READ_GRAPH}'
         FROM generate_series(1, 2000) AS n`,
      [userId],
    )

    expect(await apiKeys.revokeAll({ type: 'user', id: userId })).toEqual({ keys: 2_000 })
    expect(await apiKeys.list({ userId, status: 'ACTIVE' })).toMatchObject({ apiKeys: [] })
    expect(await apiKeys.list({ userId, status: 'REVOKED', limit: 100 })).toMatchObject({
      nextCursor: expect.any(String),
    })
  })
})
