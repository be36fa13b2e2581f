import { randomUUID } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { inspect } from 'node:util'

import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import * as errors from '@modelcontextprotocol/sdk/server/auth/errors.js'
import { requireBearerAuth } from '@modelcontextprotocol/sdk/server/auth/middleware/bearerAuth.js'
import type { AuthInfo } from '@modelcontextprotocol/sdk/server/auth/types.js'
import type { OAuthTokenVerifier } from '@modelcontextprotocol/sdk/server/auth/provider.js'
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js'
import express, { type Express, type Request, type RequestHandler } from 'express'

import type { ApiKeysError, VerifiedApiKey } from '../../lib'
import type { Options, TestApiKeys } from '../support/app'
import { databaseAway } from '../support/database'
import { environmentOptions } from '../support/environments'
import { bearer } from '../support/http'
import { forgeKey } from '../support/keys'
import { useWorld } from '../support/world'

const { apiKeys, rows, createKey, createProcess } = useWorld()

const servers: Server[] = []

afterAll(() => {
  for (const server of servers) {
    server.closeAllConnections()
    server.close()
  }
})

/** Emits the ids of the keys with which the tool `follow` was called. */
const calls = new EventEmitter()

/** Whatever a tool gets, as its log could print it. */
const seen: { authInfo: string; request: string }[] = []

function say(text: string) {
  return { content: [{ type: 'text' as const, text }] }
}

/** Makes a server of the SDK with a tool for everyone, and a tool that needs a permission. */
function createServer() {
  const server = new McpServer({ name: 'graphs', version: '1.0.0' })

  server.registerTool('list', { description: 'Lists graphs' }, ({ authInfo, requestInfo }) => {
    const depth = { depth: 20, showHidden: true }
    seen.push({ authInfo: inspect(authInfo, depth), request: inspect(requestInfo, depth) })
    return say(`graphs of ${JSON.stringify(authInfo?.extra)}`)
  })
  server.registerTool('execute', { description: 'Executes a graph' }, ({ authInfo }) => {
    if (authInfo?.scopes.includes('EXECUTE_GRAPH') !== true) throw new Error('not for this key')
    return say('executed')
  })
  server.registerTool('follow', { description: 'Follows a graph' }, async ({ authInfo }) => {
    const { id, signal } = apiKeyOf(authInfo)
    const aborted = once(signal, 'abort')
    calls.emit(id)
    await aborted
    return say(`ended by ${(signal.reason as ApiKeysError).code}`)
  })
  return server
}

/** Returns the key of a request or a call, as the SDK keeps it. */
function apiKeyOf(auth: AuthInfo | undefined) {
  return Object(auth?.extra?.apiKey) as VerifiedApiKey
}

/** Makes an app whose sessions end with their keys, behind a middleware that knows the callers. */
function createMcpApp(middleware: RequestHandler) {
  const app = express()
  const sessions = new Map<string, { transport: StreamableHTTPServerTransport; owner: string }>()
  const streams: Promise<unknown>[] = []

  async function transportOf(req: Request) {
    const known = sessions.get(req.get('Mcp-Session-Id') ?? '')
    // A session belongs to the key with which it began.
    if (known?.owner === req.auth?.clientId) return known?.transport
    const transport: StreamableHTTPServerTransport = new StreamableHTTPServerTransport({
      sessionIdGenerator: () => randomUUID(),
      onsessioninitialized: (id) => {
        sessions.set(id, { transport, owner: req.auth?.clientId ?? '' })
      },
    })
    await createServer().connect(transport)
    return transport
  }

  app.all('/mcp', middleware, express.json(), async (req, res) => {
    const transport = await transportOf(req)
    if (req.method === 'GET') {
      streams.push(once(res, 'close'))
      apiKeyOf(req.auth).signal.addEventListener('abort', () =>
        transport?.closeStandaloneSSEStream(),
      )
    }
    await transport?.handleRequest(req, res, req.body)
  })
  return { app, streams }
}

async function listen(app: Express) {
  const server = app.listen(0, '127.0.0.1')
  servers.push(server)
  await once(server, 'listening')
  // The address of a TCP server is never the name of a pipe.
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

async function connect(url: string, key: string) {
  const client = new Client({ name: 'spec', version: '1.0.0' })
  const requestInit = { headers: bearer(key) }
  const transport = new StreamableHTTPClientTransport(new URL(`${url}/mcp`), { requestInit })
  await client.connect(transport)
  return client
}

/** The ways by which a server of the SDK may know its callers. */
const ways: [name: string, (keys: TestApiKeys) => RequestHandler, isMasked: boolean][] = [
  ['authenticate', (keys) => keys.authenticate({ mcp: true }), true],
  ['requirePermission', (keys) => keys.requirePermission('READ_GRAPH', { mcp: true }), true],
  [
    'requireBearerAuth with one verifier',
    (keys) => requireBearerAuth({ verifier: keys.mcpVerifier() }),
    false,
  ],
  [
    'requireBearerAuth with a verifier for each request',
    (keys) => (req, res, next) => {
      const verifier = keys.mcpVerifier({ req })
      void requireBearerAuth({ verifier })(req, res, next)
    },
    true,
  ],
]

describe.each(ways)('a server of the SDK behind %s', (_, middlewareOf, isMasked) => {
  it('lists tools, lets a key call what it may, and no other, and ends with the key', async () => {
    const { app, streams } = createMcpApp(middlewareOf(apiKeys))
    const url = await listen(app)
    const strong = await createKey({ permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'] })
    const weak = await createKey()
    const [client, weakClient] = [
      await connect(url, strong.plainTextKey),
      await connect(url, weak.plainTextKey),
    ]

    const { tools } = await client.listTools()
    expect(tools.map(({ name }) => name)).toEqual(['list', 'execute', 'follow'])
    expect(await client.callTool({ name: 'execute' })).toMatchObject({
      content: [{ text: 'executed' }],
    })
    expect(await weakClient.callTool({ name: 'execute' })).toMatchObject({
      isError: true,
      content: [{ text: 'not for this key' }],
    })

    await apiKeys.revoke(strong.id)

    await expect(client.callTool({ name: 'execute' })).rejects.toMatchObject({ code: 401 })
    // Its open stream has ended, and the stream of the other key has not.
    await streams[0]
    expect(await weakClient.callTool({ name: 'list' })).not.toHaveProperty('isError')
    await Promise.all([client.close(), weakClient.close()])
  })

  it('ends a call of a tool that is under way when its key is revoked, and no other', async () => {
    const url = await listen(createMcpApp(middlewareOf(apiKeys)).app)
    const [ended, other] = [await createKey(), await createKey()]
    const clients: Client[] = []
    const follow = async ({ id, plainTextKey }: typeof ended) => {
      const client = await connect(url, plainTextKey)
      clients.push(client)
      const isCalled = once(calls, id)
      const answer = client.callTool({ name: 'follow' })
      await isCalled
      return { answer }
    }
    const [first, second] = [await follow(ended), await follow(other)]
    const answers: string[] = []
    void first.answer.then(() => answers.push('first'))
    void second.answer.then(() => answers.push('second'))

    await apiKeys.revoke(ended.id)

    expect(await first.answer).toMatchObject({ content: [{ text: 'ended by invalid_api_key' }] })
    expect(answers).toEqual(['first'])
    await apiKeys.suspend(other.id)
    expect(await second.answer).toMatchObject({ content: [{ text: 'ended by invalid_api_key' }] })
    await Promise.all(clients.map((client) => client.close()))
  })

  it('gives tools a caller without its key', async () => {
    const url = await listen(createMcpApp(middlewareOf(apiKeys)).app)
    const { id, plainTextKey } = await createKey()
    const client = await connect(url, plainTextKey)
    seen.length = 0

    await client.callTool({ name: 'list' })

    const [{ authInfo, request } = { authInfo: '', request: '' }] = seen
    const secret = plainTextKey.slice(-40)
    expect(authInfo).toContain(`token: '${id}'`)
    expect(authInfo).toContain("scopes: [ 'READ_GRAPH', [length]: 1 ]")
    expect(authInfo).not.toContain(secret)
    // The SDK hands tools the headers as well.
    expect(request.includes(secret)).toBe(!isMasked)
    await client.close()
  })

  it('refuses a client whose key is not good', async () => {
    const url = await listen(createMcpApp(middlewareOf(apiKeys)).app)
    const bad = [
      (await createKey({ status: 'REVOKED' })).plainTextKey,
      (await createKey({ status: 'SUSPENDED' })).plainTextKey,
      forgeKey(),
      'x',
    ]

    for (const key of bad) await expect(connect(url, key)).rejects.toMatchObject({ code: 401 })
    const answer = await fetch(`${url}/mcp`, { method: 'POST', headers: bearer(bad[0] ?? '') })
    expect(answer.headers.get('www-authenticate')).toContain('error="invalid_token"')
  })
})

/** Answers with what is on the request. */
function createAuthApp(...middlewares: RequestHandler[]) {
  return createProcess({}, (app) => {
    app.use(...middlewares, (req, res) => {
      res.json({ has: 'auth' in req, auth: req.auth ?? null })
    })
  }).http
}

describe('req.auth', () => {
  it('has the id of the key in place of the key, and an end', async () => {
    const expiresAt = new Date(Date.now() + 86_400_000)
    const { id, plainTextKey } = await createKey({ expiresAt })

    const { body } = await createAuthApp(apiKeys.authenticate({ mcp: true }))
      .with(plainTextKey)
      .get('/')

    expect(body.auth).toEqual({
      token: id,
      clientId: id,
      scopes: ['READ_GRAPH'],
      expiresAt: Math.floor(expiresAt.getTime() / 1_000),
      extra: { apiKey: expect.objectContaining({ id, userId: 'alice' }) },
    })
  })

  it('ends an hour later for a key that does not expire, and sooner for an old secret', async () => {
    const { id, plainTextKey: old } = await createKey()
    const expiryOf = async (key: string) => {
      const http = createAuthApp(apiKeys.authenticate({ mcp: true }))
      const before = Math.floor(Date.now() / 1_000)
      const { expiresAt } = (await http.with(key).get('/')).body.auth
      return { rest: expiresAt - before, expiresAt }
    }

    const { rest } = await expiryOf(old)
    expect(rest).toBeGreaterThanOrEqual(3_600)
    expect(rest).toBeLessThan(3_700)
    const { apiKey, plainTextKey } = await apiKeys.rotate(id, { gracePeriodSeconds: 60 })
    const worksUntil = apiKey.previousSecret?.worksUntil.getTime() ?? 0
    expect((await expiryOf(old)).expiresAt).toBe(Math.floor(worksUntil / 1_000))
    expect((await expiryOf(plainTextKey)).rest).toBeGreaterThanOrEqual(3_600)
  })

  it('is not there without the option, without a key, and for others', async () => {
    const { plainTextKey } = await createKey()
    const without = createAuthApp(apiKeys.authenticate())
    const optional = createAuthApp(apiKeys.authenticate({ optional: true, mcp: true }))

    expect((await without.with(plainTextKey).get('/')).body).toEqual({ has: false, auth: null })
    expect((await optional.get('/')).body).toEqual({ has: false, auth: null })
    expect((await optional.with('a.b.c').get('/')).body).toEqual({ has: false, auth: null })
    expect((await optional.with(plainTextKey).get('/')).body.has).toBe(true)
  })

  it('does not get past a guard', async () => {
    const { plainTextKey } = await createKey()
    const http = createAuthApp(apiKeys.requirePermission('READ_BLOCK', { mcp: true }))

    expect((await http.with(plainTextKey).get('/')).status).toBe(403)
    expect((await http.get('/')).status).toBe(401)
  })

  it('needs an option that is true or false', () => {
    expect(() => apiKeys.authenticate({ mcp: 1 as never })).toThrow(
      new TypeError('authenticate: mcp must be true or false'),
    )
  })
})

/** Answers with the caller behind the middleware of the SDK. */
function createBearerApp(
  wishes: {
    options?: Options
    before?: (keys: TestApiKeys) => RequestHandler
    isByRequest?: boolean
  } = {},
) {
  const { options = {}, before, isByRequest = false } = wishes
  return createProcess(options, (app, keys) => {
    app.set('trust proxy', 'loopback')
    if (before) app.use(before(keys))
    app.get('/mcp', (req, res, next) => {
      const given = isByRequest ? { errors, req } : { errors }
      void requireBearerAuth({ verifier: keys.mcpVerifier(given) })(req, res, next)
    })
    app.get('/mcp', (req, res) => res.json(req.auth))
  })
}

const maskKeys = (keys: TestApiKeys) => keys.maskKeys()

describe('mcpVerifier', () => {
  it('is a verifier of the SDK', async () => {
    const verifier: OAuthTokenVerifier = apiKeys.mcpVerifier({ errors })
    const { id, plainTextKey } = await createKey()

    expect(await verifier.verifyAccessToken(plainTextKey)).toMatchObject({ clientId: id })
    await expect(verifier.verifyAccessToken('x')).rejects.toThrow(errors.InvalidTokenError)
    await expect(verifier.verifyAccessToken(undefined as never)).rejects.toThrow(
      errors.InvalidTokenError,
    )
  })

  it('throws the errors that it is given', async () => {
    class InvalidTokenError extends Error {}
    const own = { InvalidTokenError, TooManyRequestsError: Error }
    const { verifyAccessToken } = apiKeys.mcpVerifier({ errors: own })

    await expect(verifyAccessToken('x')).rejects.toThrow(InvalidTokenError)
    await expect(apiKeys.mcpVerifier().verifyAccessToken('x')).rejects.toThrow(
      errors.InvalidTokenError,
    )
  })

  it('has every key refused that is not good, in the same words', async () => {
    const { http } = createBearerApp()
    const expired = await createKey()
    await rows(`UPDATE api_keys SET expires_at = now() WHERE id = '${expired.id}'`)
    const bad = [
      expired.plainTextKey,
      (await createKey({ status: 'REVOKED' })).plainTextKey,
      forgeKey(),
      'x',
    ]

    for (const key of bad) {
      const { status, body } = await http.with(key).get('/mcp')
      expect([status, body]).toEqual([
        401,
        {
          error: 'invalid_token',
          error_description:
            'The API key is not valid. It is unknown, revoked, suspended or expired.',
        },
      ])
    }
  })

  it.each([false, true])(
    'counts towards the limits of the key, by its request: %s',
    async (isByRequest) => {
      const options = { limits: { burst: { limit: 1, windowSeconds: 3_600 } } }
      const { http, apiKeys: limited } = createBearerApp({ options, isByRequest })
      const { id, plainTextKey } = await createKey()

      expect((await http.with(plainTextKey).get('/mcp')).status).toBe(200)
      const { status, body } = await http.with(plainTextKey).get('/mcp')

      expect([status, body]).toEqual([
        400,
        {
          error: 'too_many_requests',
          error_description: expect.stringMatching(
            /^Too many requests\. Try again in 3[56]\d\d s\.$/,
          ),
        },
      ])
      await limited.flush()
      expect((await apiKeys.usage(id)).totals).toMatchObject({ accepted: 1, rateLimited: 1 })
    },
  )

  it('knows the address of a client by its request alone', async () => {
    const { plainTextKey } = await createKey({ allowedIps: ['203.0.113.7'] })
    const statusFrom = async (address: string, isByRequest: boolean) => {
      const { http } = createBearerApp({ isByRequest })
      const headers = { ...bearer(plainTextKey), 'X-Forwarded-For': address }
      return (await http.set(headers).get('/mcp')).status
    }

    expect(await statusFrom('203.0.113.7', true)).toBe(200)
    expect(await statusFrom('203.0.113.8', true)).toBe(401)
    expect(await statusFrom('203.0.113.7', false)).toBe(401)
  })

  it('says what to do if a middleware has masked the key before', async () => {
    const { plainTextKey } = await createKey()

    const alone = await createBearerApp({ before: maskKeys }).http.with(plainTextKey).get('/mcp')
    const byRequest = createBearerApp({ before: maskKeys, isByRequest: true }).http

    expect(alone.status).toBe(401)
    expect(alone.body.error_description).toMatch(/^A middleware has masked the API key before\./)
    expect((await byRequest.with(plainTextKey).get('/mcp')).status).toBe(200)
  })

  it.each([false, true])(
    'is never wrong without the database, by its request: %s',
    async (isByRequest) => {
      const options = { sequelize: databaseAway.connect() }
      const { http } = createBearerApp({ options, isByRequest })

      expect((await http.with(forgeKey()).get('/mcp')).status).toBe(500)
      expect((await http.with('agpt_x').get('/mcp')).status).toBe(401)
    },
  )

  it('takes keys of the environments that it names', async () => {
    const { apiKeys: keys } = createProcess(environmentOptions())
    const key = { userId: 'alice', name: 'CI', permissions: ['READ_GRAPH'], environment: 'test' }
    const { plainTextKey } = await keys.create(key as never)
    const verify = async (environment?: string) => {
      const options = { errors, ...(environment !== undefined && { environment }) }
      return keys.mcpVerifier(options).verifyAccessToken(plainTextKey)
    }

    expect(await verify('test')).toMatchObject({ scopes: ['READ_GRAPH'] })
    await expect(verify()).rejects.toThrow(errors.InvalidTokenError)
    expect(() => keys.mcpVerifier({ errors, environment: 'beta' } as never)).toThrow(
      'mcpVerifier: "beta" is not one of the app\'s environments',
    )
  })

  it.each<[unknown, string]>([
    [null, 'the options must be an object, got null'],
    [{ errors: {} }, 'errors must be those of the SDK'],
    [{ errors: null }, 'errors must be those of the SDK'],
    [{ errors, request: {} }, 'there is no option request'],
    [{ errors, req: 'x' }, 'req must be a request, got "x"'],
    [{ errors, environment: 'live' }, 'environment needs the option environments'],
  ])('refuses options that break the rules: %j', (given, message) => {
    const create = () => apiKeys.mcpVerifier(given as never)

    expect(create).toThrow(TypeError)
    expect(create).toThrow('mcpVerifier: ')
    expect(create).toThrow(message)
  })
})
