import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

import type { Express } from 'express'
import express from 'express'
import { Passport } from 'passport'
import { Sequelize } from 'sequelize'

import type { ApiKeyNotices } from '../../lib'
import { createEchoApp, type Options, type TestApiKeys } from '../support/app'
import { setClock } from '../support/clock'
import { databaseAway } from '../support/database'
import { bearer } from '../support/http'
import { sendSecurely } from '../support/https'
import { forgeKey } from '../support/keys'
import { expectProblem } from '../support/problem'
import { startProxy, type Proxy } from '../support/proxy'
import { sendRaw } from '../support/raw-http'
import { until } from '../support/until'
import { useWorld } from '../support/world'

const { createKey, createProcess, rows } = useWorld()
const secrets = ['correct horse battery staple, 32 bytes']

/** What a proxy adds to a request that it has received over plain HTTP, and over HTTPS. */
const overHttp = { 'X-Forwarded-For': '203.0.113.7', 'X-Forwarded-Proto': 'http' }
const overHttps = { 'X-Forwarded-For': '203.0.113.7', 'X-Forwarded-Proto': 'https' }

const proxies = (protocols: string) => ({ 'X-Forwarded-Proto': protocols })

/** The warnings of this file about proxies. */
const warned: unknown[] = []

const pass: express.RequestHandler = (_req, res) => void res.json({ passed: true })

function addRoutes(app: Express, keys: TestApiKeys) {
  // The proxy of these specs is on the machine.
  app.set('trust proxy', 'loopback')
  app.get('/graphs', keys.requirePermission('READ_GRAPH'), pass)
  app.get('/public', keys.authenticate({ optional: true }), pass)
  app.get('/pages', keys.requirePermission('READ_GRAPH', { orSignedIn: true }), pass)
  const passport = new Passport().use(keys.strategy)
  app.get('/passport', passport.authenticate('api-key', { session: false }), pass)
  app.use('/pages-of-keys', keys.console())
}

const createStrict = (options: Options = {}) =>
  createProcess({ insecureTransport: 'refuse', ...options }, addRoutes)

/** Returns an answer over plain HTTP without its date. */
async function answerTo(app: Express, path: string, headers: Record<string, string>) {
  const lines = Object.entries({ ...overHttp, ...headers }).map(
    ([name, value]) => `${name}: ${value}`,
  )
  const answer = await sendRaw(app, [`GET ${path} HTTP/1.1`, ...lines])
  return { ...answer, headers: { ...answer.headers, date: '' } }
}

/** Returns the headers of requests with keys of every kind, and without one. */
async function everyKey() {
  const good = await createKey()
  const revoked = await createKey({ status: 'REVOKED' })
  const suspended = await createKey({ status: 'SUSPENDED' })
  const expired = await createKey()
  await rows(`UPDATE api_keys SET expires_at = now() WHERE id = '${expired.id}'`)
  const texts = [good, revoked, suspended, expired].map(({ plainTextKey }) => plainTextKey)
  return [
    {},
    ...[...texts, forgeKey(), `${good.plainTextKey}x`, 'agpt_', 'a.b.c', '<>'].map(bearer),
    { Authorization: good.plainTextKey },
    { 'X-User': 'alice' },
  ]
}

describe("insecureTransport: 'refuse'", () => {
  const strict = createStrict()

  it.each(['/graphs', '/public', '/pages', '/passport', '/api-keys', '/admin/api-keys'])(
    'answers every request for %s over plain HTTP alike, to the byte',
    async (path) => {
      const answers = []
      for (const headers of await everyKey()) {
        answers.push(await answerTo(strict.app, path, headers))
      }

      const [first] = answers
      expect(first?.status).toBe(403)
      for (const answer of answers) expect(answer).toEqual(first)
    },
  )

  it('answers with its code, in the form of all refusals', async () => {
    expectProblem(await strict.http.set(overHttp).get('/graphs'), 'insecure_transport')
  })

  it('answers each method and each path of a router so', async () => {
    const { http } = strict
    for (const method of ['post', 'put', 'patch', 'delete', 'options'] as const) {
      expectProblem(await http.set(overHttp)[method]('/api-keys'), 'insecure_transport')
      expectProblem(await http.set(overHttp)[method]('/api-keys/x/rotate'), 'insecure_transport')
    }
  })

  it('answers the pages of keys so, with a page', async () => {
    const answer = await strict.http.set({ ...overHttp, 'X-User': 'alice' }).get('/pages-of-keys')

    expect(answer.status).toBe(403)
    expect(answer.type).toBe('text/html')
  })

  it('looks up nothing for the answer', async () => {
    const { app, apiKeys, statements } = createStrict()
    const before = (await apiKeys.health()).cache

    for (const headers of await everyKey()) {
      expect((await answerTo(app, '/graphs', headers)).status).toBe(403)
    }

    expect((await apiKeys.health()).cache).toEqual(before)
    expect(statements.all).toEqual([])
  })

  it('looks up nothing after the answer either', async () => {
    const { app, apiKeys } = createStrict({ sequelize: databaseAway.connect() })
    const { plainTextKey } = await createKey()
    const unavailable: unknown[] = []
    apiKeys.on('unavailable', (notice) => void unavailable.push(notice))
    await answerTo(app, '/graphs', bearer(plainTextKey))

    // A look-up of the request would fail before that of the call, or with it.
    await apiKeys.verify(forgeKey()).catch(() => {})
    await new Promise(setImmediate)

    expect(unavailable).toHaveLength(1)
  })

  it('lets HTTPS pass, of the app itself and of a proxy that the app trusts', async () => {
    const { plainTextKey } = await createKey()

    const own = await sendSecurely(strict.app, '/graphs', bearer(plainTextKey))
    const ofProxy = await strict.http.set({ ...overHttps, ...bearer(plainTextKey) }).get('/graphs')

    expect([own.status, ofProxy.status]).toEqual([200, 200])
  })

  it('does not believe a proxy that the app does not trust', async () => {
    const { plainTextKey } = await createKey()
    const app = createEchoApp(strict.apiKeys.authenticate())

    const answer = await strict.http
      .to(app)
      .set({ ...overHttps, ...bearer(plainTextKey) })
      .get('/')

    expectProblem(answer, 'insecure_transport')
  })

  it('lets a request pass that has not left the machine', async () => {
    const { plainTextKey } = await createKey()

    expect((await strict.http.with(plainTextKey).get('/graphs')).status).toBe(200)
  })

  it.each([
    ['localhost', 200],
    ['LOCALHOST:3000', 200],
    ['acme.localhost', 200],
    ['127.0.0.2:80', 200],
    ['[::1]:3000', 200],
    ['api.example.com', 403],
    ['localhost.example.com', 403],
    ['127.0.0.1.example.com', 403],
    ['notlocalhost', 403],
    ['localhost@example.com', 403],
    ['', 403],
  ])('takes the host %j for the machine itself, or not: %i', async (host, status) => {
    const { plainTextKey } = await createKey()

    const answer = await strict.http.set({ Host: host, ...bearer(plainTextKey) }).get('/graphs')

    expect(answer.status).toBe(status)
  })

  it.each(['Forwarded', 'Via', 'X-Forwarded-For', 'X-Forwarded-Proto', 'X-Real-IP'])(
    'takes %s for a sign that a request has come from elsewhere',
    async (name) => {
      const { plainTextKey } = await createKey()
      const headers = { [name]: '127.0.0.1', ...bearer(plainTextKey) }

      expectProblem(await strict.http.set(headers).get('/graphs'), 'insecure_transport')
    },
  )

  it('leaves a masked key behind', async () => {
    const { plainTextKey } = await createKey()
    const seen: unknown[] = []
    const { http } = createStrict({
      onRefusal: (error, req, res) => {
        seen.push(req.headers.authorization, [...req.rawHeaders], error.message)
        res.status(error.status).end()
      },
    })

    await http.set({ ...overHttp, ...bearer(plainTextKey) }).get('/graphs')

    expect(seen).toHaveLength(3)
    expect(JSON.stringify(seen)).not.toContain(plainTextKey)
  })

  it('is reported to the listeners of denied, without a key', async () => {
    const { apiKeys, app } = createStrict()
    const denied: ApiKeyNotices['denied'][] = []
    apiKeys.on('denied', (notice) => void denied.push(notice))
    const { plainTextKey } = await createKey()

    await answerTo(app, '/graphs', bearer(plainTextKey))

    expect(denied).toMatchObject([{ apiKey: null, reason: null, address: '203.0.113.7' }])
    expect(denied[0]?.error.code).toBe('insecure_transport')
  })

  it('refuses authenticateRequest, too', async () => {
    const { plainTextKey } = await createKey()
    const app = express()
      .set('trust proxy', 'loopback')
      .use(async (req, res) => {
        const error = await strict.apiKeys.authenticateRequest(req).catch((error: unknown) => error)
        res.json({ code: (error as { code?: string }).code ?? 'passed' })
      })

    const over = async (headers: object) =>
      (
        await strict.http
          .to(app)
          .set({ ...headers, ...bearer(plainTextKey) })
          .get('/')
      ).body

    expect(await over(overHttp)).toEqual({ code: 'insecure_transport' })
    expect(await over(overHttps)).toEqual({ code: 'passed' })
  })
})

describe("insecureTransport: 'allow'", () => {
  it('is the default, and lets a key over plain HTTP pass', async () => {
    const { http } = createProcess({}, addRoutes)
    const { plainTextKey } = await createKey()

    const answer = await http.set({ ...overHttp, ...bearer(plainTextKey) }).get('/graphs')

    expect(answer.status).toBe(200)
    expect(answer.headers).not.toHaveProperty('strict-transport-security')
  })
})

describe("insecureTransport: 'revoke'", () => {
  const revoking = createStrict({ insecureTransport: 'revoke', secrets, acceptUnkeyed: true })
  const { apiKeys, app, http } = revoking
  const statusOf = async (id: string) => (await apiKeys.get(id)).status

  it('refuses the key over HTTPS from then on, and its record says why', async () => {
    const { id, plainTextKey } = await revoking.createKey()
    const exposed: ApiKeyNotices['exposed'][] = []
    const off = apiKeys.on('exposed', (notice) => void exposed.push(notice))

    const answer = await answerTo(app, '/graphs', bearer(plainTextKey))
    const send = () => http.set({ ...overHttps, ...bearer(plainTextKey) }).get('/graphs')
    await until(async () => (await send()).status !== 200)
    await until(() => exposed.length === 1)
    off()

    expect(answer.status).toBe(403)
    expectProblem(await send(), 'invalid_api_key')
    const found = { at: expect.any(Date), source: 'plain_http', url: null }
    expect((await apiKeys.get(id)).exposed).toEqual(found)
    const { events } = await apiKeys.events({ apiKeyId: id })
    expect(events[0]).toMatchObject({
      action: 'revoked',
      actorType: 'system',
      actorId: null,
      address: '203.0.113.7',
      reason: 'sent over plain HTTP',
      after: { status: 'REVOKED', exposed: { source: 'plain_http', url: null } },
    })
    expect(exposed).toMatchObject([
      { apiKey: { id, exposed: found }, before: { status: 'ACTIVE' } },
    ])
    expect((await apiKeys.verifyAuditTrail()).faults).toEqual([])
  })

  it('answers as with refuse, to the byte', async () => {
    const [first, ...others] = await Promise.all(
      (await everyKey()).map((headers) => answerTo(app, '/graphs', headers)),
    )

    expect(first?.status).toBe(403)
    for (const answer of others) expect(answer).toEqual(first)
  })

  it('revokes the key of a request to a router, and a key that maskKeys has taken', async () => {
    const [first, second] = [await revoking.createKey(), await revoking.createKey()]
    const behindMask = express()
      .set('trust proxy', 'loopback')
      .use(apiKeys.maskKeys(), apiKeys.authenticate())

    await answerTo(app, '/api-keys', bearer(first.plainTextKey))
    await answerTo(behindMask as Express, '/', bearer(second.plainTextKey))

    await until(async () => (await statusOf(first.id)) === 'REVOKED')
    await until(async () => (await statusOf(second.id)) === 'REVOKED')

    expect((await apiKeys.get(second.id)).exposed?.source).toBe('plain_http')
  })

  it.each<[string, boolean, Record<string, string>, string]>([
    ['a proxy that the app has forgotten to trust', false, overHttps, 'ACTIVE'],
    ['such a proxy that says no protocol', false, { Via: '1.1 proxy' }, 'ACTIVE'],
    ['a trusted proxy that says no protocol', true, { 'X-Forwarded-For': '203.0.113.7' }, 'ACTIVE'],
    ['proxies, the first of which says https', false, proxies('HTTPS , http'), 'ACTIVE'],
    ['a proxy that says http and is not trusted', false, overHttp, 'REVOKED'],
    ['proxies, the first of which says http', true, proxies('HTTP , https'), 'REVOKED'],
  ])('knows the request of %s', async (_, isTrusted, headers, status) => {
    const emitWarning = jest.spyOn(process, 'emitWarning').mockImplementation()
    const [sent, direct] = [await revoking.createKey(), await revoking.createKey()]
    const proxied = express()
      .set('trust proxy', isTrusted ? 'loopback' : false)
      .use(apiKeys.authenticate())

    const answer = await http
      .to(proxied)
      .set({ ...headers, ...bearer(sent.plainTextKey) })
      .get('/')
    await answerTo(app, '/graphs', bearer(direct.plainTextKey))
    await until(async () => (await statusOf(direct.id)) === 'REVOKED')

    expectProblem(answer, 'insecure_transport')
    if (status === 'REVOKED') await until(async () => (await statusOf(sent.id)) === status)
    expect(await statusOf(sent.id)).toBe(status)
    const codes = emitWarning.mock.calls.map(([, options]) => Object(options).code as unknown)
    emitWarning.mockRestore()
    warned.push(...codes.filter((code) => code === 'API_KEYS_INSECURE_PROXY'))
  })

  it('warns once of a proxy that does not say how a request came', () => {
    expect(warned).toEqual(['API_KEYS_INSECURE_PROXY'])
  })

  it('revokes no key of a request that a proxy has passed on and Express has not read', async () => {
    const [unread, said, direct] = [
      await revoking.createKey(),
      await revoking.createKey(),
      await revoking.createKey(),
    ]
    // As a WebSocket asks for its upgrade.
    const server = createServer((req, res) => {
      if (req.url === '/said') Object.assign(req, { secure: true })
      if (req.url === '/direct') Object.defineProperty(req, 'socket', { value: {} })
      apiKeys.authenticateRequest(req).then(
        () => res.end('passed'),
        ({ code }: { code: string }) => res.end(code),
      )
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const send = async (path: string, { plainTextKey }: { plainTextKey: string }, more = {}) =>
      (
        await fetch(`http://127.0.0.1:${port}${path}`, {
          headers: { ...bearer(plainTextKey), ...more },
        })
      ).text()

    const answers = [
      await send('/', unread, overHttps),
      await send('/said', said, overHttps),
      await send('/direct', direct),
    ]
    await until(async () => (await statusOf(direct.id)) === 'REVOKED')
    server.close()

    expect(answers).toEqual(['insecure_transport', 'passed', 'insecure_transport'])
    expect([await statusOf(unread.id), await statusOf(said.id)]).toEqual(['ACTIVE', 'ACTIVE'])
  })

  it('looks up no key whose check is wrong', async () => {
    const { statements, ...keyed } = createStrict({ insecureTransport: 'revoke', secrets })
    const { id, plainTextKey } = await keyed.createKey()
    for (let time = 0; time < 20; time++) await answerTo(keyed.app, '/graphs', bearer(forgeKey()))

    // The work of the good key comes last.
    await answerTo(keyed.app, '/graphs', bearer(plainTextKey))
    await until(async () => (await keyed.apiKeys.get(id)).status === 'REVOKED')

    expect(statements.lookUps()).toHaveLength(1)
  })

  it('revokes a key once, however often it is sent', async () => {
    const { id, plainTextKey } = await revoking.createKey()

    await Promise.all(
      Array.from({ length: 20 }, () => answerTo(app, '/graphs', bearer(plainTextKey))),
    )
    await until(async () => (await statusOf(id)) === 'REVOKED')

    const { events } = await apiKeys.events({ apiKeyId: id })
    expect(events.map(({ action }) => action)).toEqual(['revoked', 'created'])
  })

  it('writes nothing more for a revoked key that is sent again and again', async () => {
    const { app, apiKeys, statements, createKey } = createStrict({
      insecureTransport: 'revoke',
      secrets,
    })
    const writes = () => statements.all.filter((sql) => sql.includes('pg_advisory_xact_lock'))
    const [revoked, direct] = [await createKey({ status: 'REVOKED' }), await createKey()]
    const send = ({ plainTextKey }: { plainTextKey: string }) =>
      answerTo(app, '/graphs', bearer(plainTextKey))

    await send(revoked)
    await until(async () => (await apiKeys.get(revoked.id)).exposed !== undefined)
    expect(writes()).toHaveLength(1)
    setClock(new Date(Date.now() + 60_000))
    await send(revoked)
    await send(direct)
    await until(async () => (await apiKeys.get(direct.id)).status === 'REVOKED')
    jest.useRealTimers()

    expect(writes()).toHaveLength(2)
  })

  it('ends an old secret that is sent, and leaves the key', async () => {
    const { id, plainTextKey } = await revoking.createKey()
    const { plainTextKey: next } = await apiKeys.rotate(id)
    await http.set({ ...overHttps, ...bearer(next) }).get('/graphs')

    await answerTo(app, '/graphs', bearer(plainTextKey))
    await until(async () => (await apiKeys.get(id)).previousSecret === null)

    expect((await http.set({ ...overHttps, ...bearer(next) }).get('/graphs')).status).toBe(200)
    expect(await apiKeys.get(id)).not.toHaveProperty('exposed')
  })

  it('leaves a suspended key as it is', async () => {
    const [suspended, other] = [
      await revoking.createKey({ status: 'SUSPENDED' }),
      await revoking.createKey(),
    ]

    await answerTo(app, '/graphs', bearer(suspended.plainTextKey))
    await answerTo(app, '/graphs', bearer(other.plainTextKey))
    await until(async () => (await statusOf(other.id)) === 'REVOKED')

    expect((await apiKeys.reactivate(suspended.id)).status).toBe('ACTIVE')
  })
})

describe('a key that is sent over plain HTTP while the database is away', () => {
  const { database, createProcess } = useWorld()
  let proxy: Proxy

  beforeAll(async () => {
    proxy = await startProxy(Number(new URL(database.url).port))
  })
  afterAll(() => proxy.close())

  it('waits for its revocation', async () => {
    const own = new Sequelize(proxy.through(database.url), { logging: false })
    const { apiKeys, app, createKey } = createProcess(
      { sequelize: own, insecureTransport: 'revoke', secrets },
      addRoutes,
    )
    const { id, plainTextKey } = await createKey()
    const isAway = new Promise((resolve) => {
      apiKeys.on('unavailable', resolve)
    })

    proxy.refuse()
    const answer = await answerTo(app, '/graphs', bearer(plainTextKey))
    await isAway
    await proxy.accept()

    expect(answer.status).toBe(403)
    await until(async () => {
      const record = await apiKeys.get(id).catch(() => undefined)
      return record?.status === 'REVOKED'
    })
    expect((await apiKeys.get(id)).exposed?.source).toBe('plain_http')
    await apiKeys.close()
    await own.close()
  })
})

describe('maxExposedPerMinute', () => {
  const { createProcess } = useWorld()

  it('suspends the keys of all processes above it, and an event says so', async () => {
    const options: Options = { insecureTransport: 'revoke', secrets, maxExposedPerMinute: 2 }
    const processes = [
      createProcess(options, addRoutes),
      createProcess(options, addRoutes),
    ] as const
    const [{ apiKeys, createKey }] = processes
    const reached: unknown[] = []
    for (const { apiKeys } of processes) {
      apiKeys.on('exposure_limit_reached', (notice) => void reached.push(notice))
    }
    const keys = await Promise.all(Array.from({ length: 6 }, () => createKey()))

    for (const [at, { plainTextKey }] of keys.entries()) {
      await answerTo(processes[at % 2 === 0 ? 0 : 1].app, '/graphs', bearer(plainTextKey))
    }

    const statuses = async () =>
      Promise.all(keys.map(async ({ id }) => (await apiKeys.get(id)).status))
    await until(async () => !(await statuses()).includes('ACTIVE'))
    expect((await statuses()).toSorted()).toEqual([
      'REVOKED',
      'REVOKED',
      ...Array.from({ length: 4 }, () => 'SUSPENDED'),
    ])
    await until(() => reached.length === 4)
    expect(reached[0]).toEqual({ source: 'plain_http', suspended: 1 })
    // A proxy that is set up wrong may have been the reason.
    const [suspended] = (await apiKeys.list({ status: 'SUSPENDED' })).apiKeys
    expect(suspended).not.toHaveProperty('exposed')
    expect((await apiKeys.reactivate(suspended?.id ?? '')).status).toBe('ACTIVE')
  })
})

describe('strictTransportSecurity', () => {
  const { apiKeys, http, app } = createStrict({ strictTransportSecurity: 31_536_000 })

  it('is sent over HTTPS, by guards, the strategy and routers, refused or not', async () => {
    const { plainTextKey } = await createKey()
    for (const path of ['/graphs', '/passport', '/api-keys']) {
      for (const headers of [{}, bearer(plainTextKey)]) {
        const answer = await sendSecurely(app, path, headers)

        expect(answer.headers['strict-transport-security']).toBe('max-age=31536000')
      }
    }
  })

  it('is not sent over plain HTTP', async () => {
    const { plainTextKey } = await createKey()

    const local = await http.with(plainTextKey).get('/graphs')

    expect(local.status).toBe(200)
    expect(local.headers).not.toHaveProperty('strict-transport-security')
    const refused = await answerTo(app, '/graphs', bearer(plainTextKey))
    expect(refused.headers).not.toHaveProperty('strict-transport-security')
  })

  it('leaves a field of the app as it is', async () => {
    const own = express()
      .use((_req, res, next) => {
        res.set('Strict-Transport-Security', 'max-age=1; includeSubDomains')
        next()
      })
      .use(apiKeys.authenticate({ optional: true }))

    const answer = await sendSecurely(own, '/')

    expect(answer.headers['strict-transport-security']).toBe('max-age=1; includeSubDomains')
  })
})
