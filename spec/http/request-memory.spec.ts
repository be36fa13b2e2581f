import type { IncomingMessage, ServerResponse } from 'node:http'

import express, {
  type NextFunction,
  type Request,
  type RequestHandler,
  type Response,
} from 'express'
import { Passport } from 'passport'

import { countVerifications } from '../support/app'
import { bearer } from '../support/http'
import { newKey } from '../support/keys'
import { useWorld } from '../support/world'

const { apiKeys, http, createKey, createProcess } = useWorld({
  options: { header: 'X-API-Key' },
})

let plainTextKey: string
/** The part of the key that a log may show. */
let mask: string

beforeAll(async () => {
  const created = await createKey()
  plainTextKey = created.plainTextKey
  mask = `Bearer ${created.apiKey.prefix}...`
})

/** Shows the headers in all views. */
const showHeaders: RequestHandler = ({ headers, rawHeaders, headersDistinct }, res) => {
  res.json({ headers, rawHeaders, headersDistinct })
}

describe('the mask of a key', () => {
  it('differs between keys, so that a cache by Authorization behind a guard keeps two users apart', async () => {
    const cache = new Map<string, string>()
    const app = express().get('/', apiKeys.authenticate(), (req, res) => {
      const known = cache.get(String(req.headers.authorization))
      const answer = known ?? apiKeys.getApiKey(req).userId
      cache.set(String(req.headers.authorization), answer)
      res.send(answer)
    })
    const bob = await createKey({ userId: 'bob' })

    const answers = [
      await http.to(app).with(plainTextKey).get('/'),
      await http.to(app).with(bob.plainTextKey).get('/'),
      await http.to(app).with(plainTextKey).get('/'),
    ]

    expect(answers.map(({ text }) => text)).toEqual(['alice', 'bob', 'alice'])
    expect([...cache.keys()]).toEqual([mask, `Bearer ${bob.apiKey.prefix}...`])
  })

  it('is no credential', async () => {
    const app = express().get('/', apiKeys.authenticate(), showHeaders)

    const sent = [
      await http.to(app).get('/').set('Authorization', mask),
      await http.to(app).get('/').set('X-API-Key', mask.slice('Bearer '.length)),
    ]

    expect(sent.map(({ body }) => body.code)).toEqual([
      'malformed_credential',
      'malformed_credential',
    ])
  })

  it('is in every view of the headers, also in views that the app read before', async () => {
    const app = express().get(
      '/',
      (req, _res, next) => {
        expect(req.headersDistinct.authorization).toEqual([`Bearer ${plainTextKey}`])
        next()
      },
      apiKeys.authenticate(),
      showHeaders,
    )

    const plain = await http.to(app).with(plainTextKey).get('/')
    const other = await http
      .to(app)
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

/** A middleware of the app that removes headers. */
const removeHeader: RequestHandler = (req, _res, next) => {
  delete req.headers['x-api-key']
  next()
}

describe('the result of a guard', () => {
  it('holds for later guards, whatever the app does with the headers', async () => {
    const app = express().get(
      '/',
      apiKeys.authenticate(),
      removeHeader,
      apiKeys.requirePermission('READ_GRAPH'),
      showHeaders,
    )

    const answer = await http
      .to(app)
      .get('/')
      .set({ 'X-API-Key': plainTextKey, Authorization: 'Bearer a.b.c' })

    expect(answer.status).toBe(200)
  })
})

describe('maskKeys', () => {
  it('hides keys from a logger in front, also on routes without a guard', async () => {
    const { app, logged } = createLoggedApp(showHeaders)

    const answers = [
      await http.to(app).with(plainTextKey).get('/'),
      await http.to(app).get('/').set('X-API-Key', plainTextKey),
      await http.to(app).get('/').set('Authorization', `Token ${plainTextKey}`),
    ]

    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200])
    expect(logged).toHaveLength(3)
    expect(logged.join()).not.toContain(plainTextKey)
    expect(logged.join()).toContain(mask)
  })

  it('decides nothing, and guards behind it decide', async () => {
    const { app } = createLoggedApp(
      apiKeys.maskKeys(),
      apiKeys.requirePermission('READ_GRAPH'),
      apiKeys.authenticate(),
      (req, res) => {
        res.send(apiKeys.getApiKey(req).userId)
      },
    )
    const before = await countVerifications(apiKeys)

    const accepted = await http.to(app).with(plainTextKey).get('/')
    const inHeader = await http.to(app).get('/').set('X-API-Key', plainTextKey)
    const wrong = await http.to(app).with(`${plainTextKey}x`).get('/')
    const none = await http.to(app).get('/')

    expect([accepted.text, inHeader.text]).toEqual(['alice', 'alice'])
    expect([wrong.body.code, none.body.code]).toEqual(['invalid_api_key', 'missing_credential'])
    expect(await countVerifications(apiKeys)).toBe(before + 2)
  })

  it('lets the strategy decide', async () => {
    const passport = new Passport().use(apiKeys.strategy)
    const { app } = createLoggedApp(passport.authenticate('api-key'), showHeaders)

    const accepted = await http.to(app).with(plainTextKey).get('/')
    const wrong = await http.to(app).with(`${plainTextKey}x`).get('/')

    expect([accepted.status, wrong.status]).toEqual([200, 401])
  })

  it('does not mask a key that the app puts into the header behind it', async () => {
    const { app } = createLoggedApp(
      (req, _res, next) => {
        req.headers.authorization = `Bearer ${req.get('X-From-Cookie')}`
        next()
      },
      apiKeys.authenticate(),
      showHeaders,
    )

    const answer = await http.to(app).get('/').set('X-From-Cookie', plainTextKey)

    expect(answer.body.headers.authorization).toBe(mask)
  })

  it('leaves the keys of another instance with a similar prefix to that instance', async () => {
    const others = createProcess({ keyPrefix: 'agpt_live' }).apiKeys
    const other = await others.create(newKey({ userId: 'bob' }))
    const { app, logged } = createLoggedApp(
      others.maskKeys(),
      others.requirePermission('READ_GRAPH'),
      (req, res) => {
        res.send(others.getApiKey(req).userId)
      },
    )

    const accepted = await http.to(app).with(other.plainTextKey).get('/')
    const masked = await http.to(app).with(`${other.apiKey.prefix}...`).get('/')
    const two = await http
      .to(app)
      .with(other.plainTextKey)
      .get('/')
      .set('X-API-Key', other.plainTextKey)
    const refused = await http.to(app).with(plainTextKey).get('/')

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

    const answer = await http
      .to(app)
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
  it('is not taken for a key of the library', async () => {
    const app = express().use(partner)
    app.use('/api-keys', apiKeys.router())
    app.get('/page', apiKeys.requirePermission('READ_GRAPH', { orSignedIn: true }), showHeaders)
    app.get('/open', apiKeys.authenticate({ optional: true }), (req, res) => {
      expect(() => apiKeys.getApiKey(req)).toThrow(TypeError)
      res.end()
    })

    const listed = await http.to(app).as('alice').get('/api-keys')
    const page = await http.to(app).as('alice').get('/page')
    const open = await http.to(app).get('/open')

    expect([listed.status, page.status, open.status]).toEqual([200, 200, 200])
  })

  it('stays, and getApiKey returns ours', async () => {
    const app = express().get('/', partner, apiKeys.authenticate(), (req, res) => {
      res.json([req.apiKey, apiKeys.getApiKey(req).userId])
    })

    const answer = await http.to(app).with(plainTextKey).get('/')

    expect(answer.body).toEqual(['partner', 'alice'])
  })
})

/** The test double of a response, which keeps the body. */
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
  // Everything that a guard needs of a response.
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
  it('passes with a valid key, which is masked and verified once', async () => {
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

  it('is not confused with the next, if both share an empty list of headers', async () => {
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

  it('goes on to the app if no response can be sent', async () => {
    const failure = await new Promise((resolve) => {
      const req = plainRequest(`Bearer ${plainTextKey}x`) as unknown as IncomingMessage
      apiKeys.authenticate()(req, {} as ServerResponse, resolve)
    })

    expect(failure).toMatchObject({ code: 'invalid_api_key', status: 401 })
  })
})

/** Like requests in some versions of Deno, and in servers that take middlewares of Express. */
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

describe('a request whose headers are a new object at each reading', () => {
  it('is verified once, and masked for good', async () => {
    const app = createApp(apiKeys.authenticate(), apiKeys.requirePermission('READ_GRAPH'))
    const before = await countVerifications(apiKeys)

    const answer = await http.to(app).with(plainTextKey).get('/')

    expect(answer.status).toBe(200)
    expect(answer.text).not.toContain(plainTextKey)
    expect(answer.body.rawHeaders).toContain(mask)
    expect(await countVerifications(apiKeys)).toBe(before + 1)
  })

  it('is refused by the result of the first guard', async () => {
    const app = createApp(apiKeys.authenticate({ optional: true }), apiKeys.authenticate())

    const none = await http.to(app).get('/')
    const wrong = await http.to(app).with(`${plainTextKey}x`).get('/')

    expect([none.body.code, wrong.body.code]).toEqual(['missing_credential', 'invalid_api_key'])
  })
})
