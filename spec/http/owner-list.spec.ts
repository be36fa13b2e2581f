import { permissions } from '../support/app'
import { newUser, postKey } from '../support/keys'
import { expectFaults, expectProblem } from '../support/problem'
import { useWorld } from '../support/world'

const { http, createProcess } = useWorld({
  options: {
    header: 'X-API-Key',
    grantable: ({ id: userId }) =>
      userId === 'intern' ? ['READ_GRAPH'] : ['READ_GRAPH', 'EXECUTE_GRAPH', 'READ_BLOCK'],
  },
})

describe('GET /', () => {
  it('lists the user’s own keys of every status, newest first', async () => {
    const user = newUser()
    const first = await postKey(http.as(user), { name: 'first' })
    const second = await postKey(http.as(user), { name: 'second' })
    const third = await postKey(http.as(user), { name: 'third' })
    await postKey(http.as(newUser()), { name: 'somebody else’s' })
    await http.as(user).delete(`/api-keys/${first.id}`).expect(200)
    await http.as(user).post(`/api-keys/${second.id}/suspend`).expect(200)

    const answer = await http.as(user).get('/api-keys')

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

  it('returns an empty list to a user without keys', async () => {
    const answer = await http.as(newUser()).get('/api-keys')

    expect(answer.body).toEqual({ apiKeys: [], nextCursor: null })
  })

  it.each(['ACTIVE', 'SUSPENDED', 'REVOKED'])('filters by status: %s', async (status) => {
    const user = newUser()
    await postKey(http.as(user))
    const suspended = await postKey(http.as(user))
    const revoked = await postKey(http.as(user))
    await http.as(user).post(`/api-keys/${suspended.id}/suspend`).expect(200)
    await http.as(user).delete(`/api-keys/${revoked.id}`).expect(200)

    const answer = await http.as(user).get('/api-keys').query({ status })

    expect(answer.body.apiKeys).toHaveLength(1)
    expect(answer.body.apiKeys[0].status).toBe(status)
  })

  it('filters by several statuses and by expiry, and sorts', async () => {
    const user = newUser()
    const names = async (query: string) => {
      const { body } = await http.as(user).get(`/api-keys?${query}`).expect(200)
      return body.apiKeys.map(({ name }: { name: string }) => name)
    }
    await postKey(http.as(user), { name: 'b' })
    const { id: suspended } = await postKey(http.as(user), { name: 'c' })
    await http.as(user).post(`/api-keys/${suspended}/suspend`).expect(200)
    const { id: revoked } = await postKey(http.as(user), { name: 'a' })
    await http.as(user).delete(`/api-keys/${revoked}`).expect(200)

    expect(await names('status=SUSPENDED,REVOKED')).toEqual(['a', 'c'])
    expect(await names('status=SUSPENDED&status=ACTIVE')).toEqual(['c', 'b'])
    expect(await names('isExpired=true')).toEqual([])
    expect(await names('isExpired=false&status=ACTIVE')).toEqual(['b'])
    expect(await names('sort=name')).toEqual(['a', 'b', 'c'])
    expect(await names('sort=createdAt')).toEqual(['b', 'c', 'a'])
  })

  it('returns pages that neither repeat nor skip a key while keys are created', async () => {
    const user = newUser()
    const made: string[] = []
    for (let index = 0; index < 7; index++) made.unshift((await postKey(http.as(user))).id)

    const seen: string[] = []
    let cursor: string | undefined
    do {
      const { body } = await http.as(user).get('/api-keys').query({ limit: 2, cursor }).expect(200)
      seen.push(...body.apiKeys.map(({ id }: { id: string }) => id))
      cursor = body.nextCursor ?? undefined
      await postKey(http.as(user))
    } while (cursor)

    expect(seen).toEqual(made)
  })

  it('has 20 keys on a page, up to 100 if asked', async () => {
    const user = newUser()
    await Promise.all(Array.from({ length: 21 }, () => postKey(http.as(user))))

    const usual = await http.as(user).get('/api-keys')
    const large = await http.as(user).get('/api-keys?limit=100')

    expect(usual.body.apiKeys).toHaveLength(20)
    expect(usual.body.nextCursor).toMatch(/^[\w-]+$/)
    expect(large.body.apiKeys).toHaveLength(21)
    expect(large.body.nextCursor).toBeNull()
  })

  it('shows only the user’s own keys for a cursor of another user', async () => {
    const [user, other] = [newUser(), newUser()]
    const own = await postKey(http.as(other))
    await postKey(http.as(user))
    await postKey(http.as(user))
    const { body } = await http.as(user).get('/api-keys?limit=1')

    const answer = await http.as(other).get('/api-keys').query({ cursor: body.nextCursor })

    expect(answer.body).toEqual({ apiKeys: [own], nextCursor: null })
  })

  const limits = 'must be a whole number from 1 to 100'
  const cursors = 'must be the nextCursor of a page before'

  it.each([
    ['limit=0', 'limit', limits],
    ['limit=1&limit=2', 'limit', limits],
    ['cursor=', 'cursor', cursors],
    ['userId=bob', 'userId', 'is not known here'],
    ['state=ACTIVE', 'state', 'is not known here (did you mean status?)'],
  ])('refuses an invalid filter: %s', async (query, name, message) => {
    const answer = await http.as('alice').get(`/api-keys?${query}`)

    expectFaults(answer, { [`#/${name}`]: message })
  })
})

describe('GET /permissions', () => {
  it('lists the permissions that the user may give to a key, with descriptions', async () => {
    const described = createProcess({
      permissions: {
        READ_GRAPH: 'Read graphs',
        EXECUTE_GRAPH: '',
        READ_BLOCK: 'Read blocks',
        EXECUTE_BLOCK: 'Execute blocks',
      },
      grantable: () => ['READ_BLOCK', 'toString', 'READ_GRAPH', 'READ_BLOCK'] as never,
    })

    const answer = await described.http.as('alice').get('/api-keys/permissions')

    expect(answer.status).toBe(200)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.body).toEqual({
      permissions: [
        { name: 'READ_GRAPH', description: 'Read graphs', implies: [] },
        { name: 'READ_BLOCK', description: 'Read blocks', implies: [] },
      ],
    })
    expect((await http.as('intern').get('/api-keys/permissions')).body).toEqual({
      permissions: [{ name: 'READ_GRAPH', description: null, implies: [] }],
    })
  })

  it('lists all permissions without grantable', async () => {
    const app = createProcess().app

    const { body } = await http.to(app).as('alice').get('/api-keys/permissions')

    expect(body).toEqual({
      permissions: permissions.map((name) => ({ name, description: null, implies: [] })),
    })
  })

  it('is refused with 503 if grantable fails', async () => {
    const failing = createProcess({
      grantable: () => Promise.reject(new Error('no roles today')),
    })

    const answer = await failing.http.as('alice').get('/api-keys/permissions')

    expectProblem(answer, 'grantable_unavailable')
  })

  it('refuses unknown parameters', async () => {
    const answer = await http.as('alice').get('/api-keys/permissions?userId=bob')

    expectFaults(answer, { '#/userId': 'is not known here' })
  })
})

describe('a query', () => {
  it.each(['_=1753', 'utm_source=mail&utm_campaign=expiry'])(
    'may have parameters that caches and links add: ?%s',
    async (query) => {
      const { id } = await postKey(http.as('alice'))

      for (const path of ['', '/permissions', `/${id}/events`, `/${id}/usage`]) {
        expect((await http.as('alice').get(`/api-keys${path}?${query}`)).status).toBe(200)
      }
      expect((await http.as('alice').post(`/api-keys/${id}/suspend?${query}`)).status).toBe(200)
    },
  )

  it.each(['staus=REVOKED', '__=1', 'utm=1'])(
    'is refused with an unknown parameter, for example a mistyped filter: ?%s',
    async (query) => {
      const answer = await http.as('alice').get(`/api-keys?${query}`)

      expect(answer.status).toBe(422)
    },
  )
})
