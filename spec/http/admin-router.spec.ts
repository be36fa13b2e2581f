import { permissions } from '../support/app'
import { newUser } from '../support/keys'
import { expectFaults, expectProblem } from '../support/problem'
import { useWorld } from '../support/world'

const { apiKeys, http, createKey } = useWorld({
  documented: {},
  options: {
    header: 'X-API-Key',
    maxKeysPerOwner: 4,
    grantable: ({ id: userId }) =>
      userId === 'intern' ? ['READ_GRAPH'] : ['READ_GRAPH', 'READ_BLOCK'],
  },
})

/** Creates a key of a user without keys, unless a spec names the user. */
function makeKey(wishes: Parameters<typeof createKey>[0] = {}) {
  return createKey({ userId: newUser(), ...wishes })
}

function idsOf({ body }: { body: { apiKeys: { id: string }[] } }) {
  return body.apiKeys.map(({ id }) => id)
}

describe('POST /', () => {
  it('creates a key on behalf of a user', async () => {
    const userId = newUser()

    const answer = await http
      .as('admin')
      .post('/admin/api-keys', { userId, name: 'CI', permissions: ['READ_GRAPH'] })

    const { apiKey, plainTextKey } = answer.body
    expect(answer.status).toBe(201)
    expect(answer.headers.location).toBe(`./api-keys/${apiKey.id}`)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(apiKey).toMatchObject({ userId, name: 'CI', status: 'ACTIVE' })
    expect((await http.as(userId).get(`/api-keys/${apiKey.id}`)).body).toEqual(apiKey)
    expect(await apiKeys.verify(plainTextKey)).toMatchObject({ valid: true, apiKey: { userId } })
    expect((await apiKeys.events({ apiKeyId: apiKey.id })).events).toMatchObject([
      { action: 'created', owner: { id: userId }, actorType: 'admin', actorId: 'admin' },
    ])
  })

  it('holds to the permissions and the number of keys that the user may have', async () => {
    const userId = newUser()
    for (let index = 0; index < 4; index++) await makeKey({ userId })

    const ungrantable = await http
      .as('admin')
      .post('/admin/api-keys', { userId: 'intern', name: 'CI', permissions: ['READ_BLOCK'] })
    const tooMany = await http
      .as('admin')
      .post('/admin/api-keys', { userId, name: 'CI', permissions: ['READ_GRAPH'] })

    expectFaults(ungrantable, { '#/permissions/0': 'may not be granted by this user' })
    expectProblem(tooMany, 'too_many_api_keys')
  })

  it('reports every fault at once', async () => {
    const answer = await http
      .as('admin')
      .post('/admin/api-keys', { name: '', permissions: [], actor: 'alice', status: 'ACTIVE' })

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toEqual([
      { pointer: '#/name', message: 'must have 1 to 100 characters' },
      { pointer: '#/permissions', message: 'must name at least one permission' },
      { pointer: '#/owner', message: 'is required' },
      { pointer: '#/actor', message: 'is not known here' },
      { pointer: '#/status', message: 'is not known here' },
    ])
  })
})

describe('GET /', () => {
  it('lists the keys of everyone, newest first, a page at a time', async () => {
    const made = [await makeKey(), await makeKey(), await makeKey()]

    const first = await http.as('admin').get('/admin/api-keys?limit=2')
    const second = await http
      .as('admin')
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
        await http
          .as('admin')
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

  it('returns filtered pages', async () => {
    const userId = newUser()
    const older = await makeKey({ userId, name: 'Build one' })
    await makeKey({ userId, name: 'Deploy' })
    const newer = await makeKey({ userId, name: 'Build two' })
    const filter = { userId, text: 'build', limit: 1 }

    const first = await http.as('admin').get('/admin/api-keys').query(filter)
    const second = await http
      .as('admin')
      .get('/admin/api-keys')
      .query({ ...filter, cursor: first.body.nextCursor })

    expect(idsOf(first)).toEqual([newer.id])
    expect(idsOf(second)).toEqual([older.id])
    expect(second.body.nextCursor).toBeNull()
  })

  it.each([
    ['userId=a&userId=b', 'userId', 'must be a user id'],
    ['sort=name', 'sort', 'must be createdAt or -createdAt, unless an owner is given'],
    ['user=alice', 'user', 'is not known here (did you mean userId?)'],
    ['owner=alice', 'owner', 'must be an owner: { type, id }'],
  ])('refuses an invalid filter: %s', async (query, name, message) => {
    const answer = await http.as('admin').get(`/admin/api-keys?${query}`)

    expectFaults(answer, { [`#/${name}`]: message })
  })
})

describe('GET /permissions', () => {
  it('lists all permissions, or with userId the permissions that the user may give to a key', async () => {
    const all = await http.as('admin').get('/admin/api-keys/permissions?_=1')
    const ofIntern = await http.as('admin').get('/admin/api-keys/permissions?userId=intern')

    expect(all.status).toBe(200)
    expect(all.body.permissions[0]).toEqual({ name: 'READ_GRAPH', description: null, implies: [] })
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
      await http.as('admin').get(path),
      await http.as('admin').patch(path, { name: 'Deploy' }),
      await http.as('admin').put(`${path}/permissions`, { permissions: ['READ_BLOCK'] }),
      await http.as('admin').post(`${path}/suspend`, { reason: 'Looks odd.' }),
      await http.as('admin').post(`${path}/reactivate`),
      await http.as('admin').delete(path, { reason: 'Odd indeed.' }),
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
    const { body } = await http.as('admin').get(`${path}/events`)
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
        owner: { type: 'user', id: userId },
        actorType: 'admin',
        actorId: 'admin',
      })),
    )
  })

  it('hold a key to the permissions that its owner may give', async () => {
    const { id } = await makeKey({ userId: 'intern' })

    const answer = await http
      .as('admin')
      .put(`/admin/api-keys/${id}/permissions`, { permissions: ['READ_GRAPH', 'READ_BLOCK'] })

    expectFaults(answer, { '#/permissions/1': 'may not be granted by this user' })
  })

  it('end with the revocation', async () => {
    const { id } = await makeKey({ status: 'REVOKED' })

    const answer = await http.as('admin').post(`/admin/api-keys/${id}/reactivate`)

    expectProblem(answer, 'api_key_revoked')
  })
})

describe('POST /revoke-all', () => {
  it('revokes every key of a user and returns their number', async () => {
    const userId = newUser()
    const active = await makeKey({ userId })
    await makeKey({ userId, status: 'SUSPENDED' })
    await makeKey({ userId, status: 'REVOKED' })
    const other = await makeKey()

    const answer = await http
      .as('admin')
      .post('/admin/api-keys/revoke-all', { userId, reason: 'Left the company.' })
    const again = await http.as('admin').post('/admin/api-keys/revoke-all', { userId })

    expect(answer.status).toBe(200)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.body).toEqual({ revoked: 2 })
    expect(again.body).toEqual({ revoked: 0 })
    expect(
      idsOf(await http.as('admin').get('/admin/api-keys').query({ userId, status: 'REVOKED' })),
    ).toHaveLength(3)
    expect((await apiKeys.get(other.id)).status).toBe('ACTIVE')
    expect((await apiKeys.events({ apiKeyId: active.id, limit: 1 })).events).toMatchObject([
      { action: 'revoked', reason: 'Left the company.', actorType: 'admin', actorId: 'admin' },
    ])
  })

  it.each([
    [{}, '#/owner', 'is required'],
    [{ userId: 'alice', status: 'ACTIVE' }, '#/status', 'is not known here'],
  ])('refuses %j', async (input, pointer, message) => {
    const answer = await http.as('admin').post('/admin/api-keys/revoke-all', input)

    expectFaults(answer, { [pointer]: message })
  })
})

describe('GET /events', () => {
  it('returns the events of all keys page by page, newest first', async () => {
    const first = await makeKey()
    const second = await makeKey()
    await apiKeys.revoke(first.id)

    const newest = await http.as('admin').get('/admin/api-keys/events?limit=1')
    const others = await http
      .as('admin')
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
  ])('refuses an invalid filter: %s', async (query, name, message) => {
    const answer = await http.as('admin').get(`/admin/api-keys/events?${query}`)

    expectFaults(answer, { [`#/${name}`]: message })
  })
})

async function listEvents(filter: object) {
  const { body } = await http.as('admin').get('/admin/api-keys/events').query(filter).expect(200)
  return body.events.map(({ apiKeyId, action }: Record<string, string>) => [apiKeyId, action])
}

describe('GET /audit-head and POST /audit-verification', () => {
  it('return the end of the audit trail, and if the trail still leads to it', async () => {
    await makeKey()
    const head = await http.as('admin').get('/admin/api-keys/audit-head')
    const { id } = await makeKey()

    const wrong = await http.as('admin').post('/admin/api-keys/audit-verification', { head: 7 })
    const alone = await http.as('admin').post('/admin/api-keys/audit-verification')
    const anchored = await http
      .as('admin')
      .post('/admin/api-keys/audit-verification', { head: head.body })

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
    const { body } = await http.as('admin').get('/admin/api-keys/audit-head')

    const answer = await http
      .as('admin')
      .post('/admin/api-keys/audit-verification', { head: { ...body, ...change } })

    expect(answer.status).toBe(422)
    expect(answer.body.errors).toMatchObject([{ pointer }])
  })
})
