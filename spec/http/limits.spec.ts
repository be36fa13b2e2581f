import type { Request, RequestHandler, Response } from 'express'
import { Passport, Strategy } from 'passport'
import { parseList } from 'structured-headers'

import { RateLimitedError, type ApiKeyNotices } from '../../lib'
import { useWorld } from '../support/world'

/** Lets every request through, without a user. */
class Anyone extends Strategy {
  override authenticate() {
    this.pass()
  }
}

const minute = 60
const month = 30 * 86_400
const options = {
  limits: {
    burst: { limit: 3, windowSeconds: minute },
    monthly: { limit: 5, windowSeconds: month },
  },
}

const answer: RequestHandler = (_req, res) => {
  res.json([])
}

const { apiKeys, http, createKey } = useWorld({
  options,
  routes(app, { authenticate, requirePermission, consume, strategy }) {
    const strategies = new Passport().use(strategy).use('anyone', new Anyone())
    app.get('/graphs', requirePermission('READ_GRAPH'), answer)
    app.get('/free', authenticate({ cost: 0 }), answer)
    app.post('/graphs', requirePermission('READ_GRAPH', { cost: 2 }), answer)
    app.get(
      '/twice',
      authenticate(),
      requirePermission('READ_GRAPH', { cost: 2 }),
      requirePermission({ any: ['READ_GRAPH', 'READ_BLOCK'] }),
      answer,
    )
    app.get('/nodes/:count', requirePermission('READ_GRAPH'), async (req, res, next) => {
      try {
        res.json(await consume(req, Number(req.params.count)))
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
      requirePermission('READ_GRAPH'),
      answer,
    )
  },
})

function use(plainTextKey: string, path = '/graphs') {
  return http.with(plainTextKey).get(path)
}

async function statusesOf(plainTextKey: string, times: number, path?: string) {
  const statuses: number[] = []
  for (let time = 0; time < times; time++) {
    statuses.push((await use(plainTextKey, path)).status)
  }
  return statuses
}

describe('limits', () => {
  it('let as many requests of a key through as they allow, and report the state in fields', async () => {
    const { plainTextKey } = await createKey()

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

  it('count each key by itself', async () => {
    const [one, other] = [await createKey(), await createKey()]
    await statusesOf(one.plainTextKey, 4)

    expect((await use(other.plainTextKey)).status).toBe(200)
  })

  it('do not count requests that they refuse', async () => {
    const { id, plainTextKey } = await createKey()
    await statusesOf(plainTextKey, 10)

    await apiKeys.update(id, { limits: { burst: null } })

    expect(await statusesOf(plainTextKey, 3)).toEqual([200, 200, 429])
  })

  it('do not count requests that are refused for a missing permission', async () => {
    const { plainTextKey } = await createKey({ permissions: ['READ_BLOCK'] })
    await statusesOf(plainTextKey, 10)

    expect((await use(plainTextKey, '/free')).status).toBe(200)
    expect((await use(plainTextKey)).status).toBe(403)
  })

  it('count a request by its cost, also if that is 0', async () => {
    const { plainTextKey } = await createKey()
    const post = () => http.with(plainTextKey).post('/graphs')

    expect((await post()).headers.ratelimit).toMatch(/^"burst";r=1;/)
    expect((await post()).status).toBe(429)
    expect((await use(plainTextKey)).headers.ratelimit).toMatch(/^"burst";r=0;/)
    expect(await statusesOf(plainTextKey, 5, '/free')).toEqual([200, 200, 200, 200, 200])
  })

  it('count a request behind several guards by the highest cost', async () => {
    const { plainTextKey } = await createKey()

    const answer = await use(plainTextKey, '/twice')

    expect(answer.headers.ratelimit).toMatch(/^"burst";r=1;/)
  })

  it('count a request once behind Passport and a guard', async () => {
    const { plainTextKey } = await createKey()

    const first = await use(plainTextKey, '/passport')
    expect(first.headers.ratelimit).toMatch(/^"burst";r=2;/)
    expect(await statusesOf(plainTextKey, 3, '/passport')).toEqual([200, 200, 429])
    const refused = await use(plainTextKey, '/passport')
    expect(refused.headers['retry-after']).toMatch(/^\d+$/)
    expect(refused.headers.ratelimit).toMatch(/^"burst";r=0;/)
  })

  it('leave nothing of a refused key in a request that another strategy lets through', async () => {
    const { plainTextKey } = await createKey()
    expect((await use(plainTextKey, '/anyone')).body.user).toEqual({ id: 'alice' })
    await statusesOf(plainTextKey, 2, '/anyone')

    const answer = await use(plainTextKey, '/anyone')

    expect([answer.status, answer.body]).toEqual([200, { apiKey: null }])
  })

  it('are reported in fields that a parser of structured fields understands', async () => {
    const { plainTextKey } = await createKey()
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

  it('are reported to listeners of denied if they refuse', async () => {
    const { id, plainTextKey } = await createKey()
    const denied: ApiKeyNotices['denied'][] = []
    const stop = apiKeys.on('denied', (notice) => denied.push(notice))

    await statusesOf(plainTextKey, 4)
    stop()

    expect(denied).toEqual([
      expect.objectContaining({
        apiKey: { id, owner: { type: 'user', id: 'alice' } },
        reason: null,
      }),
    ])
    expect(denied[0]?.error).toBeInstanceOf(RateLimitedError)
  })

  it('are counted in the usage if they refuse', async () => {
    const { id, plainTextKey } = await createKey()

    await statusesOf(plainTextKey, 5)
    await use(plainTextKey, '/nodes/1')

    const { totals } = await apiKeys.usage(id)
    expect(totals).toEqual({ accepted: 3, denied: 0, rateLimited: 3 })
  })

  it('hold for requests that come at once', async () => {
    const { plainTextKey } = await createKey()

    const answers = await Promise.all(Array.from({ length: 30 }, () => use(plainTextKey)))

    expect(answers.filter(({ status }) => status === 200)).toHaveLength(3)
    expect(answers.filter(({ status }) => status === 429)).toHaveLength(27)
  })
})

describe('consume', () => {
  it('counts further uses of a request, all or none', async () => {
    const { plainTextKey } = await createKey()

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

    // The request itself takes the last use, and two more uses are too many.
    const refused = await use(plainTextKey, '/nodes/2')
    expect(refused.status).toBe(500)
    expect((await use(plainTextKey)).status).toBe(429)
  })

  it('takes a key that verify has accepted, and rejects with the error that HTTP answers with', async () => {
    const { plainTextKey } = await createKey()
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
    await expect(apiKeys.consume({})).rejects.toThrow('consume: this request has no API key')
  })

  it.each([-1, 1.5, '2', null])('refuses the cost %p of a guard', (cost) => {
    expect(() => apiKeys.requirePermission('READ_GRAPH', { cost: cost as number })).toThrow(
      'requirePermission: the cost must be a whole number from 0',
    )
  })
})
