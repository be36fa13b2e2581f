import { randomBytes, randomUUID } from 'node:crypto'
import { STATUS_CODES } from 'node:http'

import express, { type Express } from 'express'
import type { Test } from 'supertest'

import { createApiKeys, type Access, type ErrorCode } from '../../lib'
import { ownerLockSql } from '../../migrations/create-function'
import { tablesOf } from '../../models/tables'
import type { Permission, TestApiKeys } from '../support/app'
import { createBindingApiKeys } from '../support/bound-keys'
import { databaseAway } from '../support/database'
import { environmentOptions, newKeyOf } from '../support/environments'
import { bearer } from '../support/http'
import { forgeKey, newKey } from '../support/keys'
import { expectProblem } from '../support/problem'
import { redisAway } from '../support/redis'
import { sendRaw } from '../support/raw-http'
import { useWorld } from '../support/world'

const { apiKeys, app, http, rows, sequelize, database, createKey, createProcess, holdLock } =
  useWorld({
    options: { header: 'X-API-Key', maxKeysPerOwner: 1 },
    routes: addGraphs,
  })
const alice = http.as('alice')
const withoutDatabase = createProcess({ sequelize: databaseAway.connect() }, addGraphs)
const withoutRoles = createProcess(
  { grantable: () => Promise.reject(new Error('no roles today')) },
  addGraphs,
)
const strict = createProcess({ maxFailedAttemptsPerMinute: 1 }, addGraphs)
const oneToken =
  'The body must be a form, application/x-www-form-urlencoded, with the parameter token, and each parameter once.'
const gitlabToken = 'a token of at least 16 characters'
const leaks = createProcess({}, (app, keys) => {
  const github = { publicKeysUrl: 'http://127.0.0.1:1/' }
  app.use('/leaks', keys.leakRouter({ github, gitlab: { token: gitlabToken }, reports: true }))
  app.use('/oauth', keys.tokenRouter())
})
const insecure = createProcess({ insecureTransport: 'refuse' }, addGraphs)
const withoutRedis = createProcess(
  { limits: { burst: { limit: 1, windowSeconds: 60 } }, redis: redisAway },
  addGraphs,
)
const withEnvironments = createProcess(environmentOptions(), addGraphs)
const withoutTest = createProcess(
  environmentOptions({ environments: { live: 'acme_live', old: 'acme_test' } }),
)
/** An instance whose keys may belong to organizations, with a reader and a member who may do little. */
const withOrganizations = createProcess({ organizations: {} as never }, (app, keys) => {
  const members: Record<string, Access<Permission>> = {
    reader: { id: 'acme', readOnly: true },
    member: { id: 'acme', permissions: ['READ_BLOCK'] },
  }
  app.use('/acme', keys.router({ organization: (_req, { id }) => members[id] }))
})

/** An instance with a secret, which does not accept the audit trail of the instances without it. */
const foreign = createProcess({ secrets: [randomBytes(32)] }, addGraphs)

/** Alice's one key, which may read graphs and nothing else. */
let plainTextKey: string
/** A key that works from another address. */
let boundKey: string
/** A key of one graph. */
let graphKey: string
/** A key that works twice. */
let limitedKey: string
/** A key for tests. */
let testKey: string
let testId: string
/** A key of an organization. */
let acmeId: string
let suspendedId: string
let expiredId: string
let revokedId: string
let exposedId: string

const newInput = { name: 'CI', permissions: ['READ_GRAPH'] }
/** The headers of a request that is sent twice. */
const twice = { 'X-User': 'twice', 'Idempotency-Key': '"request"' }

/** Has another process carry out the request that is sent twice, and returns what the second answer shows. */
async function createTwice() {
  const { body } = await strict.http.set(twice).post('/api-keys', newInput).expect(201)
  return { apiKey: body.apiKey as object }
}

const repeated: { apiKey?: object } = {}

beforeAll(async () => {
  revokedId = (await createKey({ status: 'REVOKED' })).id
  plainTextKey = (await createKey()).plainTextKey
  exposedId = (await createKey({ userId: 'trent' })).id
  suspendedId = (await createKey({ userId: 'grace', status: 'SUSPENDED' })).id
  expiredId = (await createKey({ userId: 'ivan' })).id
  await rows(`UPDATE api_keys SET expires_at = now() WHERE id = '${expiredId}'`)
  boundKey = (await createKey({ userId: 'frank', allowedIps: ['203.0.113.7'] })).plainTextKey
  const graphs = createBindingApiKeys(database)
  const bound = await graphs.create({
    ...newKey({ userId: 'mallory' }),
    resources: { graph: ['7'] },
  })
  graphKey = bound.plainTextKey
  const made = await withEnvironments.apiKeys.create(newKeyOf('test', { userId: 'rupert' }))
  testKey = made.plainTextKey
  testId = made.apiKey.id
  const owner = { type: 'organization', id: 'acme' } as never
  acmeId = (await withOrganizations.apiKeys.create({ ...newInput, owner } as never)).apiKey.id
  const limits = { night: { limit: 2, windowSeconds: 60 } }
  limitedKey = (await createKey({ userId: 'heidi', limits })).plainTextKey
})

afterAll(() => redisAway.disconnect())

function addGraphs(app: Express, keys: TestApiKeys) {
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
}

interface Row {
  when: string
  /** Sends the request that is refused. */
  before?: () => Promise<unknown>
  send: () => Test
  status: number
  headers?: Record<string, string>
  type?: string
  detail: string
  /** The members of the body behind the code. */
  extra?: object
}

/** The HTTP answer to every refusal, to the byte. It does not compile while a code lacks its row. */
const refusals: Record<ErrorCode, Row> = {
  insecure_transport: {
    when: 'a key over plain HTTP',
    send: () => insecure.http.with(plainTextKey).get('/graphs').set('X-Forwarded-Proto', 'http'),
    status: 403,
    detail: 'This needs HTTPS. Replace a key that was sent over plain HTTP.',
  },
  missing_credential: {
    when: 'no credential',
    send: () => http.get('/graphs'),
    status: 401,
    headers: { 'www-authenticate': 'Bearer realm="api"' },
    detail: 'This needs an API key. Send it in the header: Authorization: Bearer <key>.',
  },
  malformed_credential: {
    when: 'a malformed header',
    send: () => http.set({ Authorization: 'Bearer a b' }).get('/graphs'),
    status: 400,
    headers: { 'www-authenticate': 'Bearer realm="api", error="invalid_request"' },
    detail:
      'The API key is sent in a wrong form. Send it in the header: Authorization: Bearer <key>.',
  },
  multiple_credentials: {
    when: 'two keys',
    send: () => http.with(plainTextKey).get('/graphs').set('X-API-Key', plainTextKey),
    status: 400,
    headers: { 'www-authenticate': 'Bearer realm="api", error="invalid_request"' },
    detail: 'The request carries more than one credential. Send exactly one.',
  },
  invalid_api_key: {
    when: 'an invalid key',
    send: () => http.with(`${plainTextKey}x`).get('/graphs'),
    status: 401,
    headers: { 'www-authenticate': 'Bearer realm="api", error="invalid_token"' },
    detail: 'The API key is not valid. It is unknown, revoked, suspended or expired.',
  },
  rate_limited: {
    when: 'a key that is used too often',
    send: () => http.with(limitedKey).get('/dear'),
    status: 429,
    headers: {
      'retry-after': '60',
      ratelimit: '"night";r=2;t=60',
      'ratelimit-policy': '"night";q=2;w=60',
    },
    type: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
    detail: 'The API key is used too often. Wait as long as the header Retry-After says.',
    extra: { 'violated-policies': ['night'] },
  },
  too_many_attempts: {
    when: 'many failed attempts',
    before: () => strict.http.with('agpt_nonsense').get('/graphs'),
    send: () => strict.http.with('agpt_nonsense').get('/graphs'),
    status: 429,
    headers: { 'retry-after': '60' },
    type: 'https://iana.org/assignments/http-problem-types#abnormal-usage-detected',
    detail:
      'Too many failed attempts from this address. Wait as long as the header Retry-After says.',
  },
  invalid_signature: {
    when: 'a report with the signature of nobody',
    send: () => leaks.http.post('/leaks/github', []),
    status: 403,
    detail: 'The signature of the report is not valid.',
  },
  invalid_report_token: {
    when: 'a report with the token of nobody',
    send: () => leaks.http.get('/leaks/revocable_token_types'),
    status: 401,
    headers: { 'www-authenticate': 'Bearer realm="api", error="invalid_token"' },
    detail: 'The token of the report is not valid.',
  },
  malformed_report: {
    when: 'a report of another form',
    send: () => leaks.http.set({ Authorization: gitlabToken }).post('/leaks/revoke_tokens', {}),
    status: 400,
    detail: 'The report does not have the form that is taken here.',
  },
  unsupported_token_type: {
    when: 'a report of GitLab with a type that is not listed',
    send: () =>
      leaks.http
        .set({ Authorization: gitlabToken })
        .post('/leaks/revoke_tokens', [{ type: 'x', token: 'x' }]),
    status: 400,
    detail:
      'A token of the report has a type that is not taken here. The keys among its tokens are refused all the same.',
  },
  malformed_token_request: {
    when: 'a request of the token endpoints without a token',
    send: () => leaks.http.post('/oauth/revoke', {}),
    status: 400,
    headers: { 'content-type': 'application/json' },
    detail: oneToken,
    extra: { error: 'invalid_request', error_description: oneToken },
  },
  too_many_reports: {
    when: 'the 61st report of an hour',
    before: async () => {
      const report = { credentials: ['x'] }
      for (let time = 0; time < 60; time++) await leaks.http.post('/leaks/reports', report)
    },
    send: () => leaks.http.post('/leaks/reports', { credentials: ['x'] }),
    status: 429,
    headers: { 'retry-after': expect.stringMatching(/^3[56]\d\d$/) as string },
    detail: 'Too many reports from this address. Wait as long as the header Retry-After says.',
  },
  report_unverifiable: {
    when: 'a report of a GitHub that does not answer',
    send: () =>
      leaks.http
        .set({ 'Github-Public-Key-Identifier': 'x', 'Github-Public-Key-Signature': 'AAAAAAAA' })
        .post('/leaks/github', []),
    status: 503,
    headers: { 'retry-after': '1' },
    detail: 'The report cannot be checked at the moment. Send it again shortly.',
  },
  limiter_unavailable: {
    when: 'Redis out of reach',
    send: () => withoutRedis.http.with(plainTextKey).get('/graphs'),
    status: 503,
    headers: { 'retry-after': '1' },
    detail: 'The limits of the API key cannot be checked at the moment. Try again shortly.',
  },
  grantable_unavailable: {
    when: 'permissions of an owner that the app cannot name',
    send: () => withoutRoles.http.with(plainTextKey).get('/graphs'),
    status: 503,
    headers: { 'retry-after': '1' },
    detail:
      'The permissions of the owner of the API key cannot be checked at the moment. Try again shortly.',
  },
  too_many_lookups: {
    when: 'many unknown keys',
    before: () =>
      Promise.all(Array.from({ length: 12 }, () => strict.http.with(forgeKey()).get('/graphs'))),
    send: () => strict.http.with(forgeKey()).get('/graphs'),
    status: 503,
    headers: { 'retry-after': '1' },
    detail: 'Too many unknown API keys from this address. Try again shortly.',
  },
  missing_permission: {
    when: 'a key that holds too little',
    send: () => http.with(plainTextKey).post('/graphs'),
    status: 403,
    headers: {
      'www-authenticate':
        'Bearer realm="api", error="insufficient_scope", scope="READ_GRAPH READ_BLOCK EXECUTE_BLOCK"',
    },
    detail: 'The API key does not have the permission that this needs.',
    extra: { missing: ['READ_BLOCK', 'EXECUTE_BLOCK'] },
  },
  address_not_allowed: {
    when: 'a key that works from elsewhere',
    send: () => http.with(boundKey).get('/graphs'),
    status: 403,
    detail: 'The API key may not be used from this address.',
  },
  resource_not_allowed: {
    when: 'a key that is bound to another resource',
    send: () => http.with(graphKey).get('/graphs'),
    status: 403,
    detail: 'The API key may not be used for this resource.',
  },
  environment_not_allowed: {
    when: 'a key of another environment',
    send: () => withEnvironments.http.with(testKey).get('/graphs'),
    status: 403,
    detail: 'API keys of this environment may not be used here.',
  },
  not_signed_in: {
    when: 'no user who is signed in',
    send: () => http.get('/api-keys'),
    status: 401,
    headers: { 'www-authenticate': 'Bearer realm="api"' },
    detail: 'Sign in first.',
  },
  not_an_admin: {
    when: 'a user who is no administrator',
    send: () => alice.get('/admin/api-keys'),
    status: 403,
    detail: 'Only an administrator may do this.',
  },
  api_key_not_allowed: {
    when: 'a key that would manage keys',
    send: () => alice.get('/api-keys').set(bearer(plainTextKey)),
    status: 403,
    detail: 'API keys are not managed with an API key. Sign in instead, and send no key.',
  },
  read_only: {
    when: 'a change by a member who may only read',
    send: () => withOrganizations.http.as('reader').delete(`/acme/${acmeId}`),
    status: 403,
    detail: 'You may see these API keys, but not change them.',
  },
  exceeds_access: {
    when: 'a rotation by a member who may do less than the key',
    send: () => withOrganizations.http.as('member').post(`/acme/${acmeId}/rotate`),
    status: 403,
    detail: 'The API key may do more than you may, so you may only restrict it.',
  },
  organization_not_found: {
    when: 'an organization to which the user has no access',
    send: () => withOrganizations.http.as('alice').get('/acme'),
    status: 404,
    detail: 'There is no such organization.',
  },
  cross_site_request: {
    when: 'a page of another site',
    send: () => alice.post('/api-keys').set('Sec-Fetch-Site', 'cross-site'),
    status: 403,
    detail: 'A request from another site may not change anything here.',
  },
  precondition_failed: {
    when: 'a validator that no answer has',
    send: () => alice.post('/api-keys').set('If-Match', '"v1"'),
    status: 412,
    detail: 'API keys have no ETag here, so If-Match is never met. Leave it out.',
  },
  api_key_not_found: {
    when: 'an id that no key has',
    send: () => alice.get(`/api-keys/${randomUUID()}`),
    status: 404,
    detail: 'There is no such API key.',
  },
  method_not_allowed: {
    when: 'a method that the path does not have',
    send: () => alice.put('/api-keys'),
    status: 405,
    headers: { allow: 'GET, POST, HEAD, OPTIONS' },
    detail: 'This method is not allowed here. The header Allow names the allowed methods.',
  },
  api_key_suspended: {
    when: 'a new secret for a suspended key',
    send: () => http.as('grace').post(`/api-keys/${suspendedId}/rotate`),
    status: 409,
    detail: 'The API key is suspended. Reactivate it first.',
  },
  api_key_expired: {
    when: 'a new secret for an expired key',
    send: () => http.as('ivan').post(`/api-keys/${expiredId}/rotate`),
    status: 409,
    detail:
      'The API key has expired. Give it a later expiresAt first, or reactivate it if it was unused.',
  },
  api_key_revoked: {
    when: 'a change of a revoked key',
    send: () => alice.post(`/api-keys/${revokedId}/suspend`),
    status: 409,
    detail: 'The API key is revoked, and stays so. Create a new one.',
  },
  api_key_exposed: {
    when: 'an exposed key that is reactivated',
    before: async () => {
      const exposed = { at: new Date(), source: 'github', url: null }
      await rows(
        `UPDATE api_keys SET status = 'SUSPENDED', exposed = $1 WHERE id = '${exposedId}'`,
        [JSON.stringify(exposed)],
      )
    },
    send: () => http.as('trent').post(`/api-keys/${exposedId}/reactivate`),
    status: 409,
    detail: 'The API key was exposed, and stays refused. Create a new one.',
  },
  unknown_environment: {
    when: 'a key of an environment that the app no longer has',
    send: () => withoutTest.http.as('rupert').post(`/api-keys/${testId}/rotate`, {}),
    status: 409,
    detail: 'The API key has an environment that is gone. Create a new one.',
  },
  already_created: {
    when: 'a request that another process has carried out',
    before: async () => Object.assign(repeated, await createTwice()),
    send: () => http.set(twice).post('/api-keys', newInput),
    status: 409,
    detail:
      'A request with this Idempotency-Key was carried out before. If you do not have its secret, rotate the API key.',
    extra: repeated,
  },
  request_under_way: {
    when: 'a request that is being carried out',
    before: () =>
      holdLock(
        `SELECT pg_advisory_xact_lock(${ownerLockSql(tablesOf('public'), 'key')})
           FROM json_populate_record(NULL::api_keys, '{"user_id": "busy"}') AS key`,
      ),
    send: () => http.set({ ...twice, 'X-User': 'busy' }).post('/api-keys', newInput),
    status: 409,
    headers: { 'retry-after': '1' },
    detail: 'A request with this Idempotency-Key is being carried out. Try again shortly.',
  },
  idempotency_key_reused: {
    when: 'another body under the same Idempotency-Key',
    before: () =>
      http
        .set({ ...twice, 'X-User': 'judy' })
        .post('/api-keys', newInput)
        .expect(201),
    send: () =>
      http.set({ ...twice, 'X-User': 'judy' }).post('/api-keys', { ...newInput, name: 'B' }),
    status: 422,
    detail: 'This Idempotency-Key belongs to a request with other input. Send another one.',
  },
  malformed_idempotency_key: {
    when: 'an Idempotency-Key of two words',
    send: () => http.set({ ...twice, 'Idempotency-Key': 'two words' }).post('/api-keys', newInput),
    status: 400,
    detail:
      'Idempotency-Key must be 1 to 255 printable ASCII characters in quotes, for example "8e03978e". Letters, digits, - and _ need no quotes.',
  },
  owner_suspended: {
    when: 'a new key of a suspended owner',
    before: () => rows(`INSERT INTO api_key_suspended_owners (user_id) VALUES ('olga')`),
    send: () => http.as('olga').post('/api-keys', newInput),
    status: 409,
    detail: 'The owner of the API key is suspended. Reactivate the owner first.',
  },
  too_many_api_keys: {
    when: 'a key more than a user may have',
    send: () => alice.post('/api-keys', { name: 'Second', permissions: ['READ_GRAPH'] }),
    status: 409,
    detail: 'The owner has as many API keys as are allowed. Revoke one first.',
  },
  owner_has_api_keys: {
    when: 'an owner whose keys are not revoked, and who is to be erased',
    send: () =>
      http.as('admin').post('/admin/api-keys/erase-owner', {
        owner: { type: 'user', id: 'grace' },
        reason: 'Request 4711',
      }),
    status: 409,
    detail: 'The owner has API keys that are not revoked. Revoke them first.',
  },
  audit_trail_not_intact: {
    when: 'an audit trail that another secret has sealed',
    before: () => apiKeys.auditHead(),
    send: () => foreign.http.as('admin').get('/admin/api-keys/audit-head'),
    status: 409,
    detail: 'The audit trail was altered at its end. Verify it to see the faults.',
  },
  unsupported_media_type: {
    when: 'a form',
    send: () => alice.post('/api-keys').type('form').send({ name: 'CI' }),
    status: 415,
    headers: { accept: 'application/json', 'accept-encoding': 'gzip, deflate' },
    detail: 'The body must be JSON in UTF-8, with the header: Content-Type: application/json.',
  },
  malformed_json: {
    when: 'half of a JSON text',
    send: () => alice.post('/api-keys').type('json').send('{"name":'),
    status: 400,
    detail: 'The body is not valid JSON.',
  },
  body_too_large: {
    when: 'more than 32 kB',
    send: () => alice.post('/api-keys', { name: 'x'.repeat(32 * 1024) }),
    status: 413,
    detail: 'The body is larger than 32 kB.',
  },
  invalid_input: {
    when: 'input against the rules',
    send: () => alice.post('/api-keys', { name: '', permissions: [] }),
    status: 422,
    detail: 'The input breaks the rules: #/name must have 1 to 100 characters, and 1 more',
    extra: {
      errors: [
        { pointer: '#/name', message: 'must have 1 to 100 characters' },
        { pointer: '#/permissions', message: 'must name at least one permission' },
      ],
    },
  },
  database_unavailable: {
    when: 'the database out of reach',
    send: () => withoutDatabase.http.with(plainTextKey).get('/graphs'),
    status: 503,
    headers: { 'retry-after': '1' },
    detail: 'API keys cannot be checked or changed at the moment. Try again shortly.',
  },
}

describe('every refusal', () => {
  it.each(Object.entries(refusals).map(([code, row]) => Object.assign(row, { code })))(
    'answers $when with $status',
    async ({ before, send, status, headers, type, detail, code, extra }) => {
      await before?.()

      const answer = await send()

      expect(answer.status).toBe(status)
      expect(answer.text).toBe(
        JSON.stringify({ type, title: STATUS_CODES[status], status, detail, code, ...extra }),
      )
      expect(headersOf(answer)).toEqual({
        'content-type': 'application/problem+json',
        'content-length': String(answer.text.length),
        'cache-control': 'no-store',
        ...(isFinal(status, code) && { 'x-should-retry': 'false' }),
        ...headers,
      })
    },
  )
})

/** True if some clients would send the request again, although it would be refused again. */
function isFinal(status: number, code: string) {
  return status === 409 && code !== 'request_under_way'
}

/** All headers but those of Express and of the connection. */
function headersOf({ headers }: { headers: Record<string, string> }) {
  const others = new Set(['date', 'connection', 'x-powered-by'])
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !others.has(name)))
}

describe('an invalid key', () => {
  it('is refused in the same words, whatever its fault', async () => {
    const suspended = await createKey({ userId: 'bob', status: 'SUSPENDED' })
    const expired = await createKey({ userId: 'carol' })
    await rows(`UPDATE api_keys SET expires_at = now() WHERE id = '${expired.id}'`)
    const revoked = await createKey({ userId: 'dave', status: 'REVOKED' })
    const unknown = await createKey({ userId: 'erin' })
    await rows(`DELETE FROM api_keys WHERE id = '${unknown.id}'`)

    const all = [suspended, expired, revoked, unknown].map(({ plainTextKey }) => plainTextKey)
    for (const bad of [...all, plainTextKey.slice(0, -1), 'agpt_', 'a.b.c']) {
      expectProblem(await http.with(bad).get('/graphs'), 'invalid_api_key')
    }
  })

  it('is refused with 401 without the database, if its form is wrong', async () => {
    const answer = await withoutDatabase.http.with(`${plainTextKey}x`).get('/graphs')

    expect(answer.status).toBe(401)
  })
})

describe('a challenge', () => {
  it('quotes the realm', async () => {
    const other = createProcess({ realm: 'the "graphs" of C:\\agents' }, addGraphs)

    const answer = await other.http.get('/graphs')

    expect(answer.headers['www-authenticate']).toBe(
      String.raw`Bearer realm="the \"graphs\" of C:\\agents"`,
    )
  })

  it('names permissions of every character that a scope may have', async () => {
    const everyCharacter = "!#$%&'()*+,-./:;<=>?@[]^_`{|}~09azAZ"
    const keys = createApiKeys({
      sequelize,
      keyPrefix: 'agpt',
      permissions: ['READ', everyCharacter],
    })
    database.closeFirst(keys)
    const { plainTextKey } = await keys.create({ userId: 'eve', name: 'CI', permissions: ['READ'] })
    const app = express().use(keys.requirePermission(everyCharacter))

    const answer = await http.to(app).with(plainTextKey).get('/')

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
          sequelize,
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
