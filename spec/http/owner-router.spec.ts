import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import type { Server } from 'node:http'

import express from 'express'
import request from 'supertest'

import { createApiKeys } from '../../lib'
import { createTestApiKeys, createTestApp, permissions, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

let database: Database
let apiKeys: TestApiKeys
let server: Server

beforeAll(async () => {
  database = await createDatabase()
  apiKeys = createTestApiKeys(database, {
    header: 'X-API-Key',
    grantable: (userId) =>
      userId === 'intern' ? ['READ_GRAPH'] : ['READ_GRAPH', 'EXECUTE_GRAPH', 'READ_BLOCK'],
  })
  server = createTestApp(apiKeys).listen(0)
  await once(server, 'listening')
})

afterAll(async () => {
  server.close()
  await apiKeys.close()
  await database.drop()
})

/** Someone who has no keys yet. */
function newUser() {
  return `user-${randomUUID()}`
}

function as(user: string) {
  return request.agent(server).set('X-User', user)
}

async function createKey(user: string, input: object = {}) {
  const { body } = await as(user)
    .post('/api-keys')
    .send({ name: 'CI', permissions: ['READ_GRAPH'], ...input })
    .expect(201)
  return body.apiKey as { id: string } & Record<string, unknown>
}

describe('POST /', () => {
  it('creates a key and shows its plain text once', async () => {
    const answer = await as('alice')
      .post('/api-keys')
      .send({
        name: '  CI  ',
        description: ' Runs the nightly graphs.\nAsk Bob. ',
        permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'],
        expiresAt: '2099-01-01T00:00:00+02:00',
      })

    const { apiKey, plainTextKey, ...others } = answer.body
    expect(answer.status).toBe(201)
    expect(answer.headers.location).toBe(`./api-keys/${apiKey.id}`)
    expect(answer.headers).not.toHaveProperty('etag')
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.headers['content-type']).toBe('application/json; charset=utf-8')
    expect(others).toEqual({})
    expect(apiKey).toEqual({
      id: expect.stringMatching(uuid),
      name: 'CI',
      description: 'Runs the nightly graphs.\nAsk Bob.',
      prefix: plainTextKey.slice(0, 11),
      postfix: plainTextKey.slice(-8),
      status: 'ACTIVE',
      permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'],
      allowedIps: null,
      metadata: {},
      limits: null,
      userId: 'alice',
      createdAt: expect.stringMatching(time),
      updatedAt: apiKey.createdAt,
      lastUsedAt: null,
      lastUsedFrom: null,
      expiresAt: '2098-12-31T22:00:00.000Z',
      isExpired: false,
      revokedAt: null,
      previousSecret: null,
    })
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({
      valid: true,
      apiKey: { id: apiKey.id, userId: 'alice' },
    })
  })

  it('asks for no more than a name and a permission', async () => {
    const apiKey = await createKey('alice')

    expect(apiKey).toMatchObject({ description: null, expiresAt: null })
  })

  it.each([
    ['/deep/er/keys', '/deep/er/keys/'],
    ['/deep/er/keys/', '/deep/er/keys/'],
    ['/deep/er/keys?', '/deep/er/keys/'],
    ['/deep/er/keys/?', '/deep/er/keys/'],
    ['/deep/a:b/keys', '/deep/a:b/keys/'],
    ['/a:b', '/a:b/'],
    ['/k%20ys', '/k%20ys/'],
    ['/', '/'],
  ])('says where the key is, relative to the request: %s', async (path, parent) => {
    const [mount] = path.replace(/\/$/, '').split('?')
    const app = express().use((mount || '/').replaceAll(':', '\\:'), apiKeys.router())

    const answer = await request(app)
      .post(path)
      .set('X-User', 'alice')
      .send({ name: 'CI', permissions: ['READ_GRAPH'] })

    // A proxy adds a prefix that the app does not see.
    const { pathname } = new URL(String(answer.headers.location), `https://acme.com/v1${path}`)
    expect(answer.status).toBe(201)
    expect(pathname).toBe(`/v1${parent}${answer.body.apiKey.id}`)
  })

  it.each<[string, unknown, [string, string][]]>([
    [
      'nothing',
      {},
      [
        ['#/name', 'is required'],
        ['#/permissions', 'is required'],
      ],
    ],
    [
      'a permission that is not hers to give',
      { name: 'CI', permissions: ['READ_GRAPH', 'EXECUTE_BLOCK'] },
      [['#/permissions/1', 'may not be granted by this user']],
    ],
    [
      'what only the library decides',
      {
        name: 'CI',
        permissions: ['READ_GRAPH'],
        userId: 'bob',
        status: 'ACTIVE',
        id: 'x',
        hash: 'x',
      },
      [
        ['#/userId', 'is not known here'],
        ['#/status', 'is not known here'],
        ['#/id', 'is not known here'],
        ['#/hash', 'is not known here'],
      ],
    ],
  ])('refuses %s, every fault at once', async (_, input, faults) => {
    const answer = await as('alice')
      .post('/api-keys')
      .send(input as object)

    expect(answer.status).toBe(422)
    expect(answer.headers['content-type']).toBe('application/problem+json')
    expect(answer.body.code).toBe('invalid_input')
    expect(answer.body.errors).toEqual(faults.map(([pointer, message]) => ({ pointer, message })))
  })

  it('refuses a name that JavaScript has plans for', async () => {
    const answer = await as('alice')
      .post('/api-keys')
      .type('json')
      .send('{"name":"CI","permissions":["READ_GRAPH"],"__proto__":{"userId":"bob"}}')

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toEqual([{ pointer: '#/__proto__', message: 'is not known here' }])
  })

  it('leaves to a user what is theirs to give', async () => {
    const answer = await as('intern')
      .post('/api-keys')
      .send({ name: 'CI', permissions: ['EXECUTE_GRAPH', 'READ_GRAPH', 'READ_BLOCK'] })

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toEqual([
      { pointer: '#/permissions/0', message: 'may not be granted by this user' },
      { pointer: '#/permissions/2', message: 'may not be granted by this user' },
    ])
  })

  it('counts exactly, however many ask at once', async () => {
    const keys = createTestApiKeys(database, { maxKeysPerUser: 7 })
    const busy = createTestApp(keys).listen(0)
    await once(busy, 'listening')
    const user = newUser()

    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, index) =>
        request(busy)
          .post('/api-keys')
          .set('X-User', user)
          .send({ name: `Key ${index}`, permissions: ['READ_GRAPH'] }),
      ),
    )
    busy.close()

    const statuses = answers.map(({ status }) => status)
    expect(statuses.filter((status) => status === 201)).toHaveLength(7)
    expect(statuses.filter((status) => status === 409)).toHaveLength(43)
    expect(answers.find(({ status }) => status === 409)?.body.code).toBe('too_many_api_keys')
    expect((await keys.list({ userId: user })).apiKeys).toHaveLength(7)
  })

  it('makes room for a key when one is revoked', async () => {
    const keys = createTestApiKeys(database, { maxKeysPerUser: 1 })
    const agent = request.agent(createTestApp(keys)).set('X-User', newUser())
    const input = { name: 'CI', permissions: ['READ_GRAPH'] }
    const first = await agent.post('/api-keys').send(input).expect(201)

    const key = `/api-keys/${first.body.apiKey.id}`

    const answers = [
      await agent.post('/api-keys').send(input),
      await agent.post(`${key}/suspend`),
      await agent.post('/api-keys').send(input),
      await agent.delete(key),
      await agent.post('/api-keys').send(input),
    ]

    expect(answers.map(({ status }) => status)).toEqual([409, 200, 409, 200, 201])
  })
})

describe('GET /', () => {
  it('lists the user’s own keys of every status, newest first', async () => {
    const user = newUser()
    const first = await createKey(user, { name: 'first' })
    const second = await createKey(user, { name: 'second' })
    const third = await createKey(user, { name: 'third' })
    await createKey(newUser(), { name: 'somebody else’s' })
    await as(user).delete(`/api-keys/${first.id}`).expect(200)
    await as(user).post(`/api-keys/${second.id}/suspend`).expect(200)

    const answer = await as(user).get('/api-keys')

    expect(answer.status).toBe(200)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(Object.keys(answer.body)).toEqual(['apiKeys', 'nextCursor'])
    expect(answer.body.nextCursor).toBeNull()
    expect(answer.body.apiKeys[0]).toEqual(third)
    expect(
      answer.body.apiKeys.map(({ name, status }: Record<string, string>) => [name, status]),
    ).toEqual([
      ['third', 'ACTIVE'],
      ['second', 'SUSPENDED'],
      ['first', 'REVOKED'],
    ])
  })

  it('is empty for who has none', async () => {
    const answer = await as(newUser()).get('/api-keys')

    expect(answer.body).toEqual({ apiKeys: [], nextCursor: null })
  })

  it.each(['ACTIVE', 'SUSPENDED', 'REVOKED'])('filters by status: %s', async (status) => {
    const user = newUser()
    await createKey(user)
    const suspended = await createKey(user)
    const revoked = await createKey(user)
    await as(user).post(`/api-keys/${suspended.id}/suspend`).expect(200)
    await as(user).delete(`/api-keys/${revoked.id}`).expect(200)

    const answer = await as(user).get('/api-keys').query({ status })

    expect(answer.body.apiKeys).toHaveLength(1)
    expect(answer.body.apiKeys[0].status).toBe(status)
  })

  it('filters by several statuses and by what has expired, and sorts', async () => {
    const user = newUser()
    const names = async (query: string) => {
      const { body } = await as(user).get(`/api-keys?${query}`).expect(200)
      return body.apiKeys.map(({ name }: { name: string }) => name)
    }
    await createKey(user, { name: 'b' })
    const { id: suspended } = await createKey(user, { name: 'c' })
    await as(user).post(`/api-keys/${suspended}/suspend`).expect(200)
    const { id: revoked } = await createKey(user, { name: 'a' })
    await as(user).delete(`/api-keys/${revoked}`).expect(200)

    expect(await names('status=SUSPENDED,REVOKED')).toEqual(['a', 'c'])
    expect(await names('status=SUSPENDED&status=ACTIVE')).toEqual(['c', 'b'])
    expect(await names('isExpired=true')).toEqual([])
    expect(await names('isExpired=false&status=ACTIVE')).toEqual(['b'])
    expect(await names('sort=name')).toEqual(['a', 'b', 'c'])
    expect(await names('sort=createdAt')).toEqual(['b', 'c', 'a'])
  })

  it('turns pages that neither repeat nor skip a key, whatever is created meanwhile', async () => {
    const user = newUser()
    const made: string[] = []
    for (let index = 0; index < 7; index++) made.unshift((await createKey(user)).id)

    const seen: string[] = []
    let cursor: string | undefined
    do {
      const { body } = await as(user).get('/api-keys').query({ limit: 2, cursor }).expect(200)
      seen.push(...body.apiKeys.map(({ id }: { id: string }) => id))
      cursor = body.nextCursor ?? undefined
      await createKey(user)
    } while (cursor)

    expect(seen).toEqual(made)
  })

  it('has 20 keys on a page, up to 100 if asked', async () => {
    const user = newUser()
    await Promise.all(Array.from({ length: 21 }, () => createKey(user)))

    const usual = await as(user).get('/api-keys')
    const large = await as(user).get('/api-keys?limit=100')

    expect(usual.body.apiKeys).toHaveLength(20)
    expect(usual.body.nextCursor).toMatch(/^[\w-]+$/)
    expect(large.body.apiKeys).toHaveLength(21)
    expect(large.body.nextCursor).toBeNull()
  })

  it('shows nobody else’s keys to a cursor of somebody else', async () => {
    const [user, other] = [newUser(), newUser()]
    const own = await createKey(other)
    await createKey(user)
    await createKey(user)
    const { body } = await as(user).get('/api-keys?limit=1')

    const answer = await as(other).get('/api-keys').query({ cursor: body.nextCursor })

    expect(answer.body).toEqual({ apiKeys: [own], nextCursor: null })
  })

  const limits = 'must be a whole number from 1 to 100'
  const cursors = 'must be the nextCursor of a page before'

  it.each([
    ['limit=0', 'limit', limits],
    ['limit=1&limit=2', 'limit', limits],
    ['cursor=', 'cursor', cursors],
    ['userId=bob', 'userId', 'is not known here'],
    ['state=ACTIVE', 'state', 'is not known here'],
  ])('refuses a filter that makes no sense: %s', async (query, name, message) => {
    const answer = await as('alice').get(`/api-keys?${query}`)

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toEqual([{ pointer: `#/${name}`, message }])
  })
})

describe('GET /permissions', () => {
  it('lists what the user may give to a key, with descriptions', async () => {
    const described = createTestApiKeys(database, {
      permissions: {
        READ_GRAPH: 'Read graphs',
        EXECUTE_GRAPH: '',
        READ_BLOCK: 'Read blocks',
        EXECUTE_BLOCK: 'Execute blocks',
      },
      grantable: () => ['READ_BLOCK', 'toString', 'READ_GRAPH', 'READ_BLOCK'] as never,
    })

    const answer = await request(createTestApp(described))
      .get('/api-keys/permissions')
      .set('X-User', 'alice')

    expect(answer.status).toBe(200)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.body).toEqual({
      permissions: [
        { name: 'READ_GRAPH', description: 'Read graphs' },
        { name: 'READ_BLOCK', description: 'Read blocks' },
      ],
    })
    expect((await as('intern').get('/api-keys/permissions')).body).toEqual({
      permissions: [{ name: 'READ_GRAPH', description: null }],
    })
  })

  it('lists all without grantable', async () => {
    const app = createTestApp(createTestApiKeys(database))

    const { body } = await request(app).get('/api-keys/permissions').set('X-User', 'alice')

    expect(body).toEqual({ permissions: permissions.map((name) => ({ name, description: null })) })
  })

  it('is answered with 503 if the app does not say', async () => {
    const failing = createTestApiKeys(database, {
      grantable: () => Promise.reject(new Error('no roles today')),
    })

    const answer = await request(createTestApp(failing))
      .get('/api-keys/permissions')
      .set('X-User', 'alice')

    expect(answer.status).toBe(503)
    expect(answer.body.code).toBe('grantable_unavailable')
  })

  it('refuses what it does not know', async () => {
    const answer = await as('alice').get('/api-keys/permissions?userId=bob')

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toEqual([{ pointer: '#/userId', message: 'is not known here' }])
  })
})

describe('a query', () => {
  it.each(['_=1753', 'utm_source=mail&utm_campaign=expiry'])(
    'may have what caches and links add: ?%s',
    async (query) => {
      const { id } = await createKey('alice')

      for (const path of ['', '/permissions', `/${id}/events`, `/${id}/usage`]) {
        expect((await as('alice').get(`/api-keys${path}?${query}`)).status).toBe(200)
      }
      expect((await as('alice').post(`/api-keys/${id}/suspend?${query}`)).status).toBe(200)
    },
  )

  it.each(['staus=REVOKED', '__=1', 'utm=1'])(
    'may have nothing else that is not known, so that a mistyped filter is told: ?%s',
    async (query) => {
      const answer = await as('alice').get(`/api-keys?${query}`)

      expect(answer.status).toBe(422)
    },
  )
})

describe('GET /:id', () => {
  it('shows one key', async () => {
    const apiKey = await createKey('alice')

    const answer = await as('alice').get(`/api-keys/${apiKey.id}`)

    expect(answer.status).toBe(200)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.body).toEqual(apiKey)
  })

  it('finds it by its id in any case', async () => {
    const apiKey = await createKey('alice')

    const answer = await as('alice').get(`/api-keys/${apiKey.id.toUpperCase()}`)

    expect(answer.body).toEqual(apiKey)
  })
})

describe('PATCH /:id', () => {
  it('changes what is named and leaves the rest', async () => {
    const apiKey = await createKey('alice', { description: 'nightly' })

    const answer = await as('alice')
      .patch(`/api-keys/${apiKey.id}`)
      .send({ name: ' Deploy ', expiresAt: '2099-01-01T00:00:00Z' })

    expect(answer.status).toBe(200)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.body).toEqual({
      ...apiKey,
      name: 'Deploy',
      expiresAt: '2099-01-01T00:00:00.000Z',
      updatedAt: expect.stringMatching(time),
    })
    expect(answer.body.updatedAt > String(apiKey.updatedAt)).toBe(true)
  })

  it('takes back description and expiry with null', async () => {
    const apiKey = await createKey('alice', {
      description: 'nightly',
      expiresAt: '2099-01-01T00:00:00Z',
    })

    const answer = await as('alice')
      .patch(`/api-keys/${apiKey.id}`)
      .send({ description: null, expiresAt: null })

    expect(answer.body).toMatchObject({ description: null, expiresAt: null })
  })

  it('changes nothing where nothing is named', async () => {
    const apiKey = await createKey('alice')

    const answer = await as('alice').patch(`/api-keys/${apiKey.id}`).send({})

    expect(answer.status).toBe(200)
    expect(answer.body).toEqual(apiKey)
  })

  it('refuses every fault at once, and what other routes change', async () => {
    const apiKey = await createKey('alice')

    const answer = await as('alice')
      .patch(`/api-keys/${apiKey.id}`)
      .send({
        name: null,
        description: 7,
        expiresAt: 'tomorrow',
        permissions: ['EXECUTE_GRAPH'],
        status: 'REVOKED',
        userId: 'bob',
      })

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toEqual([
      { pointer: '#/name', message: 'must be text' },
      { pointer: '#/description', message: 'must be text' },
      {
        pointer: '#/expiresAt',
        message: 'must be a time as in RFC 3339, such as 2030-01-31T12:00:00Z',
      },
      {
        pointer: '#/permissions',
        message: 'is not changed here: use PUT /:id/permissions, or setPermissions()',
      },
      { pointer: '#/status', message: 'is not known here' },
      { pointer: '#/userId', message: 'is not known here' },
    ])
    expect((await as('alice').get(`/api-keys/${apiKey.id}`)).body).toEqual(apiKey)
  })
})

describe('PUT /:id/permissions', () => {
  it('replaces the set', async () => {
    const apiKey = await createKey('alice', { permissions: ['READ_GRAPH', 'READ_BLOCK'] })

    const answer = await as('alice')
      .put(`/api-keys/${apiKey.id}/permissions`)
      .send({ permissions: ['EXECUTE_GRAPH'] })

    expect(answer.status).toBe(200)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.body).toMatchObject({ id: apiKey.id, permissions: ['EXECUTE_GRAPH'] })
  })

  it.each<[unknown, string, string]>([
    [{}, '#/permissions', 'is required'],
    [['READ_GRAPH'], '#', 'must be a JSON object'],
    [
      { permissions: ['READ_GRAPH', 'EXECUTE_BLOCK'] },
      '#/permissions/1',
      'may not be granted by this user',
    ],
  ])('refuses %j', async (input, pointer, message) => {
    const apiKey = await createKey('alice')

    const answer = await as('alice')
      .put(`/api-keys/${apiKey.id}/permissions`)
      .send(input as object)

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toEqual([{ pointer, message }])
  })
})

describe('the states of a key', () => {
  it('are passed through by POST /:id/suspend, POST /:id/reactivate and DELETE /:id', async () => {
    const { id } = await createKey('alice')
    const steps = [
      ['post', '/suspend', 'SUSPENDED'],
      ['post', '/suspend', 'SUSPENDED'],
      ['post', '/reactivate', 'ACTIVE'],
      ['post', '/reactivate', 'ACTIVE'],
      ['post', '/suspend', 'SUSPENDED'],
      ['delete', '', 'REVOKED'],
      ['delete', '', 'REVOKED'],
    ] as const

    const revocations = new Set<string>()
    for (const [method, action, status] of steps) {
      const answer = await as('alice')[method](`/api-keys/${id}${action}`)

      expect(answer.status).toBe(200)
      expect(answer.headers['cache-control']).toBe('no-store')
      expect(answer.body).toMatchObject({ id, status })
      revocations.add(answer.body.revokedAt)
    }
    expect([...revocations]).toEqual([null, expect.stringMatching(time)])
  })

  it.each([
    ['post', '/suspend', undefined],
    ['post', '/reactivate', undefined],
    ['patch', '', { name: 'New' }],
    ['patch', '', {}],
    ['put', '/permissions', { permissions: ['READ_BLOCK'] }],
    ['put', '/permissions', { permissions: ['READ_GRAPH'] }],
  ] as const)('end with the revocation: %s /:id%s %j', async (method, action, input) => {
    const { id } = await createKey('alice')
    await as('alice').delete(`/api-keys/${id}`).expect(200)

    const answer = await as('alice')[method](`/api-keys/${id}${action}`).send(input)

    expect(answer.status).toBe(409)
    expect(answer.body.code).toBe('api_key_revoked')
  })

  it('are explained by a reason', async () => {
    const { id } = await createKey('alice')

    await as('alice').post(`/api-keys/${id}/suspend`).send({ reason: ' Lost the laptop. ' })
    await as('alice').post(`/api-keys/${id}/reactivate`).send({ reason: 'Found it.' })
    await as('alice').delete(`/api-keys/${id}`).send({ reason: 'Lost it again.' })

    const { body } = await as('alice').get(`/api-keys/${id}/events`)
    expect(body.events.map(({ reason }: { reason: string }) => reason)).toEqual([
      'Lost it again.',
      'Found it.',
      'Lost the laptop.',
      null,
    ])
  })

  it.each([
    [{ reason: '' }, '#/reason', 'must have 1 to 500 characters'],
    [{ because: 'x' }, '#/because', 'is not known here'],
  ])('are not explained by %j', async (input, pointer, message) => {
    const { id } = await createKey('alice')

    for (const send of [
      as('alice').post(`/api-keys/${id}/suspend`),
      as('alice').post(`/api-keys/${id}/reactivate`),
      as('alice').delete(`/api-keys/${id}`),
    ]) {
      const answer = await send.send(input)

      expect(answer.status).toBe(422)
      expect(answer.body.errors).toEqual([{ pointer, message }])
    }
    expect((await as('alice').get(`/api-keys/${id}`)).body.status).toBe('ACTIVE')
  })
})

describe('GET /:id/events', () => {
  it('tells an owner who did it, and not from where others came, nor the role of the database', async () => {
    const { id } = await createKey('alice')
    await as('admin').post(`/admin/api-keys/${id}/suspend`).expect(200)
    await database.connect().query(`UPDATE api_keys SET name = 'By hand' WHERE id = '${id}'`)

    const { body } = await as('alice').get(`/api-keys/${id}/events`)
    const seen = await as('admin').get(`/admin/api-keys/${id}/events`)

    expect(body.events).toMatchObject([
      { actorType: 'database', actorId: null, address: null },
      { actorType: 'admin', actorId: 'admin', address: null },
      { actorType: 'user', actorId: 'alice', address: '127.0.0.1' },
    ])
    expect(seen.body.events).toMatchObject([
      { actorType: 'database', actorId: expect.any(String) },
      { actorType: 'admin', address: '127.0.0.1' },
      { actorType: 'user', address: '127.0.0.1' },
    ])
  })

  it('tells what happened to a key, newest first, a page at a time', async () => {
    const { id } = await createKey('alice')
    await as('alice').patch(`/api-keys/${id}`).send({ name: 'Deploy' }).expect(200)
    await as('alice').delete(`/api-keys/${id}`).expect(200)

    const first = await as('alice').get(`/api-keys/${id}/events?limit=2`)
    const second = await as('alice')
      .get(`/api-keys/${id}/events`)
      .query({ limit: 2, cursor: first.body.nextCursor })

    expect(first.status).toBe(200)
    expect(first.headers['cache-control']).toBe('no-store')
    expect(first.body.events[0]).toEqual({
      id: expect.stringMatching(/^\d+$/),
      apiKeyId: id,
      userId: 'alice',
      action: 'revoked',
      actorType: 'user',
      actorId: 'alice',
      address: '127.0.0.1',
      reason: null,
      before: { status: 'ACTIVE' },
      after: { status: 'REVOKED' },
      createdAt: expect.stringMatching(time),
    })
    expect([...first.body.events, ...second.body.events].map(({ action }) => action)).toEqual([
      'revoked',
      'updated',
      'created',
    ])
    expect(second.body.nextCursor).toBeNull()
  })

  it.each([
    ['limit=1000', 'limit', 'must be a whole number from 1 to 100'],
    ['cursor=x', 'cursor', 'must be the nextCursor of a page before'],
    ['userId=bob', 'userId', 'is not known here'],
    ['apiKeyId=1', 'apiKeyId', 'is not known here'],
  ])('refuses a filter that makes no sense: %s', async (query, name, message) => {
    const { id } = await createKey('alice')

    const answer = await as('alice').get(`/api-keys/${id}/events?${query}`)

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toEqual([{ pointer: `#/${name}`, message }])
  })
})

describe('an answer', () => {
  it('has no ETag, and If-Match is never met', async () => {
    const { id } = await createKey('alice')
    const path = `/api-keys/${id}`

    for (const answer of [await as('alice').get(path), await as('alice').get('/api-keys')]) {
      expect(answer.status).toBe(200)
      expect(answer.headers).not.toHaveProperty('etag')
      expect(answer.headers['content-type']).toBe('application/json; charset=utf-8')
      expect(Number(answer.headers['content-length'])).toBe(Buffer.byteLength(answer.text))
    }
    for (const tag of ['"v1"', 'W/"v1"', '"v1", "v2"', '']) {
      const answer = await as('alice').patch(path).set('If-Match', tag).send({ name: 'Other' })

      expect(answer.status).toBe(412)
      expect(answer.headers['content-type']).toBe('application/problem+json')
      expect(answer.body).toEqual({
        title: 'Precondition Failed',
        status: 412,
        detail: 'API keys have no ETag here, so If-Match is never met. Leave it out.',
        code: 'precondition_failed',
      })
    }
    expect((await as('alice').get(path)).body.name).toBe('CI')
    await as('alice').patch(path).set('If-Match', '*').send({ name: 'Other' }).expect(200)
  })
})

describe('whoever', () => {
  it('was let through by a key before the router may not manage keys either', async () => {
    const { plainTextKey } = await apiKeys.create(newKey())
    const app = express().use(apiKeys.authenticate({ optional: true }), apiKeys.router())

    const answer = await request(app).get('/').set('Authorization', `Bearer ${plainTextKey}`)

    expect(answer.status).toBe(403)
    expect(answer.body.code).toBe('api_key_not_allowed')
  })

  it('was let through by a key of another part of the app may not manage keys either', async () => {
    const others = createTestApiKeys(database, { keyPrefix: 'other' })
    const { plainTextKey } = await others.create(newKey())
    const app = express().use(others.authenticate({ optional: true }), apiKeys.router())

    const answer = await request(app)
      .get('/')
      .set('X-User', 'alice')
      .set('Authorization', `Bearer ${plainTextKey}`)

    expect(answer.status).toBe(403)
    expect(answer.body.code).toBe('api_key_not_allowed')
  })

  it.each([
    ['Authorization', 'Bearer a.b.c'],
    ['Authorization', 'Basic YWxpY2U6c2VjcmV0'],
    ['Authorization', 'Bearer a b'],
    ['X-API-Key', 'sk_live_123'],
  ])('sends a credential of the app’s own may: %s: %s', async (name, value) => {
    const answer = await as('alice').get('/api-keys?limit=1').set(name, value)

    expect(answer.status).toBe(200)
  })
})

describe('currentUser', () => {
  it('sees the parameters of the path that the router is mounted at, and none of ours in their place', async () => {
    const seen: unknown[] = []
    const { router } = createTestApiKeys(database, {
      currentUser(req) {
        const { id, userId } = req.params
        seen.push([id, userId])
        return { id: 'alice', admin: false }
      },
    })
    const app = express().use('/orgs/:id/users/:userId/api-keys', router())
    const { id } = await createKey('alice')

    await request(app).get('/orgs/acme/users/7/api-keys').expect(200)
    const shown = await request(app).get(`/orgs/acme/users/7/api-keys/${id}`).expect(200)

    expect(seen).toEqual([
      ['acme', '7'],
      ['acme', '7'],
    ])
    expect(shown.body.id).toBe(id)
  })

  it('is the app’s own to fail, with whatever error', async () => {
    for (const error of [new Error('no session store'), new URIError('no cookie')]) {
      const keys = createTestApiKeys(database, {
        currentUser() {
          throw error
        },
      })
      const app = createTestApp(keys)

      const answer = await request(app).get('/api-keys')

      expect(answer.status).toBe(500)
      expect(answer.body).toEqual({ app: error.message })
    }
  })

  it.each([{}, { id: null }, { id: '' }, { id: ['alice'] }])(
    'is mistaken where it returns a user without a proper id: %j',
    async (user) => {
      const keys = createTestApiKeys(database, {
        currentUser: () => user as { id: string; admin: boolean },
      })

      const answer = await request(createTestApp(keys)).get('/api-keys')

      expect(answer.status).toBe(500)
      expect(answer.body.app).toContain('currentUser returned a user whose id is not of users.type')
    },
  )

  it('is needed to make a router', () => {
    const keys = createApiKeys({
      sequelize: database.connect(),
      keyPrefix: 'agpt',
      permissions: ['READ_GRAPH'],
    })

    expect(() => keys.router()).toThrow(TypeError)
    expect(() => keys.router()).toThrow('router: needs the option currentUser')
  })
})
