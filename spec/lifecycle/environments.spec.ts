import * as fc from 'fast-check'

import { environmentOptions, newKeyOf, withEnvironments } from '../support/environments'
import { runsOf } from '../support/runs'
import { useWorld } from '../support/world'

const world = useWorld({ options: environmentOptions({ maxKeysPerOwner: 2 }) })
const apiKeys = withEnvironments(world.apiKeys)

describe('environments', () => {
  it('count towards maxKeysPerOwner each alone', async () => {
    const create = (environment: 'live' | 'test') =>
      apiKeys.create(newKeyOf(environment, { userId: 'alice' }))
    const { apiKey: expired } = await create('test')
    await create('live')
    await create('live')
    await expect(create('live')).rejects.toMatchObject({ code: 'too_many_api_keys' })
    await create('test')
    await expect(create('test')).rejects.toMatchObject({ code: 'too_many_api_keys' })

    await world.rows(`UPDATE api_keys SET expires_at = now() WHERE id = '${expired.id}'`)
    await create('test')
    const later = { expiresAt: new Date(Date.now() + 60_000) }
    await expect(apiKeys.update(expired.id, later)).rejects.toMatchObject({
      code: 'too_many_api_keys',
    })
  })

  it('count a former prefix with the present one', async () => {
    const former = world.createProcess({ keyPrefix: 'oldtest' }).apiKeys
    const input = { userId: 'bob', name: 'Old', permissions: ['READ_GRAPH'] } as const
    await former.create(input)
    await former.create(input)

    const refused = apiKeys.create(newKeyOf('test', { userId: 'bob' }))
    await expect(refused).rejects.toMatchObject({ code: 'too_many_api_keys' })
    await apiKeys.create(newKeyOf('live', { userId: 'bob' }))
  })

  it('are counted each alone among many new keys', async () => {
    const many = (['live', 'test', 'live', 'test', 'live'] as const).map((environment) =>
      newKeyOf(environment, { userId: 'carol' }),
    )

    await expect(apiKeys.createMany(many)).rejects.toMatchObject({
      code: 'too_many_api_keys',
      errors: [{ pointer: '#/apiKeys/4' }],
    })
    const made = await apiKeys.createMany(many.slice(0, 4))
    expect(made.apiKeys.map(({ apiKey }) => apiKey.environment)).toEqual([
      'live',
      'test',
      'live',
      'test',
    ])
  })

  it('end together with revokeAll, and apart with revokeMany', async () => {
    const [live, test] = [
      await apiKeys.create(newKeyOf('live', { userId: 'dave' })),
      await apiKeys.create(newKeyOf('test', { userId: 'dave' })),
    ]
    const statuses = async () =>
      Promise.all([live, test].map(async ({ apiKey }) => (await apiKeys.get(apiKey.id)).status))

    expect(await apiKeys.countRevocable({ type: 'user', id: 'dave' })).toEqual({ keys: 2 })
    expect(await apiKeys.revokeMany({ userId: 'dave', environment: 'test' })).toEqual({
      keys: 1,
      notFound: [],
    })
    expect(await statuses()).toEqual(['ACTIVE', 'REVOKED'])
    await apiKeys.create(newKeyOf('test', { userId: 'dave' }))
    expect(await apiKeys.revokeAll({ type: 'user', id: 'dave' })).toEqual({ keys: 2 })
    expect(await statuses()).toEqual(['REVOKED', 'REVOKED'])
  })

  it('end apart with revokeUnused', async () => {
    const made = [
      await apiKeys.create(newKeyOf('live', { userId: 'erin' })),
      await apiKeys.create(newKeyOf('test', { userId: 'erin' })),
      await apiKeys.create(newKeyOf('test', { userId: 'frank' })),
    ]
    await world.rows(`UPDATE api_keys SET created_at = now() - interval '9 days'`)
    const unused = { unusedForDays: 8, environment: 'test' } as const

    expect(await apiKeys.revokeUnused({ ...unused, userId: 'erin', dryRun: true })).toEqual({
      keys: 1,
    })
    const answer = await world.http
      .as('admin')
      .post('/admin/api-keys/revoke-unused', { ...unused, owner: { type: 'user', id: 'erin' } })
    expect(answer.body).toEqual({ revoked: 1 })

    const statuses = made.map(async ({ apiKey }) => (await apiKeys.get(apiKey.id)).status)
    expect(await Promise.all(statuses)).toEqual(['ACTIVE', 'REVOKED', 'ACTIVE'])
    await expect(
      apiKeys.revokeUnused({ unusedForDays: 8, environment: 'prod' as 'test' }),
    ).rejects.toMatchObject({
      errors: [{ pointer: '#/environment', message: 'must be one of live, test' }],
    })
    await expect(
      apiKeys.revokeUnused({ unusedForDays: 8, environment: undefined }),
    ).rejects.toThrow(TypeError)
  })

  it('have limits over those of the app with the same names', async () => {
    const burst = { limit: 5, windowSeconds: 60 }
    const limited = withEnvironments(
      world.createProcess(
        environmentOptions({
          environments: {
            live: 'acme_live',
            test: {
              prefix: 'acme_test',
              limits: { burst: { limit: 1, windowSeconds: 60 }, monthly: null },
            },
          },
          limits: { burst, monthly: { limit: 1000, windowSeconds: 2_592_000 } },
        }),
      ).apiKeys,
    )
    const limitsOf = async (environment: 'live' | 'test', limits = {}) => {
      const { plainTextKey } = await limited.create(
        newKeyOf(environment, { userId: `erin ${environment}`, limits }),
      )
      const verdict = await limited.verify(plainTextKey, { environment })
      if (!verdict.valid) throw new Error(verdict.code)
      const states = await limited.consume(verdict.apiKey, 1)
      return states.map(({ name, limit }) => [name, limit])
    }

    expect(await limitsOf('live')).toEqual([
      ['burst', 5],
      ['monthly', 1000],
    ])
    expect(await limitsOf('test')).toEqual([['burst', 1]])
    expect(await limitsOf('test', { burst: { limit: 9, windowSeconds: 60 } })).toEqual([
      ['burst', 9],
    ])
  })

  it('are in the audit trail, which is intact', async () => {
    const { apiKey } = await apiKeys.create(newKeyOf('test', { userId: 'frank' }))
    await apiKeys.rotate(apiKey.id)
    await world.rows(`UPDATE api_keys SET environment = NULL WHERE id = '${apiKey.id}'`)
    await apiKeys.revoke(apiKey.id)

    const { events } = await apiKeys.events({ apiKeyId: apiKey.id })
    expect(
      events.map(({ action, after }) => [action, (after as { environment?: unknown }).environment]),
    ).toEqual([
      ['revoked', undefined],
      [expect.any(String), null],
      ['rotated', undefined],
      ['created', 'test'],
    ])
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })
})

/** A call on one of the keys that there are. */
const call = fc.record({
  name: fc.constantFrom(
    'rotate',
    'rotateNow',
    'update',
    'suspend',
    'reactivate',
    'endRotation',
    'create',
    'createMany',
  ),
  key: fc.nat({ max: 5 }),
  environment: fc.constantFrom('live' as const, 'test' as const),
  instance: fc.nat({ max: 2 }),
})

describe('a sequence of calls', () => {
  // The second is an instance of a rolling deploy, before one more change of prefixes.
  const instances = [
    apiKeys,
    withEnvironments(
      world.createProcess(
        environmentOptions({
          environments: {
            live: { prefix: 'acme', formerPrefixes: ['acme_live'] },
            test: { prefix: 'oldtest', formerPrefixes: ['acme_test'] },
          },
          maxKeysPerOwner: Infinity,
        }),
      ).apiKeys,
    ),
    withEnvironments(
      world.createProcess(environmentOptions({ maxKeysPerOwner: Infinity })).apiKeys,
    ),
  ]

  it('never makes a secret that passes for another environment than that of its key', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(call, { minLength: 1, maxLength: 12 }), async (calls) => {
        const userId = `user ${Math.random()}`
        const creator = instances[2] ?? apiKeys
        const first = await creator.create(newKeyOf('test', { userId }))
        const made: [id: string, secret: string][] = [[first.apiKey.id, first.plainTextKey]]
        const environmentOf = new Map<string, 'live' | 'test'>([[first.apiKey.id, 'test']])
        const note = (id: string, secret: string | null, environment: 'live' | 'test') => {
          environmentOf.set(id, environment)
          if (secret !== null) made.push([id, secret])
        }

        for (const { name, key, environment, instance } of calls) {
          const on = instances[instance === 0 ? 2 : instance] ?? creator
          const [id = ''] = made[key % made.length] ?? []
          const own = environmentOf.get(id) ?? environment
          try {
            if (name === 'create') {
              const { apiKey, plainTextKey } = await on.create(newKeyOf(environment, { userId }))
              note(apiKey.id, plainTextKey, environment)
            } else if (name === 'createMany') {
              const { apiKeys: many } = await on.createMany([
                newKeyOf(environment, { userId }),
                newKeyOf('test', { userId }),
              ])
              for (const [at, { apiKey, plainTextKey }] of many.entries()) {
                note(apiKey.id, plainTextKey, at === 0 ? environment : 'test')
              }
            } else if (name === 'rotate' || name === 'rotateNow') {
              const gracePeriodSeconds = name === 'rotate' ? 60 : 0
              const { plainTextKey } = await on.rotate(id, { gracePeriodSeconds })
              note(id, plainTextKey, own)
            } else if (name === 'update') {
              await on.update(id, { name: environment, environment } as object).catch(() => {})
              await on.update(id, { name: environment })
            } else {
              await on[name](id)
            }
          } catch (error) {
            // Refusals such as that of a suspended key are no fault.
            if (!(error instanceof Error) || error.name !== 'ApiKeysError') throw error
          }
        }

        for (const [id, secret] of made) {
          const environment = environmentOf.get(id) ?? 'live'
          const other = environment === 'live' ? 'test' : 'live'
          for (const on of instances) {
            expect((await on.verify(secret, { environment: other })).valid).toBe(false)
            expect((await on.get(id)).environment).toBe(environment)
          }
        }
      }),
      { numRuns: runsOf(100, 15) },
    )
  })
})
