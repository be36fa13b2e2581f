import express from 'express'

import { bearer } from '../support/http'
import { createKey, newKey } from '../support/keys'
import { until } from '../support/until'
import { useWorldForEach } from '../support/world'

const world = useWorldForEach({ options: { keyPrefix: 'acme', maxKeysPerOwner: 2 } })
const renamed = { keyPrefix: 'zenith', formerPrefixes: ['acme', 'acme_old'] }

function warningsOf(emitWarning: jest.SpyInstance) {
  return (emitWarning.mock.calls as [string, { code: string }][]).filter(
    ([, { code }]) => code === 'API_KEYS_PREFIX_UNKNOWN',
  )
}

describe('formerPrefixes', () => {
  it('let keys with an old prefix pass beside new keys, masked', async () => {
    const { plainTextKey: old, apiKey } = await world.apiKeys.create(newKey())
    const { apiKeys, http } = world.createProcess(renamed)
    const { plainTextKey: young, apiKey: youngKey } = await apiKeys.create(
      newKey({ userId: 'bob' }),
    )
    const app = express().use(apiKeys.authenticate(), (req, res) => {
      res.json([req.apiKey?.userId, req.headers.authorization])
    })

    expect(young).toMatch(/^zenith_[0-9A-Za-z]{51}$/)
    expect((await http.to(app).with(old).get('/')).body).toEqual([
      'alice',
      `Bearer ${apiKey.prefix}...`,
    ])
    expect((await http.to(app).with(young).get('/')).body).toEqual([
      'bob',
      `Bearer ${youngKey.prefix}...`,
    ])
    // No router lets an old key manage keys.
    const answer = await http.set({ ...bearer(old), 'X-User': 'alice' }).get('/api-keys')
    expect(answer.body.code).toBe('api_key_not_allowed')
  })

  it('let old keys be found, listed, counted, changed and reported', async () => {
    const { apiKey: old } = await world.apiKeys.create(newKey({ name: 'Old' }))
    const { apiKeys } = world.createProcess({ ...renamed, maxKeysPerOwner: 2 })
    const young = await createKey(apiKeys, { name: 'Young' })

    expect((await apiKeys.list()).apiKeys).toEqual([young, old])
    expect((await apiKeys.list({ limit: 1, sort: 'createdAt' })).apiKeys).toEqual([old])
    expect((await apiKeys.list({ text: old.prefix })).apiKeys).toEqual([old])
    expect((await apiKeys.list({ text: `${old.prefix} Old` })).apiKeys).toEqual([old])
    expect((await apiKeys.list({ text: 'zenith_' })).apiKeys).toEqual([young])
    expect((await apiKeys.list({ permission: 'READ_GRAPH', status: 'ACTIVE' })).apiKeys).toEqual([
      young,
      old,
    ])
    await expect(apiKeys.create(newKey())).rejects.toMatchObject({ code: 'too_many_api_keys' })
    expect((await apiKeys.update(old.id, { name: 'Older' })).name).toBe('Older')
    expect((await apiKeys.events({ apiKeyId: old.id })).events).toHaveLength(2)
    expect((await apiKeys.health({ livingKeys: true })).livingKeys).toMatchObject([{ keys: 2 }])
    expect((await apiKeys.health({ livingKeys: true })).refusedKeys).toEqual([])
    expect(await apiKeys.revokeAll({ type: 'user', id: 'alice' })).toEqual({ keys: 2 })
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })

  it('read the pages of a list in order, from keys of all prefixes', async () => {
    const all: string[] = []
    for (const keyPrefix of ['acme', 'zenith', 'acme_old', 'acme', 'zenith', 'acme']) {
      const { apiKeys } = world.createProcess({ keyPrefix })
      all.unshift((await createKey(apiKeys, { userId: `user ${all.length}` })).id)
    }
    const { apiKeys } = world.createProcess(renamed)
    const found: string[] = []
    let cursor: string | undefined
    do {
      const page = await apiKeys.list({ limit: 2, cursor })
      found.push(...page.apiKeys.map(({ id }) => id))
      cursor = page.nextCursor ?? undefined
    } while (cursor !== undefined)

    expect(found).toEqual(all)
  })

  it('give a key the present prefix when it is rotated, and the old secret its time', async () => {
    const { apiKey, plainTextKey: old } = await world.apiKeys.create(newKey())
    const { apiKeys } = world.createProcess(renamed)

    const { plainTextKey: young, apiKey: rotated } = await apiKeys.rotate(apiKey.id)

    expect(young).toMatch(/^zenith_/)
    expect(rotated).toMatchObject({ id: apiKey.id, previousSecret: { prefix: apiKey.prefix } })
    for (const key of [old, young]) {
      expect(await apiKeys.verify(key)).toMatchObject({ valid: true, apiKey: { id: apiKey.id } })
    }
    await apiKeys.endRotation(apiKey.id)
    expect(await apiKeys.verify(old)).toEqual({ valid: false, code: 'retired' })
  })

  it('let a request be carried out once across the change of names', async () => {
    const options = { idempotencyKey: 'request', actor: { type: 'user', id: 'alice' } } as const
    await world.apiKeys.create(newKey(), options)
    const { apiKeys } = world.createProcess({ keyPrefix: 'zenith', formerPrefixes: ['acme'] })

    await expect(apiKeys.create(newKey(), options)).rejects.toMatchObject({
      code: 'already_created',
    })
  })
})

describe('keys with a prefix that no instance accepts', () => {
  it('are told of at the first verification, and counted by health', async () => {
    await createKey(world.apiKeys)
    await createKey(world.apiKeys, { status: 'REVOKED' })
    await world.apiKeys.close()
    const { apiKeys } = world.createProcess({ keyPrefix: 'zenith' })
    const { plainTextKey } = await apiKeys.create(newKey({ userId: 'bob' }))
    const emitWarning = jest.spyOn(process, 'emitWarning').mockImplementation()

    await apiKeys.verify(plainTextKey)
    await until(() => warningsOf(emitWarning).length > 0)

    const [[message] = ['']] = warningsOf(emitWarning)
    emitWarning.mockRestore()
    expect(message).toContain('no instance of this process accepts: acme. They are refused')
    expect(await apiKeys.health({ livingKeys: true })).toMatchObject({
      livingKeys: [{ keys: 1 }],
      refusedKeys: [{ keyPrefix: 'acme', environment: null, keys: 1 }],
    })
  })

  it('count in the grace period of their rotation as well', async () => {
    const { apiKey } = await world.apiKeys.create(newKey())
    const { apiKeys } = world.createProcess({ keyPrefix: 'zenith', formerPrefixes: ['acme'] })
    await apiKeys.rotate(apiKey.id)
    await world.apiKeys.close()
    await apiKeys.close()
    const { apiKeys: later } = world.createProcess({ keyPrefix: 'zenith' })

    expect((await later.health({ livingKeys: true })).refusedKeys).toEqual([
      { keyPrefix: 'acme', environment: null, keys: 1 },
    ])
  })

  it('are no fault if they have expired because they were not used, with both secrets of a rotation', async () => {
    const idle = await createKey(world.apiKeys)
    await world.apiKeys.rotate(idle.id)
    await world.rows(
      `UPDATE api_keys SET created_at = now() - interval '9 days', renewed_at = NULL, last_used_at = NULL WHERE id = $1`,
      [idle.id],
    )
    await createKey(world.apiKeys, { userId: 'bob' })
    await world.apiKeys.close()
    const { apiKeys } = world.createProcess({ keyPrefix: 'zenith', maxIdleDays: 8 })

    expect((await apiKeys.health({ livingKeys: true })).refusedKeys).toEqual([
      { keyPrefix: 'acme', environment: null, keys: 1 },
    ])
  })

  it('are no fault if another instance of the process accepts them, or if they no longer live', async () => {
    await createKey(world.apiKeys, { status: 'REVOKED' })
    const other = world.createProcess({ keyPrefix: 'other' }).apiKeys
    await createKey(other, { userId: 'bob' })
    const { apiKeys } = world.createProcess({ keyPrefix: 'zenith' })
    await world.apiKeys.close()

    expect((await apiKeys.health({ livingKeys: true })).refusedKeys).toEqual([])
  })
})
