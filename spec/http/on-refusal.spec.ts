import { runInNewContext } from 'node:vm'

import express, {
  type NextFunction,
  type Request,
  type RequestHandler,
  type Response,
} from 'express'
import { Passport } from 'passport'

import { InvalidApiKeyError, type ApiKeysError } from '../../lib'
import { forgeKey } from '../support/keys'
import { until } from '../support/until'
import { useWorld } from '../support/world'

const { apiKeys, http, createKey, createProcess } = useWorld()

/** A key of alice's, which may read graphs. */
let plainTextKey: string

beforeAll(async () => {
  plainTextKey = (await createKey()).plainTextKey
})

/** The callers of an app of graphs whose refusals `onRefusal` answers. */
function createAppWith(
  onRefusal: (error: ApiKeysError, req: Request, res: Response, next: NextFunction) => unknown,
  handleError?: (error: Error, req: Request, res: Response, next: NextFunction) => void,
) {
  const keys = createProcess({ onRefusal }).apiKeys
  const app = express()
  app.use('/api-keys', keys.router())
  app.get('/graphs', keys.requirePermission('EXECUTE_GRAPH'), (_req, res) => {
    res.json({ graphs: [] })
  })
  if (handleError) app.use(handleError)
  return http.to(app)
}

describe('onRefusal', () => {
  it('answers for guards and routers, in the app’s own format', async () => {
    const graphs = createAppWith((error, _req, res) => {
      const { code, status, headers, expose, message } = error
      res.status(status).set(headers).json({ mine: { code, status, headers, expose, message } })
    })

    const answers = [
      await graphs.with(plainTextKey).get('/graphs'),
      await graphs.put('/api-keys'),
      await graphs.as('alice').get('/api-keys/%ZZ'),
    ]

    expect(answers.map(({ status, body }) => [status, body.mine])).toEqual([
      [
        403,
        {
          code: 'missing_permission',
          status: 403,
          headers: {
            'WWW-Authenticate':
              'Bearer realm="api", error="insufficient_scope", scope="EXECUTE_GRAPH"',
          },
          expose: true,
          message: 'The API key does not have the permission that this needs.',
        },
      ],
      [
        405,
        {
          code: 'method_not_allowed',
          status: 405,
          headers: { Allow: 'GET, POST, HEAD, OPTIONS' },
          expose: true,
          message: 'This method is not allowed here. The header Allow names the allowed methods.',
        },
      ],
      [
        404,
        {
          code: 'api_key_not_found',
          status: 404,
          headers: {},
          expose: true,
          message: 'There is no such API key.',
        },
      ],
    ])
    expect(answers[0]?.headers['www-authenticate']).toContain('insufficient_scope')
  })

  it('may log the reason that the client must not see', async () => {
    const reasons: string[] = []
    const graphs = createAppWith((error, _req, res) => {
      if (error instanceof InvalidApiKeyError) reasons.push(error.reason)
      res.sendStatus(error.status)
    })

    const answer = await graphs.with('agpt_nonsense').get('/graphs')

    expect(answer.status).toBe(401)
    expect(reasons).toEqual(['malformed'])
  })

  it('may pass the refusal on to Express, which then answers with its status and headers', async () => {
    const seen: string[] = []
    const graphs = createAppWith((error, _req, _res, next) => {
      seen.push(error.code)
      next(error)
    })

    const guarded = await graphs.get('/graphs')
    const routed = await graphs.put('/api-keys')
    const inside = await graphs.get('/api-keys')

    expect(guarded.status).toBe(401)
    expect(guarded.headers['www-authenticate']).toBe('Bearer realm="api"')
    expect(routed.status).toBe(405)
    expect(routed.headers.allow).toBe('GET, POST, HEAD, OPTIONS')
    expect(inside.status).toBe(401)
    expect(inside.headers['www-authenticate']).toBe('Bearer realm="api"')
    // Once for each request.
    expect(seen).toEqual(['missing_credential', 'method_not_allowed', 'not_signed_in'])
  })

  it.each([
    [
      'throws',
      () => {
        throw new Error('no template')
      },
    ],
    [
      'rejects',
      async () => {
        await Promise.reject(new Error('no template'))
      },
    ],
  ])('reaches the app’s error handler if it %s', async (_, onRefusal) => {
    const graphs = createAppWith(onRefusal, (error, _req, res, next) => {
      if (res.headersSent) return next(error)
      res.status(500).json({ app: error.message })
    })

    for (const path of ['/graphs', '/api-keys']) {
      const answer = await graphs.get(path)

      expect(answer.status).toBe(500)
      expect(answer.body).toEqual({ app: 'no template' })
    }
  })
})

it('passes on an error of another realm, for example Jest’s', async () => {
  const failure = runInNewContext(`new Error('no session store')`)
  const { apiKeys } = createProcess({ currentUser: () => Promise.reject(failure) })
  const app = express()
  app.use(apiKeys.authenticate({ orSignedIn: true }))
  app.use((error: Error, _req: Request, res: Response, next: NextFunction) => {
    if (res.headersSent) return next(error)
    res.status(500).json({ isSame: error === failure })
  })

  const { body } = await http.to(app).get('/')

  expect(body).toEqual({ isSame: true })
})

describe('a function of the app that fails without an error', () => {
  // Express lets a request pass for some of these values.
  const noErrors = [undefined, null, false, 0, '', 'route', 'router', { status: 200 }]

  it.each(noErrors)('lets no request through with %p', async (nothing) => {
    const fail = () => Promise.reject(nothing)
    const failing = createProcess({ currentUser: fail, loadOwner: fail }).apiKeys
    const failingAdmin = createProcess({ isAdmin: fail }).apiKeys
    const failingRefusal = createProcess({ onRefusal: fail }).apiKeys
    const passport = new Passport().use(failing.strategy)
    const handlers = {
      '/guard': failing.authenticate(),
      '/or-signed-in': failing.authenticate({ orSignedIn: true }),
      '/refused': failingRefusal.authenticate(),
      '/passport': passport.authenticate('api-key') as RequestHandler,
      '/owner': failing.router(),
      '/admin': failingAdmin.adminRouter(),
    }
    const app = express()
    for (const [path, handler] of Object.entries(handlers)) {
      app.use(path, handler, (_req, res) => {
        res.end('let through')
      })
    }
    app.use((error: Error, _req: Request, res: Response, next: NextFunction) => {
      if (res.headersSent) return next(error)
      res.status(500).json({ app: error.message, isSame: error.cause === nothing })
    })

    const requests = http.to(app)
    const answers = [
      await requests.with(plainTextKey).get('/guard'),
      await requests.get('/or-signed-in'),
      await requests.get('/refused'),
      await requests.with(plainTextKey).get('/passport'),
      await requests.as('alice').get('/owner'),
      await requests.as('admin').get('/admin'),
    ]

    expect(answers.map(({ status, text }) => [status, text])).toEqual(
      answers.map(() => [
        500,
        JSON.stringify({
          app: 'express-api-keys: a function of the app failed without an Error',
          isSame: true,
        }),
      ]),
    )
  })
})

describe('an answer that the app gave while a guard waited', () => {
  it('stands, and the refusal goes to the app', async () => {
    const passedOn: unknown[] = []
    const app = express()
    app.get(
      '/graphs',
      // The guard has to ask the database, because the key is not cached.
      apiKeys.authenticate(),
      // Not reached: the guard refuses.
      (_req, res) => {
        res.json({ graphs: [] })
      },
    )
    app.use((error: Error, _req: Request, _res: Response, next: NextFunction) => {
      passedOn.push(error)
      next()
    })
    const impatient = express()
    impatient.use((_req, res, next) => {
      next()
      res.status(504).end('too slow')
    }, app)

    const answer = await http.to(impatient).with(forgeKey()).get('/graphs')
    await until(() => passedOn.length > 0)

    expect(answer.status).toBe(504)
    expect(answer.text).toBe('too slow')
    expect(passedOn).toMatchObject([{ code: 'invalid_api_key', reason: 'unknown' }])
  })
})
