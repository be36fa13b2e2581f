import { randomBytes, randomUUID } from 'node:crypto'

import express, {
  type Express,
  type NextFunction,
  type Request,
  type RequestHandler,
  type Response,
} from 'express'
import { Passport } from 'passport'
import request, { type Test } from 'supertest'

import { ApiKeysError, createApiKeys, InvalidApiKeyError, type ErrorCode } from '../../lib'
import { createSecretFormat } from '../../lib/keys/secret'
import {
  countVerifications,
  createTestApiKeys,
  createTestApp,
  type TestApiKeys,
} from '../support/app'
import { createDatabase, databaseAway, type Database } from '../support/database'
import { redisAway } from '../support/redis'
import { sendRaw } from '../support/raw-http'
import { until } from '../support/until'

let database: Database
let apiKeys: TestApiKeys
let app: Express
let appWithoutDatabase: Express
/** Where nobody says what users may do. */
let appWithoutRoles: Express
/** Where nobody may fail twice. */
let strictApp: Express
/** Whose Redis is away. */
let appWithoutRedis: Express
/** Has a secret, and so does not take the audit trail of the others for its own. */
let foreignApp: Express

/** Alice's one key, which may read graphs and nothing else. */
let plainTextKey: string
/** A key that works from elsewhere. */
let boundKey: string
/** A key that works twice. */
let limitedKey: string
let suspendedId: string
let expiredId: string
let revokedId: string

beforeAll(async () => {
  database = await createDatabase()
  apiKeys = createTestApiKeys(database, {
    header: 'X-API-Key',
    maxKeysPerUser: 1,
  })
  app = createGraphsApp(apiKeys)
  appWithoutDatabase = createGraphsApp(createTestApiKeys(databaseAway))
  foreignApp = createGraphsApp(createTestApiKeys(database, { secrets: [randomBytes(32)] }))

  strictApp = createGraphsApp(createTestApiKeys(database, { maxFailedAttemptsPerMinute: 1 }))
  const limits = { burst: { limit: 1, windowSeconds: 60 } }
  appWithoutRedis = createGraphsApp(createTestApiKeys(database, { limits, redis: redisAway }))
  const roleless = { grantable: () => Promise.reject(new Error('no roles today')) }
  appWithoutRoles = createGraphsApp(createTestApiKeys(database, roleless))
  const key = { userId: 'alice', name: 'CI', permissions: ['READ_GRAPH'] } as const
  const { apiKey: revoked } = await apiKeys.create(key)
  revokedId = revoked.id
  await apiKeys.revoke(revokedId)
  plainTextKey = (await apiKeys.create(key)).plainTextKey
  const { apiKey: suspended } = await apiKeys.create({ ...key, userId: 'grace' })
  suspendedId = suspended.id
  await apiKeys.suspend(suspendedId)
  const expired = { ...key, userId: 'ivan', expiresAt: new Date(Date.now() + 60_000) }
  expiredId = (await apiKeys.create(expired)).apiKey.id
  await database.connect().query(`UPDATE api_keys SET expires_at = now() WHERE id = '${expiredId}'`)
  const bound = { ...key, userId: 'frank', allowedIps: ['203.0.113.7'] }
  boundKey = (await apiKeys.create(bound)).plainTextKey
  const limited = { ...key, userId: 'heidi', limits: { night: { limit: 2, windowSeconds: 60 } } }
  limitedKey = (await apiKeys.create(limited)).plainTextKey
})

afterAll(async () => {
  redisAway.disconnect()
  await databaseAway.drop()
  await database.drop()
})

function createGraphsApp(keys: TestApiKeys) {
  return createTestApp(keys, (app) => {
    app.get('/graphs', keys.requirePermission('READ_GRAPH'), (_req, res) => {
      res.json({ graphs: [] })
    })
    app.get('/dear', keys.requirePermission('READ_GRAPH', { cost: 3 }), (_req, res) => {
      res.json({ graphs: [] })
    })
    app.post(
      '/graphs',
      keys.requirePermission(['READ_GRAPH', 'READ_BLOCK', 'EXECUTE_BLOCK']),
      (_req, res) => {
        res.json({ graph: {} })
      },
    )
  })
}

function bearer(key: string) {
  return { Authorization: `Bearer ${key}` }
}

/** A key that nobody has made. */
function forge() {
  return createSecretFormat({ keyPrefix: 'agpt', secrets: [], acceptUnkeyed: false }).mint()
    .plainTextKey
}

const alice = { 'X-User': 'alice' }

interface Row {
  when: string
  /** What has to happen before. */
  before?: () => Promise<unknown>
  send: () => Test
  status: number
  headers?: Record<string, string>
  body: object
}

/** What HTTP answers to every refusal, to the byte. It does not compile while a code lacks its row. */
const rows: Record<ErrorCode, Row> = {
  missing_credential: {
    when: 'no credential',
    send: () => request(app).get('/graphs'),
    status: 401,
    headers: { 'www-authenticate': 'Bearer realm="api"' },
    body: {
      title: 'Unauthorized',
      status: 401,
      detail: 'This needs an API key. Send it in the header: Authorization: Bearer <key>.',
      code: 'missing_credential',
    },
  },
  malformed_credential: {
    when: 'a header that is none',
    send: () => request(app).get('/graphs').set('Authorization', 'Bearer a b'),
    status: 400,
    headers: { 'www-authenticate': 'Bearer realm="api", error="invalid_request"' },
    body: {
      title: 'Bad Request',
      status: 400,
      detail:
        'The API key is not sent as it should be. Send it in the header: Authorization: Bearer <key>.',
      code: 'malformed_credential',
    },
  },
  multiple_credentials: {
    when: 'two keys',
    send: () =>
      request(app).get('/graphs').set(bearer(plainTextKey)).set('X-API-Key', plainTextKey),
    status: 400,
    headers: { 'www-authenticate': 'Bearer realm="api", error="invalid_request"' },
    body: {
      title: 'Bad Request',
      status: 400,
      detail: 'The request carries more than one credential. Send exactly one.',
      code: 'multiple_credentials',
    },
  },
  invalid_api_key: {
    when: 'a key that is not good',
    send: () =>
      request(app)
        .get('/graphs')
        .set(bearer(`${plainTextKey}x`)),
    status: 401,
    headers: { 'www-authenticate': 'Bearer realm="api", error="invalid_token"' },
    body: {
      title: 'Unauthorized',
      status: 401,
      detail: 'The API key is not valid. It is unknown, revoked, suspended or expired.',
      code: 'invalid_api_key',
    },
  },
  rate_limited: {
    when: 'a key that is used too often',
    send: () => request(app).get('/dear').set(bearer(limitedKey)),
    status: 429,
    headers: {
      'retry-after': '60',
      ratelimit: '"night";r=2;t=60',
      'ratelimit-policy': '"night";q=2;w=60',
    },
    body: {
      type: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
      title: 'Too Many Requests',
      status: 429,
      detail: 'The API key is used too often. Wait as long as the header Retry-After says.',
      code: 'rate_limited',
      'violated-policies': ['night'],
    },
  },
  too_many_attempts: {
    when: 'too much that is no key',
    before: () => request(strictApp).get('/graphs').set(bearer('agpt_nonsense')),
    send: () => request(strictApp).get('/graphs').set(bearer('agpt_nonsense')),
    status: 429,
    headers: { 'retry-after': '60' },
    body: {
      type: 'https://iana.org/assignments/http-problem-types#abnormal-usage-detected',
      title: 'Too Many Requests',
      status: 429,
      detail:
        'Too many failed attempts from this address. Wait as long as the header Retry-After says.',
      code: 'too_many_attempts',
    },
  },
  limiter_unavailable: {
    when: 'Redis out of reach',
    send: () => request(appWithoutRedis).get('/graphs').set(bearer(plainTextKey)),
    status: 503,
    headers: { 'retry-after': '1' },
    body: {
      title: 'Service Unavailable',
      status: 503,
      detail: 'The limits of the API key cannot be checked at the moment. Try again shortly.',
      code: 'limiter_unavailable',
    },
  },
  grantable_unavailable: {
    when: 'nobody to say what the owner may do',
    send: () => request(appWithoutRoles).get('/graphs').set(bearer(plainTextKey)),
    status: 503,
    headers: { 'retry-after': '1' },
    body: {
      title: 'Service Unavailable',
      status: 503,
      detail:
        'What the owner of the API key may do cannot be checked at the moment. Try again shortly.',
      code: 'grantable_unavailable',
    },
  },
  too_many_lookups: {
    when: 'too many keys that anybody can make',
    before: () =>
      Promise.all(
        Array.from({ length: 12 }, () => request(strictApp).get('/graphs').set(bearer(forge()))),
      ),
    send: () => request(strictApp).get('/graphs').set(bearer(forge())),
    status: 503,
    headers: { 'retry-after': '1' },
    body: {
      title: 'Service Unavailable',
      status: 503,
      detail: 'Too many unknown API keys from this address. Try again shortly.',
      code: 'too_many_lookups',
    },
  },
  missing_permission: {
    when: 'a key that holds too little',
    send: () => request(app).post('/graphs').set(bearer(plainTextKey)),
    status: 403,
    headers: {
      'www-authenticate':
        'Bearer realm="api", error="insufficient_scope", scope="READ_GRAPH READ_BLOCK EXECUTE_BLOCK"',
    },
    body: {
      title: 'Forbidden',
      status: 403,
      detail: 'The API key does not have the permission that this needs.',
      code: 'missing_permission',
      missing: ['READ_BLOCK', 'EXECUTE_BLOCK'],
    },
  },
  address_not_allowed: {
    when: 'a key that works from elsewhere',
    send: () => request(app).get('/graphs').set(bearer(boundKey)),
    status: 403,
    body: {
      title: 'Forbidden',
      status: 403,
      detail: 'The API key may not be used from this address.',
      code: 'address_not_allowed',
    },
  },
  not_signed_in: {
    when: 'nobody signed in',
    send: () => request(app).get('/api-keys'),
    status: 401,
    headers: { 'www-authenticate': 'Bearer realm="api"' },
    body: {
      title: 'Unauthorized',
      status: 401,
      detail: 'Sign in first.',
      code: 'not_signed_in',
    },
  },
  not_an_admin: {
    when: 'an ordinary user among administrators',
    send: () => request(app).get('/admin/api-keys').set(alice),
    status: 403,
    body: {
      title: 'Forbidden',
      status: 403,
      detail: 'Only an administrator may do this.',
      code: 'not_an_admin',
    },
  },
  api_key_not_allowed: {
    when: 'a key that would manage keys',
    send: () => request(app).get('/api-keys').set(alice).set(bearer(plainTextKey)),
    status: 403,
    body: {
      title: 'Forbidden',
      status: 403,
      detail: 'API keys are not managed with an API key. Sign in instead, and send no key.',
      code: 'api_key_not_allowed',
    },
  },
  cross_site_request: {
    when: 'a page of another site',
    send: () => request(app).post('/api-keys').set(alice).set('Sec-Fetch-Site', 'cross-site'),
    status: 403,
    body: {
      title: 'Forbidden',
      status: 403,
      detail: 'A request from another site may not change anything here.',
      code: 'cross_site_request',
    },
  },
  precondition_failed: {
    when: 'a validator that no answer has',
    send: () => request(app).post('/api-keys').set(alice).set('If-Match', '"v1"'),
    status: 412,
    body: {
      title: 'Precondition Failed',
      status: 412,
      detail: 'API keys have no ETag here, so If-Match is never met. Leave it out.',
      code: 'precondition_failed',
    },
  },
  api_key_not_found: {
    when: 'an id that no key has',
    send: () =>
      request(app).get('/api-keys/00000000-0000-4000-8000-000000000000').set('X-User', 'alice'),
    status: 404,
    body: {
      title: 'Not Found',
      status: 404,
      detail: 'There is no such API key.',
      code: 'api_key_not_found',
    },
  },
  method_not_allowed: {
    when: 'a method that the path does not have',
    send: () => request(app).put('/api-keys').set(alice),
    status: 405,
    headers: { allow: 'GET, POST, HEAD, OPTIONS' },
    body: {
      title: 'Method Not Allowed',
      status: 405,
      detail: 'This method is not allowed here. The header Allow names those that are.',
      code: 'method_not_allowed',
    },
  },
  api_key_suspended: {
    when: 'a new secret for a suspended key',
    send: () => request(app).post(`/api-keys/${suspendedId}/rotate`).set({ 'X-User': 'grace' }),
    status: 409,
    body: {
      title: 'Conflict',
      status: 409,
      detail: 'The API key is suspended. Reactivate it first.',
      code: 'api_key_suspended',
    },
  },
  api_key_expired: {
    when: 'a new secret for an expired key',
    send: () => request(app).post(`/api-keys/${expiredId}/rotate`).set({ 'X-User': 'ivan' }),
    status: 409,
    body: {
      title: 'Conflict',
      status: 409,
      detail: 'The API key has expired. Give it a later expiresAt first.',
      code: 'api_key_expired',
    },
  },
  api_key_revoked: {
    when: 'a change of a revoked key',
    send: () => request(app).post(`/api-keys/${revokedId}/suspend`).set(alice),
    status: 409,
    body: {
      title: 'Conflict',
      status: 409,
      detail: 'The API key is revoked, and stays so. Create a new one.',
      code: 'api_key_revoked',
    },
  },
  too_many_api_keys: {
    when: 'a key more than a user may have',
    send: () =>
      request(app)
        .post('/api-keys')
        .set(alice)
        .send({ name: 'Second', permissions: ['READ_GRAPH'] }),
    status: 409,
    body: {
      title: 'Conflict',
      status: 409,
      detail: 'This user has as many API keys as are allowed. Revoke one first.',
      code: 'too_many_api_keys',
    },
  },
  audit_trail_not_intact: {
    when: 'an end of the audit trail that is not ours',
    send: () => request(foreignApp).get('/admin/api-keys/audit-head').set({ 'X-User': 'admin' }),
    status: 409,
    body: {
      title: 'Conflict',
      status: 409,
      detail:
        'The end of the audit trail is not as it was left. Verify the trail to see what is wrong.',
      code: 'audit_trail_not_intact',
    },
  },
  unsupported_media_type: {
    when: 'a form',
    send: () => request(app).post('/api-keys').set(alice).type('form').send({ name: 'CI' }),
    status: 415,
    headers: { accept: 'application/json', 'accept-encoding': 'gzip, deflate' },
    body: {
      title: 'Unsupported Media Type',
      status: 415,
      detail: 'The body must be JSON in UTF-8, with the header: Content-Type: application/json.',
      code: 'unsupported_media_type',
    },
  },
  malformed_json: {
    when: 'half of a JSON text',
    send: () => request(app).post('/api-keys').set(alice).type('json').send('{"name":'),
    status: 400,
    body: {
      title: 'Bad Request',
      status: 400,
      detail: 'The body is not valid JSON.',
      code: 'malformed_json',
    },
  },
  body_too_large: {
    when: 'more than 32 kB',
    send: () =>
      request(app)
        .post('/api-keys')
        .set(alice)
        .send({ name: 'x'.repeat(32 * 1024) }),
    status: 413,
    body: {
      title: 'Payload Too Large',
      status: 413,
      detail: 'The body is larger than 32 kB.',
      code: 'body_too_large',
    },
  },
  invalid_input: {
    when: 'input against the rules',
    send: () => request(app).post('/api-keys').set(alice).send({ name: '', permissions: [] }),
    status: 422,
    body: {
      title: 'Unprocessable Entity',
      status: 422,
      detail: 'The input breaks the rules: #/name must have 1 to 100 characters, and 1 more',
      code: 'invalid_input',
      errors: [
        { pointer: '#/name', message: 'must have 1 to 100 characters' },
        { pointer: '#/permissions', message: 'must name at least one permission' },
      ],
    },
  },
  database_unavailable: {
    when: 'the database out of reach',
    send: () => request(appWithoutDatabase).get('/graphs').set(bearer(plainTextKey)),
    status: 503,
    headers: { 'retry-after': '1' },
    body: {
      title: 'Service Unavailable',
      status: 503,
      detail: 'API keys cannot be checked or changed at the moment. Try again shortly.',
      code: 'database_unavailable',
    },
  },
}

describe('every refusal', () => {
  it.each(Object.values(rows))('answers $when with $status', async ({ before, send, ...row }) => {
    await before?.()

    const answer = await send()

    expect(answer.status).toBe(row.status)
    expect(answer.text).toBe(JSON.stringify(row.body))
    expect(headersOf(answer)).toEqual({
      'content-type': 'application/problem+json',
      'content-length': String(answer.text.length),
      'cache-control': 'no-store',
      ...row.headers,
    })
  })
})

/** All headers but those of Express and of the connection. */
function headersOf({ headers }: { headers: Record<string, string> }) {
  const others = new Set(['date', 'connection', 'x-powered-by'])
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !others.has(name)))
}

describe('a key that is not good', () => {
  it('is refused in the same words, whatever is wrong with it', async () => {
    const key = { userId: 'bob', name: 'CI', permissions: ['READ_GRAPH'] } as const
    const suspended = await apiKeys.create(key)
    await apiKeys.suspend(suspended.apiKey.id)
    const expired = await apiKeys.create({ ...key, userId: 'carol' })
    await apiKeys.update(expired.apiKey.id, { expiresAt: new Date(Date.now() + 60_000) })
    await database
      .connect()
      .query(`UPDATE api_keys SET expires_at = now() WHERE id = '${expired.apiKey.id}'`)
    const revoked = await apiKeys.create({ ...key, userId: 'dave' })
    await apiKeys.revoke(revoked.apiKey.id)
    const unknown = await apiKeys.create({ ...key, userId: 'erin' })
    await database.connect().query(`DELETE FROM api_keys WHERE id = '${unknown.apiKey.id}'`)

    const all = [suspended, expired, revoked, unknown].map(({ plainTextKey }) => plainTextKey)
    for (const bad of [...all, plainTextKey.slice(0, -1), 'agpt_', 'a.b.c']) {
      const answer = await request(app).get('/graphs').set(bearer(bad))

      expect(answer.status).toBe(401)
      expect(answer.headers['www-authenticate']).toBe('Bearer realm="api", error="invalid_token"')
      expect(answer.text).toBe(JSON.stringify(rows.invalid_api_key.body))
    }
  })
})

describe('the database out of reach', () => {
  it('does not keep a mistyped key from its 401, which needs no database', async () => {
    const answer = await request(appWithoutDatabase)
      .get('/graphs')
      .set(bearer(`${plainTextKey}x`))

    expect(answer.status).toBe(401)
  })
})

describe('a challenge', () => {
  it('quotes the realm', async () => {
    const keys = createTestApiKeys(database, { realm: 'the "graphs" of C:\\agents' })

    const answer = await request(createGraphsApp(keys)).get('/graphs')

    expect(answer.headers['www-authenticate']).toBe(
      String.raw`Bearer realm="the \"graphs\" of C:\\agents"`,
    )
  })

  it('names permissions of every character that a scope may have', async () => {
    const everyCharacter = "!#$%&'()*+,-./:;<=>?@[]^_`{|}~09azAZ"
    const keys = createApiKeys({
      sequelize: database.connect(),
      keyPrefix: 'agpt',
      permissions: ['READ', everyCharacter],
    })
    database.closeFirst(keys)
    const { plainTextKey } = await keys.create({ userId: 'eve', name: 'CI', permissions: ['READ'] })
    const app = express().use(keys.requirePermission(everyCharacter))

    const answer = await request(app).get('/').set(bearer(plainTextKey))

    expect(answer.headers['www-authenticate']).toBe(
      `Bearer realm="api", error="insufficient_scope", scope="${everyCharacter}"`,
    )
    expect(answer.body.missing).toEqual([everyCharacter])
  })

  it.each(['READ GRAPH', 'READ"GRAPH', 'READ\\GRAPH', 'LIRE_L’ÂME', 'READ\nGRAPH', ''])(
    'never has to name %j, which is refused at start-up',
    (permission) => {
      const create = () =>
        createApiKeys({
          sequelize: database.connect(),
          keyPrefix: 'agpt',
          permissions: [permission as 'READ_GRAPH'],
        })

      expect(create).toThrow(TypeError)
      expect(create).toThrow('printable ASCII')
    },
  )
})

describe('HEAD', () => {
  it('is refused as GET is, without the body', async () => {
    const get = await sendRaw(app, ['GET /graphs HTTP/1.1'])
    const head = await sendRaw(app, ['HEAD /graphs HTTP/1.1'])

    expect(head.status).toBe(401)
    expect({ ...head.headers, date: '' }).toEqual({ ...get.headers, date: '' })
    expect(head.body).toBe('')
  })
})

describe('the header Authorization', () => {
  const garbage = 'x'.repeat(8 * 1024)

  it.each([
    ['no key at all', [], 'missing_credential'],
    ['an empty header', ['Authorization:'], 'missing_credential'],
    ['another scheme', ['Authorization: Basic YWxpY2U6c2VjcmV0'], 'missing_credential'],
    ['Bearer without a token', ['Authorization: Bearer'], 'malformed_credential'],
    ['Bearer and spaces', ['Authorization: Bearer   '], 'malformed_credential'],
    ['two tokens', ['Authorization: Bearer a b'], 'malformed_credential'],
    ['a list', ['Authorization: Bearer KEY, Bearer KEY'], 'malformed_credential'],
    ['a parameter', ['Authorization: Bearer token="KEY"'], 'malformed_credential'],
    ['a key without scheme', ['Authorization: KEY'], 'malformed_credential'],
    ['a key as Basic', ['Authorization: Basic KEY'], 'malformed_credential'],
    ['a key as Token', ['Authorization: Token token=KEY'], 'malformed_credential'],
    ['a key behind a tab', ['Authorization: Bearer\tKEY'], 'malformed_credential'],
    ['a key in angle brackets', ['Authorization: Bearer <KEY>'], 'malformed_credential'],
    ['a key and a byte of latin1', ['Authorization: Bearer KEY\xe9'], 'malformed_credential'],
    [
      'a key twice',
      ['Authorization: Bearer KEY', 'Authorization: Bearer KEY'],
      'multiple_credentials',
    ],
    [
      'a key after a JWT',
      ['Authorization: Bearer a.b.c', 'Authorization: Bearer KEY'],
      'multiple_credentials',
    ],
    [
      'a key before Basic',
      ['Authorization: Bearer KEY', 'Authorization: Basic eA=='],
      'multiple_credentials',
    ],
    ['8 KiB of garbage', [`Authorization: Bearer ${garbage}`], 'invalid_api_key'],
    ['8 KiB of garbage as a key', [`Authorization: Bearer agpt_${garbage}`], 'invalid_api_key'],
    [
      '8 KiB of separators',
      [`Authorization: ${'=:,; '.repeat(1640)}agpt_`],
      'malformed_credential',
    ],
    ['a key in upper case', ['Authorization: Bearer AGPT_KEY'], 'invalid_api_key'],
  ] satisfies [string, string[], ErrorCode][])(
    'with %s is refused without a look at any key',
    async (_, lines, code) => {
      const before = await countVerifications(apiKeys)

      const answer = await sendRaw(app, [
        'GET /graphs HTTP/1.1',
        ...lines.map((line) => line.replaceAll('KEY', plainTextKey)),
      ])

      expect(answer.status).toBe(rows[code].status)
      expect(answer.headers['www-authenticate']).toBe(rows[code].headers?.['www-authenticate'])
      expect(answer.body).toBe(JSON.stringify(rows[code].body))
      expect(await countVerifications(apiKeys)).toBe(before)
    },
  )

  it.each(['Bearer KEY', 'bearer KEY', 'BEARER KEY', 'bEaReR    KEY', '   Bearer KEY  '])(
    'is understood as %j',
    async (value) => {
      const answer = await sendRaw(app, [
        'GET /graphs HTTP/1.1',
        `authorization:${value.replace('KEY', plainTextKey)}`,
      ])

      expect(answer.status).toBe(200)
    },
  )
})

describe('onRefusal', () => {
  it('answers for guards and routers, in the app’s own format', async () => {
    const app = createAppWith((error, _req, res) => {
      const { code, status, headers, expose, message } = error
      res.status(status).set(headers).json({ mine: { code, status, headers, expose, message } })
    })

    const answers = [
      await request(app).get('/graphs').set(bearer(plainTextKey)),
      await request(app).put('/api-keys'),
      await request(app).get('/api-keys/%ZZ').set(alice),
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
          message: 'This method is not allowed here. The header Allow names those that are.',
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

  it('may tell the app’s log what the client is not told', async () => {
    const reasons: string[] = []
    const app = createAppWith((error, _req, res) => {
      if (error instanceof InvalidApiKeyError) reasons.push(error.reason)
      res.sendStatus(error.status)
    })

    const answer = await request(app).get('/graphs').set(bearer('agpt_nonsense'))

    expect(answer.status).toBe(401)
    expect(reasons).toEqual(['malformed'])
  })

  it('may pass the refusal on to Express, which then answers with its status and headers', async () => {
    const seen: string[] = []
    const app = createAppWith((error, _req, _res, next) => {
      seen.push(error.code)
      next(error)
    })

    const guarded = await request(app).get('/graphs')
    const routed = await request(app).put('/api-keys')
    const inside = await request(app).get('/api-keys')

    expect(guarded.status).toBe(401)
    expect(guarded.headers['www-authenticate']).toBe('Bearer realm="api"')
    expect(routed.status).toBe(405)
    expect(routed.headers.allow).toBe('GET, POST, HEAD, OPTIONS')
    expect(inside.status).toBe(401)
    expect(inside.headers['www-authenticate']).toBe('Bearer realm="api"')
    // Once for each.
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
  ])('reaches the app’s error handler where it %s', async (_, onRefusal) => {
    const app = createAppWith(onRefusal, (error, _req, res, next) => {
      if (res.headersSent) return next(error)
      res.status(500).json({ app: error.message })
    })

    for (const path of ['/graphs', '/api-keys']) {
      const answer = await request(app).get(path)

      expect(answer.status).toBe(500)
      expect(answer.body).toEqual({ app: 'no template' })
    }
  })
})

describe('a function of the app that fails without an error', () => {
  // To Express, some of these mean that a request may pass.
  const noErrors = [undefined, null, false, 0, '', 'route', 'router', { status: 200 }]

  it.each(noErrors)('lets nobody through with %p', async (nothing) => {
    const fail = () => Promise.reject(nothing)
    const failing = createTestApiKeys(database, { currentUser: fail, loadUser: fail })
    const failingAdmin = createTestApiKeys(database, { isAdmin: fail })
    const failingRefusal = createTestApiKeys(database, { onRefusal: fail })
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

    const answers = [
      await request(app).get('/guard').set(bearer(plainTextKey)),
      await request(app).get('/or-signed-in'),
      await request(app).get('/refused'),
      await request(app).get('/passport').set(bearer(plainTextKey)),
      await request(app).get('/owner').set(alice),
      await request(app).get('/admin').set('X-User', 'admin'),
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

describe('an error of the library’s functions', () => {
  it('may be passed to Express, which then answers with its status and headers', async () => {
    const calls = {
      '/missing': () => apiKeys.get(randomUUID()),
      '/revoked': () => apiKeys.suspend(revokedId),
      '/broken': () => apiKeys.create({ userId: 'alice', name: '', permissions: [] }),
      '/away': () => createTestApiKeys(databaseAway).list(),
      '/away-too': () => createTestApiKeys(databaseAway).verify(plainTextKey),
    }
    const app = express()
    for (const [path, call] of Object.entries(calls)) {
      app.get(path, (_req, res, next) => {
        call().then((found) => res.json(found), next)
      })
    }

    const answers = await Promise.all(Object.keys(calls).map((path) => request(app).get(path)))

    expect(answers.map(({ status, headers }) => [status, headers['retry-after']])).toEqual([
      [404, undefined],
      [409, undefined],
      [422, undefined],
      [503, '1'],
      [503, '1'],
    ])
  })

  it('have the status under both names that frameworks read', async () => {
    const error: unknown = await apiKeys.get(randomUUID()).catch((error: unknown) => error)
    if (!(error instanceof ApiKeysError)) throw new Error('not refused', { cause: error })

    const { status, statusCode, headers, expose } = error
    expect({ status, statusCode, headers, expose }).toEqual({
      status: 404,
      statusCode: 404,
      headers: {},
      expose: true,
    })
  })

  it('does not tell in JSON why a key is wrong', () => {
    const error = new InvalidApiKeyError('revoked')

    expect(error.reason).toBe('revoked')
    expect(JSON.stringify(error)).not.toContain('revoked')
  })
})

/** An app of graphs whose refusals `onRefusal` answers. */
function createAppWith(
  onRefusal: (error: ApiKeysError, req: Request, res: Response, next: NextFunction) => unknown,
  handleError?: (error: Error, req: Request, res: Response, next: NextFunction) => void,
) {
  const keys = createTestApiKeys(database, { onRefusal })
  const app = express()
  app.use('/api-keys', keys.router())
  app.get('/graphs', keys.requirePermission('EXECUTE_GRAPH'), (_req, res) => {
    res.json({ graphs: [] })
  })
  if (handleError) app.use(handleError)
  return app
}

describe('an answer that the app gave meanwhile', () => {
  it('stands, and the refusal goes to the app', async () => {
    const passedOn: unknown[] = []
    const app = express()
    app.get(
      '/graphs',
      // It has to ask the database for a key that it does not remember.
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

    const format = createSecretFormat({ keyPrefix: 'agpt', secrets: [], acceptUnkeyed: false })
    const unknownKey = format.mint().plainTextKey

    const answer = await request(impatient)
      .get('/graphs')
      .set('Authorization', `Bearer ${unknownKey}`)
    await until(() => passedOn.length > 0)

    expect(answer.status).toBe(504)
    expect(answer.text).toBe('too slow')
    expect(passedOn).toMatchObject([{ code: 'invalid_api_key', reason: 'unknown' }])
  })
})
