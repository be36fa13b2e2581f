import { once } from 'node:events'
import type { Server } from 'node:http'

import type { Request, Response } from 'express'
import passport, { Strategy } from 'passport'
import { parseList } from 'structured-headers'
import request from 'supertest'

import { RateLimitedError, type ApiKeyNotices, type NewApiKey } from '../../lib'
import { createSecretFormat } from '../../lib/keys/secret'
import { createTestApiKeys, createTestApp, type Permission, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'
import { until } from '../support/until'

const minute = 60
const month = 30 * 86_400

/** Lets everybody through, as nobody. */
class Anyone extends Strategy {
  override authenticate() {
    this.pass()
  }
}

let database: Database
/** As in the process that answers, and in another one. */
let apiKeys: TestApiKeys
let elsewhere: TestApiKeys
let server: Server

beforeAll(async () => {
  database = await createDatabase()
  const options = {
    limits: {
      burst: { limit: 3, windowSeconds: minute },
      monthly: { limit: 5, windowSeconds: month },
    },
  }
  apiKeys = createTestApiKeys(database, options)
  elsewhere = createTestApiKeys(database, options)
  const strategies = new passport.Passport()
  strategies.use(apiKeys.strategy)
  strategies.use('anyone', new Anyone())
  const app = createTestApp(apiKeys, (app) => {
    app.get('/graphs', apiKeys.requirePermission('READ_GRAPH'), (_req, res) => {
      res.json([])
    })
    app.get('/free', apiKeys.authenticate({ cost: 0 }), (_req, res) => {
      res.json([])
    })
    app.post('/graphs', apiKeys.requirePermission('READ_GRAPH', { cost: 2 }), (_req, res) => {
      res.json({})
    })
    app.get(
      '/twice',
      apiKeys.authenticate(),
      apiKeys.requirePermission('READ_GRAPH', { cost: 2 }),
      apiKeys.requireAnyPermission(['READ_GRAPH', 'READ_BLOCK']),
      (_req, res) => {
        res.json([])
      },
    )
    app.get('/nodes/:count', apiKeys.requirePermission('READ_GRAPH'), async (req, res, next) => {
      try {
        res.json(await apiKeys.consume(req, Number(req.params.count)))
      } catch (error) {
        next(error)
      }
    })
    app.get(
      '/anyone',
      strategies.authenticate(['api-key', 'anyone']),
      (req: Request, res: Response) => {
        res.json({ user: req.user, apiKey: req.apiKey ?? null })
      },
    )
    app.get(
      '/passport',
      strategies.authenticate('api-key'),
      apiKeys.requirePermission('READ_GRAPH'),
      (_req, res) => {
        res.json([])
      },
    )
  })
  server = app.set('trust proxy', true).listen(0)
  await once(server, 'listening')
})

afterAll(async () => {
  server.close()
  await database.drop()
})

const as = (user: string) => request.agent(server).set('X-User', user)

async function create(wishes: Partial<NewApiKey<Permission>> = {}) {
  return apiKeys.create(newKey(wishes))
}

function use(plainTextKey: string, path = '/graphs') {
  return request(server).get(path).set('Authorization', `Bearer ${plainTextKey}`)
}

async function statusesOf(plainTextKey: string, times: number, path?: string) {
  const statuses: number[] = []
  for (let time = 0; time < times; time++) {
    statuses.push((await use(plainTextKey, path)).status)
  }
  return statuses
}

describe('limits', () => {
  it('let through as many requests of a key as they say, and tell where it stands', async () => {
    const { plainTextKey } = await create()

    const first = await use(plainTextKey)
    const others = await statusesOf(plainTextKey, 2)
    const refused = await use(plainTextKey)

    expect(first.status).toBe(200)
    expect(first.headers).toMatchObject({
      'ratelimit-policy': `"burst";q=3;w=60, "monthly";q=5;w=${month}`,
      ratelimit: `"burst";r=2;t=60, "monthly";r=4;t=${month}`,
    })
    expect(others).toEqual([200, 200])
    expect(refused.status).toBe(429)
    expect(refused.headers['retry-after']).toMatch(/^(59|60)$/)
    expect(refused.headers.ratelimit).toMatch(
      new RegExp(`^"burst";r=0;t=(59|60), "monthly";r=2;t=\\d+$`),
    )
    expect(refused.body).toMatchObject({ code: 'rate_limited', 'violated-policies': ['burst'] })
  })

  it('are of each key by itself', async () => {
    const [one, other] = [await create(), await create()]
    await statusesOf(one.plainTextKey, 4)

    expect((await use(other.plainTextKey)).status).toBe(200)
  })

  it('do not count what they do not let through', async () => {
    const { apiKey, plainTextKey } = await create()
    await statusesOf(plainTextKey, 10)

    await apiKeys.update(apiKey.id, { limits: { burst: null } })

    expect(await statusesOf(plainTextKey, 3)).toEqual([200, 200, 429])
  })

  it('do not count what is refused for want of a permission', async () => {
    const { plainTextKey } = await create({ permissions: ['READ_BLOCK'] })
    await statusesOf(plainTextKey, 10)

    expect((await use(plainTextKey, '/free')).status).toBe(200)
    expect((await use(plainTextKey)).status).toBe(403)
  })

  it('count a request for as many uses as it costs, or for none', async () => {
    const { plainTextKey } = await create()
    const post = () =>
      request(server).post('/graphs').set('Authorization', `Bearer ${plainTextKey}`)

    expect((await post()).headers.ratelimit).toMatch(/^"burst";r=1;/)
    expect((await post()).status).toBe(429)
    expect((await use(plainTextKey)).headers.ratelimit).toMatch(/^"burst";r=0;/)
    expect(await statusesOf(plainTextKey, 5, '/free')).toEqual([200, 200, 200, 200, 200])
  })

  it('count a request behind several guards for what the dearest of them costs', async () => {
    const { plainTextKey } = await create()

    const answer = await use(plainTextKey, '/twice')

    expect(answer.headers.ratelimit).toMatch(/^"burst";r=1;/)
  })

  it('count a request once that Passport and a guard see', async () => {
    const { plainTextKey } = await create()

    const first = await use(plainTextKey, '/passport')
    expect(first.headers.ratelimit).toMatch(/^"burst";r=2;/)
    expect(await statusesOf(plainTextKey, 3, '/passport')).toEqual([200, 200, 429])
    const refused = await use(plainTextKey, '/passport')
    expect(refused.headers['retry-after']).toMatch(/^\d+$/)
    expect(refused.headers.ratelimit).toMatch(/^"burst";r=0;/)
  })

  it('leave nothing of a key to whoever Passport lets through after them', async () => {
    const { plainTextKey } = await create()
    expect((await use(plainTextKey, '/anyone')).body.user).toEqual({ id: 'alice' })
    await statusesOf(plainTextKey, 2, '/anyone')

    const answer = await use(plainTextKey, '/anyone')

    expect([answer.status, answer.body]).toEqual([200, { apiKey: null }])
  })

  it('are told in fields that a parser of structured fields understands', async () => {
    const { plainTextKey } = await create()
    const { headers } = await use(plainTextKey)

    expect(parseList(String(headers['ratelimit-policy']))).toEqual([
      [
        'burst',
        new Map([
          ['q', 3],
          ['w', minute],
        ]),
      ],
      [
        'monthly',
        new Map([
          ['q', 5],
          ['w', month],
        ]),
      ],
    ])
    expect(parseList(String(headers.ratelimit))).toEqual([
      [
        'burst',
        new Map([
          ['r', 2],
          ['t', minute],
        ]),
      ],
      [
        'monthly',
        new Map([
          ['r', 4],
          ['t', month],
        ]),
      ],
    ])
  })

  it('are told of when they refuse', async () => {
    const { apiKey, plainTextKey } = await create()
    const denied: ApiKeyNotices['denied'][] = []
    const stop = apiKeys.on('denied', (notice) => denied.push(notice))

    await statusesOf(plainTextKey, 4)
    stop()

    expect(denied).toEqual([
      expect.objectContaining({ apiKey: { id: apiKey.id, userId: 'alice' }, reason: null }),
    ])
    expect(denied[0]?.error).toBeInstanceOf(RateLimitedError)
  })

  it('are counted where they refuse', async () => {
    const { apiKey, plainTextKey } = await create()

    await statusesOf(plainTextKey, 5)
    await use(plainTextKey, '/nodes/1')

    const { totals } = await apiKeys.usage(apiKey.id)
    expect(totals).toEqual({ accepted: 3, denied: 0, rateLimited: 3 })
  })

  it('hold for requests that come at once', async () => {
    const { plainTextKey } = await create()

    const answers = await Promise.all(Array.from({ length: 30 }, () => use(plainTextKey)))

    expect(answers.filter(({ status }) => status === 200)).toHaveLength(3)
    expect(answers.filter(({ status }) => status === 429)).toHaveLength(27)
  })
})

describe('consume', () => {
  it('counts further uses of a request, all or none', async () => {
    const { plainTextKey } = await create()

    const answer = await use(plainTextKey, '/nodes/1')
    expect(answer.body).toEqual([
      { name: 'burst', limit: 3, windowSeconds: minute, remaining: 1, resetMs: expect.any(Number) },
      {
        name: 'monthly',
        limit: 5,
        windowSeconds: month,
        remaining: 3,
        resetMs: expect.any(Number),
      },
    ])
    expect(answer.headers.ratelimit).toMatch(/^"burst";r=1;/)

    // The request itself takes the last one, and two more would be too many.
    const refused = await use(plainTextKey, '/nodes/2')
    expect(refused.status).toBe(500)
    expect((await use(plainTextKey)).status).toBe(429)
  })

  it('takes a key that verify has accepted, and rejects with what HTTP answers', async () => {
    const { plainTextKey } = await create()
    const verdict = await apiKeys.verify(plainTextKey)
    if (!verdict.valid) throw new Error(verdict.code)

    await expect(apiKeys.consume(verdict.apiKey, 3)).resolves.toHaveLength(2)
    await expect(apiKeys.consume(verdict.apiKey)).rejects.toMatchObject({
      code: 'rate_limited',
      status: 429,
      violated: ['burst'],
      headers: { 'Retry-After': expect.stringMatching(/^(59|60)$/) },
    })
  })

  it.each([0, -1, 1.5, Number.NaN, '2', null])('refuses the cost %p', async (cost) => {
    await expect(apiKeys.consume({}, cost as number)).rejects.toThrow(
      'consume: the cost must be a whole number from 1',
    )
  })

  it('refuses a request that no guard has let through', async () => {
    await expect(apiKeys.consume({})).rejects.toThrow('this request has no API key')
  })

  it.each([-1, 1.5, '2', null])('refuses the cost %p of a guard', (cost) => {
    expect(() => apiKeys.requirePermission('READ_GRAPH', { cost: cost as number })).toThrow(
      'requirePermission: the cost must be a whole number from 0',
    )
  })
})

describe('limits of a key', () => {
  it('stand over the app’s of the same names, in every process', async () => {
    const { body } = await as('admin')
      .post('/admin/api-keys')
      .send(newKey({ limits: { burst: { limit: 1, windowSeconds: 60 }, monthly: null } }))
    expect(body.apiKey.limits).toEqual({
      burst: { limit: 1, windowSeconds: 60 },
      monthly: null,
    })
    expect((await use(body.plainTextKey)).headers['ratelimit-policy']).toBe('"burst";q=1;w=60')
    expect((await use(body.plainTextKey)).status).toBe(429)
    await elsewhere.verify(body.plainTextKey)

    const changed = await as('admin')
      .patch(`/admin/api-keys/${body.apiKey.id}`)
      .send({ limits: { burst: { limit: 2, windowSeconds: 60 } } })

    expect(changed.body.limits).toEqual({ burst: { limit: 2, windowSeconds: 60 } })
    expect((await use(body.plainTextKey)).status).toBe(200)
    await until(async () => {
      const verdict = await elsewhere.verify(body.plainTextKey)
      if (!verdict.valid) throw new Error(verdict.code)
      const states = await elsewhere.consume(verdict.apiKey).catch(() => [])
      return states.length === 2 && states[0]?.limit === 2
    })
  })

  it('may be of other names', async () => {
    const { plainTextKey } = await create({
      limits: { daily: { limit: 2, windowSeconds: 86_400 } },
    })

    expect((await use(plainTextKey)).headers['ratelimit-policy']).toBe(
      `"burst";q=3;w=60, "daily";q=2;w=86400, "monthly";q=5;w=${month}`,
    )
    expect(await statusesOf(plainTextKey, 2)).toEqual([200, 429])
  })

  it('has clients wait no longer than their timers can', async () => {
    const yearly = { limit: 1, windowSeconds: 366 * 86_400 }
    const { plainTextKey } = await create({ limits: { yearly } })
    await use(plainTextKey)
    const refused = await use(plainTextKey)

    expect(refused.status).toBe(429)
    expect(refused.headers['retry-after']).toBe('2147483')
    expect(refused.headers.ratelimit).toContain('"yearly";r=0;t=3162')
  })

  it('are not for owners to write, but to read', async () => {
    const limits = { burst: { limit: 1_000, windowSeconds: 60 } }
    const faults = [{ pointer: '#/limits', message: 'is for administrators to write' }]
    const { apiKey } = await create({ limits: { burst: { limit: 1, windowSeconds: 60 } } })
    const path = `/api-keys/${apiKey.id}`

    const created = await as('alice')
      .post('/api-keys')
      .send({ name: 'CI', permissions: ['READ_GRAPH'], limits })
    expect([created.status, created.body.errors]).toEqual([422, faults])
    for (const wish of [limits, null, {}]) {
      const changed = await as('alice').patch(path).send({ limits: wish })
      expect([changed.status, changed.body.errors]).toEqual([422, faults])
    }
    const seen = await as('alice').get(path)
    expect(seen.body.limits).toEqual({ burst: { limit: 1, windowSeconds: 60 } })
    // What was read may be sent back.
    const same = await as('alice').patch(path).send({ name: 'Other', limits: seen.body.limits })
    expect([same.status, same.body.name]).toEqual([200, 'Other'])
  })

  it('are written down when they change', async () => {
    const { apiKey } = await create()
    const limits = { burst: { windowSeconds: 60, limit: 7 }, a: null }
    await apiKeys.update(apiKey.id, { limits })
    await apiKeys.update(apiKey.id, { limits: { a: null, burst: { limit: 7, windowSeconds: 60 } } })

    const { events } = await apiKeys.events({ apiKeyId: apiKey.id })
    expect(events).toHaveLength(2)
    expect(events[0]).toMatchObject({
      action: 'updated',
      before: { limits: null },
      after: { limits },
    })
  })

  it.each([
    [[], '#/limits', 'must be a JSON object of limits, by their names'],
    ['burst', '#/limits', 'must be a JSON object of limits, by their names'],
    [{ burst: 5 }, '#/limits/burst', 'must be a JSON object'],
    [{ burst: { limit: 5 } }, '#/limits/burst/windowSeconds', 'is required'],
    [
      { burst: { limit: 0, windowSeconds: 60 } },
      '#/limits/burst/limit',
      'must be a whole number from 1 to 1000000000000',
    ],
    [
      { burst: { limit: 1.5, windowSeconds: 60 } },
      '#/limits/burst/limit',
      'must be a whole number from 1 to 1000000000000',
    ],
    [
      { burst: { limit: 5, windowSeconds: 31_622_401 } },
      '#/limits/burst/windowSeconds',
      'must be a whole number from 1 to 31622400',
    ],
    [
      { burst: { limit: 5, windowSeconds: 60, cost: 1 } },
      '#/limits/burst/cost',
      'is not known here',
    ],
    [
      { 'a b': null },
      '#/limits/a%20b',
      'its name must be a letter, and at most 31 more letters, digits, "_" and "-"',
    ],
    [
      Object.fromEntries(Array.from({ length: 11 }, (_, place) => [`limit${place}`, null])),
      '#/limits',
      'must have at most 10 limits',
    ],
    [JSON.parse('{"__proto__": null}'), '#/limits', 'must not have a limit called __proto__'],
  ])('cannot be %j', async (limits, pointer, message) => {
    const { apiKey } = await create()

    const answer = await as('admin')
      .patch(`/admin/api-keys/${apiKey.id}`)
      .set('Content-Type', 'application/json')
      .send(`{"limits":${JSON.stringify(limits)}}`)

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toContainEqual({ pointer, message })
  })
})

const unkeyed = createSecretFormat({ keyPrefix: 'agpt', secrets: [], acceptUnkeyed: false })
const secret = 'correct horse battery staple, 32 bytes'

async function listenStrictly(options: Parameters<typeof createTestApiKeys>[1]) {
  const apiKeys = createTestApiKeys(database, options)
  const app = createTestApp(apiKeys, (app) => {
    app.get('/graphs', apiKeys.requirePermission('READ_GRAPH'), (_req, res) => {
      res.json([])
    })
  })
  app.set('trust proxy', true)
  const from = (address: string, key: string) =>
    request(app)
      .get('/graphs')
      .set('Authorization', `Bearer ${key}`)
      .set('X-Forwarded-For', address)
  return { apiKeys, from }
}

/** Fails as often as it may. */
async function exhaust(from: (address: string, key: string) => request.Test, address: string) {
  for (let time = 0; time < 5; time++) {
    expect((await from(address, 'agpt_nonsense')).status).toBe(401)
  }
}

describe('failed attempts', () => {
  it('are answered with 429 beyond so many a minute and address, while good keys pass', async () => {
    const { apiKeys, from } = await listenStrictly({ maxFailedAttemptsPerMinute: 5 })
    const warm = await apiKeys.create(newKey())
    const cold = await apiKeys.create(newKey())
    await from('203.0.113.7', warm.plainTextKey)

    await exhaust(from, '203.0.113.7')

    const refused = await from('203.0.113.7', 'agpt_nonsense')
    expect(refused.status).toBe(429)
    expect(refused.headers['retry-after']).toMatch(/^(59|60)$/)
    expect((await from('203.0.113.8', 'agpt_nonsense')).status).toBe(401)
    expect((await from('203.0.113.7', warm.plainTextKey)).status).toBe(200)
    expect((await from('203.0.113.7', cold.plainTextKey)).status).toBe(200)
  })

  it('count for the whole network of an IPv6 address', async () => {
    const { from } = await listenStrictly({ maxFailedAttemptsPerMinute: 5 })

    await exhaust(from, '2001:db8::1')

    expect((await from('2001:db8:0:0:ffff::2', 'agpt_nonsense')).status).toBe(429)
    expect((await from('2001:db8:0:1::1', 'agpt_nonsense')).status).toBe(401)
    expect((await from('::ffff:203.0.113.9', 'agpt_nonsense')).status).toBe(401)
  })

  it('leave ten look-ups a second to what anybody can make', async () => {
    const { from } = await listenStrictly({ maxFailedAttemptsPerMinute: 5 })
    await exhaust(from, '203.0.113.7')
    await from('203.0.113.7', 'agpt_nonsense')

    const answers = await Promise.all(
      Array.from({ length: 30 }, () => from('203.0.113.7', unkeyed.mint().plainTextKey)),
    )

    const statuses = answers.map(({ status }) => status)
    expect(new Set(statuses)).toEqual(new Set([401, 503]))
    expect(answers.find(({ status }) => status === 503)?.body.code).toBe('too_many_lookups')
    expect((await from('203.0.113.8', unkeyed.mint().plainTextKey)).status).toBe(401)
  })

  it('keep no key from being looked up that was made with a secret', async () => {
    const { apiKeys, from } = await listenStrictly({
      maxFailedAttemptsPerMinute: 5,
      secrets: [secret],
      acceptUnkeyed: true,
    })
    const minted = await Promise.all(Array.from({ length: 30 }, () => apiKeys.create(newKey())))
    await exhaust(from, '203.0.113.7')
    await from('203.0.113.7', 'agpt_nonsense')

    const answers = await Promise.all(
      minted.map(({ plainTextKey }) => from('203.0.113.7', plainTextKey)),
    )

    expect(answers.filter(({ status }) => status !== 200)).toEqual([])
  })

  it('may be of any number', async () => {
    const { from } = await listenStrictly({ maxFailedAttemptsPerMinute: Infinity })
    const answers = await Promise.all(
      Array.from({ length: 100 }, () => from('203.0.113.7', 'agpt_nonsense')),
    )

    expect(answers.filter(({ status }) => status !== 401)).toEqual([])
  })

  it('are told of by verify, too, where the address is known', async () => {
    const apiKeys = createTestApiKeys(database, { maxFailedAttemptsPerMinute: 1 })
    const ip = '203.0.113.7'

    expect(await apiKeys.verify('nonsense', { ip })).toEqual({ valid: false, code: 'malformed' })
    expect(await apiKeys.verify('nonsense', { ip })).toEqual({
      valid: false,
      code: 'too_many_attempts',
      retryAfterSeconds: 60,
    })
    expect(await apiKeys.verify('nonsense')).toEqual({ valid: false, code: 'malformed' })
  })
})
