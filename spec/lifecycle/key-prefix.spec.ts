import type { Options, TestApiKeys } from '../support/app'
import { createKey, newKey } from '../support/keys'
import { useWorldForEach } from '../support/world'

const world = useWorldForEach({ options: { keyPrefix: 'acme_live', maxKeysPerOwner: 1 } })
let live: TestApiKeys
let test: TestApiKeys

/** A key of the instance `test`, which shares its tables with the instance `live`. */
let id: string

beforeEach(async () => {
  live = world.apiKeys
  test = createInstance({ keyPrefix: 'acme_test' })
  id = (await createKey(test)).id
})

const createInstance = (options: Options) => world.createProcess(options).apiKeys

const notFound = { code: 'api_key_not_found' }

describe('two instances with different key prefixes on one schema', () => {
  it('may be a word that has a meaning in the database', async () => {
    const instance = createInstance({ keyPrefix: 'null', maxKeysPerOwner: 3 })
    await instance.create(newKey())

    const { apiKeys } = await instance.createMany([newKey(), newKey()])

    expect(apiKeys).toHaveLength(2)
    await expect(instance.create(newKey())).rejects.toMatchObject({ code: 'too_many_api_keys' })
  })

  it.each<[string, () => Promise<unknown>]>([
    ['get', () => live.get(id)],
    ['update', () => live.update(id, { name: 'Other' })],
    ['setPermissions', () => live.setPermissions(id, ['READ_BLOCK'])],
    ['suspend', () => live.suspend(id)],
    ['reactivate', () => live.reactivate(id)],
    ['revoke', () => live.revoke(id)],
    ['unrevoke', () => live.unrevoke(id)],
    ['rotate', () => live.rotate(id)],
    ['endRotation', () => live.endRotation(id)],
    ['usage', () => live.usage(id)],
  ])('find no key of the other instance with %s', async (_, call) => {
    const before = await test.get(id)

    await expect(call()).rejects.toMatchObject(notFound)

    expect(await test.get(id)).toEqual(before)
  })

  it('answer with 404 on their routers', async () => {
    const answers = [
      await world.http.as('alice').get(`/api-keys/${id}`),
      await world.http.as('alice').post(`/api-keys/${id}/rotate`).send({}),
      await world.http.as('admin').post(`/admin/api-keys/${id}/rotate`).send({}),
      await world.http.as('admin').get(`/admin/api-keys/${id}/usage`),
      await world.http.as('admin').delete(`/admin/api-keys/${id}`),
    ]

    expect(answers.map(({ status }) => status)).toEqual([404, 404, 404, 404, 404])
    expect(await test.get(id)).toMatchObject({ status: 'ACTIVE' })
  })

  it('list and count their own keys only', async () => {
    const mine = await createKey(live, { name: 'Mine' })

    expect((await live.list()).apiKeys).toEqual([mine])
    expect((await live.list({ userId: 'alice', status: 'ACTIVE' })).apiKeys).toEqual([mine])
    expect((await live.list({ text: 'Deployment' })).apiKeys).toEqual([])
    expect((await live.list({ permission: 'READ_GRAPH' })).apiKeys).toEqual([mine])
    expect(await live.countRevocable({ type: 'user', id: 'alice' })).toEqual({ keys: 1 })
    expect((await live.health({ livingKeys: true })).livingKeys).toMatchObject([{ keys: 1 }])
  })

  it('limit the number of their own keys', async () => {
    await createKey(test)

    await expect(live.create(newKey())).resolves.toMatchObject({ apiKey: { status: 'ACTIVE' } })
    await expect(live.create(newKey())).rejects.toMatchObject({ code: 'too_many_api_keys' })
  })

  it('revoke and delete their own keys only', async () => {
    await createKey(live)
    const { id: revoked } = await createKey(test, { status: 'REVOKED' })

    expect(await live.revokeAll({ type: 'user', id: 'alice' })).toEqual({ keys: 1 })
    await world.rows(
      `UPDATE api_keys SET created_at = now() - interval '100 days',
              revoked_at = revoked_at - interval '50 days'`,
    )
    expect(await live.revokeUnused({ unusedForDays: 90, dryRun: true })).toEqual({ keys: 0 })
    expect(await live.revokeUnused({ unusedForDays: 90 })).toEqual({ keys: 0 })
    expect(await live.pruneRevoked({ olderThanDays: 10, dryRun: true })).toEqual({ keys: 1 })
    expect(await live.pruneRevoked({ olderThanDays: 10 })).toEqual({ keys: 1 })

    expect(await test.get(id)).toMatchObject({ status: 'ACTIVE' })
    expect(await test.get(revoked)).toMatchObject({ status: 'REVOKED' })
  })

  it('report the expiry of their own keys only', async () => {
    const expiresAt = new Date(Date.now() + 3_600_000)
    const { id: expiring } = await createKey(test, { expiresAt })
    await world.rows(`UPDATE api_keys SET created_at = now() - interval '100 days'`)
    const [liveNotices, testNotices]: [string[], string[]] = [[], []]
    live.on('expiring', ({ apiKey }) => liveNotices.push(apiKey.id))
    test.on('expiring', ({ apiKey }) => testNotices.push(apiKey.id))

    expect(await live.announceExpiring()).toBe(0)
    expect(await test.announceExpiring()).toBe(1)

    expect(liveNotices).toEqual([])
    expect(testNotices).toEqual([expiring])
  })

  it('show the entries of their own keys in the audit trail, also of deleted keys', async () => {
    const mine = await createKey(live)
    await test.update(id, { name: 'Other' })

    expect((await live.events({ apiKeyId: id })).events).toEqual([])
    expect((await live.events()).events).toMatchObject([{ apiKeyId: mine.id }])

    await world.rows('DELETE FROM api_keys')

    expect((await live.events({ apiKeyId: id })).events).toEqual([])
    expect((await live.events()).events).toMatchObject([
      { apiKeyId: mine.id, action: 'deleted' },
      { apiKeyId: mine.id, action: 'created' },
    ])
    expect((await test.events({ apiKeyId: id })).events).toMatchObject([
      { action: 'deleted' },
      { action: 'updated' },
      { action: 'created' },
    ])
  })

  it('show the usage of their own keys', async () => {
    await world.rows(
      `INSERT INTO api_key_usage SELECT id, 'user', user_id, date_trunc('hour', now()), 5, 0, 0 FROM api_keys`,
    )

    expect(await live.totalUsage({ apiKeyId: id })).toMatchObject({ usage: [], keys: [] })
    expect(await live.totalUsage()).toMatchObject({ usage: [], keys: [] })
    expect(await test.totalUsage()).toMatchObject({ keys: [{ apiKeyId: id, accepted: 5 }] })

    // The entries of a key that is gone still count.
    await createKey(test)
    await world.rows('DELETE FROM api_keys WHERE id = $1', [id])
    expect(await live.totalUsage()).toMatchObject({ usage: [], keys: [] })
    expect(await test.totalUsage({ apiKeyId: id })).toMatchObject({ totals: { accepted: 5 } })
  })

  describe('with different secrets', () => {
    // A key without secrets is there already.
    const own = { acceptUnkeyed: true }
    const [first, second] = ['pG4u9Tq1ZbX7mWc2Rk8sVn5yLd3hJf6e', 'kJ8s7Dh2lPq9vXz4Tn6bWm3cRf5gYa1e']

    it('are warned that they cannot verify their audit trail', async () => {
      const warnings = jest.spyOn(process, 'emitWarning').mockImplementation()
      for (const [keyPrefix, secret] of [
        ['acme_live', first],
        ['acme_test', second],
      ] as const) {
        const instance = createInstance({ keyPrefix, secrets: [secret], ...own })
        await createKey(instance)
        await instance.flush()
      }

      const codes = warnings.mock.calls.map(([, options]) => (options as { code: string }).code)
      expect(codes).toEqual(['API_KEYS_TRAIL_SECRET_UNKNOWN'])
      warnings.mockRestore()
    })

    it('verify it if each has the secrets of all', async () => {
      const both = [
        createInstance({ keyPrefix: 'acme_live', secrets: [first, second], ...own }),
        createInstance({ keyPrefix: 'acme_test', secrets: [second, first], ...own }),
      ]
      for (const instance of [...both, ...both]) await createKey(instance)

      for (const instance of both) {
        expect(await instance.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
      }
    })
  })
})
