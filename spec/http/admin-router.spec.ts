import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import type { Server } from 'node:http'

import request from 'supertest'

import { createApiKeys } from '../../lib'
import { createTestApiKeys, createTestApp, permissions, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { createKey } from '../support/keys'

let database: Database
let apiKeys: TestApiKeys
let server: Server

beforeAll(async () => {
  database = await createDatabase()
  apiKeys = createTestApiKeys(database, {
    header: 'X-API-Key',
    maxKeysPerUser: 4,
    grantable: (userId) => (userId === 'intern' ? ['READ_GRAPH'] : ['READ_GRAPH', 'READ_BLOCK']),
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

const as = (user: string) => request.agent(server).set('X-User', user)

/** Makes a key, of somebody who has no other unless a spec names one. */
function makeKey(wishes: Parameters<typeof createKey>[1] = {}) {
  return createKey(apiKeys, { userId: newUser(), ...wishes })
}

function idsOf({ body }: { body: { apiKeys: { id: string }[] } }) {
  return body.apiKeys.map(({ id }) => id)
}

describe('POST /', () => {
  it('creates a key on behalf of a user', async () => {
    const userId = newUser()

    const answer = await as('admin')
      .post('/admin/api-keys')
      .send({ userId, name: 'CI', permissions: ['READ_GRAPH'] })

    const { apiKey, plainTextKey } = answer.body
    expect(answer.status).toBe(201)
    expect(answer.headers.location).toBe(`./api-keys/${apiKey.id}`)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(apiKey).toMatchObject({ userId, name: 'CI', status: 'ACTIVE' })
    expect((await as(userId).get(`/api-keys/${apiKey.id}`)).body).toEqual(apiKey)
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true, apiKey: { userId } })
    expect((await apiKeys.events({ apiKeyId: apiKey.id })).events).toMatchObject([
      { action: 'created', userId, actorType: 'admin', actorId: 'admin' },
    ])
  })

  it('gives out what is that user’s to give, and no more keys than they may have', async () => {
    const userId = newUser()
    for (let index = 0; index < 4; index++) await makeKey({ userId })

    const ungrantable = await as('admin')
      .post('/admin/api-keys')
      .send({ userId: 'intern', name: 'CI', permissions: ['READ_BLOCK'] })
    const tooMany = await as('admin')
      .post('/admin/api-keys')
      .send({ userId, name: 'CI', permissions: ['READ_GRAPH'] })

    expect(ungrantable.status).toBe(422)
    expect(ungrantable.body.errors).toEqual([
      { pointer: '#/permissions/0', message: 'may not be granted by this user' },
    ])
    expect(tooMany.status).toBe(409)
    expect(tooMany.body.code).toBe('too_many_api_keys')
  })

  it('refuses every fault at once', async () => {
    const answer = await as('admin')
      .post('/admin/api-keys')
      .send({ name: '', permissions: [], actor: 'alice', status: 'ACTIVE' })

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toEqual([
      { pointer: '#/name', message: 'must have 1 to 100 characters' },
      { pointer: '#/permissions', message: 'must name at least one permission' },
      { pointer: '#/userId', message: 'is required' },
      { pointer: '#/actor', message: 'is not known here' },
      { pointer: '#/status', message: 'is not known here' },
    ])
  })
})

describe('GET /', () => {
  it('lists the keys of everyone, newest first, a page at a time', async () => {
    const made = [await makeKey(), await makeKey(), await makeKey()]

    const first = await as('admin').get('/admin/api-keys?limit=2')
    const second = await as('admin')
      .get('/admin/api-keys')
      .query({ limit: 1, cursor: first.body.nextCursor })

    expect(first.status).toBe(200)
    expect(first.headers['cache-control']).toBe('no-store')
    expect([...idsOf(first), ...idsOf(second)]).toEqual(made.map(({ id }) => id).toReversed())
  })

  it('filters by owner, status, permission and text, and by all of them together', async () => {
    const userId = newUser()
    const nightly = await makeKey({ userId, name: 'Nightly build' })
    const deploy = await makeKey({ userId, name: 'Deploy', description: 'after the night shift' })
    const blocks = await makeKey({ userId, name: 'Night', permissions: ['READ_BLOCK'] })
    await makeKey({ name: 'Nightly build' })
    await apiKeys.suspend(deploy.id)

    const list = async (filter: object) =>
      idsOf(
        await as('admin')
          .get('/admin/api-keys')
          .query({ userId, ...filter })
          .expect(200),
      )

    expect(await list({})).toEqual([blocks.id, deploy.id, nightly.id])
    expect(await list({ status: 'ACTIVE' })).toEqual([blocks.id, nightly.id])
    expect(await list({ permission: 'READ_GRAPH' })).toEqual([deploy.id, nightly.id])
    expect(await list({ permission: 'READ_BLOCK' })).toEqual([blocks.id])
    expect(await list({ permission: 'EXECUTE_BLOCK' })).toEqual([])
    expect(await list({ text: 'night' })).toEqual([blocks.id, deploy.id, nightly.id])
    expect(await list({ text: 'BUILD night' })).toEqual([nightly.id])
    expect(await list({ text: "'; DROP TABLE api_keys; --" })).toEqual([])
    expect(await list({ text: 'night', status: 'SUSPENDED', permission: 'READ_GRAPH' })).toEqual([
      deploy.id,
    ])
  })

  it('turns pages of what it filters', async () => {
    const userId = newUser()
    const older = await makeKey({ userId, name: 'Build one' })
    await makeKey({ userId, name: 'Deploy' })
    const newer = await makeKey({ userId, name: 'Build two' })
    const filter = { userId, text: 'build', limit: 1 }

    const first = await as('admin').get('/admin/api-keys').query(filter)
    const second = await as('admin')
      .get('/admin/api-keys')
      .query({ ...filter, cursor: first.body.nextCursor })

    expect(idsOf(first)).toEqual([newer.id])
    expect(idsOf(second)).toEqual([older.id])
    expect(second.body.nextCursor).toBeNull()
  })

  it.each([
    ['userId=a&userId=b', 'userId', 'must be a user id'],
    ['sort=name', 'sort', 'must be createdAt or -createdAt, unless userId is given'],
    ['owner=alice', 'owner', 'is not known here'],
  ])('refuses a filter that makes no sense: %s', async (query, name, message) => {
    const answer = await as('admin').get(`/admin/api-keys?${query}`)

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toEqual([{ pointer: `#/${name}`, message }])
  })
})

describe('GET /permissions', () => {
  it('lists all, and with userId what that user may give to a key', async () => {
    const all = await as('admin').get('/admin/api-keys/permissions?_=1')
    const ofIntern = await as('admin').get('/admin/api-keys/permissions?userId=intern')

    expect(all.status).toBe(200)
    expect(all.body.permissions[0]).toEqual({ name: 'READ_GRAPH', description: null })
    expect(all.body.permissions.map(({ name }: { name: string }) => name)).toEqual(permissions)
    expect(ofIntern.body.permissions.map(({ name }: { name: string }) => name)).toEqual([
      'READ_GRAPH',
    ])
  })
})

describe('the routes of one key', () => {
  it('serve the keys of everyone', async () => {
    const { id, userId } = await makeKey()
    const path = `/admin/api-keys/${id}`

    const answers = [
      await as('admin').get(path),
      await as('admin').patch(path).send({ name: 'Deploy' }),
      await as('admin')
        .put(`${path}/permissions`)
        .send({ permissions: ['READ_BLOCK'] }),
      await as('admin').post(`${path}/suspend`).send({ reason: 'Looks odd.' }),
      await as('admin').post(`${path}/reactivate`),
      await as('admin').delete(path).send({ reason: 'Odd indeed.' }),
    ]

    expect(answers.map(({ status, headers }) => [status, headers['cache-control']])).toEqual(
      answers.map(() => [200, 'no-store']),
    )
    expect(answers.map(({ body }) => [body.name, body.permissions, body.status])).toEqual([
      ['Deployment', ['READ_GRAPH'], 'ACTIVE'],
      ['Deploy', ['READ_GRAPH'], 'ACTIVE'],
      ['Deploy', ['READ_BLOCK'], 'ACTIVE'],
      ['Deploy', ['READ_BLOCK'], 'SUSPENDED'],
      ['Deploy', ['READ_BLOCK'], 'ACTIVE'],
      ['Deploy', ['READ_BLOCK'], 'REVOKED'],
    ])
    const { body } = await as('admin').get(`${path}/events`)
    expect(body.events.slice(0, 5)).toMatchObject(
      [
        ['revoked', 'Odd indeed.'],
        ['reactivated', null],
        ['suspended', 'Looks odd.'],
        ['permissions_changed', null],
        ['updated', null],
      ].map(([action, reason]) => ({
        action,
        reason,
        userId,
        actorType: 'admin',
        actorId: 'admin',
      })),
    )
  })

  it('hold a key to what its owner may give', async () => {
    const { id } = await makeKey({ userId: 'intern' })

    const answer = await as('admin')
      .put(`/admin/api-keys/${id}/permissions`)
      .send({ permissions: ['READ_GRAPH', 'READ_BLOCK'] })

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toEqual([
      { pointer: '#/permissions/1', message: 'may not be granted by this user' },
    ])
  })

  it('end with the revocation', async () => {
    const { id } = await makeKey({ status: 'REVOKED' })

    const answer = await as('admin').post(`/admin/api-keys/${id}/reactivate`)

    expect(answer.status).toBe(409)
    expect(answer.body.code).toBe('api_key_revoked')
  })
})

describe('POST /revoke-all', () => {
  it('revokes every key of a user and says how many', async () => {
    const userId = newUser()
    const active = await makeKey({ userId })
    await makeKey({ userId, status: 'SUSPENDED' })
    await makeKey({ userId, status: 'REVOKED' })
    const other = await makeKey()

    const answer = await as('admin')
      .post('/admin/api-keys/revoke-all')
      .send({ userId, reason: 'Left the company.' })
    const again = await as('admin').post('/admin/api-keys/revoke-all').send({ userId })

    expect(answer.status).toBe(200)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.body).toEqual({ revoked: 2 })
    expect(again.body).toEqual({ revoked: 0 })
    expect(
      idsOf(await as('admin').get('/admin/api-keys').query({ userId, status: 'REVOKED' })),
    ).toHaveLength(3)
    expect((await apiKeys.get(other.id)).status).toBe('ACTIVE')
    expect((await apiKeys.events({ apiKeyId: active.id, limit: 1 })).events).toMatchObject([
      { action: 'revoked', reason: 'Left the company.', actorType: 'admin', actorId: 'admin' },
    ])
  })

  it.each([
    [{}, '#/userId', 'is required'],
    [{ userId: 'alice', status: 'ACTIVE' }, '#/status', 'is not known here'],
  ])('refuses %j', async (input, pointer, message) => {
    const answer = await as('admin').post('/admin/api-keys/revoke-all').send(input)

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toEqual([{ pointer, message }])
  })
})

describe('GET /events', () => {
  it('tells what happened to all keys, newest first, a page at a time', async () => {
    const first = await makeKey()
    const second = await makeKey()
    await apiKeys.revoke(first.id)

    const newest = await as('admin').get('/admin/api-keys/events?limit=1')
    const others = await as('admin')
      .get('/admin/api-keys/events')
      .query({ limit: 2, cursor: newest.body.nextCursor })

    expect(newest.status).toBe(200)
    expect(newest.headers['cache-control']).toBe('no-store')
    expect(Object.keys(newest.body)).toEqual(['events', 'nextCursor'])
    expect([...newest.body.events, ...others.body.events]).toMatchObject([
      { action: 'revoked', apiKeyId: first.id, actorType: 'system', actorId: null },
      { action: 'created', apiKeyId: second.id },
      { action: 'created', apiKeyId: first.id },
    ])
  })

  it('filters by key, owner and action', async () => {
    const userId = newUser()
    const first = await makeKey({ userId })
    const second = await makeKey({ userId })
    await apiKeys.suspend(first.id)
    await apiKeys.suspend(second.id)

    expect(await listEvents({ apiKeyId: first.id })).toEqual([
      [first.id, 'suspended'],
      [first.id, 'created'],
    ])
    expect(await listEvents({ userId, action: 'suspended' })).toEqual([
      [second.id, 'suspended'],
      [first.id, 'suspended'],
    ])
    expect(await listEvents({ userId: newUser() })).toEqual([])
  })

  it.each([
    ['apiKeyId=1', 'apiKeyId', 'must be a UUID'],
    ['status=ACTIVE', 'status', 'is not known here'],
  ])('refuses a filter that makes no sense: %s', async (query, name, message) => {
    const answer = await as('admin').get(`/admin/api-keys/events?${query}`)

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toEqual([{ pointer: `#/${name}`, message }])
  })
})

async function listEvents(filter: object) {
  const { body } = await as('admin').get('/admin/api-keys/events').query(filter).expect(200)
  return body.events.map(({ apiKeyId, action }: Record<string, string>) => [apiKeyId, action])
}

describe('GET /audit-head and POST /audit-verification', () => {
  it('tell the end of the audit trail, and whether it still leads there', async () => {
    await makeKey()
    const head = await as('admin').get('/admin/api-keys/audit-head')
    const { id } = await makeKey()

    const wrong = await as('admin').post('/admin/api-keys/audit-verification').send({ head: 7 })
    const alone = await as('admin').post('/admin/api-keys/audit-verification')
    const anchored = await as('admin')
      .post('/admin/api-keys/audit-verification')
      .send({ head: head.body })

    expect(head.status).toBe(200)
    expect(head.headers['cache-control']).toBe('no-store')
    expect(Object.keys(head.body)).toEqual(['position', 'hash', 'at', 'mac', 'secretId'])
    expect(wrong.status).toBe(422)
    for (const { status, body } of [alone, anchored]) {
      expect(status).toBe(200)
      expect(body).toMatchObject({ isIntact: true, faults: [] })
      expect(body.head.position).toBe(head.body.position + 1)
    }
    expect(await apiKeys.get(id)).toMatchObject({ status: 'ACTIVE' })
  })

  it.each([
    ['a head that was not exported here', { mac: '0'.repeat(64) }, '#/head'],
    ['more than a head', { more: 1 }, '#/head/more'],
  ])('refuse %s', async (_, change, pointer) => {
    const { body } = await as('admin').get('/admin/api-keys/audit-head')

    const answer = await as('admin')
      .post('/admin/api-keys/audit-verification')
      .send({ head: { ...body, ...change } })

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toMatchObject([{ pointer }])
  })
})

describe('isAdmin', () => {
  it.each([
    ['false', () => false],
    ['null', () => null],
    ['nothing', () => undefined],
    ['a promise of false', async () => false],
    ['what is as good as true elsewhere', () => 1 as unknown as boolean],
  ])('lets nobody in with %s', async (_, isAdmin) => {
    const app = createTestApp(createTestApiKeys(database, { isAdmin }))

    const answer = await request(app).get('/admin/api-keys').set('X-User', 'admin')

    expect(answer.status).toBe(403)
    expect(answer.body.code).toBe('not_an_admin')
  })

  it('may take its time', async () => {
    const keys = createTestApiKeys(database, { isAdmin: async ({ id }) => id === 'root' })

    const answer = await request(createTestApp(keys)).get('/admin/api-keys').set('X-User', 'root')

    expect(answer.status).toBe(200)
  })

  it.each([
    [
      'throws',
      () => {
        throw new Error('no directory')
      },
    ],
    ['rejects', () => Promise.reject(new Error('no directory'))],
  ])('reaches the app’s error handler where it %s', async (_, isAdmin) => {
    const app = createTestApp(createTestApiKeys(database, { isAdmin }))

    const answer = await request(app).get('/admin/api-keys').set('X-User', 'admin')

    expect(answer.status).toBe(500)
    expect(answer.body).toEqual({ app: 'no directory' })
  })

  it('is needed to make the router, and so is currentUser', () => {
    const options = {
      sequelize: database.connect(),
      keyPrefix: 'agpt',
      permissions: ['READ_GRAPH'],
    } as const
    const withoutAdmin = createApiKeys({ ...options, currentUser: () => ({ id: 'alice' }) })
    const withoutUser = createApiKeys({ ...options, isAdmin: () => true })

    for (const lacking of [withoutAdmin, withoutUser]) {
      expect(() => lacking.adminRouter()).toThrow(
        new TypeError('adminRouter: needs the options currentUser and isAdmin of createApiKeys'),
      )
    }
  })
})
