import { Passport } from 'passport'

import { createTestApp } from '../support/app'
import { setClock } from '../support/clock'
import { newUser } from '../support/keys'
import { redisAway } from '../support/redis'
import { useWorld } from '../support/world'

const hour = 3_600_000
const [now, thisHour] = [new Date('2026-11-04T12:10:00Z'), '2026-11-04T12:00:00.000Z']

/** Called between two guards. */
let meanwhile: () => void | Promise<void>

const strategies = new Passport()
const { apiKeys, http, rows, createProcess, createKey } = useWorld({
  options: { loadOwner: ({ id }) => (id === 'gone' ? null : { id }) },
  routes(app, { authenticate, requirePermission, strategy }) {
    app.set('trust proxy', true)
    app.get('/me', authenticate(), (_req, res) => {
      res.json({})
    })
    app.get('/graphs', requirePermission('READ_GRAPH'), (_req, res) => {
      res.json({})
    })
    app.get(
      '/both',
      requirePermission('READ_GRAPH'),
      async (_req, _res, next) => {
        await meanwhile()
        next()
      },
      requirePermission({ any: ['READ_BLOCK'] }),
      (_req, res) => {
        res.json({})
      },
    )
    app.get(
      '/passport',
      strategies.use(strategy).authenticate('api-key', { session: false }),
      requirePermission('READ_GRAPH'),
      (_req, res) => {
        res.json({})
      },
    )
  },
})
const elsewhere = createProcess().apiKeys

beforeEach(() => {
  setClock(now)
  meanwhile = () => {}
})

afterEach(() => {
  jest.useRealTimers()
})

function use(plainTextKey: string, path = '/graphs', from = '203.0.113.7') {
  return http.with(plainTextKey).get(path).set('X-Forwarded-For', from)
}

/** Creates a key of a user without keys. */
function create(wishes: Parameters<typeof createKey>[0] = {}) {
  return createKey({ userId: newUser(), ...wishes })
}

/** Returns the totals of a key in an instance. */
async function totalsOf(id: string, instance = apiKeys) {
  return (await instance.usage(id)).totals
}

const counts = (accepted: number, denied = 0) => ({ accepted, denied, rateLimited: 0 })

describe('a request', () => {
  it('counts as accepted or denied in its hour', async () => {
    const { id, userId, plainTextKey } = await create()

    for (let time = 0; time < 3; time++) expect((await use(plainTextKey)).status).toBe(200)
    expect((await use(plainTextKey, '/both')).status).toBe(403)
    setClock(new Date(now.getTime() + 2 * hour))
    expect((await use(plainTextKey)).status).toBe(200)

    const answer = await http.as(userId).get(`/api-keys/${id}/usage`)
    expect(answer.status).toBe(200)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.body).toEqual({
      usage: [
        { at: thisHour, accepted: 3, denied: 1, rateLimited: 0 },
        { at: '2026-11-04T14:00:00.000Z', accepted: 1, denied: 0, rateLimited: 0 },
      ],
      totals: { accepted: 4, denied: 1, rateLimited: 0 },
    })
    for (const instance of [apiKeys, elsewhere]) {
      await apiKeys.flush()
      expect(await instance.usage(id, {}, { userId })).toEqual({
        usage: [
          { at: new Date(thisHour), ...counts(3, 1) },
          { at: new Date('2026-11-04T14:00:00Z'), ...counts(1) },
        ],
        totals: counts(4, 1),
      })
    }
  })

  it.each<[string, () => void | Promise<void>]>([
    ['that it meets at once', () => {}],
    ['that it meets when it was written down', () => apiKeys.flush()],
    [
      'that it meets in the next hour',
      () => {
        setClock(new Date('2026-11-04T13:00:00Z'))
      },
    ],
    [
      'that it meets in the next hour, when it was written down',
      async () => {
        await apiKeys.flush()
        setClock(new Date('2026-11-04T13:00:00Z'))
      },
    ],
  ])('counts once with a second guard %s', async (_, between) => {
    setClock(new Date('2026-11-04T12:59:59.999Z'))
    meanwhile = between
    const good = await create({ permissions: ['READ_GRAPH', 'READ_BLOCK'] })
    const poor = await create()

    expect((await use(good.plainTextKey, '/both')).status).toBe(200)
    setClock(new Date('2026-11-04T12:59:59.999Z'))
    expect((await use(poor.plainTextKey, '/both')).status).toBe(403)
    await apiKeys.flush()

    for (const [{ id }, expected] of [
      [good, counts(1)],
      [poor, counts(0, 1)],
    ] as const) {
      expect(await elsewhere.usage(id)).toEqual({
        usage: [{ at: new Date(thisHour), ...expected }],
        totals: expected,
      })
    }
  })

  it('counts once through Passport, with a guard behind it', async () => {
    const { id, plainTextKey } = await create()
    const poor = await create({ permissions: ['READ_BLOCK'] })

    expect((await use(plainTextKey, '/passport')).status).toBe(200)
    expect((await use(poor.plainTextKey, '/passport')).status).toBe(403)

    expect(await totalsOf(id)).toEqual(counts(1))
    expect(await totalsOf(poor.id)).toEqual(counts(0, 1))
  })

  it('counts as denied with a valid key from another address, of another user or of no user', async () => {
    const bound = await create({ allowedIps: ['198.51.100.7'] })
    const ownerless = await create({ userId: 'gone' })
    const signedIn = await create()

    expect((await use(bound.plainTextKey)).status).toBe(403)
    expect((await use(ownerless.plainTextKey, '/me')).status).toBe(401)
    expect(await totalsOf(bound.id)).toEqual(counts(0, 1))
    expect(await totalsOf(ownerless.id)).toEqual(counts(0, 1))

    const app = createTestApp(apiKeys, (app) => {
      app.use((req, _res, next) => {
        req.user = { id: 'mallory' }
        next()
      })
      app.get('/me', apiKeys.authenticate())
    })
    const answer = await http
      .to(app)
      .with(signedIn.plainTextKey)
      .get('/me')
      .set('X-User', 'mallory')
    expect(answer.status).toBe(400)
    expect(await totalsOf(signedIn.id)).toEqual(counts(0, 1))
  })

  it('counts as accepted with 503, because that says nothing about the key', async () => {
    const { id, plainTextKey } = await create()
    const limits = { burst: { limit: 1, windowSeconds: 60 } }
    const withoutRedis = createProcess({ limits, redis: redisAway }, (app, { authenticate }) => {
      app.get('/me', authenticate())
    })

    const answer = await withoutRedis.http.with(plainTextKey).get('/me')

    expect(answer.status).toBe(503)
    expect(await totalsOf(id, withoutRedis.apiKeys)).toEqual(counts(1))
  })

  it('does not count with an invalid key', async () => {
    const { id, plainTextKey } = await create()
    await use(plainTextKey)
    await apiKeys.suspend(id)

    for (const key of [plainTextKey, `${plainTextKey}!`]) {
      expect((await use(key)).status).not.toBe(200)
    }
    await apiKeys.revoke(id)
    expect((await use(plainTextKey)).status).toBe(401)

    expect(await totalsOf(id)).toEqual(counts(1))
  })
})

describe('verify', () => {
  it('counts as well', async () => {
    const { id, plainTextKey } = await create()
    const bound = await create({ allowedIps: ['198.51.100.7'] })

    for (let time = 0; time < 3; time++) await apiKeys.verify(plainTextKey)
    await apiKeys.verify(bound.plainTextKey, { ip: '198.51.100.7' })
    await apiKeys.verify(bound.plainTextKey)

    expect(await totalsOf(id)).toEqual(counts(3))
    expect(await totalsOf(bound.id)).toEqual(counts(1, 1))
  })
})

describe('four processes', () => {
  it('count together, each request once', async () => {
    jest.useRealTimers()
    const fleet = Array.from({ length: 4 }, () =>
      createProcess({}, (app, { requirePermission }) => {
        app.get('/', requirePermission('READ_GRAPH'), (_req, res) => {
          res.json({})
        })
      }),
    )
    const keys = [await create(), await create({ permissions: ['READ_BLOCK'] })]

    for (let round = 0; round < 5; round++) {
      const requests = fleet.flatMap(({ http }) =>
        keys.flatMap(({ plainTextKey }) =>
          Array.from({ length: 10 }, () => http.with(plainTextKey).get('/')),
        ),
      )
      await Promise.all([...requests, ...fleet.map(({ apiKeys }) => apiKeys.flush())])
    }
    await Promise.all(fleet.map(({ apiKeys }) => apiKeys.close()))

    expect(await totalsOf(keys[0]?.id ?? '')).toEqual(counts(200))
    expect(await totalsOf(keys[1]?.id ?? '')).toEqual(counts(0, 200))
  })
})

describe('lastUsedFrom', () => {
  it.each([
    ['203.0.113.7', '203.0.113.7'],
    ['::ffff:203.0.113.7', '203.0.113.7'],
    ['2001:DB8:0:0:0:0:0:1', '2001:db8::1'],
    ["'); DROP TABLE api_keys; --", null],
    ['fe80::1%eth0', 'fe80::1'],
  ])('is the address of the last use, by req.ip: %s', async (from, expected) => {
    const { id, userId, plainTextKey } = await create()
    expect((await http.as(userId).get(`/api-keys/${id}`)).body.lastUsedFrom).toBeNull()

    await use(plainTextKey, '/graphs', from)

    const seen = { lastUsedAt: now.toISOString(), lastUsedFrom: expected }
    expect((await http.as(userId).get(`/api-keys/${id}`)).body).toMatchObject(seen)
    await apiKeys.flush()
    expect((await http.as(userId).get(`/api-keys/${id}`)).body).toMatchObject(seen)
    expect(await elsewhere.get(id)).toMatchObject({ lastUsedFrom: expected })
  })

  it('changes only together with lastUsedAt', async () => {
    const { id, plainTextKey } = await create()
    await use(plainTextKey, '/graphs', '203.0.113.7')
    await apiKeys.flush()
    setClock(new Date(now.getTime() + 59_999))
    await use(plainTextKey, '/graphs', '203.0.113.8')
    await apiKeys.flush()
    expect(await apiKeys.get(id)).toMatchObject({ lastUsedAt: now, lastUsedFrom: '203.0.113.7' })

    const later = new Date(now.getTime() + 60_000)
    setClock(later)
    await apiKeys.verify(plainTextKey)

    for (let time = 0; time < 2; time++) {
      expect(await apiKeys.get(id)).toMatchObject({ lastUsedAt: later, lastUsedFrom: null })
      await apiKeys.flush()
    }
  })

  it('is no change of the key: no entry in the audit trail or in the change log', async () => {
    const { id, plainTextKey } = await create()
    const { updatedAt } = await apiKeys.get(id)
    const countChanges = async () => {
      const [row] = await rows('SELECT count(*) FROM api_key_changes WHERE key_id = $1', [id])
      return row
    }
    const before = await countChanges()

    await use(plainTextKey)
    await apiKeys.flush()

    expect(await countChanges()).toEqual(before)
    expect((await apiKeys.events({ apiKeyId: id })).events).toHaveLength(1)
    expect(await apiKeys.get(id)).toMatchObject({ updatedAt, lastUsedFrom: '203.0.113.7' })
  })
})
