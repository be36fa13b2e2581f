import { newUser } from '../support/keys'
import { createInstance } from '../support/tables'
import { until } from '../support/until'
import { useWorld } from '../support/world'

const world = useWorld({ options: { maxStalenessMs: 300 } })
const { apiKeys, createKey, rows } = world

const suspended = { valid: false, code: 'suspended' }

function user() {
  return { type: 'user', id: newUser() } as const
}

describe('suspendOwner', () => {
  it('refuses all keys of the owner at once in this process, and in others within the bound', async () => {
    const owner = user()
    const [key, other] = [await createKey({ userId: owner.id }), await createKey()]
    const process = world.createProcess({ maxStalenessMs: 300 }).apiKeys
    for (const each of [apiKeys, process]) await each.verify(key.plainTextKey)

    expect(await apiKeys.suspendOwner(owner, { reason: 'left', everywhere: true })).toEqual({
      isChanged: true,
    })

    for (const each of [apiKeys, process]) {
      expect(await each.verify(key.plainTextKey)).toEqual(suspended)
    }
    expect(await apiKeys.verify(other.plainTextKey)).toMatchObject({ valid: true })
    expect(await apiKeys.get(key.id)).toMatchObject({ status: 'ACTIVE', ownerSuspended: true })
    expect((await apiKeys.list({ userId: owner.id })).apiKeys).toMatchObject([
      { ownerSuspended: true },
    ])

    expect(await apiKeys.reactivateOwner(owner)).toEqual({ isChanged: true })
    expect(await apiKeys.verify(key.plainTextKey)).toMatchObject({ valid: true })
    expect(await apiKeys.get(key.id)).toMatchObject({ status: 'ACTIVE', ownerSuspended: false })
  })

  it('leaves an entry of each change, with its reason, and none if nothing changes', async () => {
    const owner = user()
    const by = { actor: { type: 'admin', id: 'root' }, reason: 'left' } as const

    const answers = [
      await apiKeys.suspendOwner(owner, by),
      await apiKeys.suspendOwner(owner, by),
      await apiKeys.reactivateOwner(owner),
      await apiKeys.reactivateOwner(owner),
    ]

    expect(answers.map(({ isChanged }) => isChanged)).toEqual([true, false, true, false])
    const { events } = await apiKeys.events({ userId: owner.id })
    expect(events).toMatchObject([
      { action: 'owner_reactivated', apiKeyId: null, owner, actorType: 'system', reason: null },
      { action: 'owner_suspended', apiKeyId: null, owner, actorType: 'admin', reason: 'left' },
    ])
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })

  it('lets the owner have no new secret, but revoke, suspend and change keys', async () => {
    const owner = user()
    const { id } = await createKey({ userId: owner.id })
    await apiKeys.rotate(id)
    await apiKeys.suspendOwner(owner)

    const key = { owner, name: 'A', permissions: ['READ_GRAPH'] } as const
    for (const call of [
      () => apiKeys.create(key),
      () => apiKeys.create(key, { idempotencyKey: newUser() }),
      () => apiKeys.createMany([key, { ...key, name: 'B' }]),
      () => apiKeys.rotate(id),
    ]) {
      await expect(call()).rejects.toMatchObject({ code: 'owner_suspended', status: 409 })
    }
    expect(await apiKeys.update(id, { name: 'B' })).toMatchObject({ name: 'B' })
    await apiKeys.endRotation(id)
    await apiKeys.suspend(id)
    await apiKeys.reactivate(id)
    expect(await apiKeys.revoke(id)).toMatchObject({ status: 'REVOKED' })
    expect((await apiKeys.list({ userId: owner.id })).apiKeys).toHaveLength(1)
  })

  it.each(['the key first', 'the owner first'])(
    'lets a key that is suspended by itself work after both have ended: %s',
    async (order) => {
      const owner = user()
      const { id, plainTextKey } = await createKey({ userId: owner.id })
      await apiKeys.suspendOwner(owner)
      await apiKeys.suspend(id)
      const ends = [() => apiKeys.reactivate(id), () => apiKeys.reactivateOwner(owner)]
      if (order === 'the owner first') ends.reverse()

      for (const end of ends) {
        expect(await apiKeys.verify(plainTextKey)).toEqual(suspended)
        await end()
      }
      expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
    },
  )

  it('is part of a transaction of the caller', async () => {
    const owner = user()
    const { plainTextKey } = await createKey({ userId: owner.id })
    await apiKeys.verify(plainTextKey)
    const rolledBack = await world.sequelize.transaction()
    await apiKeys.suspendOwner(owner, { transaction: rolledBack })
    await rolledBack.rollback()
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })

    const transaction = await world.sequelize.transaction()
    await apiKeys.suspendOwner(owner, { transaction })
    await transaction.commit()
    await until(async () => !(await apiKeys.verify(plainTextKey)).valid)
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })

  it('refuses nonsense, and an owner in the options', async () => {
    const unchecked = apiKeys.suspendOwner as (...args: unknown[]) => Promise<unknown>

    for (const owner of [undefined, null, 'alice', {}, { type: 'organization', id: '7' }]) {
      await expect(unchecked(owner)).rejects.toMatchObject({ code: 'invalid_input' })
    }
    await expect(unchecked(user(), { owner: user() })).rejects.toThrow(TypeError)
    await expect(unchecked(user(), { reason: '' })).rejects.toMatchObject({ code: 'invalid_input' })
  })

  it('goes with its owner, follows a changed id, and refuses an owner who is not there', async () => {
    await rows(
      `CREATE TABLE users (id text PRIMARY KEY); INSERT INTO users VALUES ('olga'), ('petra')`,
    )
    const schema = 'with_users'
    const own = createInstance(world, { schema, users: { table: 'users' } })
    await own.migrate()
    const { plainTextKey } = await own.create({
      userId: 'olga',
      name: 'A',
      permissions: ['READ_GRAPH'],
    })
    await own.suspendOwner({ type: 'user', id: 'olga' })
    await expect(own.suspendOwner({ type: 'user', id: 'nobody' })).rejects.toMatchObject({
      errors: [{ pointer: '#/owner', message: 'is not a user' }],
    })

    await rows(`UPDATE users SET id = 'olga.b' WHERE id = 'olga'`)
    await until(async () => !(await own.verify(plainTextKey)).valid)
    expect(await own.reactivateOwner({ type: 'user', id: 'olga' })).toEqual({ isChanged: false })
    await rows(`DELETE FROM users WHERE id = 'olga.b'`)
    expect(await rows(`SELECT FROM ${schema}.api_key_suspended_owners`)).toEqual([])
    expect(await own.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })
})
