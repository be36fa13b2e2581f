import { Sequelize } from 'sequelize'

import { permissions, type Permission } from '../support/app'
import { expectProblem } from '../support/problem'
import { startProxy } from '../support/proxy'
import { createAnswers, get, holdingOf, statusOf, useRoles } from '../support/roles'
import { until } from '../support/until'

const [read, execute] = permissions

const { database, asked, rolesOf, createInstance, createKey, createApp } = useRoles()

describe('grantable', () => {
  it('is awaited at the first use, and called beside the requests later', async () => {
    const { grantable, next } = createAnswers()
    const apiKeys = createInstance({ grantable, grantableMaxAgeMs: 2_000 })
    const { key } = await createKey()
    const first = holdingOf(apiKeys, key)
    const firstAnswer = await next()
    firstAnswer.give([read, execute])
    expect(await first).toEqual([read, execute])

    let isAsked = false
    const second = next().finally(() => {
      isAsked = true
    })
    await until(async () => {
      expect(await holdingOf(apiKeys, key)).toEqual([read, execute])
      return isAsked
    })
    const secondAnswer = await second
    secondAnswer.give([read])

    await until(async () => String(await holdingOf(apiKeys, key)) === read)
  })

  it('breaks nothing if it fails, until answers are twice as old and requests are refused with 503', async () => {
    let isAway = false
    const apiKeys = createInstance({
      grantableMaxAgeMs: 150,
      grantable: async (owner) =>
        isAway ? Promise.reject(new Error('no roles today')) : rolesOf(owner),
    })
    const app = createApp(apiKeys)
    const reported: unknown[] = []
    apiKeys.on('grantable_unavailable', (notice) => reported.push(notice))
    const { key } = await createKey()
    expect(await statusOf(app, read, key)).toBe(200)
    expect(reported).toEqual([])

    isAway = true
    const statuses: number[] = []
    await until(async () => {
      statuses.push(await statusOf(app, read, key))
      return statuses.at(-1) !== 200
    })
    const refused = await get(app, read, key)

    expect(statuses.at(-1)).toBe(503)
    expectProblem(refused, 'grantable_unavailable')
    expect(refused.headers['retry-after']).toBe('1')
    await expect(apiKeys.verify(key)).rejects.toMatchObject({
      code: 'grantable_unavailable',
      cause: new Error('no roles today'),
    })
    expect(reported[0]).toEqual({
      owner: { type: 'user', id: 'alice' },
      error: new Error('no roles today'),
    })

    isAway = false
    expect(await statusOf(app, read, key)).toBe(200)
  })

  it('causes 503 if it never answers, and is called again by the next request', async () => {
    const { grantable, next } = createAnswers()
    const app = createApp(createInstance({ grantable }))
    const { key } = await createKey()

    const refused = await get(app, read, key)
    await next()
    const [status] = await Promise.all([
      statusOf(app, read, key),
      next().then(({ give }) => give([read])),
    ])

    expectProblem(refused, 'grantable_unavailable')
    expect(status).toBe(200)
  })

  it.each<[string, () => Promise<never>]>([
    ['rejects', () => Promise.reject(new Error('no roles today'))],
    ['never answers', () => new Promise(() => {})],
  ])('prevents new keys and new permissions if it %s', async (_, grantable) => {
    const apiKeys = createInstance({ grantable })
    const reported = jest.fn()
    apiKeys.on('grantable_unavailable', reported)
    const app = createApp(apiKeys)
    const { id } = await createKey()
    const wish = { name: 'CI', permissions: [read] }

    const answers = await Promise.all([
      app.as('alice').post('/api-keys', wish),
      app.as('alice').put(`/api-keys/${id}/permissions`, { permissions: [read] }),
      app.as('admin').post('/admin/api-keys', { ...wish, userId: 'alice' }),
    ])

    for (const answer of answers) {
      expectProblem(answer, 'grantable_unavailable')
      expect(answer.headers['retry-after']).toBe('1')
    }
    expect(reported).toHaveBeenCalledTimes(3)
    expect(reported).toHaveBeenCalledWith({
      owner: { type: 'user', id: 'alice' },
      error: expect.any(Error),
    })
  })

  it('grants nothing if it throws', async () => {
    const app = createApp(
      createInstance({
        grantable: () => {
          throw new Error('a mistake')
        },
      }),
    )
    const { key } = await createKey()

    expect(await statusOf(app, read, key)).toBe(503)
  })

  it.each([undefined, null, `${read} ${execute}`, { 0: read }, [read, 7], new Set([read])])(
    'is a mistake for the app’s own error handler if it returns %p',
    async (granted) => {
      const app = createApp(createInstance({ grantable: () => granted as never }))
      const { key } = await createKey()

      const response = await get(app, read, key)

      expect(response.status).toBe(500)
      expect(response.body).toEqual({
        app: 'createApiKeys: the option grantable must return a list of permissions',
      })
    },
  )

  it('may return names that are no permissions of the app, and permissions that the key lacks', async () => {
    const apiKeys = createInstance({
      grantable: () => ['READ_BLOCK', 'toString', read, read, ''] as never,
    })
    const { key } = await createKey()

    expect(await holdingOf(apiKeys, key)).toEqual([read])
  })

  it('is cached for as many users as keys', async () => {
    const apiKeys = createInstance({ cacheSize: 2 })
    const keys = await Promise.all(['alice', 'bob', 'carol'].map((userId) => createKey({ userId })))
    const [alice = '', bob = '', carol = ''] = keys.map(({ key }) => key)

    for (const key of [alice, bob, alice, bob]) await apiKeys.verify(key)
    expect(asked).toEqual(['alice', 'bob'])
    for (const key of [carol, alice, bob, carol]) await apiKeys.verify(key)
    expect(asked.length).toBeGreaterThan(3)
  })

  it('is still called during an outage of the database for which keys have a grace', async () => {
    const proxy = await startProxy(Number(new URL(database.url).port))
    let held: readonly Permission[] = [read, execute]
    const connection = new Sequelize(proxy.through(database.url), { logging: false })
    const apiKeys = createInstance({
      sequelize: connection,
      maxStalenessMs: 300,
      outageGraceMs: 60_000,
      grantableMaxAgeMs: 200,
      grantable: async () => held,
    })
    const { key } = await createKey()
    expect(await holdingOf(apiKeys, key)).toEqual([read, execute])
    // The first poll empties the cache.
    await until(async () => (await apiKeys.health()).feed === 'following')
    expect(await holdingOf(apiKeys, key)).toEqual([read, execute])

    proxy.refuse()
    await until(async () => ((await apiKeys.health()).lagMs ?? 0) > 300)
    expect(await holdingOf(apiKeys, key)).toEqual([read, execute])
    held = [read]

    await until(async () => String(await holdingOf(apiKeys, key)) === read)
    expect((await apiKeys.health()).feed).toBe('unreachable')
    await proxy.accept()
    await apiKeys.close()
    await connection.close()
    await proxy.close()
  })
})
