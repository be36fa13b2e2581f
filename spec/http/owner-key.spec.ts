import { postKey } from '../support/keys'
import { expectFaults, expectProblem } from '../support/problem'
import { useWorld } from '../support/world'

const { http, rows } = useWorld({
  options: {
    header: 'X-API-Key',
    grantable: ({ id: userId }) =>
      userId === 'intern' ? ['READ_GRAPH'] : ['READ_GRAPH', 'EXECUTE_GRAPH', 'READ_BLOCK'],
  },
})

const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

describe('GET /:id', () => {
  it('shows one key', async () => {
    const apiKey = await postKey(http.as('alice'))

    const answer = await http.as('alice').get(`/api-keys/${apiKey.id}`)

    expect(answer.status).toBe(200)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.body).toEqual(apiKey)
  })

  it('finds it by its id in any case', async () => {
    const apiKey = await postKey(http.as('alice'))

    const answer = await http.as('alice').get(`/api-keys/${apiKey.id.toUpperCase()}`)

    expect(answer.body).toEqual(apiKey)
  })
})

describe('PATCH /:id', () => {
  it('changes only the named fields', async () => {
    const apiKey = await postKey(http.as('alice'), { description: 'nightly' })

    const answer = await http
      .as('alice')
      .patch(`/api-keys/${apiKey.id}`, { name: ' Deploy ', expiresAt: '2099-01-01T00:00:00Z' })

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

  it('removes description and expiry with null', async () => {
    const apiKey = await postKey(http.as('alice'), {
      description: 'nightly',
      expiresAt: '2099-01-01T00:00:00Z',
    })

    const answer = await http
      .as('alice')
      .patch(`/api-keys/${apiKey.id}`, { description: null, expiresAt: null })

    expect(answer.body).toMatchObject({ description: null, expiresAt: null })
  })

  it('changes nothing if no field is named', async () => {
    const apiKey = await postKey(http.as('alice'))

    const answer = await http.as('alice').patch(`/api-keys/${apiKey.id}`, {})

    expect(answer.status).toBe(200)
    expect(answer.body).toEqual(apiKey)
  })

  it('reports every fault at once, also fields that other routes change', async () => {
    const apiKey = await postKey(http.as('alice'))

    const answer = await http.as('alice').patch(`/api-keys/${apiKey.id}`, {
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
    expect((await http.as('alice').get(`/api-keys/${apiKey.id}`)).body).toEqual(apiKey)
  })
})

describe('PUT /:id/permissions', () => {
  it('replaces the set', async () => {
    const apiKey = await postKey(http.as('alice'), { permissions: ['READ_GRAPH', 'READ_BLOCK'] })

    const answer = await http
      .as('alice')
      .put(`/api-keys/${apiKey.id}/permissions`, { permissions: ['EXECUTE_GRAPH'] })

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
    const apiKey = await postKey(http.as('alice'))

    const answer = await http.as('alice').put(`/api-keys/${apiKey.id}/permissions`, input as object)

    expectFaults(answer, { [pointer]: message })
  })
})

describe('the states of a key', () => {
  it('are changed by POST /:id/suspend, POST /:id/reactivate and DELETE /:id', async () => {
    const { id } = await postKey(http.as('alice'))
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
      const answer = await http.as('alice')[method](`/api-keys/${id}${action}`)

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
    const { id } = await postKey(http.as('alice'))
    await http.as('alice').delete(`/api-keys/${id}`).expect(200)

    const answer = await http.as('alice')[method](`/api-keys/${id}${action}`).send(input)

    expectProblem(answer, 'api_key_revoked')
  })

  it('are explained by a reason', async () => {
    const { id } = await postKey(http.as('alice'))

    await http.as('alice').post(`/api-keys/${id}/suspend`, { reason: ' Lost the laptop. ' })
    await http.as('alice').post(`/api-keys/${id}/reactivate`, { reason: 'Found it.' })
    await http.as('alice').delete(`/api-keys/${id}`, { reason: 'Lost it again.' })

    const { body } = await http.as('alice').get(`/api-keys/${id}/events`)
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
  ])('cannot be explained by %j', async (input, pointer, message) => {
    const { id } = await postKey(http.as('alice'))

    for (const send of [
      http.as('alice').post(`/api-keys/${id}/suspend`),
      http.as('alice').post(`/api-keys/${id}/reactivate`),
      http.as('alice').delete(`/api-keys/${id}`),
    ]) {
      const answer = await send.send(input)

      expectFaults(answer, { [pointer]: message })
    }
    expect((await http.as('alice').get(`/api-keys/${id}`)).body.status).toBe('ACTIVE')
  })
})

describe('GET /:id/events', () => {
  it('shows an owner the actors, but no address of other users and no role of the database', async () => {
    const { id } = await postKey(http.as('alice'))
    await http.as('admin').post(`/admin/api-keys/${id}/suspend`).expect(200)
    await rows(`UPDATE api_keys SET name = 'By hand' WHERE id = '${id}'`)

    const { body } = await http.as('alice').get(`/api-keys/${id}/events`)
    const seen = await http.as('admin').get(`/admin/api-keys/${id}/events`)

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

  it('returns the events of a key page by page, newest first', async () => {
    const { id } = await postKey(http.as('alice'))
    await http.as('alice').patch(`/api-keys/${id}`, { name: 'Deploy' }).expect(200)
    await http.as('alice').delete(`/api-keys/${id}`).expect(200)

    const first = await http.as('alice').get(`/api-keys/${id}/events?limit=2`)
    const second = await http
      .as('alice')
      .get(`/api-keys/${id}/events`)
      .query({ limit: 2, cursor: first.body.nextCursor })

    expect(first.status).toBe(200)
    expect(first.headers['cache-control']).toBe('no-store')
    expect(first.body.events[0]).toEqual({
      id: expect.stringMatching(/^\d+$/),
      apiKeyId: id,
      owner: { type: 'user', id: 'alice' },
      formerOwner: null,
      action: 'revoked',
      actorType: 'user',
      actorId: 'alice',
      address: '127.0.0.1',
      reason: null,
      before: { status: 'ACTIVE' },
      after: { status: 'REVOKED' },
      isErased: false,
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
  ])('refuses an invalid filter: %s', async (query, name, message) => {
    const { id } = await postKey(http.as('alice'))

    const answer = await http.as('alice').get(`/api-keys/${id}/events?${query}`)

    expectFaults(answer, { [`#/${name}`]: message })
  })
})
