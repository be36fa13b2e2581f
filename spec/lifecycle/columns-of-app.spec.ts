import { newKey } from '../support/keys'
import { vectors } from '../support/imported-keys'
import { useWorld } from '../support/world'

const [vector] = Object.values(vectors)
if (!vector) throw new Error('There are no vectors')
const { source, row } = vector

const world = useWorld({ options: { imports: [source], maxKeysPerOwner: 50 } })

/** Names that the statements of the library give to rows, values and variables. */
const names = `
  key keys new entry given wanted mine owner made own living claim owner_type owner_id owner_number ordinality
  is_spelled place_of_owner maximum prefixes most number place at_ms patience is_suspended is_counted owners
  version changes json value lock xid ref salt scope part body reason action api_key_id before after entry_mac
  claimed_until as_of state used used_at hour verified event_id
`
  .trim()
  .split(/\s+/)

/** SQL that adds columns to a table. */
function added(table: string, columns: readonly string[]): string {
  return `ALTER TABLE ${table} ${columns.map((name) => `ADD COLUMN "${name}" text`).join(', ')}`
}

beforeAll(async () => {
  await world.rows(added('api_keys', names))
  await world.rows(added('api_key_events', ['ordinality', 'user_id', 'service', 'prefix', 'key']))
  await world.rows(added('api_key_requests', ['ordinality', 'id']))
})

describe('columns that an app adds to the tables, whatever their names are', () => {
  it('leave new keys as they are', async () => {
    const { apiKeys } = world
    const created = await apiKeys.create(newKey({ name: 'One' }))
    const many = [newKey({ name: 'First' }), newKey({ name: 'Second', userId: 'bob' })]
    const { apiKeys: made } = await apiKeys.createMany(many)
    const options = { idempotencyKey: 'a job' }
    const once = await apiKeys.create(newKey({ name: 'Once' }), options)

    expect(await apiKeys.create(newKey({ name: 'Once' }), options)).toEqual(once)
    expect(made.map(({ apiKey }) => apiKey.name)).toEqual(['First', 'Second'])
    for (const { plainTextKey } of [created, ...made, once]) {
      expect(await apiKeys.verify(plainTextKey ?? '')).toMatchObject({ valid: true })
    }
  })

  it('leave the maximum of keys of an owner as it is', async () => {
    const { apiKeys } = world.createProcess({ maxKeysPerOwner: 2 })
    const key = newKey({ userId: 'carol' })
    await apiKeys.create(key)

    await expect(apiKeys.createMany([key, key])).rejects.toMatchObject({
      code: 'too_many_api_keys',
    })
    await apiKeys.create(key, { idempotencyKey: 'second' })
    for (const options of [{}, { idempotencyKey: 'third' }]) {
      await expect(apiKeys.create(key, options)).rejects.toMatchObject({
        code: 'too_many_api_keys',
      })
    }
  })

  it('leave changes as they are', async () => {
    const { apiKeys } = world
    const { apiKey } = await apiKeys.create(newKey({ userId: 'dora' }))
    const { id } = apiKey

    await apiKeys.update(id, { name: 'Renamed' })
    await apiKeys.setPermissions(id, ['READ_BLOCK'])
    await apiKeys.suspend(id)
    await apiKeys.reactivate(id)
    const { plainTextKey } = await apiKeys.rotate(id, { idempotencyKey: 'rotation' })
    await apiKeys.transfer(id, { type: 'user', id: 'erin' })

    const changed = { id, name: 'Renamed', permissions: ['READ_BLOCK'], userId: 'erin' }
    expect(await apiKeys.get(id)).toMatchObject(changed)
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
    const listed = await apiKeys.list({ userId: 'erin', text: 'ren', sort: 'name' })
    expect(listed.apiKeys).toEqual([expect.objectContaining(changed)])
    expect(await apiKeys.revoke(id)).toMatchObject({ status: 'REVOKED' })
    const { events } = await apiKeys.events({ apiKeyId: id })
    expect(events.every(({ actorType }) => actorType === 'system')).toBe(true)
  })

  it('keep the values that the app gave them', async () => {
    const { apiKeys } = world
    const { apiKey } = await apiKeys.create(newKey())
    await world.rows(`UPDATE api_keys SET key = 'own', new = 'own' WHERE id = $1`, [apiKey.id])

    await apiKeys.update(apiKey.id, { name: 'Renamed' })

    const kept = await world.rows('SELECT key, new FROM api_keys WHERE id = $1', [apiKey.id])
    expect(kept).toEqual([{ key: 'own', new: 'own' }])
  })

  it('leave imports as they are', async () => {
    const { apiKeys } = world
    const userId = 'frank'

    for (const dryRun of [true, false]) {
      const report = await apiKeys.importKeys(source.name, [{ ...row, userId }], { dryRun })
      expect(report).toMatchObject({ imported: 1, refused: [] })
    }
    expect((await apiKeys.list({ userId })).apiKeys).toHaveLength(1)
  })

  it('leave the end of an owner as it is', async () => {
    const { apiKeys } = world
    const owner = { type: 'user', id: 'grace' } as const
    await apiKeys.create(newKey({ userId: 'grace' }))

    await apiKeys.suspendOwner(owner)
    await apiKeys.reactivateOwner(owner)
    expect(await apiKeys.revokeAll(owner)).toMatchObject({ keys: 1 })
    expect(await apiKeys.eraseOwner(owner, { reason: 'Left' })).toMatchObject({ keys: 1 })
  })

  it('leave notices of expiry as they are', async () => {
    const { apiKeys } = world
    const expiresAt = new Date(Date.now() + 12 * 3_600_000)
    const { apiKey } = await apiKeys.create(newKey({ expiresAt }))
    await world.rows(`UPDATE api_keys SET created_at = now() - interval '8 days' WHERE id = $1`, [
      apiKey.id,
    ])
    const expiring: string[] = []
    apiKeys.on('expiring', ({ apiKey: { id } }) => expiring.push(id))

    await apiKeys.announceExpiring()

    expect(expiring).toEqual([apiKey.id])
  })

  it('leave the audit trail intact', async () => {
    const { apiKeys } = world
    await apiKeys.create(newKey())
    await world.rows(`UPDATE api_keys SET name = 'By SQL' WHERE user_id = 'alice'`)

    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })
})
