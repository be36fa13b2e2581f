import { Redis } from 'ioredis'

import { createCallLimit, createFailureLimit } from '../../lib/leaks/call-limit'
import type { Options, TestApiKeys } from '../support/app'
import { describeWithRedis, redisAway, startRedis, type RedisServer } from '../support/redis'
import { until } from '../support/until'
import { useWorld } from '../support/world'

const { createProcess } = useWorld()

function createReceiver(options: Options = {}) {
  return createProcess(options, (app, keys: TestApiKeys) => {
    app.set('trust proxy', 'loopback')
    app.use('/leaks', keys.leakRouter({ reports: true }))
  })
}

type Receiver = ReturnType<typeof createReceiver>

/** Sends reports from an address to receivers in turn, and returns how many were taken. The others have to wait for an hour. */
async function taken(receivers: readonly Receiver[], address: string, calls: number) {
  const answers = []
  for (let call = 0; call < calls; call++) {
    const receiver = receivers[call % receivers.length]
    const from = receiver?.http.set({ 'X-Forwarded-For': address })
    answers.push(await from?.post('/leaks/reports', { credentials: ['x'] }))
  }
  const refused = answers.filter((answer) => answer?.status !== 202)
  for (const answer of refused) expect(answer?.headers['retry-after']).toMatch(/^3[56]\d\d$/)
  return calls - refused.length
}

describe('the calls of an address', () => {
  it('are counted anew after an hour', async () => {
    let now = 0
    const countCall = createCallLimit({ name: 'x', most: 1, redis: undefined, now: () => now })
    await countCall('203.0.113.7')
    now = 3_599_001

    const refused = countCall('203.0.113.7')

    await expect(refused).rejects.toMatchObject({ code: 'too_many_reports', retryAfterSeconds: 1 })
    now = 3_600_000
    await countCall('203.0.113.7')
  })

  it('count in each process for itself without Redis', async () => {
    const receivers = [createReceiver(), createReceiver()]

    expect(await taken(receivers, '203.0.113.7', 124)).toBe(120)
  })

  it('count in the process while Redis is away', async () => {
    const receiver = createReceiver({ redis: redisAway })

    expect(await taken([receiver], '203.0.113.7', 62)).toBe(60)
  })
})

describe('the calls of an address that fail', () => {
  it('refuse it above the most, for the rest of an hour, and no other address', async () => {
    let now = 0
    const limit = { name: 'x', most: 2, redis: undefined, now: () => now }
    const { refuseIfMany, countFailure } = createFailureLimit(limit)
    const [address, other] = ['203.0.113.7', '203.0.113.8']

    await countFailure(address)
    await countFailure(address)
    refuseIfMany(address)
    await expect(countFailure(address)).rejects.toMatchObject({ code: 'too_many_reports' })

    expect(() => refuseIfMany(address)).toThrow(
      expect.objectContaining({ retryAfterSeconds: 3_600 }),
    )
    refuseIfMany(other)
    now = 3_599_001
    expect(() => refuseIfMany(address)).toThrow(expect.objectContaining({ retryAfterSeconds: 1 }))
    now = 3_600_000
    refuseIfMany(address)
    await countFailure(address)
  })

  it('evict the address that was refused first if there are very many', async () => {
    const limit = { name: 'x', most: 0, redis: undefined, now: () => 0 }
    const { refuseIfMany, countFailure } = createFailureLimit(limit)
    for (let at = 0; at <= 10_000; at++) {
      const address = `10.${at >> 16}.${(at >> 8) & 255}.${at & 255}`
      await expect(countFailure(address)).rejects.toThrow('Too many')
    }

    refuseIfMany('10.0.0.0')
    expect(() => refuseIfMany('10.0.0.1')).toThrow('Too many')
  })
})

describeWithRedis('the calls of an address with Redis', () => {
  let redis: RedisServer
  let client: Redis

  beforeEach(async () => {
    redis = await startRedis()
    client = new Redis(redis.port, '127.0.0.1', { retryStrategy: () => null })
    client.on('error', () => {})
  })

  afterEach(async () => {
    client.disconnect()
    await redis.kill()
  })

  it('count in all processes together', async () => {
    const receivers = [createReceiver({ redis: client }), createReceiver({ redis: client })]

    expect(await taken(receivers, '203.0.113.7', 64)).toBe(60)
    expect(await taken(receivers, '203.0.113.8', 2)).toBe(2)
    // An IPv6 client has a whole network.
    expect(await taken(receivers, '2001:db8::1', 60)).toBe(60)
    expect(await taken(receivers, '2001:db8::2', 1)).toBe(0)
  })

  it('count apart for apps with other prefixes', async () => {
    const receivers = ['acme', 'zenith'].map((keyPrefix) =>
      createReceiver({ redis: client, keyPrefix } as Options),
    )

    expect(await taken(receivers, '203.0.113.7', 124)).toBe(120)
  })

  it('count on in the process once Redis has gone', async () => {
    const receiver = createReceiver({ redis: client })
    expect(await taken([receiver], '203.0.113.7', 61)).toBe(60)

    await redis.kill()
    await until(() => client.status === 'end')

    expect(await taken([receiver], '203.0.113.7', 61)).toBe(60)
  })
})
