import { readFile } from 'node:fs/promises'

import express, {
  type NextFunction,
  type Request,
  type RequestHandler,
  type Response,
} from 'express'
import request from 'supertest'

import { createApiKeys } from '../../lib'
import { countVerifications, createTestApiKeys, type TestApiKeys, type User } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'

let database: Database
let apiKeys: TestApiKeys
/** Of alice's, which may read graphs and blocks. */
let plainTextKey: string
let id: string

beforeAll(async () => {
  database = await createDatabase()
  apiKeys = createTestApiKeys(database)
  const permissions = ['READ_GRAPH', 'READ_BLOCK'] as const
  const created = await apiKeys.create(newKey({ permissions, expiresAt: '2099-01-01T00:00:00Z' }))
  plainTextKey = created.plainTextKey
  id = created.apiKey.id
})

afterAll(() => database.drop())

const bearer = (key: string) => ({ Authorization: `Bearer ${key}` })

/** An app that shows what a handler sees behind its middlewares, and what reaches its error handler. */
function createApp(...middlewares: RequestHandler[]) {
  const app = express()
  app.use(...middlewares)
  app.use((req, res) => {
    res.json({ apiKey: req.apiKey ?? null, user: req.user ?? null })
  })
  app.use((error: Error, _req: Request, res: Response, next: NextFunction) => {
    if (res.headersSent) return next(error)
    res.status(500).json({ app: error.message })
  })
  return app
}

describe('requirePermission', () => {
  it('lets a key through that holds the permission', async () => {
    const app = createApp(apiKeys.requirePermission('READ_GRAPH'))

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(200)
    expect(answer.body).toEqual({
      apiKey: {
        id,
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

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(200)
  })

  it('refuses a key that lacks one, and names what the route needs and what is missing', async () => {
    const app = createApp(
      apiKeys.requirePermission(['READ_GRAPH', 'EXECUTE_GRAPH', 'EXECUTE_BLOCK']),
    )

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(403)
    expect(answer.headers['www-authenticate']).toBe(
      'Bearer realm="api", error="insufficient_scope", scope="READ_GRAPH EXECUTE_GRAPH EXECUTE_BLOCK"',
    )
    expect(answer.body).toMatchObject({
      code: 'missing_permission',
      missing: ['EXECUTE_GRAPH', 'EXECUTE_BLOCK'],
    })
  })

  it('refuses a request without a key, whoever is signed in', async () => {
    const app = createApp(apiKeys.requirePermission('READ_GRAPH'))

    const answer = await request(app).get('/').set('X-User', 'alice')

    expect(answer.status).toBe(401)
    expect(answer.body.code).toBe('missing_credential')
  })

  it('refuses a token of somebody else, as no key of ours', async () => {
    const app = createApp(apiKeys.requirePermission('READ_GRAPH'))

    const answer = await request(app).get('/').set(bearer('a.b.c'))

    expect(answer.status).toBe(401)
    expect(answer.headers['www-authenticate']).toBe('Bearer realm="api", error="invalid_token"')
    expect(answer.body.code).toBe('invalid_api_key')
  })

  it('decides anew for each request', async () => {
    const app = createApp(apiKeys.requirePermission('READ_GRAPH'))
    const created = await apiKeys.create(newKey())
    const send = async () => (await request(app).get('/').set(bearer(created.plainTextKey))).status

    const statuses = [await send()]
    await apiKeys.suspend(created.apiKey.id)
    statuses.push(await send())
    await apiKeys.reactivate(created.apiKey.id)
    statuses.push(await send())
    await apiKeys.setPermissions(created.apiKey.id, ['READ_BLOCK'])
    statuses.push(await send())
    await apiKeys.revoke(created.apiKey.id)
    statuses.push(await send())

    expect(statuses).toEqual([200, 401, 200, 403, 401])
  })
})

describe('requireAnyPermission', () => {
  it('lets a key through that holds one of them', async () => {
    const app = createApp(apiKeys.requireAnyPermission(['EXECUTE_GRAPH', 'READ_BLOCK']))

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(200)
  })

  it('refuses a key that holds none, and names all of them', async () => {
    const app = createApp(apiKeys.requireAnyPermission(['EXECUTE_GRAPH', 'EXECUTE_BLOCK']))

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(403)
    expect(answer.headers['www-authenticate']).toBe(
      'Bearer realm="api", error="insufficient_scope", scope="EXECUTE_GRAPH EXECUTE_BLOCK"',
    )
    expect(answer.body.missing).toEqual(['EXECUTE_GRAPH', 'EXECUTE_BLOCK'])
  })

  it('takes the app’s pages in as well, if asked', async () => {
    const app = createApp(apiKeys.requireAnyPermission(['EXECUTE_GRAPH'], { orSignedIn: true }))

    const signedIn = await request(app).get('/').set('X-User', 'alice')
    const withKey = await request(app).get('/').set(bearer(plainTextKey)).set('X-User', 'alice')

    expect([signedIn.status, withKey.status]).toEqual([200, 403])
  })
})

describe('authenticate', () => {
  it('lets any good key through', async () => {
    const app = createApp(apiKeys.authenticate())

    const answer = await request(app).get('/').set(bearer(plainTextKey))

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
    const answer = await request(createApp(apiKeys.authenticate())).get('/').set(headers)

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

    const answer = await request(app).get('/').set(headers)

    expect(answer.status).toBe(status)
    expect(answer.body).not.toHaveProperty('apiKey.id')
  })

  it('shows a good key, if optional', async () => {
    const app = createApp(apiKeys.authenticate({ optional: true }))

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.body).toMatchObject({ apiKey: { id }, user: { id: 'alice' } })
  })
})

describe('orSignedIn', () => {
  const alice = { 'X-User': 'alice' }

  it.each([
    ['nothing', () => ({}), 401, 'missing_credential'],
    ['nothing, signed in', () => alice, 200, undefined],
    ['a good key', () => bearer(plainTextKey), 200, undefined],
    ['a good key, signed in', () => ({ ...bearer(plainTextKey), ...alice }), 200, undefined],
    ['a wrong key', () => bearer('agpt_x'), 401, 'invalid_api_key'],
    ['a wrong key, signed in', () => ({ ...bearer('agpt_x'), ...alice }), 401, 'invalid_api_key'],
    [
      'half a key, signed in',
      () => ({ ...bearer('agpt_x y'), ...alice }),
      400,
      'malformed_credential',
    ],
    ['a JWT', () => bearer('a.b.c'), 401, 'invalid_api_key'],
    ['a JWT, signed in', () => ({ ...bearer('a.b.c'), ...alice }), 200, undefined],
    ['Basic, signed in', () => ({ Authorization: 'Basic eA==', ...alice }), 200, undefined],
  ])('answers a request with %s', async (_, headers, status, code) => {
    const app = createApp(apiKeys.requirePermission('READ_GRAPH', { orSignedIn: true }))

    const answer = await request(app).get('/').set(headers())

    expect(answer.status).toBe(status)
    expect(answer.body.code).toBe(code)
  })

  it('holds a key to its permissions, whoever is signed in', async () => {
    const app = createApp(apiKeys.requirePermission('EXECUTE_GRAPH', { orSignedIn: true }))

    const answer = await request(app).get('/').set(bearer(plainTextKey)).set(alice)

    expect(answer.status).toBe(403)
  })

  it('takes the owner of another kind of key for nobody who has signed in', async () => {
    const others = createApiKeys({
      sequelize: database.connect(),
      keyPrefix: 'other',
      schema: 'others',
      permissions: ['READ_GRAPH'],
    })
    database.closeFirst(others)
    await others.migrate()
    const { plainTextKey } = await others.create({
      userId: 'alice',
      name: 'Other',
      permissions: ['READ_GRAPH'],
    })
    const keys = createTestApiKeys(database, {
      currentUser: ({ user }) => user as User | undefined,
    })
    const app = createApp(
      others.authenticate({ optional: true }),
      keys.authenticate({ orSignedIn: true }),
    )

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(401)
    expect(answer.body.code).toBe('invalid_api_key')
  })

  it('leaves the app’s error to the app where it cannot say who is signed in', async () => {
    const failure = new Error('no session store')
    const throws = () => {
      throw failure
    }
    for (const currentUser of [throws, () => Promise.reject(failure)]) {
      const keys = createTestApiKeys(database, { currentUser })
      const app = createApp(keys.authenticate({ orSignedIn: true }))

      const answer = await request(app).get('/')

      expect(answer.status).toBe(500)
      expect(answer.body).toEqual({ app: 'no session store' })
    }
  })

  it('cannot be asked for without currentUser', () => {
    const keys = createApiKeys({
      sequelize: database.connect(),
      keyPrefix: 'agpt',
      permissions: ['READ_GRAPH'],
    })

    for (const make of [
      () => keys.requirePermission('READ_GRAPH', { orSignedIn: true }),
      () => keys.requireAnyPermission(['READ_GRAPH'], { orSignedIn: true }),
      () => keys.authenticate({ orSignedIn: true }),
    ]) {
      expect(make).toThrow(TypeError)
      expect(make).toThrow('orSignedIn needs the option currentUser')
    }
  })
})

describe('a second guard', () => {
  it('decides from what the first one found, without a second look', async () => {
    const app = createApp(
      apiKeys.authenticate({ optional: true }),
      apiKeys.requirePermission('READ_GRAPH'),
      express().use(apiKeys.requireAnyPermission(['READ_BLOCK', 'EXECUTE_BLOCK'])),
      apiKeys.authenticate(),
    )
    const before = await countVerifications(apiKeys)

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(200)
    expect(await countVerifications(apiKeys)).toBe(before + 1)
  })

  it('may demand what the first one did not', async () => {
    const app = createApp(
      apiKeys.requirePermission('READ_GRAPH'),
      apiKeys.requirePermission('EXECUTE_GRAPH'),
    )

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(403)
    expect(answer.body.missing).toEqual(['EXECUTE_GRAPH'])
  })

  it('refuses what an optional first one let through', async () => {
    const app = createApp(apiKeys.authenticate({ optional: true }), apiKeys.authenticate())

    const nothing = await request(app).get('/')
    const jwt = await request(app).get('/').set(bearer('a.b.c'))

    expect(nothing.body.code).toBe('missing_credential')
    expect(jwt.body.code).toBe('invalid_api_key')
  })

  it('decides from what the first one found, whatever the app has made of it', async () => {
    const app = createApp(
      apiKeys.authenticate(),
      (req: Request, _res: Response, next: NextFunction) => {
        const { signal, metadata } = apiKeys.getApiKey(req)
        req.apiKey = { ...apiKeys.getApiKey(req), signal, metadata }
        next()
      },
      apiKeys.requirePermission('READ_GRAPH'),
    )

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(200)
  })

  it('is not talked into anything by what stands in the request meanwhile', async () => {
    const app = createApp(
      apiKeys.authenticate({ optional: true }),
      (req: Request, _res: Response, next: NextFunction) => {
        const { signal } = new AbortController()
        req.apiKey = {
          id,
          userId: 'bob',
          name: 'x',
          permissions: ['READ_GRAPH'],
          expiresAt: null,
          metadata: {},
          signal,
        }
        next()
      },
      apiKeys.requirePermission('READ_GRAPH'),
    )

    const answer = await request(app).get('/')

    expect(answer.status).toBe(401)
  })
})

describe('req.apiKey', () => {
  it('is frozen, its permissions too, and what getApiKey returns', async () => {
    const seen: unknown[] = []
    const app = createApp(apiKeys.authenticate(), (req, res) => {
      const apiKey = apiKeys.getApiKey(req)
      seen.push(apiKey === req.apiKey, Object.isFrozen(apiKey), Object.isFrozen(apiKey.permissions))
      res.end()
    })

    await request(app).get('/').set(bearer(plainTextKey)).expect(200)

    expect(seen).toEqual([true, true, true])
  })

  it('is not there for getApiKey without a guard, nor for who is signed in', async () => {
    const app = createApp(
      apiKeys.authenticate({ optional: true, orSignedIn: true }),
      (req, res) => {
        res.json(apiKeys.getApiKey(req))
      },
    )

    const answer = await request(app).get('/').set('X-User', 'alice')

    expect(() => apiKeys.getApiKey({})).toThrow(TypeError)
    expect(answer.status).toBe(500)
    expect(answer.body.app).toBe(
      'getApiKey: this request has no API key. Put requirePermission() or authenticate() before the handler.',
    )
  })
})

/** The app's own sign-in. */
function signedIn(user: object) {
  return function signIn(req: Request, _res: Response, next: NextFunction) {
    req.user = user
    next()
  }
}

describe('req.user', () => {
  it('is what loadUser returns for the owner', async () => {
    const calls: unknown[] = []
    const keys = createTestApiKeys(database, {
      loadUser: async (userId, req) => {
        calls.push([userId, req.path])
        return { id: userId, name: 'Alice' }
      },
    })

    const answer = await request(createApp(keys.authenticate(), keys.authenticate()))
      .get('/graphs')
      .set(bearer(plainTextKey))

    expect(answer.body.user).toEqual({ id: 'alice', name: 'Alice' })
    expect(calls).toEqual([['alice', '/graphs']])
  })

  it.each([null, undefined])('makes a key a wrong one where loadUser returns %s', async (gone) => {
    const keys = createTestApiKeys(database, { loadUser: () => gone })

    const answer = await request(createApp(keys.authenticate())).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(401)
    expect(answer.body.code).toBe('invalid_api_key')
  })

  it.each([
    [
      'throws',
      () => {
        throw new Error('no directory')
      },
    ],
    ['rejects', () => Promise.reject(new Error('no directory'))],
  ])('is the app’s own trouble where loadUser %s', async (_, loadUser) => {
    const keys = createTestApiKeys(database, { loadUser })

    const answer = await request(createApp(keys.authenticate())).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(500)
    expect(answer.body).toEqual({ app: 'no directory' })
  })

  it('is the app’s own trouble, as it came, where loadUser fails with an error of Node', async () => {
    const keys = createTestApiKeys(database, {
      loadUser: async () => ({ profile: await readFile('/no/such/profile') }),
    })

    const answer = await request(createApp(keys.authenticate())).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(500)
    expect(answer.body.app).toContain('ENOENT')
  })

  it('stays who it is where the app has signed in the owner', async () => {
    const keys = createTestApiKeys(database, {
      currentUser: undefined,
      isAdmin: undefined,
      loadUser: () => ({ id: 'never asked' }),
    })
    const app = createApp(signedIn({ id: 'alice', name: 'Alice' }), keys.authenticate())

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(200)
    expect(answer.body.user).toEqual({ id: 'alice', name: 'Alice' })
  })

  it('is compared by what currentUser makes of it', async () => {
    const keys = createTestApiKeys(database, {
      currentUser: (req) => ({ id: String(Object(req.user).sub), admin: false }),
    })
    const app = createApp(signedIn({ sub: 'alice' }), keys.authenticate())

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(200)
    expect(answer.body.user).toEqual({ sub: 'alice' })
  })

  it.each([
    ['alone', undefined, { id: 'alice' }],
    ['with loadUser', (id: string) => ({ id, loaded: true }), { id: 'alice', loaded: true }],
  ])(
    'is the owner in place of a guest, for whom currentUser says nobody: %s',
    async (_, loadUser, owner) => {
      const keys = createTestApiKeys(database, {
        currentUser: ({ user }) => (user && 'guest' in user ? null : (user as User | undefined)),
        loadUser,
      })
      const guest = signedIn({ id: 'anonymous', guest: true })
      const app = createApp(guest, keys.authenticate(), guest, keys.requirePermission('READ_GRAPH'))

      const answer = await request(app).get('/').set(bearer(plainTextKey))

      expect(answer.status).toBe(200)
      expect(answer.body.user).toEqual(owner)
    },
  )

  it('is warned of if currentUser returns an id that no owner can have', async () => {
    const emitWarning = jest.spyOn(process, 'emitWarning').mockImplementation()
    const keys = createTestApiKeys(database, {
      currentUser: () => ({ admin: false }) as User,
    })
    const app = createApp(signedIn({ id: 'alice' }), keys.authenticate())

    const answers = [
      await request(app).get('/').set(bearer(plainTextKey)),
      await request(app).get('/').set(bearer(plainTextKey)),
    ]

    expect(answers.map(({ status }) => status)).toEqual([400, 400])
    expect(emitWarning.mock.calls).toEqual([
      [
        expect.stringContaining('whose id is not of the type text'),
        { type: 'ApiKeysWarning', code: 'API_KEYS_USER_ID' },
      ],
    ])
    emitWarning.mockRestore()
  })

  it.each([{ id: 'bob' }, { id: 'ALICE' }, {}])(
    'makes two credentials of a request where the app has signed in %j',
    async (somebodyElse) => {
      const keys = createTestApiKeys(database, { currentUser: undefined, isAdmin: undefined })
      const app = createApp(signedIn(somebodyElse), keys.authenticate())

      const answer = await request(app).get('/').set(bearer(plainTextKey))

      expect(answer.status).toBe(400)
      expect(answer.headers['www-authenticate']).toBe('Bearer realm="api", error="invalid_request"')
      expect(answer.body.code).toBe('multiple_credentials')
    },
  )

  it.each([
    [{ id: 'alice', name: 'Alice' }, 200],
    [{ id: 'bob' }, 400],
  ])('may come later, behind a first guard, and counts then: %j', async (user, status) => {
    const keys = createTestApiKeys(database, { currentUser: undefined, isAdmin: undefined })
    const app = createApp(keys.authenticate(), signedIn(user), keys.requirePermission('READ_GRAPH'))

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(status)
  })

  it('is the owner’s id as a number where the app’s are', async () => {
    const keys = createApiKeys({
      sequelize: database.connect(),
      schema: 'numbers',
      keyPrefix: 'agpt',
      permissions: ['READ_GRAPH'],
      users: { type: 'integer' },
    })
    database.closeFirst(keys)
    await keys.migrate()
    const created = await keys.create({ userId: 7, name: 'CI', permissions: ['READ_GRAPH'] })

    const fresh = await request(createApp(keys.authenticate()))
      .get('/')
      .set(bearer(created.plainTextKey))
    const present = await request(createApp(signedIn({ id: '7' }), keys.authenticate()))
      .get('/')
      .set(bearer(created.plainTextKey))

    expect(fresh.body).toMatchObject({ user: { id: 7 }, apiKey: { userId: 7 } })
    expect(present.status).toBe(200)
    await keys.close()
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
      () => apiKeys.requireAnyPermission([]),
      'requireAnyPermission: needs at least one permission',
    ],
    [
      'any of what the app does not have',
      () => apiKeys.requireAnyPermission(['read_graph' as 'READ_GRAPH']),
      'requireAnyPermission: "read_graph" is not one of the app\'s permissions.',
    ],
    [
      'permissions side by side',
      () => apiKeys.requirePermission('READ_GRAPH', 'EXECUTE_GRAPH' as unknown as object),
      'requirePermission: the options must be an object. Name several permissions in a list.',
    ],
    [
      'an option that it does not have',
      () => apiKeys.requirePermission('READ_GRAPH', { optional: true } as object),
      'requirePermission: there is no option optional, only orSignedIn',
    ],
    [
      'a misspelt option',
      () => apiKeys.authenticate({ orSignedin: true } as object),
      'authenticate: there is no option orSignedin, only orSignedIn, optional',
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

  it.each([
    'requirePermission',
    'requireAnyPermission',
    'authenticate',
    'maskKeys',
    'router',
    'adminRouter',
  ] as const)('is a TypeError on the first request if %s was not called', async (name) => {
    const app = createApp(apiKeys[name] as unknown as RequestHandler)

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(500)
    expect(answer.body.app).toBe(
      `apiKeys.${name} is not a middleware, but returns one. Call it, with its arguments if it takes any: apiKeys.${name}()`,
    )
  })
})

describe('Express', () => {
  it('has guards in routers, sub-apps and routes, each for what is below it', async () => {
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

    const open = await request(app).get('/open')
    const get = await request(app).get('/v1/graphs/7').set(bearer(plainTextKey))
    const post = await request(app).post('/v1/graphs/7').set(bearer(plainTextKey))
    const none = await request(app).get('/v1/graphs/7')

    expect([open.status, get.status, post.status, none.status]).toEqual([200, 200, 403, 401])
    expect(get.body).toEqual({ baseUrl: '/v1/graphs/7', params: { id: '7' } })
  })

  it('shows guards by name in a stack of handlers', () => {
    expect([
      apiKeys.requirePermission('READ_GRAPH').name,
      apiKeys.requireAnyPermission(['READ_GRAPH']).name,
      apiKeys.authenticate().name,
    ]).toEqual(['requirePermissionGuard', 'requireAnyPermissionGuard', 'authenticateGuard'])
  })

  it.each<[string, RequestHandler]>([
    [
      'throws',
      () => {
        throw new Error('mine')
      },
    ],
    ['passes on', (_req, _res, next) => next(new Error('mine'))],
  ])('hands the error that a handler %s to the app once, as it is', async (_, handler) => {
    const failures: unknown[] = []
    const app = express()
    app.get('/', apiKeys.authenticate(), apiKeys.authenticate(), handler)
    app.use((error: Error, _req: Request, res: Response, next: NextFunction) => {
      if (failures.push(error) > 1) return next(error)
      res.status(500).json({ app: Object.entries(error), message: error.message })
    })

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(500)
    expect(answer.body).toEqual({ app: [], message: 'mine' })
    expect(failures).toHaveLength(1)
  })

  it('keeps to the app what a database says that is not out of reach', async () => {
    const keys = createTestApiKeys(database, { schema: 'unmigrated' })

    const answer = await request(createApp(keys.authenticate())).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(500)
    expect(answer.body.app).toContain('migrate()')
  })
})
