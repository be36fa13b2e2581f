import express, {
  type NextFunction,
  type Request,
  type RequestHandler,
  type Response,
} from 'express'
import { Passport, Strategy, type AuthenticateCallback } from 'passport'

import { countVerifications } from '../support/app'
import { databaseAway } from '../support/database'
import { bearer, type Http } from '../support/http'
import { useWorld } from '../support/world'

const { apiKeys, http, createKey, createProcess } = useWorld({
  options: { currentUser: undefined, isAdmin: undefined, header: 'X-API-Key' },
})
let plainTextKey: string

beforeAll(async () => {
  plainTextKey = (await createKey()).plainTextKey
})

/** The app's own strategy: it accepts any token that looks like a JWT as carol's. */
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

/**
 * The callers of an app whose handler shows its request behind these middlewares, and whose error handler shows its
 * errors.
 */
function createApp(...middlewares: RequestHandler[]): Http {
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
  return http.to(app)
}

const signInBob: RequestHandler = (req, _res, next) => {
  req.user = { id: 'bob' }
  next()
}

describe('passport.authenticate', () => {
  it.each([{}, { session: false }])('lets a valid key through with %j', async (options) => {
    const app = createApp(createPassport().authenticate('api-key', options))

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.status).toBe(200)
    expect(answer.body).toEqual({
      user: { id: 'alice' },
      apiKey: expect.objectContaining({ userId: 'alice', permissions: ['READ_GRAPH'] }),
      authInfo: { scope: ['READ_GRAPH'] },
      authorization: `Bearer ${plainTextKey.slice(0, 11)}...`,
    })
  })

  it('lets a valid key through in the header that the app named', async () => {
    const app = createApp(createPassport().authenticate('api-key'))

    const answer = await app.get('/').set('X-API-Key', plainTextKey)

    expect(answer.body.user).toEqual({ id: 'alice' })
  })

  it.each<[string, Record<string, string>, number, string | undefined]>([
    ['no credential', {}, 401, 'Bearer realm="api"'],
    ['another scheme', { Authorization: 'Basic eA==' }, 401, 'Bearer realm="api"'],
    ['a wrong key', bearer('agpt_x'), 401, 'Bearer realm="api", error="invalid_token"'],
    ['a token of somebody else', bearer('a.b.c'), 401, 'Bearer realm="api", error="invalid_token"'],
    // Passport sends challenges only with 401.
    ['a malformed header', { Authorization: 'Bearer a b' }, 400, undefined],
    ['two keys', { ...bearer('agpt_x'), 'X-API-Key': 'agpt_y' }, 400, undefined],
  ])('refuses %s', async (_, headers, status, challenge) => {
    const app = createApp(createPassport().authenticate('api-key'))

    const answer = await app.get('/').set(headers)

    expect(answer.status).toBe(status)
    expect(answer.headers['www-authenticate']).toBe(challenge)
    expect(answer.text).toBe(status === 401 ? 'Unauthorized' : 'Bad Request')
  })

  it('refuses a key beside another user who is signed in', async () => {
    const app = createApp(signInBob, createPassport().authenticate('api-key'))

    const answer = await app.with(plainTextKey).get('/')

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
      await app.get('/').query(inQuery),
      await app.post('/', inQuery),
      await app.post('/').type('form').send(inQuery),
    ]
    const beside = await app.post('/').query(inQuery).send(inQuery).set(bearer('agpt_x'))

    expect(answers.map(({ status }) => status)).toEqual([401, 401, 401])
    expect(beside.headers['www-authenticate']).toContain('invalid_token')
    expect(await countVerifications(apiKeys)).toBe(before)
  })

  it('turns a failure into an error with failWithError', async () => {
    const app = createApp(createPassport().authenticate('api-key', { failWithError: true }))

    const wrong = await app.with('agpt_x').get('/')
    const malformed = await app.get('/').set('Authorization', 'Bearer')

    expect([wrong.status, wrong.body]).toEqual([401, { app: 'Unauthorized' }])
    expect(wrong.headers['www-authenticate']).toContain('invalid_token')
    expect([malformed.status, malformed.body]).toEqual([400, { app: 'Bad Request' }])
  })

  it('passes an unreachable database on to Express as an error', async () => {
    const keys = createProcess({ sequelize: databaseAway.connect() }).apiKeys
    const app = http.to(express().use(createPassport(keys).authenticate('api-key')))

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.status).toBe(503)
    expect(answer.headers['retry-after']).toBe('1')
    expect(answer.headers).not.toHaveProperty('www-authenticate')
  })

  it('passes the error of loadOwner on to the app', async () => {
    const keys = createProcess({
      loadOwner: () => Promise.reject(new Error('no directory')),
    }).apiKeys

    const answer = await createApp(createPassport(keys).authenticate('api-key'))
      .with(plainTextKey)
      .get('/')

    expect(answer.status).toBe(500)
    expect(answer.body).toEqual({ app: 'no directory' })
  })

  it.each([{ failureFlash: true }, { failureMessage: true }])(
    'passes an error of Passport on to the app: %j',
    async (options) => {
      const app = createApp(createPassport().authenticate('api-key', options))

      const answer = await app.with('agpt_x').get('/')

      expect(answer.status).toBe(500)
    },
  )

  it('assigns the user to another property with assignProperty', async () => {
    const app = createApp(
      createPassport().authenticate('api-key', { assignProperty: 'account' }),
      (req, res) => {
        res.json({ account: Object.getOwnPropertyDescriptor(req, 'account')?.value })
      },
    )

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.body).toEqual({ account: { id: 'alice' } })
  })
})

/** Authenticates with a callback that has the request and the response, as in the documentation of Passport. */
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

/** Answers with the arguments of Passport's call. */
function showArguments(_req: Request, res: Response): AuthenticateCallback {
  return (error, ...others) => {
    res.json([error ? [error.code, error.status] : error, ...others])
  }
}

describe('a callback of the app', () => {
  it('gets the user and the permissions, or the challenge and the status', async () => {
    const app = withCallback(showArguments)

    const good = await app.with(plainTextKey).get('/')
    const wrong = await app.with('agpt_x').get('/')
    const malformed = await app.get('/').set('Authorization', 'Bearer')

    expect(good.body).toEqual([null, { id: 'alice' }, { scope: ['READ_GRAPH'] }])
    expect(wrong.body).toEqual([null, false, 'Bearer realm="api", error="invalid_token"', 401])
    expect(malformed.body).toEqual([
      null,
      false,
      'Bearer realm="api", error="invalid_request"',
      400,
    ])
  })

  it('gets the error of an unreachable database', async () => {
    const app = withCallback(
      showArguments,
      createProcess({ sequelize: databaseAway.connect() }).apiKeys,
    )

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.body).toEqual([['database_unavailable', 503]])
  })

  it('is called with its own error if it throws, so that the process goes on', async () => {
    const app = withCallback((_req, _res, next) => (error) => {
      if (error) return next(error)
      throw new Error('mine')
    })

    for (const key of [plainTextKey, 'agpt_x']) {
      const answer = await app.with(key).get('/')

      expect(answer.status).toBe(500)
      expect(answer.body).toEqual({ app: 'mine' })
    }
  })

  it.each(['logIn', 'login'] as const)('may call req.%s with the user', async (logIn) => {
    const app = withCallback((req, _res, next) => (error, user) => {
      if (error || !user) return next(error)
      req[logIn](user, next)
    })

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.status).toBe(200)
    expect(answer.body.user).toEqual({ id: 'alice' })
  })
})

describe('a chain of strategies', () => {
  it.each([
    ['jwt', 'api-key'],
    ['api-key', 'jwt'],
  ])('leaves a JWT untouched for the strategy of the app: %s, %s', async (...names) => {
    const app = createApp(createPassport().authenticate(names, { session: false }))

    const answer = await app.with('a.b.agpt_c').get('/')

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
  ])('accepts a key: %s, %s', async (...names) => {
    const app = createApp(createPassport().authenticate(names, { session: false }))

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.body).toMatchObject({ user: { id: 'alice' }, apiKey: { userId: 'alice' } })
  })

  it('shows the challenges of all strategies if it fails', async () => {
    const app = createApp(createPassport().authenticate(['api-key', 'jwt']))

    const answer = await app.with('agpt_x').get('/')

    expect(answer.status).toBe(401)
    expect(answer.headers['www-authenticate']).toBe(
      'Bearer realm="api", error="invalid_token", Bearer realm="jwt"',
    )
  })
})

describe('a guard', () => {
  it('after Passport decides from the result of the strategy', async () => {
    const app = createApp(
      createPassport().authenticate('api-key'),
      apiKeys.requirePermission('READ_GRAPH'),
    )
    const before = await countVerifications(apiKeys)

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.status).toBe(200)
    expect(await countVerifications(apiKeys)).toBe(before + 1)
  })

  it('before Passport saves the strategy a look-up', async () => {
    const app = createApp(apiKeys.authenticate(), createPassport().authenticate('api-key'))
    const before = await countVerifications(apiKeys)

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.body).toMatchObject({
      user: { id: 'alice' },
      authInfo: { scope: ['READ_GRAPH'] },
    })
    expect(await countVerifications(apiKeys)).toBe(before + 1)
  })

  it('after Passport may demand a permission that the strategy did not', async () => {
    const app = createApp(
      createPassport().authenticate('api-key'),
      apiKeys.requirePermission('EXECUTE_GRAPH'),
    )

    const answer = await app.with(plainTextKey).get('/')

    expect(answer.status).toBe(403)
  })

  it('after Passport does not take a user of the app for a key', async () => {
    const app = createApp(
      createPassport().authenticate('jwt', { session: false }),
      apiKeys.requirePermission('READ_GRAPH'),
    )

    const answer = await app.with('a.b.c').get('/')

    expect(answer.status).toBe(401)
  })
})
