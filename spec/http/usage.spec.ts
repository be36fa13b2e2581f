import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import type { Server } from 'node:http'

import passport from 'passport'
import { QueryTypes, type Sequelize } from 'sequelize'
import request from 'supertest'

import { createTestApiKeys, createTestApp, type TestApiKeys } from '../support/app'
import { setClock } from '../support/clock'
import { createDatabase, type Database } from '../support/database'
import { createKey, faultsOf, newKey } from '../support/keys'

const hour = 3_600_000
const [now, thisHour] = [new Date('2026-11-04T12:10:00Z'), '2026-11-04T12:00:00.000Z']

let database: Database
let sequelize: Sequelize
/** As in the process that answers, and in another one. */
let apiKeys: TestApiKeys
let elsewhere: TestApiKeys
let server: Server
/** Called between two guards. */
let meanwhile: () => void | Promise<void>

beforeAll(async () => {
  database = await createDatabase()
  sequelize = database.connect()
  apiKeys = createTestApiKeys(database, { loadUser: (id) => (id === 'gone' ? null : { id }) })
  elsewhere = createTestApiKeys(database)
  passport.use(apiKeys.strategy)
  const app = createTestApp(apiKeys, (app) => {
    app.get('/me', apiKeys.authenticate(), (_req, res) => {
      res.json({})
    })
    app.get('/graphs', apiKeys.requirePermission('READ_GRAPH'), (_req, res) => {
      res.json({})
    })
    app.get(
      '/both',
      apiKeys.requirePermission('READ_GRAPH'),
      async (_req, _res, next) => {
        await meanwhile()
        next()
      },
      apiKeys.requireAnyPermission(['READ_BLOCK']),
      (_req, res) => {
        res.json({})
      },
    )
    app.get(
      '/passport',
      passport.authenticate('api-key', { session: false }),
      apiKeys.requirePermission('READ_GRAPH'),
      (_req, res) => {
        res.json({})
      },
    )
  })
  server = app.set('trust proxy', true).listen(0)
  await once(server, 'listening')
})

beforeEach(() => {
  setClock(now)
  meanwhile = () => {}
})

afterEach(() => {
  jest.useRealTimers()
})

afterAll(async () => {
  server.close()
  await database.drop()
})

const as = (user: string) => request.agent(server).set('X-User', user)

function use(plainTextKey: string, path = '/graphs', from = '203.0.113.7') {
  return request(server)
    .get(path)
    .set('Authorization', `Bearer ${plainTextKey}`)
    .set('X-Forwarded-For', from)
}

/** Makes a key, of somebody who has no other unless a spec names one. */
async function create(wishes: Parameters<typeof newKey>[0] = {}) {
  const userId = `user-${randomUUID()}`
  const { apiKey, plainTextKey } = await apiKeys.create(newKey({ userId, ...wishes }))
  return { id: apiKey.id, userId: apiKey.userId, plainTextKey }
}

/** What a key was used for, in the eyes of a process. */
async function totalsOf(id: string, instance = apiKeys) {
  return (await instance.usage(id)).totals
}

const counts = (accepted: number, denied = 0) => ({ accepted, denied, rateLimited: 0 })

/** Writes that a key was accepted so often in the hour of a time, as if a process had. */
async function insertUsage(key: { id: string; userId: string }, at: string, accepted = 1) {
  await sequelize.query(
    `INSERT INTO api_key_usage (api_key_id, user_id, hour, verified, denied, rate_limited)
     VALUES ($1, $2, $3, $4, 2, 3)`,
    { bind: [key.id, key.userId, at, accepted + 5] },
  )
}

describe('a request', () => {
  it('counts as accepted or denied, in the hour that it is in', async () => {
    const { id, userId, plainTextKey } = await create()

    for (let time = 0; time < 3; time++) expect((await use(plainTextKey)).status).toBe(200)
    expect((await use(plainTextKey, '/both')).status).toBe(403)
    setClock(new Date(now.getTime() + 2 * hour))
    expect((await use(plainTextKey)).status).toBe(200)

    const answer = await as(userId).get(`/api-keys/${id}/usage`)
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

  it('counts as denied with a good key from elsewhere, or of somebody else, or of nobody', async () => {
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
    const answer = await request(app)
      .get('/me')
      .set('Authorization', `Bearer ${signedIn.plainTextKey}`)
      .set('X-User', 'mallory')
    expect(answer.status).toBe(400)
    expect(await totalsOf(signedIn.id)).toEqual(counts(0, 1))
  })

  it('does not count with a key that is not good', async () => {
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
    const fleet = Array.from({ length: 4 }, () => createTestApiKeys(database))
    const servers = fleet.map((instance) =>
      createTestApp(instance, (app) => {
        app.get('/', instance.requirePermission('READ_GRAPH'), (_req, res) => {
          res.json({})
        })
      }).listen(0),
    )
    const keys = [await create(), await create({ permissions: ['READ_BLOCK'] })]

    for (let round = 0; round < 5; round++) {
      const requests = servers.flatMap((server) =>
        keys.flatMap(({ plainTextKey }) =>
          Array.from({ length: 10 }, () =>
            request(server).get('/').set('Authorization', `Bearer ${plainTextKey}`),
          ),
        ),
      )
      await Promise.all([...requests, ...fleet.map((instance) => instance.flush())])
    }
    for (const server of servers) server.close()
    await Promise.all(fleet.map((instance) => instance.close()))

    expect(await totalsOf(keys[0]?.id ?? '')).toEqual(counts(200))
    expect(await totalsOf(keys[1]?.id ?? '')).toEqual(counts(0, 200))
  })
})

describe('GET /:id/usage', () => {
  const key = { id: randomUUID(), userId: '' }

  beforeAll(async () => {
    Object.assign(key, await create())
    for (const at of ['10-05T00', '11-01T22', '11-03T11', '11-03T12', '11-03T13', '11-04T12'])
      await insertUsage(key, `2026-${at}:00:00Z`, Number(at.slice(-2)))
  })

  it.each([
    ['', ['11-03T13', '11-04T12']],
    ['?by=hour', ['11-03T13', '11-04T12']],
    ['?by=day', ['11-01T00', '11-03T00', '11-04T00']],
    ['?from=2026-11-03T11:00:00Z', ['11-03T11', '11-03T12', '11-03T13', '11-04T12']],
    ['?from=2026-11-03T11:00:00.001Z', ['11-03T12', '11-03T13', '11-04T12']],
    ['?to=2026-11-03T13:00:00Z', ['11-03T11', '11-03T12']],
    ['?to=2026-11-03T13:00:00.001Z', ['11-03T11', '11-03T12', '11-03T13']],
    ['?from=2026-11-03T12:00:00Z&to=2026-11-03T13:00:00Z', ['11-03T12']],
    ['?from=2026-11-01T23:30:00%2B02:00&to=2026-11-03T13:30:00%2B02:00', ['11-01T22', '11-03T11']],
    ['?from=2026-11-01T22:00:00Z&to=2026-11-03T13:00:00Z', ['11-01T22', '11-03T11', '11-03T12']],
    ['?from=2026-10-04T12:10:00Z&to=2026-11-02T00:00:00Z', ['10-05T00', '11-01T22']],
    [
      '?from=2025-11-04T00:00:00Z&to=2026-11-04T00:00:00Z&by=day',
      ['10-05T00', '11-01T00', '11-03T00'],
    ],
    ['?to=1970-01-01T00:00:00Z', []],
  ])('tells of the time that is asked for: %s', async (query, expected) => {
    const answer = await as(key.userId).get(`/api-keys/${key.id}/usage${query}`)

    expect(answer.status).toBe(200)
    const times = answer.body.usage.map(({ at }: { at: string }) => at.slice(5, 13))
    expect(times).toEqual(expected)
    expect(answer.body.totals.denied).toBe(
      answer.body.usage.reduce((sum: number, entry: { denied: number }) => sum + entry.denied, 0),
    )
  })

  it('adds up the hours of a day of UTC', async () => {
    const answer = await as(key.userId).get(`/api-keys/${key.id}/usage?by=day`)

    expect(answer.body).toEqual({
      usage: [
        { at: '2026-11-01T00:00:00.000Z', accepted: 22, denied: 2, rateLimited: 3 },
        { at: '2026-11-03T00:00:00.000Z', accepted: 36, denied: 6, rateLimited: 9 },
        { at: '2026-11-04T00:00:00.000Z', accepted: 12, denied: 2, rateLimited: 3 },
      ],
      totals: { accepted: 70, denied: 10, rateLimited: 15 },
    })
  })

  it.each([
    ['from=yesterday', '#/from', 'must be a time as in RFC 3339, such as 2030-01-31T12:00:00Z'],
    ['from=', '#/from', 'must be a time as in RFC 3339, such as 2030-01-31T12:00:00Z'],
    [
      'to=2026-11-04T00:00:00Z&to=2026-11-05T00:00:00Z',
      '#/to',
      'must be a time as in RFC 3339, such as 2030-01-31T12:00:00Z',
    ],
    ['from=1969-12-31T23:59:59Z', '#/from', 'must be between the years 1970 and 10000'],
    ['by=minute', '#/by', 'must be one of hour, day'],
    ['userId=alice', '#/userId', 'is not known here'],
    [
      'from=2026-11-04T12:10:00Z',
      '#/from',
      'must be before "to", which is 2026-11-04T12:10:00.000Z',
    ],
    [
      'from=2026-11-03T00:00:00Z&to=2026-11-02T00:00:00Z',
      '#/from',
      'must be before "to", which is 2026-11-02T00:00:00.000Z',
    ],
    ['from=2026-10-04T12:09:59.999Z', '#/from', 'must be at most 31 days before "to", by the hour'],
    [
      'from=2025-11-01T00:00:00Z&by=day',
      '#/from',
      'must be at most 366 days before "to", by the day',
    ],
  ])('refuses %s', async (query, pointer, message) => {
    for (const path of [
      `/api-keys/${key.id}/usage`,
      `/admin/api-keys/${key.id}/usage`,
      ...(pointer === '#/userId' ? [] : ['/admin/api-keys/usage']),
    ]) {
      const user = path.startsWith('/admin') ? 'admin' : key.userId
      const answer = await as(user).get(`${path}?${query}`)

      expect(answer.status).toBe(422)
      expect(answer.body.errors).toEqual([{ pointer, message }])
    }
  })

  it('finds no key of anybody else, the same bytes as for one that is not there', async () => {
    const paths = [key.id, randomUUID(), 'usage', '%00'].map((id) => `/api-keys/${id}/usage`)

    const answers = await Promise.all(paths.map((path) => as('mallory').get(path)))

    expect(answers.map(({ status }) => status)).toEqual([404, 404, 404, 404])
    expect(new Set(answers.map(({ text }) => text)).size).toBe(1)
    expect((await request(server).get(paths[0] ?? '')).status).toBe(401)
    expect((await as('admin').get(`/admin/api-keys/${key.id}/usage`)).status).toBe(200)
  })

  it('takes no other method', async () => {
    const answer = await as(key.userId).post(`/api-keys/${key.id}/usage`).send({})

    expect(answer.status).toBe(405)
    expect(answer.headers.allow).toBe('GET, HEAD, OPTIONS')
  })
})

describe('GET /usage', () => {
  it('tells administrators what all keys are used for, and which most', async () => {
    const own = await createDatabase()
    const instance = createTestApiKeys(own)
    const app = createTestApp(instance)
    const keys = await Promise.all(
      Array.from({ length: 21 }, (_, index) =>
        instance.create(newKey({ userId: index < 20 ? 'alice' : 'bob' })),
      ),
    )
    for (const [index, { plainTextKey }] of keys.entries()) {
      for (let time = 0; time <= index; time++) await instance.verify(plainTextKey)
    }
    const [first, last] = [keys[0]?.apiKey.id ?? '', keys[20]?.apiKey.id ?? '']
    const ask = (query: string) =>
      request(app).get(`/admin/api-keys/usage${query}`).set('X-User', 'admin')

    const all = await ask('')
    const ofBob = await ask('?userId=bob&by=day')
    const ofFirst = await ask(`?apiKeyId=${first}`)
    const ofNobody = await ask('?userId=carol')

    expect(all.status).toBe(200)
    expect(all.body.usage).toEqual([{ at: thisHour, ...counts(231) }])
    expect(all.body.totals).toEqual(counts(231))
    expect(all.body.keys).toHaveLength(20)
    expect(all.body.keys[0]).toEqual({ apiKeyId: last, userId: 'bob', ...counts(21) })
    expect(all.body.keys[19]).toMatchObject({ userId: 'alice', ...counts(2) })
    expect(ofBob.body).toEqual({
      usage: [{ at: '2026-11-04T00:00:00.000Z', ...counts(21) }],
      totals: counts(21),
      keys: [{ apiKeyId: last, userId: 'bob', ...counts(21) }],
    })
    expect(ofFirst.body.keys).toEqual([{ apiKeyId: first, userId: 'alice', ...counts(1) }])
    expect(ofNobody.body).toEqual({ usage: [], totals: counts(0), keys: [] })
    await own.drop()
  })

  it('is not for others', async () => {
    expect((await as('alice').get('/admin/api-keys/usage')).status).toBe(403)
    expect((await request(server).get('/admin/api-keys/usage')).status).toBe(401)
    expect((await as('alice').get('/api-keys/usage')).status).toBe(404)
  })

  it.each([
    ['apiKeyId=7', '#/apiKeyId', 'must be a UUID'],
    ['owner=alice', '#/owner', 'is not known here'],
  ])('refuses %s', async (query, pointer, message) => {
    const answer = await as('admin').get(`/admin/api-keys/usage?${query}`)

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toEqual([{ pointer, message }])
  })

  it('goes on telling of keys that are gone', async () => {
    const own = await createDatabase('empty')
    const users = own.connect()
    await users.query(`CREATE TABLE users (id text PRIMARY KEY); INSERT INTO users VALUES ('bob')`)
    const instance = createTestApiKeys(own, { users: { table: 'users' } })
    await instance.migrate()
    const { apiKey, plainTextKey } = await instance.create(newKey({ userId: 'bob' }))
    await instance.verify(plainTextKey)
    await users.query('DELETE FROM users')

    const total = await instance.totalUsage({ userId: 'bob' })

    expect(total.keys).toEqual([{ apiKeyId: apiKey.id, userId: 'bob', ...counts(1) }])
    await expect(instance.usage(apiKey.id)).rejects.toMatchObject({ code: 'api_key_not_found' })
    await own.drop()
  })

  it('goes without what this process cannot write at the moment', async () => {
    const { id, userId, plainTextKey } = await create()
    await apiKeys.verify(plainTextKey)
    await apiKeys.flush()
    await apiKeys.verify(plainTextKey)
    const lock = await sequelize.transaction()
    await sequelize.query('LOCK TABLE api_key_usage IN SHARE MODE', { transaction: lock })

    const [total, ofKey] = [await apiKeys.totalUsage({ userId }), await totalsOf(id)]
    await lock.rollback()

    expect(total.totals).toEqual(counts(1))
    expect(ofKey).toEqual(counts(2))
    expect((await apiKeys.totalUsage({ userId })).totals).toEqual(counts(2))
  })
})

describe('usage', () => {
  it('is part of a transaction of the caller', async () => {
    const transaction = await sequelize.transaction()
    const { id } = await createKey(apiKeys)
    await sequelize.query(
      `INSERT INTO api_key_usage VALUES ('${id}', 'alice', '${thisHour}', 7, 0, 0)`,
      { transaction },
    )

    const [within, without] = [
      await apiKeys.usage(id, {}, { transaction }),
      await apiKeys.usage(id),
    ]
    await transaction.rollback()

    expect([within.totals, without.totals]).toEqual([counts(7), counts(0)])
  })

  it('takes times as dates, and refuses what is none', async () => {
    const { id } = await createKey(apiKeys)

    expect(await apiKeys.usage(id, { from: new Date(thisHour), to: now })).toMatchObject({
      usage: [],
    })
    expect(await faultsOf(apiKeys.usage(id, { from: new Date(NaN), to: '' }))).toMatchObject([
      { pointer: '#/from' },
      { pointer: '#/to' },
    ])
    const nobody = { userId: undefined } as unknown as { userId: string }
    await expect(apiKeys.usage(id, {}, nobody)).rejects.toThrow(TypeError)
    await expect(apiKeys.totalUsage(nobody)).rejects.toThrow(TypeError)
  })
})

describe('pruneUsage', () => {
  it('deletes what is older, all processes together, and says how much that was', async () => {
    const own = await createDatabase()
    const connection = own.connect()
    const [one, other] = [createTestApiKeys(own), createTestApiKeys(own)]
    await connection.query(
      `INSERT INTO api_key_usage
       SELECT gen_random_uuid(), 'alice', date_trunc('hour', $1::timestamptz) - n * interval '1 hour', 1, 0, 0
         FROM generate_series(0, 25000) AS n`,
      { bind: [now.toISOString()] },
    )
    const countLeft = async () => {
      const [row] = await connection.query<{ count: number }>(
        'SELECT count(*)::int AS count FROM api_key_usage',
        { type: QueryTypes.SELECT },
      )
      return row?.count
    }

    expect(await one.pruneUsage({ olderThanDays: 2, dryRun: true })).toEqual({ hours: 24_953 })
    expect(await countLeft()).toBe(25_001)
    const pruned = await Promise.all(
      [one, other].map((instance) => instance.pruneUsage({ olderThanDays: 2 })),
    )

    expect(pruned.reduce((sum, { hours }) => sum + hours, 0)).toBe(24_953)
    expect(await countLeft()).toBe(48)
    expect(await one.pruneUsage({ olderThanDays: 2 })).toEqual({ hours: 0 })
    await own.drop()
  })

  it.each<[unknown, string]>([
    [undefined, '#'],
    [{}, '#/olderThanDays'],
    [{ olderThanDays: 0 }, '#/olderThanDays'],
    [{ olderThanDays: 1.5 }, '#/olderThanDays'],
    [{ olderThanDays: 36_501 }, '#/olderThanDays'],
    [{ olderThanDays: '7' }, '#/olderThanDays'],
    [{ olderThanDays: 7, dryRun: 'yes' }, '#/dryRun'],
    [{ olderThanDays: 7, days: 7 }, '#/days'],
  ])('refuses %j', async (options, pointer) => {
    const call = apiKeys.pruneUsage(options as { olderThanDays: number })

    expect(await faultsOf(call)).toMatchObject([{ pointer }])
  })
})

describe('lastUsedFrom', () => {
  it.each([
    ['203.0.113.7', '203.0.113.7'],
    ['::ffff:203.0.113.7', '203.0.113.7'],
    ['2001:DB8:0:0:0:0:0:1', '2001:db8::1'],
    ["'); DROP TABLE api_keys; --", null],
    ['fe80::1%eth0', 'fe80::1'],
  ])('is the address of the last use, as Express knows it: %s', async (from, expected) => {
    const { id, userId, plainTextKey } = await create()
    expect((await as(userId).get(`/api-keys/${id}`)).body.lastUsedFrom).toBeNull()

    await use(plainTextKey, '/graphs', from)

    const seen = { lastUsedAt: now.toISOString(), lastUsedFrom: expected }
    expect((await as(userId).get(`/api-keys/${id}`)).body).toMatchObject(seen)
    await apiKeys.flush()
    expect((await as(userId).get(`/api-keys/${id}`)).body).toMatchObject(seen)
    expect(await elsewhere.get(id)).toMatchObject({ lastUsedFrom: expected })
  })

  it('goes with lastUsedAt, and not without', async () => {
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

  it('is no change of the key: no entry in the audit trail, nothing for others to hear of', async () => {
    const { id, plainTextKey } = await create()
    const { updatedAt } = await apiKeys.get(id)
    const countChanges = async () => {
      const [row] = await sequelize.query(
        `SELECT count(*)::int AS count FROM api_key_changes WHERE key_id = '${id}'`,
        { type: QueryTypes.SELECT },
      )
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
