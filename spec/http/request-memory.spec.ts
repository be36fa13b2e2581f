import type { IncomingMessage, ServerResponse } from 'node:http'

import express, {
  type NextFunction,
  type Request,
  type RequestHandler,
  type Response,
} from 'express'
import { Passport } from 'passport'
import request from 'supertest'

import { countVerifications, createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'

let database: Database
let apiKeys: TestApiKeys
let plainTextKey: string
/** What a log may show of the key. */
let mask: string

beforeAll(async () => {
  database = await createDatabase()
  apiKeys = createTestApiKeys(database, { header: 'X-API-Key' })
  const created = await apiKeys.create(newKey())
  plainTextKey = created.plainTextKey
  mask = `Bearer ${created.apiKey.prefix}...`
})

afterAll(() => database.drop())

const bearer = (key: string) => ({ Authorization: `Bearer ${key}` })

/** Shows what is left of the headers, in all views. */
const showHeaders: RequestHandler = ({ headers, rawHeaders, headersDistinct }, res) => {
  res.json({ headers, rawHeaders, headersDistinct })
}

describe('the mask of a key', () => {
  it('is one of its own, so that a cache by Authorization behind a guard keeps two users apart', async () => {
    const cache = new Map<string, string>()
    const app = express().get('/', apiKeys.authenticate(), (req, res) => {
      const known = cache.get(String(req.headers.authorization))
      const answer = known ?? apiKeys.getApiKey(req).userId
      cache.set(String(req.headers.authorization), answer)
      res.send(answer)
    })
    const bob = await apiKeys.create(newKey({ userId: 'bob' }))

    const answers = [
      await request(app).get('/').set(bearer(plainTextKey)),
      await request(app).get('/').set(bearer(bob.plainTextKey)),
      await request(app).get('/').set(bearer(plainTextKey)),
    ]

    expect(answers.map(({ text }) => text)).toEqual(['alice', 'bob', 'alice'])
    expect([...cache.keys()]).toEqual([mask, `Bearer ${bob.apiKey.prefix}...`])
  })

  it('is no credential', async () => {
    const app = express().get('/', apiKeys.authenticate(), showHeaders)

    const sent = [
      await request(app).get('/').set('Authorization', mask),
      await request(app).get('/').set('X-API-Key', mask.slice('Bearer '.length)),
    ]

    expect(sent.map(({ body }) => body.code)).toEqual([
      'malformed_credential',
      'malformed_credential',
    ])
  })

  it('stands in every view, also in those that the app read before', async () => {
    const app = express().get(
      '/',
      (req, _res, next) => {
        expect(req.headersDistinct.authorization).toEqual([`Bearer ${plainTextKey}`])
        next()
      },
      apiKeys.authenticate(),
      showHeaders,
    )

    const plain = await request(app).get('/').set(bearer(plainTextKey))
    const other = await request(app)
      .get('/')
      .set({ ...bearer(plainTextKey), 'X-API-Key': 'sk_1' })

    for (const { status, body, text } of [plain, other]) {
      expect(status).toBe(200)
      expect(body.headers.authorization).toBe(mask)
      expect(body.headersDistinct.authorization).toEqual([mask])
      expect(text).not.toContain(plainTextKey)
    }
  })
})

/** An app with a logger in front, which notes each request as it comes. */
function createLoggedApp(...middlewares: RequestHandler[]) {
  const logged: string[] = []
  const app = express()
  app.use(apiKeys.maskKeys(), (req, _res, next) => {
    logged.push(JSON.stringify([req.headers, req.rawHeaders, req.headersDistinct]))
    next()
  })
  app.use(...middlewares)
  return { app, logged }
}

/** A middleware of the app's that takes away what it has no use for. */
const removeHeader: RequestHandler = (req, _res, next) => {
  delete req.headers['x-api-key']
  next()
}

describe('what a guard has found', () => {
  it('stands for guards behind it, whatever the app makes of the headers', async () => {
    const app = express().get(
      '/',
      apiKeys.authenticate(),
      removeHeader,
      apiKeys.requirePermission('READ_GRAPH'),
      showHeaders,
    )

    const answer = await request(app)
      .get('/')
      .set({ 'X-API-Key': plainTextKey, Authorization: 'Bearer a.b.c' })

    expect(answer.status).toBe(200)
  })
})

describe('maskKeys', () => {
  it('hides keys from a logger in front, of routes without a guard as well', async () => {
    const { app, logged } = createLoggedApp(showHeaders)

    const answers = [
      await request(app).get('/').set(bearer(plainTextKey)),
      await request(app).get('/').set('X-API-Key', plainTextKey),
      await request(app).get('/').set('Authorization', `Token ${plainTextKey}`),
    ]

    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200])
    expect(logged).toHaveLength(3)
    expect(logged.join()).not.toContain(plainTextKey)
    expect(logged.join()).toContain(mask)
  })

  it('judges nothing and lets guards judge', async () => {
    const { app } = createLoggedApp(
      apiKeys.maskKeys(),
      apiKeys.requirePermission('READ_GRAPH'),
      apiKeys.authenticate(),
      (req, res) => {
        res.send(apiKeys.getApiKey(req).userId)
      },
    )
    const before = await countVerifications(apiKeys)

    const accepted = await request(app).get('/').set(bearer(plainTextKey))
    const inHeader = await request(app).get('/').set('X-API-Key', plainTextKey)
    const wrong = await request(app)
      .get('/')
      .set(bearer(`${plainTextKey}x`))
    const none = await request(app).get('/')

    expect([accepted.text, inHeader.text]).toEqual(['alice', 'alice'])
    expect([wrong.body.code, none.body.code]).toEqual(['invalid_api_key', 'missing_credential'])
    expect(await countVerifications(apiKeys)).toBe(before + 2)
  })

  it('lets the strategy judge', async () => {
    const passport = new Passport().use(apiKeys.strategy)
    const { app } = createLoggedApp(passport.authenticate('api-key'), showHeaders)

    const accepted = await request(app).get('/').set(bearer(plainTextKey))
    const wrong = await request(app)
      .get('/')
      .set(bearer(`${plainTextKey}x`))

    expect([accepted.status, wrong.status]).toEqual([200, 401])
  })

  it('leaves a key that the app puts into the header behind it', async () => {
    const { app } = createLoggedApp(
      (req, _res, next) => {
        req.headers.authorization = `Bearer ${req.get('X-From-Cookie')}`
        next()
      },
      apiKeys.authenticate(),
      showHeaders,
    )

    const answer = await request(app).get('/').set('X-From-Cookie', plainTextKey)

    expect(answer.body.headers.authorization).toBe(mask)
  })

  it('leaves the keys of another instance, whose prefix begins alike, to that', async () => {
    const others = createTestApiKeys(database, { keyPrefix: 'agpt_live' })
    const other = await others.create(newKey({ userId: 'bob' }))
    const { app, logged } = createLoggedApp(
      others.maskKeys(),
      others.requirePermission('READ_GRAPH'),
      (req, res) => {
        res.send(others.getApiKey(req).userId)
      },
    )

    const accepted = await request(app).get('/').set(bearer(other.plainTextKey))
    const masked = await request(app)
      .get('/')
      .set(bearer(`${other.apiKey.prefix}...`))
    const two = await request(app)
      .get('/')
      .set(bearer(other.plainTextKey))
      .set('X-API-Key', other.plainTextKey)
    const refused = await request(app).get('/').set(bearer(plainTextKey))

    expect(accepted.text).toBe('bob')
    expect([masked, two, refused].map(({ body }) => body.code)).toEqual([
      'malformed_credential',
      'malformed_credential',
      'invalid_api_key',
    ])
    expect(logged.join()).not.toContain(other.plainTextKey)
  })

  it('keeps keys from managing keys', async () => {
    const { app } = createLoggedApp(express().use('/api-keys', apiKeys.router()))

    const answer = await request(app)
      .get('/api-keys')
      .set({ ...bearer(plainTextKey), 'X-User': 'alice' })

    expect(answer.body.code).toBe('api_key_not_allowed')
  })
})

/** Another package uses the name. */
const partner: RequestHandler = (req, _res, next) => {
  Object.assign(req, { apiKey: 'partner' })
  next()
}

describe('req.apiKey of the app’s own', () => {
  it('is no key of ours', async () => {
    const app = express().use(partner)
    app.use('/api-keys', apiKeys.router())
    app.get('/page', apiKeys.requirePermission('READ_GRAPH', { orSignedIn: true }), showHeaders)
    app.get('/open', apiKeys.authenticate({ optional: true }), (req, res) => {
      expect(() => apiKeys.getApiKey(req)).toThrow(TypeError)
      res.end()
    })

    const listed = await request(app).get('/api-keys').set('X-User', 'alice')
    const page = await request(app).get('/page').set('X-User', 'alice')
    const open = await request(app).get('/open')

    expect([listed.status, page.status, open.status]).toEqual([200, 200, 200])
  })

  it('stays, and getApiKey returns ours', async () => {
    const app = express().get('/', partner, apiKeys.authenticate(), (req, res) => {
      res.json([req.apiKey, apiKeys.getApiKey(req).userId])
    })

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.body).toEqual(['partner', 'alice'])
  })
})

/** The test double of a response that keeps what it was sent. */
function createResponse() {
  const fields: Record<string, unknown> = {}
  const sent: unknown[] = []
  const res = {
    statusCode: 200,
    headersSent: false,
    setHeader: (name: string, value: unknown) => void (fields[name] = value),
    getHeader: (name: string) => fields[name],
    end: (body?: unknown) => void sent.push(body),
  }
  // All that a guard needs of one.
  return { res: res as unknown as ServerResponse, fields, sent }
}

/** Calls a guard as a test of the app does, without a server. */
function call(
  guard: (req: IncomingMessage, res: ServerResponse, next: () => void) => void,
  req: object,
) {
  const { res, fields, sent } = createResponse()
  return new Promise<{ passed: boolean; status: number; fields: typeof fields; sent: unknown[] }>(
    (resolve) => {
      const settle = (passed: boolean) => resolve({ passed, status: res.statusCode, fields, sent })
      Object.assign(res, { end: (body: unknown) => (sent.push(body), settle(false)) })
      guard(req as IncomingMessage, res, () => settle(true))
    },
  )
}

const plainRequest = (authorization?: string) => ({
  method: 'GET',
  url: '/',
  headers: { ...(authorization !== undefined && { authorization }) },
})

describe('a request without rawHeaders', () => {
  it('passes with a good key, which is masked, and is verified once', async () => {
    const req = plainRequest(`Bearer ${plainTextKey}`)
    const before = await countVerifications(apiKeys)

    const first = await call(apiKeys.requirePermission('READ_GRAPH'), req)
    const second = await call(apiKeys.authenticate(), req)

    expect([first.passed, second.passed]).toEqual([true, true])
    expect(apiKeys.getApiKey(req).userId).toBe('alice')
    expect(req.headers).toEqual({ authorization: mask })
    expect(Object.keys(req)).toEqual(['method', 'url', 'headers', 'apiKey', 'user'])
    expect(await countVerifications(apiKeys)).toBe(before + 1)
  })

  it('is another one than the next, if both share a list without lines', async () => {
    const rawHeaders: string[] = []
    const [mine, others] = [plainRequest(`Bearer ${plainTextKey}`), plainRequest()]

    await call(apiKeys.authenticate(), Object.assign(mine, { rawHeaders }))
    const second = await call(apiKeys.authenticate(), Object.assign(others, { rawHeaders }))

    expect(apiKeys.getApiKey(mine).userId).toBe('alice')
    expect([second.passed, second.status]).toEqual([false, 401])
  })

  it('is refused in text that a test double shows', async () => {
    const { passed, status, fields, sent } = await call(apiKeys.authenticate(), plainRequest())

    expect([passed, status]).toEqual([false, 401])
    expect(fields['WWW-Authenticate']).toBe('Bearer realm="api"')
    expect(JSON.parse(String(sent[0]))).toMatchObject({ code: 'missing_credential' })
    expect(typeof sent[0]).toBe('string')
  })

  it('goes on to the app where there is nothing to answer with', async () => {
    const failure = await new Promise((resolve) => {
      const req = plainRequest(`Bearer ${plainTextKey}x`) as unknown as IncomingMessage
      apiKeys.authenticate()(req, {} as ServerResponse, resolve)
    })

    expect(failure).toMatchObject({ code: 'invalid_api_key', status: 401 })
  })
})

/** As in some versions of Deno, and in other servers that take Express's middlewares. */
const renew: RequestHandler = (req, _res, next) => {
  const lines = [...req.rawHeaders]
  Object.setPrototypeOf(
    req,
    Object.create(Object.getPrototypeOf(req) as object, {
      rawHeaders: { get: () => [...lines], configurable: true },
    }) as object,
  )
  Reflect.deleteProperty(req, 'rawHeaders')
  expect(req.rawHeaders).not.toBe(req.rawHeaders)
  next()
}

function createApp(...middlewares: RequestHandler[]) {
  const app = express().use(renew, ...middlewares, showHeaders)
  app.use((error: Error, _req: Request, res: Response, _next: NextFunction) => {
    res.status(500).json({ app: error.message })
  })
  return app
}

describe('a request whose headers are made anew at each reading', () => {
  it('is verified once, and masked for good', async () => {
    const app = createApp(apiKeys.authenticate(), apiKeys.requirePermission('READ_GRAPH'))
    const before = await countVerifications(apiKeys)

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.status).toBe(200)
    expect(answer.text).not.toContain(plainTextKey)
    expect(answer.body.rawHeaders).toContain(mask)
    expect(await countVerifications(apiKeys)).toBe(before + 1)
  })

  it('is refused for what the first guard found', async () => {
    const app = createApp(apiKeys.authenticate({ optional: true }), apiKeys.authenticate())

    const none = await request(app).get('/')
    const wrong = await request(app)
      .get('/')
      .set(bearer(`${plainTextKey}x`))

    expect([none.body.code, wrong.body.code]).toEqual(['missing_credential', 'invalid_api_key'])
  })
})
