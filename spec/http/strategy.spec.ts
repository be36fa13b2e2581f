import express, {
  type Express,
  type NextFunction,
  type Request,
  type RequestHandler,
  type Response,
} from 'express'
import session, { MemoryStore } from 'express-session'
import { Passport, Strategy, type AuthenticateCallback } from 'passport'
import request from 'supertest'

import { countVerifications, createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase, databaseAway, type Database } from '../support/database'
import { newKey } from '../support/keys'

let database: Database
let apiKeys: TestApiKeys
let plainTextKey: string

beforeAll(async () => {
  database = await createDatabase()
  apiKeys = createTestApiKeys(database, {
    currentUser: undefined,
    isAdmin: undefined,
    header: 'X-API-Key',
  })
  plainTextKey = (await apiKeys.create(newKey())).plainTextKey
})

afterAll(async () => {
  await databaseAway.drop()
  await database.drop()
})

const bearer = (key: string) => ({ Authorization: `Bearer ${key}` })

/** The app's own strategy: it takes any token that looks like a JWT for one of carol's. */
class JwtStrategy extends Strategy {
  override readonly name = 'jwt'

  override authenticate(req: Request) {
    const isJwt = /^Bearer [\w-]+\.[\w-]+\.[\w-]+$/.test(req.get('Authorization') ?? '')
    if (isJwt) this.success({ id: 'carol' })
    else this.fail('Bearer realm="jwt"')
  }
}

function createPassport(keys = apiKeys) {
  return new Passport().use(keys.strategy).use(new JwtStrategy())
}

/** An app that shows what a handler sees behind its middlewares, and what reaches its error handler. */
function createApp(...middlewares: RequestHandler[]): Express {
  const app = express()
  app.use(...middlewares, (_req, _res, next) => next())
  app.use((req, res) => {
    const { user = null, apiKey = null, authInfo = null, headers } = req
    res.json({ user, apiKey, authInfo, authorization: headers.authorization ?? null })
  })
  app.use(
    (error: Error & { status?: number }, _req: Request, res: Response, next: NextFunction) => {
      if (res.headersSent) return next(error)
      res.status(error.status ?? 500).json({ app: error.message })
    },
  )
  return app
}

const signInBob: RequestHandler = (req, _res, next) => {
  req.user = { id: 'bob' }
  next()
}

describe('passport.authenticate', () => {
  it.each([{}, { session: false }])('lets a good key through with %j', async (options) => {
    const app = createApp(createPassport().authenticate('api-key', options))

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(200)
    expect(answer.body).toEqual({
      user: { id: 'alice' },
      apiKey: expect.objectContaining({ userId: 'alice', permissions: ['READ_GRAPH'] }),
      authInfo: { scope: ['READ_GRAPH'] },
      authorization: `Bearer ${plainTextKey.slice(0, 11)}...`,
    })
  })

  it('lets a good key through in the header that the app named', async () => {
    const app = createApp(createPassport().authenticate('api-key'))

    const answer = await request(app).get('/').set('X-API-Key', plainTextKey)

    expect(answer.body.user).toEqual({ id: 'alice' })
  })

  it.each<[string, Record<string, string>, number, string | undefined]>([
    ['no credential', {}, 401, 'Bearer realm="api"'],
    ['another scheme', { Authorization: 'Basic eA==' }, 401, 'Bearer realm="api"'],
    ['a wrong key', bearer('agpt_x'), 401, 'Bearer realm="api", error="invalid_token"'],
    ['a token of somebody else', bearer('a.b.c'), 401, 'Bearer realm="api", error="invalid_token"'],
    // Passport sends challenges with 401 alone.
    ['a malformed header', { Authorization: 'Bearer a b' }, 400, undefined],
    ['two keys', { ...bearer('agpt_x'), 'X-API-Key': 'agpt_y' }, 400, undefined],
  ])('refuses %s', async (_, headers, status, challenge) => {
    const app = createApp(createPassport().authenticate('api-key'))

    const answer = await request(app).get('/').set(headers)

    expect(answer.status).toBe(status)
    expect(answer.headers['www-authenticate']).toBe(challenge)
    expect(answer.text).toBe(status === 401 ? 'Unauthorized' : 'Bad Request')
  })

  it('refuses a key beside somebody else', async () => {
    const app = createApp(signInBob, createPassport().authenticate('api-key'))

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(400)
  })

  it('never takes a key from the query or the body', async () => {
    const app = createApp(
      express.json(),
      express.urlencoded({ extended: true }),
      createPassport().authenticate('api-key'),
    )
    const inQuery = { access_token: plainTextKey, 'X-API-Key': plainTextKey }
    const before = await countVerifications(apiKeys)

    const answers = [
      await request(app).get('/').query(inQuery),
      await request(app).post('/').send(inQuery),
      await request(app).post('/').type('form').send(inQuery),
    ]
    const beside = await request(app).post('/').query(inQuery).send(inQuery).set(bearer('agpt_x'))

    expect(answers.map(({ status }) => status)).toEqual([401, 401, 401])
    expect(beside.headers['www-authenticate']).toContain('invalid_token')
    expect(await countVerifications(apiKeys)).toBe(before)
  })

  it('makes an error of a failure, if asked', async () => {
    const app = createApp(createPassport().authenticate('api-key', { failWithError: true }))

    const wrong = await request(app).get('/').set(bearer('agpt_x'))
    const malformed = await request(app).get('/').set('Authorization', 'Bearer')

    expect([wrong.status, wrong.body]).toEqual([401, { app: 'Unauthorized' }])
    expect(wrong.headers['www-authenticate']).toContain('invalid_token')
    expect([malformed.status, malformed.body]).toEqual([400, { app: 'Bad Request' }])
  })

  it('leaves to Express a database out of reach, which is neither right nor wrong', async () => {
    const keys = createTestApiKeys(databaseAway)
    const app = express().use(createPassport(keys).authenticate('api-key'))

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(503)
    expect(answer.headers['retry-after']).toBe('1')
    expect(answer.headers).not.toHaveProperty('www-authenticate')
  })

  it('leaves to the app what loadUser throws', async () => {
    const keys = createTestApiKeys(database, {
      loadUser: () => Promise.reject(new Error('no directory')),
    })

    const answer = await request(createApp(createPassport(keys).authenticate('api-key')))
      .get('/')
      .set(bearer(plainTextKey))

    expect(answer.status).toBe(500)
    expect(answer.body).toEqual({ app: 'no directory' })
  })

  it.each([{ failureFlash: true }, { failureMessage: true }])(
    'leaves to the app what Passport throws for want of something: %j',
    async (options) => {
      const app = createApp(createPassport().authenticate('api-key', options))

      const answer = await request(app).get('/').set(bearer('agpt_x'))

      expect(answer.status).toBe(500)
    },
  )

  it('assigns the user to another property, if asked', async () => {
    const app = createApp(
      createPassport().authenticate('api-key', { assignProperty: 'account' }),
      (req, res) => {
        res.json({ account: Object.getOwnPropertyDescriptor(req, 'account')?.value })
      },
    )

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.body).toEqual({ account: { id: 'alice' } })
  })
})

/** Authenticates with a callback that gets to see request and response, as Passport documents it. */
function withCallback(
  callback: (req: Request, res: Response, next: NextFunction) => AuthenticateCallback,
  keys = apiKeys,
) {
  const passport = createPassport(keys)
  return createApp((req, res, next) => {
    const authenticate: RequestHandler = passport.authenticate('api-key', callback(req, res, next))
    authenticate(req, res, next)
  })
}

/** Answers with what Passport calls back with. */
function showArguments(_req: Request, res: Response): AuthenticateCallback {
  return (error, ...others) => {
    res.json([error ? [error.code, error.status] : error, ...others])
  }
}

describe('a callback of the app', () => {
  it('gets the user and the permissions, or the challenge and the status', async () => {
    const app = withCallback(showArguments)

    const good = await request(app).get('/').set(bearer(plainTextKey))
    const wrong = await request(app).get('/').set(bearer('agpt_x'))
    const malformed = await request(app).get('/').set('Authorization', 'Bearer')

    expect(good.body).toEqual([null, { id: 'alice' }, { scope: ['READ_GRAPH'] }])
    expect(wrong.body).toEqual([null, false, 'Bearer realm="api", error="invalid_token"', 401])
    expect(malformed.body).toEqual([
      null,
      false,
      'Bearer realm="api", error="invalid_request"',
      400,
    ])
  })

  it('gets the error of a database out of reach', async () => {
    const app = withCallback(showArguments, createTestApiKeys(databaseAway))

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.body).toEqual([['database_unavailable', 503]])
  })

  it('that throws is called with what it threw, and so does not bring the process down', async () => {
    const app = withCallback((_req, _res, next) => (error) => {
      if (error) return next(error)
      throw new Error('mine')
    })

    for (const key of [plainTextKey, 'agpt_x']) {
      const answer = await request(app).get('/').set(bearer(key))

      expect(answer.status).toBe(500)
      expect(answer.body).toEqual({ app: 'mine' })
    }
  })

  it.each(['logIn', 'login'] as const)(
    'that calls req.%s with the user is called back',
    async (logIn) => {
      const app = withCallback((req, _res, next) => (error, user) => {
        if (error || !user) return next(error)
        req[logIn](user, next)
      })

      const answer = await request(app).get('/').set(bearer(plainTextKey))

      expect(answer.status).toBe(200)
      expect(answer.body.user).toEqual({ id: 'alice' })
    },
  )
})

describe('a chain of strategies', () => {
  it.each([
    ['jwt', 'api-key'],
    ['api-key', 'jwt'],
  ])('leaves a JWT to the app’s own, untouched: %s, %s', async (...names) => {
    const app = createApp(createPassport().authenticate(names, { session: false }))

    const answer = await request(app).get('/').set(bearer('a.b.agpt_c'))

    expect(answer.status).toBe(200)
    expect(answer.body).toMatchObject({
      user: { id: 'carol' },
      apiKey: null,
      authorization: 'Bearer a.b.agpt_c',
    })
  })

  it.each([
    ['jwt', 'api-key'],
    ['api-key', 'jwt'],
  ])('takes a key: %s, %s', async (...names) => {
    const app = createApp(createPassport().authenticate(names, { session: false }))

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.body).toMatchObject({ user: { id: 'alice' }, apiKey: { userId: 'alice' } })
  })

  it('that fails shows the challenges of all', async () => {
    const app = createApp(createPassport().authenticate(['api-key', 'jwt']))

    const answer = await request(app).get('/').set(bearer('agpt_x'))

    expect(answer.status).toBe(401)
    expect(answer.headers['www-authenticate']).toBe(
      'Bearer realm="api", error="invalid_token", Bearer realm="jwt"',
    )
  })
})

describe('a guard', () => {
  it('after Passport decides from what the strategy found', async () => {
    const app = createApp(
      createPassport().authenticate('api-key'),
      apiKeys.requirePermission('READ_GRAPH'),
    )
    const before = await countVerifications(apiKeys)

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(200)
    expect(await countVerifications(apiKeys)).toBe(before + 1)
  })

  it('before Passport saves the strategy a look of its own', async () => {
    const app = createApp(apiKeys.authenticate(), createPassport().authenticate('api-key'))
    const before = await countVerifications(apiKeys)

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.body).toMatchObject({
      user: { id: 'alice' },
      authInfo: { scope: ['READ_GRAPH'] },
    })
    expect(await countVerifications(apiKeys)).toBe(before + 1)
  })

  it('after Passport demands what the strategy did not', async () => {
    const app = createApp(
      createPassport().authenticate('api-key'),
      apiKeys.requirePermission('EXECUTE_GRAPH'),
    )

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(403)
  })

  it('after Passport does not take the app’s own user for a key', async () => {
    const app = createApp(
      createPassport().authenticate('jwt', { session: false }),
      apiKeys.requirePermission('READ_GRAPH'),
    )

    const answer = await request(app).get('/').set(bearer('a.b.c'))

    expect(answer.status).toBe(401)
  })
})

describe('a browser session', () => {
  const pathsOfKeys = [
    '/graphs',
    '/account',
    '/callback',
    '/callback-alias',
    '/callback/later',
    '/callback-alias/later',
    '/callback-sessionless',
    '/callback-sessionless/later',
  ]
  let store: MemoryStore
  let app: Express

  beforeEach(() => {
    store = new MemoryStore()
    const passport = createPassport()
    passport.serializeUser((user, done) => done(null, Object(user).id))
    passport.deserializeUser((id, done) => done(null, { id: String(id) }))

    app = express()
    app.use(session({ secret: 'spec', store, resave: false, saveUninitialized: false }))
    app.use(passport.session())
    app.get('/who', (req, res) => {
      res.json(req.user ?? null)
    })
    app.post('/cart', (req, res) => {
      Object.assign(req.session, { cart: ['apple'] })
      res.json(null)
    })
    app.get('/cart', (req, res) => {
      res.json(Object(req.session).cart)
    })
    app.post('/sign-in/:id', (req, res, next) => {
      req.logIn({ id: req.params.id }, (error) => (error ? next(error) : res.json(null)))
    })
    app.use('/graphs', passport.authenticate('api-key'), (req, res) => {
      res.json(req.user)
    })
    app.use('/account', passport.authorize('api-key'), (req, res) => {
      res.json(Object(req).account)
    })
    for (const [path, logIn, options] of [
      ['/callback', 'logIn', {}],
      ['/callback-alias', 'login', {}],
      ['/callback-sessionless', 'logIn', { session: false }],
    ] as const) {
      app.use(path, (req, res, next) => {
        const callback: AuthenticateCallback = (error, user) => {
          if (error || !user) return next(error)
          const answer = () =>
            req[logIn](user, (error) => (error ? next(error) : res.json(req.user)))
          return req.path === '/later' ? setImmediate(answer) : answer()
        }
        const authenticate: RequestHandler = passport.authenticate('api-key', options, callback)
        authenticate(req, res, next)
      })
    }
    app.use('/exchange', passport.authenticate('api-key'), (req, res, next) => {
      req.logIn({ id: 'bob' }, (error) => (error ? next(error) : res.json(req.user)))
    })
  })

  async function countSessions() {
    const sessions = await new Promise<object>((resolve, reject) => {
      store.all((error, all) => (error ? reject(error) : resolve(all ?? {})))
    })
    return Object.keys(sessions).length
  }

  it.each(pathsOfKeys)(
    'is not started by a key: no cookie, and the next request is anonymous: %s',
    async (path) => {
      const agent = request.agent(app)

      const first = await agent.get(path).set(bearer(plainTextKey))
      const next = await agent.get('/who')

      expect(first.status).toBe(200)
      expect(first.body).toEqual({ id: 'alice' })
      expect(first.headers).not.toHaveProperty('set-cookie')
      expect(next.body).toBeNull()
      expect(await countSessions()).toBe(0)
    },
  )

  it.each(pathsOfKeys)('that is there already stays what it was: %s', async (path) => {
    const agent = request.agent(app)
    await agent.post('/cart')

    const first = await agent.get(path).set(bearer(plainTextKey))
    const who = await agent.get('/who')
    const cart = await agent.get('/cart')

    expect(first.body).toEqual({ id: 'alice' })
    expect(first.headers).not.toHaveProperty('set-cookie')
    expect(who.body).toBeNull()
    expect(cart.body).toEqual(['apple'])
  })

  it('of the key’s owner goes on beside the key', async () => {
    const agent = request.agent(app)
    await agent.post('/sign-in/alice')

    const first = await agent.get('/graphs').set(bearer(plainTextKey))
    const next = await agent.get('/who')

    expect(first.status).toBe(200)
    expect(next.body).toEqual({ id: 'alice' })
  })

  it('of somebody else is a second credential, and outlives the refusal', async () => {
    const agent = request.agent(app)
    await agent.post('/sign-in/bob')

    const first = await agent.get('/graphs').set(bearer(plainTextKey))
    const next = await agent.get('/who')

    expect(first.status).toBe(400)
    expect(next.body).toEqual({ id: 'bob' })
  })

  it('is started all the same for whom else the app signs in', async () => {
    const agent = request.agent(app)

    const first = await agent.get('/exchange').set(bearer(plainTextKey))
    const next = await agent.get('/who')

    expect(first.body).toEqual({ id: 'bob' })
    expect(first.headers).toHaveProperty('set-cookie')
    expect(next.body).toEqual({ id: 'bob' })
  })
})
