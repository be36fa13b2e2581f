import { Redis } from 'ioredis'
import { createClient } from 'redis'

import type { ApiKeyNotices } from '../../lib'
import { systemClock } from '../../lib/database/clock'
import { createRateLimiter } from '../../lib/limits/rate-limiter'
import { createTestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'
import { describeWithRedis, startRedis, type RedisServer } from '../support/redis'
import { until } from '../support/until'

const hour = 3_600

let database: Database

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

/** A client that runs no script, like some mocks and wrappers. */
function clientThatReplies(reply: unknown) {
  return { isOpen: true, eval: async () => reply }
}

describeWithRedis('a Redis that is away', () => {
  const limits = { hourly: { limit: 1_000, windowSeconds: hour } }
  let redis: RedisServer
  let clients: { disconnect?(): void; destroy?(): void }[]

  beforeEach(async () => {
    redis = await startRedis()
    clients = []
  })

  afterEach(async () => {
    redis.thaw()
    for (const client of clients) (client.destroy ?? client.disconnect)?.call(client)
    await redis.kill()
  })

  async function connect(kind: string) {
    const client =
      kind === 'ioredis'
        ? new Redis(redis.port, '127.0.0.1', { retryStrategy: () => 20 })
        : createClient({
            url: `redis://127.0.0.1:${redis.port}`,
            socket: { reconnectStrategy: () => 20 },
          })
    client.on('error', () => {})
    if ('destroy' in client && kind === 'redis') await client.connect()
    clients.push(client)
    return client
  }

  async function open(kind: string, options: { onLimiterOutage?: 'allow' } = {}) {
    const apiKeys = createTestApiKeys(database, { ...options, redis: await connect(kind) })
    const { plainTextKey } = await apiKeys.create(newKey({ limits }))
    const verdict = await apiKeys.verify(plainTextKey)
    if (!verdict.valid) throw new Error(verdict.code)
    const reported: ApiKeyNotices['limiter_unavailable'][] = []
    apiKeys.on('limiter_unavailable', (notice) => reported.push(notice))
    return { consume: () => apiKeys.consume(verdict.apiKey), reported, id: verdict.apiKey.id }
  }

  it('is read if the client returns numbers as text', async () => {
    const client = new Redis(redis.port, '127.0.0.1', { stringNumbers: true })
    clients.push(client)
    const apiKeys = createTestApiKeys(database, { redis: client })
    const { plainTextKey } = await apiKeys.create(newKey({ limits }))
    const verdict = await apiKeys.verify(plainTextKey)
    if (!verdict.valid) throw new Error(verdict.code)

    const [state] = await apiKeys.consume(verdict.apiKey)

    expect(state).toMatchObject({ remaining: 999, resetMs: expect.any(Number) })
  })

  it.each(['ioredis', 'redis'])(
    'says how much of a limit is left, if it can, and begins no window: %s',
    async (kind) => {
      const { consume, read } = createRateLimiter({
        redis: await connect(kind),
        onLimiterOutage: 'refuse',
        emitter: { emit: () => {} },
        cacheSize: 10,
        clock: systemClock,
      })
      const key = { id: 'x' }
      const state = { name: 'hourly', limit: 5, windowSeconds: hour }
      const unused = await read({ key, limits: [state] })
      const namesBefore = await redis.keys()
      await consume({ key, limits: [state], cost: 2 })
      const used = await read({ key, limits: [state] })
      const exhausted = await read({ key, limits: [{ ...state, limit: 1 }] })
      redis.freeze()

      expect(unused).toEqual([{ ...state, remaining: 5, resetMs: hour * 1_000 }])
      expect(namesBefore.filter((name) => name !== '')).toEqual([])
      expect(used).toEqual([{ ...state, remaining: 3, resetMs: expect.any(Number) }])
      expect(used[0]?.resetMs).toBeLessThanOrEqual(hour * 1_000)
      expect(exhausted).toMatchObject([{ remaining: 0 }])
      await expect(read({ key, limits: [state] })).rejects.toMatchObject({
        code: 'limiter_unavailable',
      })
    },
  )

  it.each([
    ['nothing', undefined],
    ['a list without the counts', [1, null, null]],
    ['too few numbers', '1 1'],
    ['something else', 'OK'],
  ])('is unavailable if its client returns %s', async (_, reply) => {
    const apiKeys = createTestApiKeys(database, { redis: clientThatReplies(reply) })
    const { plainTextKey } = await apiKeys.create(newKey({ limits }))
    const verdict = await apiKeys.verify(plainTextKey)
    if (!verdict.valid) throw new Error(verdict.code)

    await expect(apiKeys.consume(verdict.apiKey)).rejects.toMatchObject({
      code: 'limiter_unavailable',
      status: 503,
      cause: { message: expect.stringContaining('returned no reply that the limits can be read') },
    })
  })

  it('is read if its client returns bytes', async () => {
    const redis = clientThatReplies(Buffer.from('0 1000 1234'))
    const apiKeys = createTestApiKeys(database, { redis })
    const { plainTextKey } = await apiKeys.create(newKey({ limits }))
    const verdict = await apiKeys.verify(plainTextKey)
    if (!verdict.valid) throw new Error(verdict.code)

    await expect(apiKeys.consume(verdict.apiKey)).rejects.toMatchObject({
      code: 'rate_limited',
      limits: [{ remaining: 0, resetMs: 1234 }],
    })
  })

  it('gives one warning if clients are not connected', async () => {
    const emitWarning = jest.spyOn(process, 'emitWarning').mockImplementation()
    const ended = new Redis(redis.port, '127.0.0.1')
    await ended.quit()
    const notYetOpen = createClient({ url: `redis://127.0.0.1:${redis.port}` })

    for (const client of [ended, notYetOpen]) {
      const apiKeys = createTestApiKeys(database, { redis: client })
      const { plainTextKey } = await apiKeys.create(newKey({ limits }))
      const verdict = await apiKeys.verify(plainTextKey)
      if (!verdict.valid) throw new Error(verdict.code)
      await expect(apiKeys.consume(verdict.apiKey)).rejects.toMatchObject({
        code: 'limiter_unavailable',
      })
    }

    expect(emitWarning.mock.calls).toEqual([
      [
        expect.stringContaining('The client in the option redis is not connected'),
        { type: 'ApiKeysWarning', code: 'API_KEYS_REDIS_NOT_CONNECTED' },
      ],
    ])
    emitWarning.mockRestore()
  })

  describe.each(['ioredis', 'redis'])('with the package %s', (kind) => {
    it.each(['killed', 'frozen'])('makes the library refuse keys with limits: %s', async (how) => {
      const { consume, reported, id } = await open(kind)
      await expect(consume()).resolves.toMatchObject([{ remaining: 999 }])

      if (how === 'killed') await redis.kill()
      else redis.freeze()

      await expect(consume()).rejects.toMatchObject({ code: 'limiter_unavailable', status: 503 })
      await expect(consume()).rejects.toMatchObject({ code: 'limiter_unavailable', status: 503 })
      expect(reported).toEqual([
        { apiKeyId: id, isAllowed: false, error: expect.any(Error) },
        { apiKeyId: id, isAllowed: false, error: expect.any(Error) },
      ])
    })

    it('lets them pass uncounted if the app says so', async () => {
      const { consume, reported, id } = await open(kind, { onLimiterOutage: 'allow' })
      redis.freeze()

      await expect(consume()).resolves.toEqual([])
      expect(reported).toEqual([{ apiKeyId: id, isAllowed: true, error: expect.any(Error) }])
    })

    it('is asked again at once after it has answered with an error', async () => {
      const { consume } = await open(kind)
      await redis.set('maxmemory', '1')
      await expect(consume()).rejects.toMatchObject({
        code: 'limiter_unavailable',
        cause: { message: expect.stringContaining('OOM') },
      })

      await redis.set('maxmemory', '0')

      await expect(consume()).resolves.toMatchObject([{ remaining: 999 }])
    })

    it('is asked again once it is back', async () => {
      const { consume } = await open(kind)
      redis.freeze()
      await expect(consume()).rejects.toMatchObject({ code: 'limiter_unavailable' })

      redis.thaw()

      await until(async () => {
        const states = await consume().catch(() => [])
        return states.length === 1
      })
    })
  })
})
