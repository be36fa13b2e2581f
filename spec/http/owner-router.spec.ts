import express from 'express'

import { createApiKeys } from '../../lib'
import { newKey, newUser, postKey } from '../support/keys'
import { expectFaults, expectProblem } from '../support/problem'
import { useWorld } from '../support/world'

const { apiKeys, http, sequelize, createKey, createProcess } = useWorld({
  documented: {},
  options: {
    header: 'X-API-Key',
    grantable: ({ id: userId }) =>
      userId === 'intern' ? ['READ_GRAPH'] : ['READ_GRAPH', 'EXECUTE_GRAPH', 'READ_BLOCK'],
  },
})

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

describe('POST /', () => {
  it('creates a key and shows its plain text once', async () => {
    const answer = await http.as('alice').post('/api-keys', {
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
      owner: { type: 'user', id: 'alice' },
      userId: 'alice',
      createdAt: expect.stringMatching(time),
      updatedAt: apiKey.createdAt,
      lastUsedAt: null,
      lastUsedFrom: null,
      expiresAt: '2098-12-31T22:00:00.000Z',
      isExpired: false,
      revokedAt: null,
      previousSecret: null,
      pendingRotation: null,
      ownerSuspended: false,
      createdBy: 'alice',
    })
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({
      valid: true,
      apiKey: { id: apiKey.id, userId: 'alice' },
    })
  })

  it('needs only a name and a permission', async () => {
    const apiKey = await postKey(http.as('alice'))

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
  ])('returns the location of the key relative to the request: %s', async (path, parent) => {
    const [mount] = path.replace(/\/$/, '').split('?')
    const app = express().use((mount || '/').replaceAll(':', '\\:'), apiKeys.router())

    const answer = await http
      .to(app)
      .as('alice')
      .post(path, { name: 'CI', permissions: ['READ_GRAPH'] })

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
  ])('reports every fault of %s at once', async (_, input, faults) => {
    const answer = await http.as('alice').post('/api-keys', input as object)

    expect(answer.status).toBe(422)
    expect(answer.headers['content-type']).toBe('application/problem+json')
    expect(answer.body.code).toBe('invalid_input')
    expect(answer.body.errors).toEqual(faults.map(([pointer, message]) => ({ pointer, message })))
  })

  it('refuses the field __proto__', async () => {
    const answer = await http
      .as('alice')
      .post('/api-keys')
      .type('json')
      .send('{"name":"CI","permissions":["READ_GRAPH"],"__proto__":{"userId":"bob"}}')

    expectFaults(answer, { '#/__proto__': 'is not known here' })
  })

  it('refuses permissions that the user may not give', async () => {
    const answer = await http
      .as('intern')
      .post('/api-keys', { name: 'CI', permissions: ['EXECUTE_GRAPH', 'READ_GRAPH', 'READ_BLOCK'] })

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toEqual([
      { pointer: '#/permissions/0', message: 'may not be granted by this user' },
      { pointer: '#/permissions/2', message: 'may not be granted by this user' },
    ])
  })

  it('counts exactly if many requests come at once', async () => {
    const { apiKeys, http } = createProcess({ maxKeysPerOwner: 7 })
    const user = newUser()

    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, index) =>
        http.as(user).post('/api-keys', { name: `Key ${index}`, permissions: ['READ_GRAPH'] }),
      ),
    )

    const statuses = answers.map(({ status }) => status)
    expect(statuses.filter((status) => status === 201)).toHaveLength(7)
    expect(statuses.filter((status) => status === 409)).toHaveLength(43)
    expect(answers.find(({ status }) => status === 409)?.body.code).toBe('too_many_api_keys')
    expect((await apiKeys.list({ userId: user })).apiKeys).toHaveLength(7)
  })

  it('allows another key after a revocation', async () => {
    const agent = createProcess({ maxKeysPerOwner: 1 }).http.as(newUser())
    const input = { name: 'CI', permissions: ['READ_GRAPH'] }
    const first = await agent.post('/api-keys', input).expect(201)

    const key = `/api-keys/${first.body.apiKey.id}`

    const answers = [
      await agent.post('/api-keys', input),
      await agent.post(`${key}/suspend`),
      await agent.post('/api-keys', input),
      await agent.delete(key),
      await agent.post('/api-keys', input),
    ]

    expect(answers.map(({ status }) => status)).toEqual([409, 200, 409, 200, 201])
  })
})

describe('an answer', () => {
  it('has no ETag, and If-Match is never met', async () => {
    const { id } = await postKey(http.as('alice'))
    const path = `/api-keys/${id}`

    for (const answer of [
      await http.as('alice').get(path),
      await http.as('alice').get('/api-keys'),
    ]) {
      expect(answer.status).toBe(200)
      expect(answer.headers).not.toHaveProperty('etag')
      expect(answer.headers['content-type']).toBe('application/json; charset=utf-8')
      expect(Number(answer.headers['content-length'])).toBe(Buffer.byteLength(answer.text))
    }
    for (const tag of ['"v1"', 'W/"v1"', '"v1", "v2"', '']) {
      const answer = await http.as('alice').patch(path).set('If-Match', tag).send({ name: 'Other' })

      expect(answer.status).toBe(412)
      expect(answer.headers['content-type']).toBe('application/problem+json')
      expect(answer.body).toEqual({
        title: 'Precondition Failed',
        status: 412,
        detail: 'API keys have no ETag here, so If-Match is never met. Leave it out.',
        code: 'precondition_failed',
      })
    }
    expect((await http.as('alice').get(path)).body.name).toBe('CI')
    await http.as('alice').patch(path).set('If-Match', '*').send({ name: 'Other' }).expect(200)
  })
})

describe('a request', () => {
  it('that a key has let through before the router may not manage keys', async () => {
    const { plainTextKey } = await createKey()
    const app = express().use(apiKeys.authenticate({ optional: true }), apiKeys.router())

    const answer = await http.to(app).with(plainTextKey).get('/')

    expectProblem(answer, 'api_key_not_allowed')
  })

  it('that a key of another part of the app has let through may not manage keys', async () => {
    const others = createProcess({ keyPrefix: 'other' }).apiKeys
    const { plainTextKey } = await others.create(newKey())
    const app = express().use(others.authenticate({ optional: true }), apiKeys.router())

    const answer = await http
      .to(app)
      .as('alice')
      .get('/')
      .set('Authorization', `Bearer ${plainTextKey}`)

    expectProblem(answer, 'api_key_not_allowed')
  })

  it.each([
    ['Authorization', 'Bearer a.b.c'],
    ['Authorization', 'Basic YWxpY2U6c2VjcmV0'],
    ['Authorization', 'Bearer a b'],
    ['X-API-Key', 'sk_live_123'],
  ])('with a credential of the app may manage keys: %s: %s', async (name, value) => {
    const answer = await http.as('alice').get('/api-keys?limit=1').set(name, value)

    expect(answer.status).toBe(200)
  })
})

describe('currentUser', () => {
  it('sees the parameters of the mount path, and no parameter of the router in their place', async () => {
    const seen: unknown[] = []
    const { router } = createProcess({
      currentUser(req) {
        const { id, userId } = req.params
        seen.push([id, userId])
        return { id: 'alice', admin: false }
      },
    }).apiKeys
    const app = express().use('/orgs/:id/users/:userId/api-keys', router())
    const { id } = await postKey(http.as('alice'))

    await http.to(app).get('/orgs/acme/users/7/api-keys').expect(200)
    const shown = await http.to(app).get(`/orgs/acme/users/7/api-keys/${id}`).expect(200)

    expect(seen).toEqual([
      ['acme', '7'],
      ['acme', '7'],
    ])
    expect(shown.body.id).toBe(id)
  })

  it('passes any error on to the app', async () => {
    for (const error of [new Error('no session store'), new URIError('no cookie')]) {
      const { http } = createProcess({
        currentUser() {
          throw error
        },
      })

      const answer = await http.get('/api-keys')

      expect(answer.status).toBe(500)
      expect(answer.body).toEqual({ app: error.message })
    }
  })

  it.each([{}, { id: null }, { id: '' }, { id: ['alice'] }])(
    'is a mistake if it returns a user without a valid id: %j',
    async (user) => {
      const keys = createProcess({
        currentUser: () => user as { id: string; admin: boolean },
      })

      const answer = await keys.http.get('/api-keys')

      expect(answer.status).toBe(500)
      expect(answer.body.app).toContain(
        'currentUser returned a user whose id is not of the type text. Return an object whose id is',
      )
    },
  )

  it('is needed to make a router', () => {
    const keys = createApiKeys({
      sequelize,
      keyPrefix: 'agpt',
      permissions: ['READ_GRAPH'],
    })

    expect(() => keys.router()).toThrow(TypeError)
    expect(() => keys.router()).toThrow('router: needs the option currentUser')
  })
})
