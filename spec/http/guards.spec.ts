import express, {
  type NextFunction,
  type Request,
  type RequestHandler,
  type Response,
} from 'express'

import { createEchoApp } from '../support/app'
import { bearer } from '../support/http'
import { expectProblem } from '../support/problem'
import { useWorld } from '../support/world'

const { apiKeys, http, createKey, createProcess } = useWorld()

/** A key of alice, which may read graphs and blocks. */
let plainTextKey: string
let id: string

beforeAll(async () => {
  const created = await createKey({
    permissions: ['READ_GRAPH', 'READ_BLOCK'],
    expiresAt: '2099-01-01T00:00:00Z',
  })
  plainTextKey = created.plainTextKey
  id = created.id
})

/** The callers of an app whose handler shows its request behind these middlewares. */
function createApp(...middlewares: RequestHandler[]) {
  return http.to(createEchoApp(...middlewares))
}

describe('requirePermission', () => {
  it('lets a key through that holds the permission', async () => {
    const app = createApp(apiKeys.requirePermission('READ_GRAPH'))

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.status).toBe(200)
    expect(answer.body).toEqual({
      apiKey: {
        id,
        owner: { type: 'user', id: 'alice' },
        userId: 'alice',
        name: 'Deployment',
        permissions: ['READ_GRAPH', 'READ_BLOCK'],
        expiresAt: '2099-01-01T00:00:00.000Z',
      },
      user: { id: 'alice' },
    })
  })

  it('lets a key through that holds all of several', async () => {
    const app = createApp(apiKeys.requirePermission(['READ_BLOCK', 'READ_GRAPH']))

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.status).toBe(200)
  })

  it('refuses a key that lacks one, and names the needed and the missing permissions', async () => {
    const app = createApp(
      apiKeys.requirePermission(['READ_GRAPH', 'EXECUTE_GRAPH', 'EXECUTE_BLOCK']),
    )

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.status).toBe(403)
    expect(answer.headers['www-authenticate']).toBe(
      'Bearer realm="api", error="insufficient_scope", scope="READ_GRAPH EXECUTE_GRAPH EXECUTE_BLOCK"',
    )
    expect(answer.body).toMatchObject({
      code: 'missing_permission',
      missing: ['EXECUTE_GRAPH', 'EXECUTE_BLOCK'],
    })
  })

  it('refuses a request without a key, even if a user is signed in', async () => {
    const app = createApp(apiKeys.requirePermission('READ_GRAPH'))

    const answer = await app.as('alice').get('/')

    expectProblem(answer, 'missing_credential')
  })

  it('refuses a foreign token as an invalid key', async () => {
    const app = createApp(apiKeys.requirePermission('READ_GRAPH'))

    const answer = await app.with('a.b.c').get('/')

    expectProblem(answer, 'invalid_api_key')
  })

  it('decides for each request by itself', async () => {
    const app = createApp(apiKeys.requirePermission('READ_GRAPH'))
    const created = await createKey()
    const send = async () => (await app.with(created.plainTextKey).get('/')).status

    const statuses = [await send()]
    await apiKeys.suspend(created.id)
    statuses.push(await send())
    await apiKeys.reactivate(created.id)
    statuses.push(await send())
    await apiKeys.setPermissions(created.id, ['READ_BLOCK'])
    statuses.push(await send())
    await apiKeys.revoke(created.id)
    statuses.push(await send())

    expect(statuses).toEqual([200, 401, 200, 403, 401])
  })
})

describe('requirePermission with any', () => {
  it('lets a key through that holds one of them', async () => {
    const app = createApp(apiKeys.requirePermission({ any: ['EXECUTE_GRAPH', 'READ_BLOCK'] }))

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.status).toBe(200)
  })

  it('lets a key through that holds all of one of the lists', async () => {
    const app = createApp(
      apiKeys.requirePermission({ any: ['EXECUTE_GRAPH', { all: ['READ_BLOCK', 'READ_GRAPH'] }] }),
    )

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.status).toBe(200)
  })

  it('refuses a key that holds none, with the first as the scope, and names all of them', async () => {
    const app = createApp(apiKeys.requirePermission({ any: ['EXECUTE_GRAPH', 'EXECUTE_BLOCK'] }))

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.status).toBe(403)
    expect(answer.headers['www-authenticate']).toBe(
      'Bearer realm="api", error="insufficient_scope", scope="EXECUTE_GRAPH"',
    )
    expect(answer.body).toMatchObject({
      code: 'missing_permission',
      missing: ['EXECUTE_GRAPH'],
      anyOf: [['EXECUTE_GRAPH'], ['EXECUTE_BLOCK']],
    })
  })

  it('names what the nearest of several lists demands, and what of it is missing', async () => {
    const app = createApp(
      apiKeys.requirePermission({
        any: [
          { all: ['EXECUTE_GRAPH', 'EXECUTE_BLOCK'] },
          { all: ['READ_GRAPH', 'READ_BLOCK', 'EXECUTE_BLOCK'] },
        ],
      }),
    )

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.status).toBe(403)
    expect(answer.headers['www-authenticate']).toBe(
      'Bearer realm="api", error="insufficient_scope", scope="READ_GRAPH READ_BLOCK EXECUTE_BLOCK"',
    )
    expect(answer.body).toMatchObject({
      missing: ['EXECUTE_BLOCK'],
      anyOf: [
        ['EXECUTE_GRAPH', 'EXECUTE_BLOCK'],
        ['READ_GRAPH', 'READ_BLOCK', 'EXECUTE_BLOCK'],
      ],
    })
  })

  it('lets signed-in users through as well, if orSignedIn is set', async () => {
    const app = createApp(
      apiKeys.requirePermission({ any: ['EXECUTE_GRAPH'] }, { orSignedIn: true }),
    )

    const signedIn = await app.as('alice').get('/')
    const withKey = await app.with(plainTextKey).get('/').set('X-User', 'alice')

    expect([signedIn.status, withKey.status]).toEqual([200, 403])
  })
})

describe('authenticate', () => {
  it('lets any valid key through', async () => {
    const app = createApp(apiKeys.authenticate())

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.status).toBe(200)
    expect(answer.body.apiKey.id).toBe(id)
  })

  it.each([
    ['no key', {}, 401, 'missing_credential'],
    ['a wrong key', bearer('agpt_x'), 401, 'invalid_api_key'],
    ['a JWT', bearer('a.b.c'), 401, 'invalid_api_key'],
    ['another scheme', { Authorization: 'Basic eA==' }, 401, 'missing_credential'],
    ['a malformed header', { Authorization: 'Bearer a b' }, 400, 'malformed_credential'],
  ])('refuses %s', async (_, headers, status, code) => {
    const answer = await createApp(apiKeys.authenticate()).get('/').set(headers)

    expect(answer.status).toBe(status)
    expect(answer.body.code).toBe(code)
  })

  it.each([
    ['nothing', 200, {}],
    ['a JWT', 200, bearer('a.b.c')],
    ['another scheme', 200, { Authorization: 'Basic eA==' }],
    ['a malformed header', 200, { Authorization: 'Bearer a b' }],
    ['a wrong key', 401, bearer('agpt_x')],
    ['a malformed header with a key', 400, { Authorization: 'Bearer agpt_a b' }],
  ])('answers %s, if optional, with %i', async (_, status, headers) => {
    const app = createApp(apiKeys.authenticate({ optional: true }))

    const answer = await app.get('/').set(headers)

    expect(answer.status).toBe(status)
    expect(answer.body).not.toHaveProperty('apiKey.id')
  })

  it('shows a valid key, if optional', async () => {
    const app = createApp(apiKeys.authenticate({ optional: true }))

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.body).toMatchObject({ apiKey: { id }, user: { id: 'alice' } })
  })
})

describe('a mistake in the making of a guard', () => {
  it.each<[string, () => unknown, string]>([
    [
      'a permission that the app does not have',
      () => apiKeys.requirePermission('READ_GRAPHS' as 'READ_GRAPH'),
      'requirePermission: "READ_GRAPHS" is not one of the app\'s permissions. Did you mean READ_GRAPH?',
    ],
    [
      'one among several',
      () => apiKeys.requirePermission(['READ_GRAPH', 'EXEC_BLOCK'] as 'READ_GRAPH'[]),
      'requirePermission: "EXEC_BLOCK" is not one of the app\'s permissions. Did you mean EXECUTE_BLOCK?',
    ],
    [
      'no permission',
      () => apiKeys.requirePermission([]),
      'requirePermission: needs at least one permission',
    ],
    [
      'nothing',
      () => apiKeys.requirePermission(undefined as unknown as 'READ_GRAPH'),
      "requirePermission: undefined is not one of the app's permissions.",
    ],
    [
      'none of any',
      () => apiKeys.requirePermission({ any: [] }),
      'requirePermission: needs at least one permission',
    ],
    [
      'any of what the app does not have',
      () => apiKeys.requirePermission({ any: ['read_graph' as 'READ_GRAPH'] }),
      'requirePermission: "read_graph" is not one of the app\'s permissions.',
    ],
    [
      'all of none among any',
      () => apiKeys.requirePermission({ any: ['READ_GRAPH', { all: [] }] }),
      'requirePermission: needs at least one permission',
    ],
    [
      'all beside any',
      () => apiKeys.requirePermission({ all: ['READ_GRAPH'] } as never),
      'requirePermission: takes a permission, a list of permissions, or { any: [...] }, got { all: [Array] }',
    ],
    [
      'any with another member',
      () => apiKeys.requirePermission({ any: ['READ_GRAPH'], cost: 2 } as never),
      'requirePermission: takes a permission, a list of permissions, or { any: [...] }, got { any: [Array], cost: 2 }',
    ],
    [
      'any of one text',
      () => apiKeys.requirePermission({ any: 'READ_GRAPH' } as never),
      "requirePermission: takes a permission, a list of permissions, or { any: [...] }, got { any: 'READ_GRAPH' }",
    ],
    [
      'a list among any',
      () => apiKeys.requirePermission({ any: [['READ_GRAPH', 'READ_BLOCK']] } as never),
      "requirePermission: any takes permissions, and lists of them as { all: [...] }, got [ 'READ_GRAPH', 'READ_BLOCK' ]",
    ],
    [
      'any within any',
      () => apiKeys.requirePermission({ any: [{ any: ['READ_GRAPH'] }] } as never),
      'requirePermission: any takes permissions, and lists of them as { all: [...] }, got { any: [Array] }',
    ],
    [
      'permissions side by side',
      () => apiKeys.requirePermission('READ_GRAPH', 'EXECUTE_GRAPH' as unknown as object),
      'requirePermission: the options must be an object. Name several permissions in a list.',
    ],
    [
      'an option that it does not have',
      () => apiKeys.requirePermission('READ_GRAPH', { optional: true } as object),
      'requirePermission: there is no option optional. It must be one of orSignedIn, cost, mcp, resource, environment.',
    ],
    [
      'a misspelt option',
      () => apiKeys.authenticate({ orSignedin: true } as object),
      'authenticate: there is no option orSignedin. Did you mean orSignedIn?',
    ],
    [
      'an option that is neither true nor false',
      () => apiKeys.authenticate({ optional: 'yes' } as object),
      'authenticate: optional must be true or false',
    ],
  ])('is a TypeError at once: %s', (_, make, message) => {
    expect(make).toThrow(TypeError)
    expect(make).toThrow(message)
  })

  it.each(['requirePermission', 'authenticate', 'maskKeys', 'router', 'adminRouter'] as const)(
    'is a TypeError on the first request if %s was not called',
    async (name) => {
      const app = createApp(apiKeys[name] as unknown as RequestHandler)

      const answer = await app.with(plainTextKey).get('/')

      expect(answer.status).toBe(500)
      expect(answer.body.app).toBe(
        `apiKeys.${name} is not a middleware, but returns one. Call it, with its arguments if it takes any: apiKeys.${name}()`,
      )
    },
  )
})

describe('Express', () => {
  it('takes guards in routers, sub-apps and routes, each for the routes below it', async () => {
    const routes = express.Router({ mergeParams: true })
    routes.use(apiKeys.requirePermission('READ_GRAPH'))
    routes.get('/', (req, res) => {
      res.json({ baseUrl: req.baseUrl, params: req.params })
    })
    routes.post('/', apiKeys.requirePermission('EXECUTE_GRAPH'), (_req, res) => {
      res.end()
    })
    const app = express()
    app.get('/open', (_req, res) => {
      res.end('open')
    })
    app.use('/v1', express().use('/graphs/:id', routes))

    const open = await http.to(app).get('/open')
    const get = await http.to(app).with(plainTextKey).get('/v1/graphs/7')
    const post = await http.to(app).with(plainTextKey).post('/v1/graphs/7')
    const none = await http.to(app).get('/v1/graphs/7')

    expect([open.status, get.status, post.status, none.status]).toEqual([200, 200, 403, 401])
    expect(get.body).toEqual({ baseUrl: '/v1/graphs/7', params: { id: '7' } })
  })

  it('shows guards by name in a stack of handlers', () => {
    expect([apiKeys.requirePermission('READ_GRAPH').name, apiKeys.authenticate().name]).toEqual([
      'requirePermissionGuard',
      'authenticateGuard',
    ])
  })

  it.each<[string, RequestHandler]>([
    [
      'throws',
      () => {
        throw new Error('mine')
      },
    ],
    ['passes on', (_req, _res, next) => next(new Error('mine'))],
  ])('hands the error that a handler %s to the app once, unchanged', async (_, handler) => {
    const failures: unknown[] = []
    const app = express()
    app.get('/', apiKeys.authenticate(), apiKeys.authenticate(), handler)
    app.use((error: Error, _req: Request, res: Response, next: NextFunction) => {
      if (failures.push(error) > 1) return next(error)
      res.status(500).json({ app: Object.entries(error), message: error.message })
    })

    const answer = await http.to(app).with(plainTextKey).get('/')

    expect(answer.status).toBe(500)
    expect(answer.body).toEqual({ app: [], message: 'mine' })
    expect(failures).toHaveLength(1)
  })

  it('passes the error of a reachable database on to the app', async () => {
    const keys = createProcess({ schema: 'unmigrated' }).apiKeys

    const answer = await createApp(keys.authenticate()).with(plainTextKey).get('/')

    expect(answer.status).toBe(500)
    expect(answer.body.app).toContain('migrate()')
  })
})
