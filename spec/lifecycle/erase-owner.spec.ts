import { createKey, newKey } from '../support/keys'
import { secret, useTrail } from '../support/trail'

const world = useTrail()
const { apiKeys, rows, createProcess, expectFaults } = world

const zoe = { type: 'user', id: 'zoe@example.com' } as const
const address = '198.51.100.23'
const asZoe = { actor: zoe, address }
const asRoot = { actor: { type: 'admin', id: 'root' }, address: '192.0.2.1' } as const
const reason = 'Request 4711'

/** Every text that says something about Zoe. */
const personal = [zoe.id, 'Zoe', address, '203.0.113.77']

/** The tables that keep ids for a while: the log of changes for an hour, and claims, which have a digest, for a day. */
const kept = new Set(['api_key_changes', 'api_key_revisions', 'api_key_requests'])

/** Returns the tables of ours in which a text is found. */
async function tablesWith(text: string): Promise<string[]> {
  const tables = await rows<{ name: string }>(
    `SELECT relname AS name FROM pg_class WHERE relname LIKE 'api\\_key%' AND relkind = 'r' ORDER BY 1`,
  )
  const found: string[] = []
  for (const { name } of tables.filter((table) => !kept.has(table.name))) {
    const sql = `SELECT FROM ${name} AS row WHERE row::text LIKE '%' || $1 || '%' LIMIT 1`
    if ((await rows(sql, [text])).length > 0) found.push(name)
  }
  return found
}

async function traces(): Promise<string[]> {
  return (await Promise.all(personal.map(tablesWith))).flat()
}

/** Makes keys of Zoe, and has her act on keys of other users. */
async function live() {
  const own = await apiKeys.create(
    newKey({
      userId: zoe.id,
      name: 'Laptop of Zoe',
      description: 'At the home of Zoe',
      metadata: { contact: 'Zoe' },
      allowedIps: ['203.0.113.77'],
    }),
    asZoe,
  )
  await apiKeys.verify(own.plainTextKey, { ip: '203.0.113.77' })
  await apiKeys.update(own.apiKey.id, { name: 'Desktop of Zoe' }, asZoe)
  await apiKeys.suspend(own.apiKey.id, { ...asRoot, reason: 'Zoe has lost it.' })
  await apiKeys.reactivate(own.apiKey.id, { address })
  const bobs = await apiKeys.create(newKey({ userId: 'bob', name: 'Of Bob' }), asZoe)
  await apiKeys.update(
    bobs.apiKey.id,
    { description: 'Shared' },
    { actor: { type: 'admin', id: zoe.id }, address },
  )
  const left = await createKey(apiKeys, { userId: zoe.id, name: 'Given to Bob by Zoe' })
  await apiKeys.update(left.id, { name: 'Server' }, asZoe)
  await apiKeys.transfer(left.id, { type: 'user', id: 'bob' }, { ...asRoot, reason: 'Zoe leaves.' })
  await apiKeys.suspendOwner(zoe, { ...asRoot, reason: 'Zoe is on leave.' })
  await apiKeys.flush()
  return { own, bobs, left }
}

describe('eraseOwner', () => {
  it('removes every trace of a person from keys, trail and usage, and the trail still verifies', async () => {
    const { own, bobs, left } = await live()
    const head = await apiKeys.auditHead()
    expect(await traces()).toEqual(
      expect.arrayContaining(['api_keys', 'api_key_events', 'api_key_usage']),
    )
    const wouldBe = await apiKeys.eraseOwner(zoe, { reason, revoke: true, dryRun: true })
    expect(await apiKeys.get(own.apiKey.id)).toMatchObject({ status: 'ACTIVE' })

    const erased = await apiKeys.eraseOwner(zoe, { ...asRoot, reason, revoke: true })

    expect(wouldBe).toMatchObject({ keys: 1, createdKeys: 1, hours: 1 })
    expect(erased).toEqual({ ...wouldBe, events: expect.any(Number) })
    expect(await traces()).toEqual([])
    const verification = await apiKeys.verifyAuditTrail({ head })
    expect(verification).toMatchObject({ isIntact: true, faults: [], erased: erased.events })
    await expect(apiKeys.get(own.apiKey.id)).rejects.toMatchObject({ code: 'api_key_not_found' })
    expect(await apiKeys.verify(bobs.plainTextKey)).toMatchObject({ valid: true })
    expect(await apiKeys.get(bobs.apiKey.id)).toMatchObject({ name: 'Of Bob', createdBy: null })
    const { events } = await apiKeys.events({ apiKeyId: bobs.apiKey.id, limit: 1 })
    expect(events).toMatchObject([{ action: 'updated', actorId: 'root', reason }])
    expect(await apiKeys.get(left.id)).toMatchObject({ userId: 'bob', name: 'Server' })
  })

  it('tells in the trail who has erased, when and why, and how many entries, but not whom', async () => {
    await createKey(apiKeys, { userId: zoe.id, status: 'REVOKED' })

    const { events: number } = await apiKeys.eraseOwner(zoe, { ...asRoot, reason })

    const { events } = await apiKeys.events()
    expect(number).toBe(3)
    expect(events).toMatchObject([
      {
        action: 'owner_erased',
        owner: null,
        actorType: 'admin',
        actorId: 'root',
        address: '192.0.2.1',
        reason,
        before: null,
        after: { entries: 3 },
        createdAt: expect.any(Date),
        isErased: false,
      },
      { action: 'deleted', owner: null, actorId: 'root', reason: null, isErased: true },
      {
        action: 'revoked',
        owner: null,
        before: { status: 'ACTIVE' },
        after: { status: 'REVOKED' },
      },
      { action: 'created', owner: null, after: { permissions: ['READ_GRAPH'] }, isErased: true },
    ])
    expect(events.at(-1)?.after).not.toHaveProperty('name')
    expect((await apiKeys.events({ userId: zoe.id })).events).toEqual([])
  })

  it('is not undone by uses that other processes write later', async () => {
    const { own, bobs } = await live()
    await apiKeys.reactivateOwner(zoe)
    const others = [createProcess({ secrets: [secret] }), createProcess({ secrets: [secret] })]
    const given = await apiKeys.create(newKey({ userId: zoe.id }))
    for (const other of others) {
      await other.apiKeys.verify(own.plainTextKey, { ip: '203.0.113.77' })
      await other.apiKeys.verify(given.plainTextKey, { ip: address })
      await other.apiKeys.verify(bobs.plainTextKey)
    }
    await apiKeys.transfer(given.apiKey.id, { type: 'user', id: 'bob' })

    await apiKeys.eraseOwner(zoe, { reason, revoke: true })
    for (const other of others) await other.apiKeys.flush()

    expect(await traces()).toEqual([])
    const { keys: counted } = await apiKeys.totalUsage()
    const shown = counted.map(({ apiKeyId, owner }) => [apiKeyId, owner?.id ?? null])
    expect(shown).toContainEqual([own.apiKey.id, null])
    expect(shown).toContainEqual([bobs.apiKey.id, 'bob'])
    await expectFaults()
  })

  it('does not name a person who erases themselves', async () => {
    await createKey(apiKeys, { userId: zoe.id, status: 'REVOKED' })

    await apiKeys.eraseOwner(zoe, { ...asZoe, reason })

    expect(await traces()).toEqual([])
    expect((await apiKeys.events()).events[0]).toMatchObject({ actorType: 'system', reason })
  })

  it('leaves other persons, also those who acted on keys of the owner, and other kinds of owners', async () => {
    const process = createProcess({ secrets: [secret], services: true } as never)
    const service = { type: 'service', id: zoe.id } as never
    const made = await process.apiKeys.create({
      ...newKey(),
      userId: undefined,
      owner: service,
    } as never)
    await createKey(apiKeys, { userId: 'bob', name: 'Of Bob' })
    const { id } = await createKey(apiKeys, { userId: zoe.id })
    await apiKeys.revoke(id, asRoot)

    await apiKeys.eraseOwner(zoe, { reason })

    const { events } = await process.apiKeys.events()
    expect(events.find(({ apiKeyId }) => apiKeyId === made.apiKey.id)).toMatchObject({
      isErased: false,
    })
    expect(events.find(({ action }) => action === 'revoked')).toMatchObject({
      actorId: 'root',
      address: '192.0.2.1',
    })
    expect((await apiKeys.events({ userId: 'bob' })).events).toMatchObject([
      { after: { name: 'Of Bob' }, isErased: false },
    ])
    await expectFaults()
  })

  it('refuses an owner with keys that are not revoked, and changes nothing then', async () => {
    const { id } = await createKey(apiKeys, { userId: zoe.id, status: 'SUSPENDED' })
    const refusal = { code: 'owner_has_api_keys', status: 409 }

    await expect(apiKeys.eraseOwner(zoe, { reason })).rejects.toMatchObject(refusal)
    await expect(apiKeys.eraseOwner(zoe, { reason, dryRun: true })).rejects.toMatchObject(refusal)

    expect(await apiKeys.get(id)).toMatchObject({ status: 'SUSPENDED' })
    expect((await apiKeys.events({ userId: zoe.id })).events).toHaveLength(2)
  })

  it('finds nothing the second time, and nothing of an owner without keys, and leaves no entry then', async () => {
    await createKey(apiKeys, { userId: zoe.id, status: 'REVOKED' })
    const nothing = { keys: 0, createdKeys: 0, events: 0, hours: 0 }
    await apiKeys.eraseOwner(zoe, { reason })

    expect(await apiKeys.eraseOwner(zoe, { reason })).toEqual(nothing)
    expect(await apiKeys.eraseOwner({ type: 'user', id: 'nobody' }, { reason })).toEqual(nothing)

    expect((await apiKeys.events({ action: 'owner_erased' })).events).toHaveLength(1)
    await expectFaults()
  })

  it('erases what the owner leaves after an erasing', async () => {
    await createKey(apiKeys, { userId: zoe.id, name: 'First of Zoe', status: 'REVOKED' })
    await apiKeys.eraseOwner(zoe, { reason })
    await createKey(apiKeys, { userId: zoe.id, name: 'Second of Zoe', status: 'REVOKED' })

    await apiKeys.eraseOwner(zoe, { reason })

    expect(await traces()).toEqual([])
    await expectFaults()
  })

  it.each([
    ['no reason', {}, '#/reason'],
    ['an empty reason', { reason: '' }, '#/reason'],
    ['a long reason', { reason: 'x'.repeat(501) }, '#/reason'],
    ['a wish that is no wish', { reason, revoke: 'yes' }, '#/revoke'],
    ['a dry run that is none', { reason, dryRun: 1 }, '#/dryRun'],
  ])('refuses %s', async (_, options, pointer) => {
    await expect(apiKeys.eraseOwner(zoe, options as never)).rejects.toMatchObject({
      code: 'invalid_input',
      errors: [{ pointer }],
    })
  })

  it('refuses a transaction, and an owner that is none', async () => {
    await world.sequelize.transaction(async (transaction) => {
      await expect(apiKeys.eraseOwner(zoe, { reason, transaction } as never)).rejects.toThrow(
        'transactions of its own',
      )
    })
    await expect(
      apiKeys.eraseOwner({ type: 'team', id: 'x' } as never, { reason }),
    ).rejects.toMatchObject({
      errors: [{ pointer: '#/owner/type' }],
    })
  })
})
