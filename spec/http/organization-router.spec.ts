import { randomUUID } from 'node:crypto'

import type { Request } from 'express'

import { createApiKeys, type Access, type UserOwner } from '../../lib'
import { createTestApp, permissions, type User } from '../support/app'
import { checkAnswers } from '../support/contract'
import { createDatabase, type Database } from '../support/database'
import { createHttp, type Http, type Method } from '../support/http'
import { expectFaults, expectProblem } from '../support/problem'

type Granted = (typeof permissions)[number]

let database: Database
let apiKeys: ReturnType<typeof createInstance>
let http: Http
/** The members of organization 7, and what the app answers for them. */
const access = new Map<string, Access<Granted>>()
/** The parameters of the path that the app was shown. */
const seen: unknown[] = []
const granted = new Map<string, Granted[]>()

function createInstance() {
  const created = createApiKeys({
    sequelize: database.connect(),
    keyPrefix: 'agpt',
    permissions,
    users: { table: 'users', type: 'text' },
    organizations: { table: 'organizations', type: 'integer' },
    services: true,
    resources: { graph: true },
    currentUser(req: Request): User | undefined {
      const id = req.get('X-User')
      return id ? { id, admin: id === 'admin' } : undefined
    },
    isAdmin: (user) => user.admin,
    grantable: ({ type, id }) => granted.get(`${type} ${id}`) ?? [...permissions],
    maxKeysPerOwner: { user: 3, organization: 100 },
  })
  database.closeFirst(created)
  return created
}

beforeAll(async () => {
  database = await createDatabase('empty')
  await database.connect().query(`
    CREATE TABLE users (id text PRIMARY KEY);
    INSERT INTO users VALUES ('alice'), ('bob'), ('carol'), ('7');
    CREATE TABLE organizations (id integer PRIMARY KEY);
    INSERT INTO organizations VALUES (7), (8)`)
  apiKeys = createInstance()
  await apiKeys.migrate()
  const router = apiKeys.router({
    organization(req, user) {
      seen.push({ ...req.params })
      return Number(req.params.id) === 7 ? access.get(user.id) : null
    },
  })
  const app = createTestApp(apiKeys, (app) => app.use('/organizations/:id/api-keys', router))
  const documented = { organizationRouter: '/organizations/{id}/api-keys' }
  http = createHttp(
    () => app,
    checkAnswers(() => apiKeys.openApi(documented)),
  )
})

beforeEach(() => {
  seen.length = 0
  granted.clear()
  access.clear()
  access.set('alice', 7)
  access.set('bob', { id: 7, readOnly: true })
})

afterAll(() => database.drop())

const mount = '/organizations/7/api-keys'
const organization = { type: 'organization', id: 7 } as const

async function createKey(wishes: { permissions?: Granted[] } = {}) {
  return apiKeys.create({ owner: organization, name: 'CI', permissions: ['READ_GRAPH'], ...wishes })
}

describe('a mount path', () => {
  it.each(['id', 'apiKeyId', 'keyId'])('may have a parameter named %s', async (name) => {
    const paths: unknown[] = []
    const router = apiKeys.router({
      organization(req) {
        paths.push({ ...req.params })
        return Number(req.params[name])
      },
    })
    const app = createTestApp(apiKeys, (app) => app.use(`/organizations/:${name}/keys`, router))
    const { apiKey } = await createKey()

    const caller = http.to(app).as('alice')
    const answer = await caller.get(`/organizations/7/keys/${apiKey.id}`)
    const ofOther = await caller.get(`/organizations/8/keys/${apiKey.id}`)

    expect([answer.status, answer.body.id]).toEqual([200, apiKey.id])
    expectProblem(ofOther, 'api_key_not_found')
    expect(paths).toEqual([{ [name]: '7' }, { [name]: '8' }])
  })
})

describe('router({ organization })', () => {
  it('creates a key of the organization, which keeps who made it', async () => {
    const body = { name: 'CI', permissions: ['READ_GRAPH'] }

    const answer = await http.as('alice').post(mount, body)

    const { apiKey, plainTextKey } = answer.body
    expect(answer.status).toBe(201)
    expect(apiKey).toMatchObject({ owner: organization, createdBy: 'alice', status: 'ACTIVE' })
    expect(apiKey).not.toHaveProperty('userId')
    const verdict = await apiKeys.verify(plainTextKey)
    expect(verdict).toMatchObject({ valid: true, apiKey: { owner: organization } })
    expect(verdict).not.toHaveProperty('apiKey.userId')
    const { events } = await apiKeys.events({ apiKeyId: apiKey.id })
    expect(events).toMatchObject([
      { action: 'created', owner: organization, actorType: 'user', actorId: 'alice' },
    ])
  })

  it('shows a member all keys of the organization, whoever made them, and no others', async () => {
    const { apiKey } = await createKey()
    await apiKeys.create({ userId: '7', name: 'User 7', permissions: ['READ_GRAPH'] })
    await apiKeys.create({
      owner: { type: 'organization', id: 8 },
      name: 'Other',
      permissions: ['READ_GRAPH'],
    })

    const answer = await http.as('bob').get(`${mount}?limit=100`)
    const byAlice = await http.as('bob').get(`${mount}?createdBy=alice`)
    const own = await http.as('alice').get('/api-keys')

    expect(answer.status).toBe(200)
    const ids = answer.body.apiKeys.map(({ id }: { id: string }) => id)
    expect(ids).toContain(apiKey.id)
    for (const { owner } of answer.body.apiKeys) expect(owner).toEqual(organization)
    for (const { createdBy } of byAlice.body.apiKeys) expect(createdBy).toBe('alice')
    expect(own.body.apiKeys).toEqual([])
  })

  it('shows the app the parameters of its own path, and not the id of a key', async () => {
    const { apiKey } = await createKey()

    await http.as('alice').get(`${mount}/${apiKey.id}`).expect(200)
    await http.as('alice').get(`${mount}/${apiKey.id}/events`).expect(200)

    expect(seen).toEqual([{ id: '7' }, { id: '7' }])
  })

  it('is the same 404 to the byte without access, without an organization and for a malformed id', async () => {
    const { apiKey } = await createKey()
    const answers: unknown[] = []
    for (const [user, path] of [
      ['carol', mount],
      ['carol', `${mount}/${apiKey.id}`],
      ['alice', '/organizations/8/api-keys'],
      ['alice', '/organizations/999/api-keys'],
      ['alice', '/organizations/acme/api-keys'],
      ['alice', '/organizations/%00/api-keys'],
      ['alice', `/organizations/8/api-keys/${apiKey.id}`],
    ] as const) {
      const answer = await http.as(user).get(path)
      expectProblem(answer, 'organization_not_found')
      const { date, ...headers } = answer.headers
      expect(date).toBeDefined()
      answers.push({ headers, text: answer.text })
    }
    for (const answer of answers) expect(answer).toEqual(answers[0])
  })

  it.each([['acme'], [2 ** 40], ['7; DROP TABLE api_keys'], [{ id: '1.5' }]])(
    'is the same 404 if the app returns an id that is not of the type: %j',
    async (id) => {
      access.set('carol', id)

      expectProblem(await http.as('carol').get(mount), 'organization_not_found')
    },
  )

  it.each([
    [true],
    [{}],
    [{ id: null }],
    [{ id: 7, readOnly: 'no' }],
    [{ id: 7, name: 8 }],
    [{ id: 7, permissions: 'ALL' }],
  ])('passes a mistake of the app on as an error: %j', async (wrong) => {
    access.set('carol', wrong as never)

    const answer = await http.as('carol').get(mount)

    expect(answer.status).toBe(500)
    expect(answer.body.app).toMatch(/^router: .* of? ?organization|^router: organization must/)
  })

  it('finds no key of another owner', async () => {
    const { apiKey } = await apiKeys.create({
      owner: { type: 'service', id: 'importer' },
      name: 'Import',
      permissions: ['READ_GRAPH'],
    })

    for (const id of [apiKey.id, randomUUID(), 'x']) {
      expectProblem(await http.as('alice').get(`${mount}/${id}`), 'api_key_not_found')
      expectProblem(await http.as('alice').delete(`${mount}/${id}`), 'api_key_not_found')
    }
  })

  it('takes no owner from a body or a query', async () => {
    const body = { name: 'CI', permissions: ['READ_GRAPH'] }

    expectFaults(await http.as('alice').post(mount, { ...body, owner: organization }), {
      '#/owner': 'is not known here',
    })
    expectFaults(await http.as('alice').post(mount, { ...body, userId: 'alice' }), {
      '#/userId': 'is not known here',
    })
    expectFaults(await http.as('alice').get(`${mount}?ownerType=user`), {
      '#/ownerType': 'is not known here',
    })
  })

  it('lets a member who may only read see keys, and change none', async () => {
    const { apiKey } = await createKey()
    const path = `${mount}/${apiKey.id}`
    const bob = http.as('bob')

    for (const read of [mount, `${mount}/permissions`, path, `${path}/events`, `${path}/usage`]) {
      expect((await bob.get(read)).status).toBe(200)
    }
    for (const change of [
      bob.post(mount, { name: 'CI', permissions: ['READ_GRAPH'] }),
      bob.patch(path, { name: 'Mine' }),
      bob.put(`${path}/permissions`, { permissions: ['READ_GRAPH'] }),
      bob.post(`${path}/suspend`),
      bob.post(`${path}/reactivate`),
      bob.post(`${path}/rotate`),
      bob.delete(`${path}/rotation`),
      bob.delete(path),
    ]) {
      expectProblem(await change, 'read_only')
    }
    expect(await apiKeys.get(apiKey.id)).toEqual(apiKey)
  })

  it('lets a member neither create, nor add to, nor rotate a key that may do more than the member', async () => {
    access.set('carol', { id: 7, permissions: ['READ_GRAPH', 'READ_BLOCK'] })
    const carol = http.as('carol')
    const { apiKey: more } = await createKey({ permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'] })
    const { apiKey: less } = await createKey()
    const mine = `${mount}/${less.id}`
    const theirs = `${mount}/${more.id}`
    const notYours = 'may not be granted by you'

    const created = await carol.post(mount, {
      name: 'A',
      permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'],
    })
    expectFaults(created, { '#/permissions/1': notYours })
    expectFaults(await carol.put(`${mine}/permissions`, { permissions: ['EXECUTE_GRAPH'] }), {
      '#/permissions/0': notYours,
    })
    const added = { permissions: ['READ_BLOCK', 'READ_GRAPH', 'EXECUTE_GRAPH'] }
    expectFaults(await carol.put(`${theirs}/permissions`, added), { '#/permissions/2': notYours })
    expectProblem(await carol.post(`${theirs}/rotate`), 'exceeds_access')

    // All of this gives no secret and no permission.
    await carol.put(`${theirs}/permissions`, { permissions: ['EXECUTE_GRAPH'] }).expect(200)
    await carol.patch(theirs, { name: 'Night' }).expect(200)
    await carol.post(`${theirs}/suspend`).expect(200)
    await carol.delete(theirs).expect(200)
    await carol.put(`${mine}/permissions`, { permissions: ['READ_BLOCK'] }).expect(200)
    await carol.post(`${mine}/rotate`).expect(200)
    const { body } = await carol.get(`${mount}/permissions`)
    expect(body.permissions.map(({ name }: { name: string }) => name)).toEqual([
      'READ_GRAPH',
      'READ_BLOCK',
    ])
  })

  it('lets a member let no key that may do more work again, longer, from elsewhere or for more', async () => {
    access.set('carol', { id: 7, permissions: ['READ_GRAPH'] })
    const carol = http.as('carol')
    const { apiKey } = await createKey({ permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'] })
    const { apiKey: own } = await createKey()
    const path = `${mount}/${apiKey.id}`
    const bounds = {
      expiresAt: new Date(Date.now() + 60_000).toISOString(),
      allowedIps: ['192.0.2.1'],
      resources: { graph: ['1'] },
    }
    await apiKeys.update(apiKey.id, bounds)
    await apiKeys.suspend(apiKey.id)
    const before = await apiKeys.get(apiKey.id)

    expectProblem(await carol.post(`${path}/reactivate`), 'exceeds_access')
    for (const change of [
      { expiresAt: null },
      { allowedIps: null },
      { allowedIps: ['192.0.2.1', '192.0.2.2'] },
      { resources: null },
      { resources: { graph: ['1', '2'] } },
    ]) {
      expectProblem(await carol.patch(path, change), 'exceeds_access')
    }
    expect(await apiKeys.get(apiKey.id)).toEqual(before)

    // A form sends what it shows.
    await carol.patch(path, { ...bounds, name: 'Night' }).expect(200)
    await carol.patch(`${mount}/${own.id}`, bounds).expect(200)
    await carol.post(`${mount}/${own.id}/suspend`).expect(200)
    await carol.post(`${mount}/${own.id}/reactivate`).expect(200)
    await carol.put(`${path}/permissions`, { permissions: ['READ_GRAPH'] }).expect(200)
    await carol.post(`${path}/reactivate`).expect(200)
  })

  it('lets a member with limits not rotate a key with a permission that only other processes know', async () => {
    access.set('carol', { id: 7, permissions: [...permissions] })
    const { apiKey } = await createKey()
    await database
      .connect()
      .query(`UPDATE api_keys SET permissions = '{READ_GRAPH,NEW}' WHERE id = '${apiKey.id}'`)

    expectProblem(await http.as('carol').post(`${mount}/${apiKey.id}/rotate`), 'exceeds_access')
    await http.as('alice').post(`${mount}/${apiKey.id}/rotate`).expect(200)
  })

  it('holds members to the permissions and the number of keys of the organization', async () => {
    granted.set('organization 7', ['READ_BLOCK'])

    const answer = await http.as('alice').post(mount, { name: 'A', permissions: ['READ_GRAPH'] })

    expectFaults(answer, { '#/permissions/0': 'may not be granted by this organization' })
  })

  it('keeps a key of the organization whatever becomes of its maker', async () => {
    granted.set('user alice', [])
    const { body } = await http.as('alice').post(mount, { name: 'A', permissions: ['READ_GRAPH'] })
    access.delete('alice')

    const verdict = await apiKeys.verify(body.plainTextKey)

    expect(verdict).toMatchObject({ valid: true, apiKey: { permissions: ['READ_GRAPH'] } })
    expectProblem(await http.as('alice').get(mount), 'organization_not_found')
  })

  it('refuses a key for an organization that is deleted meanwhile', async () => {
    access.set('carol', 999)

    const answer = await http.as('carol').post(mount, { name: 'A', permissions: ['READ_GRAPH'] })

    expectFaults(answer, { '#/owner': 'is not an organization' })
  })

  it('needs the option organizations, a function, and no other option', () => {
    const without = createApiKeys({ sequelize: database.connect(), keyPrefix: 'agpt', permissions })

    expect(() => without.router({ organization: () => 7 })).toThrow(
      'router: organization needs the option organizations of createApiKeys',
    )
    expect(() => apiKeys.router({ organization: 7 as never })).toThrow(
      'router: organization must be a function, got 7',
    )
    expect(() => apiKeys.router(7 as never)).toThrow('router: the options must be an object, got 7')
    expect(() => apiKeys.router({ organisation: () => 7 } as never)).toThrow(/organization/)
  })
})

describe('an id that no organization can have', () => {
  const id = randomUUID()
  let own: Database

  beforeAll(async () => {
    own = await createDatabase('empty')
    await own.connect().query(`
      CREATE TABLE users (id text PRIMARY KEY); INSERT INTO users VALUES ('alice');
      CREATE TABLE organizations (id uuid PRIMARY KEY); INSERT INTO organizations VALUES ('${id}')`)
  })

  afterAll(() => own.drop())

  it.each([true, false])(
    'is the 404 of no access, to the byte, if the app hands it on from the path (type declared: %s)',
    async (isDeclared) => {
      const keys = createApiKeys({
        sequelize: own.connect(),
        keyPrefix: 'agpt',
        permissions,
        users: { table: 'users' },
        organizations: { table: 'organizations', ...(isDeclared && { type: 'uuid' as const }) },
        currentUser: () => ({ id: 'alice' }),
        isAdmin: () => false,
      })
      own.closeFirst(keys)
      await keys.migrate()
      const handOn = keys.router({
        organization: ({ params }) => (params.id === 'none' ? null : params.id),
      })
      const caller = createHttp(() =>
        createTestApp(keys, (app) => app.use('/organizations/:id/api-keys', handOn)),
      )
      const answerOf = async (organizationId: string, method: Method, path: string) => {
        const body = { name: 'CI', permissions: ['READ_GRAPH'] }
        const to = `/organizations/${encodeURIComponent(organizationId)}/api-keys${path}`
        const answer = await caller[method](to, path === '' && method === 'post' ? body : undefined)
        const { date, ...headers } = answer.headers
        expect(date).toBeDefined()
        return { status: answer.status, headers, text: answer.text }
      }
      expect((await answerOf(id, 'post', '')).status).toBe(201)

      const key = `/${randomUUID()}`
      for (const [method, path] of [
        ['get', ''],
        ['post', ''],
        ['get', key],
        ['get', `${key}/events`],
        ['get', `${key}/usage`],
        ['post', `${key}/rotate`],
        ['delete', key],
      ] as const) {
        const none = await answerOf('none', method, path)
        expect(none.text).toContain('"organization_not_found"')
        for (const malformed of ['acme', '7', `${id}0`, `${id}'--`, '\0', 'a'.repeat(2000)]) {
          expect(await answerOf(malformed, method, path)).toEqual(none)
        }
      }
    },
  )
})

describe('by function', () => {
  it('holds a caller to the permissions that the caller may give', async () => {
    const { apiKey } = await createKey({ permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'] })
    const mayGive = ['READ_GRAPH']
    const newKey = { owner: organization, name: 'A', permissions: ['EXECUTE_GRAPH'] } as const

    await expect(apiKeys.create(newKey, { mayGive })).rejects.toMatchObject({
      errors: [{ pointer: '#/permissions/0', message: 'may not be granted by you' }],
    })
    await expect(apiKeys.rotate(apiKey.id, { mayGive })).rejects.toMatchObject({
      code: 'exceeds_access',
    })
    await expect(apiKeys.rotate(apiKey.id, { mayGive: 'READ_GRAPH' as never })).rejects.toThrow(
      new TypeError('mayGive must be a list of permissions'),
    )
  })

  it('names owners of each kind, and tells organization 7 from user 7', async () => {
    const service = { type: 'service', id: 'importer' } as const
    const user: UserOwner<string> = { type: 'user', id: '7' }
    const made = await Promise.all(
      [organization, user, service].map((owner) =>
        apiKeys.create({ owner, name: `Of ${owner.type}`, permissions: ['READ_GRAPH'] }),
      ),
    )

    for (const [index, owner] of [organization, user, service].entries()) {
      const { apiKey } = made[index] ?? {}
      expect(apiKey?.owner).toEqual(owner)
      const listed = await apiKeys.list({ owner })
      expect(listed.apiKeys.map(({ id }) => id)).toContain(apiKey?.id)
      for (const { owner: of } of listed.apiKeys) expect(of).toEqual(owner)
      const { events } = await apiKeys.events({ owner, limit: 1 })
      expect(events).toMatchObject([{ owner, apiKeyId: apiKey?.id }])
    }
    expect(await apiKeys.countRevocable(service)).toEqual({
      keys: (await apiKeys.list({ owner: service, status: 'ACTIVE' })).apiKeys.length,
    })
    await apiKeys.revokeAll(service)
    expect(await apiKeys.countRevocable(service)).toEqual({ keys: 0 })
    expect((await apiKeys.get(made[0]?.apiKey.id ?? '')).status).toBe('ACTIVE')
    expect((await apiKeys.get(made[1]?.apiKey.id ?? '')).status).toBe('ACTIVE')
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, faults: [] })
  })

  it('counts the keys of each kind of owner by its own maximum', async () => {
    const wish = { name: 'A', permissions: ['READ_GRAPH'] } as const

    for (let keys = 0; keys < 3; keys++) await apiKeys.create({ ...wish, userId: 'bob' })
    for (let keys = 0; keys < 4; keys++) await apiKeys.create({ ...wish, owner: organization })

    await expect(apiKeys.create({ ...wish, userId: 'bob' })).rejects.toMatchObject({
      code: 'too_many_api_keys',
    })
  })

  it('deletes the keys of a deleted organization, and refuses an unknown one', async () => {
    const owner = { type: 'organization', id: 8 } as const
    const { apiKey } = await apiKeys.create({ owner, name: 'A', permissions: ['READ_GRAPH'] })

    await database.connect().query('DELETE FROM organizations WHERE id = 8')

    await expect(apiKeys.get(apiKey.id)).rejects.toMatchObject({ code: 'api_key_not_found' })
    await expect(
      apiKeys.create({ owner, name: 'A', permissions: ['READ_GRAPH'] }),
    ).rejects.toMatchObject({
      errors: [{ pointer: '#/owner', message: 'is not an organization' }],
    })
    expect((await apiKeys.events({ owner })).events[0]).toMatchObject({ action: 'deleted', owner })
  })

  it('refuses two owners, and an owner that is undefined', async () => {
    const filter = { owner: organization, userId: 'alice' }

    await expect(apiKeys.list(filter)).rejects.toMatchObject({
      errors: [{ pointer: '#/userId', message: 'must not be given beside owner' }],
    })
    await expect(apiKeys.list({ owner: undefined } as never)).rejects.toThrow(
      new TypeError('owner is undefined: leave it out to mean all of them'),
    )
    await expect(apiKeys.get(randomUUID(), { owner: undefined } as never)).rejects.toThrow(
      TypeError,
    )
  })
})
