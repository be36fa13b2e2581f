import { once } from 'node:events'
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import express from 'express'
import OpenAI, { AuthenticationError, PermissionDeniedError } from 'openai'
import { Sequelize } from 'sequelize'
import { io } from 'socket.io-client'
import { WebSocket } from 'ws'

import { createKeys, type Keys } from '../../example-app/recipes/api-keys'
import { createGateway } from '../../example-app/recipes/gateway'
import { createGraphQl } from '../../example-app/recipes/graphql'
import { probes } from '../../example-app/recipes/kubernetes'
import { createMcp } from '../../example-app/recipes/mcp'
import { refuseAsOpenAi } from '../../example-app/recipes/openai'
import { createHandler } from '../../example-app/recipes/serverless'
import { shutDown } from '../../example-app/recipes/shutdown'
import { serveSocketIo, serveWebSockets } from '../../example-app/recipes/sockets'
import { createDatabase, type Database } from '../support/database'
import { bearer } from '../support/http'
import { startProxy, type Proxy } from '../support/proxy'
import { until } from '../support/until'

let database: Database
let sequelize: Sequelize
let apiKeys: Keys
let servers: Server[] = []

beforeAll(async () => {
  database = await createDatabase()
  sequelize = database.connect()
  apiKeys = createKeys(sequelize)
  database.closeFirst(apiKeys)
})

afterEach(() => {
  for (const server of servers) {
    server.closeAllConnections()
    server.close()
  }
  servers = []
})

afterAll(() => database.drop())

async function listen(listener?: RequestListener): Promise<{ server: Server; url: string }> {
  const server = createServer(listener)
  servers.push(server)
  await once(server.listen(0, '127.0.0.1'), 'listening')
  // The address of a TCP server is never the name of a pipe.
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
}

async function createKey(
  permissions: ('READ_GRAPH' | 'EXECUTE_GRAPH')[] = ['READ_GRAPH', 'EXECUTE_GRAPH'],
) {
  const { apiKey, plainTextKey } = await apiKeys.create({
    userId: 'alice',
    name: 'Recipe',
    permissions,
  })
  return { id: apiKey.id, key: plainTextKey }
}

/** An event of Amazon API Gateway. */
function eventOf(key: string) {
  return {
    version: '2.0',
    rawPath: '/graphs',
    rawQueryString: '',
    headers: { authorization: `Bearer ${key}`, host: 'api.example.com' },
    requestContext: { http: { method: 'GET', path: '/graphs', sourceIp: '203.0.113.7' } },
    isBase64Encoded: false,
  }
}

/** Connects a client of the Model Context Protocol. */
async function connectClient(url: string, key: string) {
  const client = new Client({ name: 'spec', version: '1.0.0' })
  await client.connect(
    new StreamableHTTPClientTransport(new URL(`${url}/mcp`), {
      requestInit: { headers: bearer(key) },
    }),
  )
  return client
}

async function toolsOf(client: Client) {
  const { tools } = await client.listTools()
  return tools.map(({ name }) => name)
}

describe('the probes of Kubernetes', () => {
  let proxy: Proxy

  beforeAll(async () => {
    proxy = await startProxy(Number(new URL(database.url).port))
  })

  afterAll(() => proxy.close())

  it('say that a process lives, and is ready only while it can verify keys', async () => {
    const own = new Sequelize(proxy.through(database.url), { logging: false })
    const distant = createKeys(own)
    const { url } = await listen(express().use(probes(distant)))
    const statuses = async () =>
      Promise.all(['livez', 'readyz'].map(async (path) => (await fetch(`${url}/${path}`)).status))

    expect(await statuses()).toEqual([200, 200])
    proxy.refuse()
    expect(await statuses()).toEqual([200, 503])
    await proxy.accept()
    await until(async () => (await statuses())[1] === 200)

    await distant.close()
    await own.close()
  })
})

describe('a shutdown in order', () => {
  it('answers the request under way, and writes its use', async () => {
    const own = database.connect()
    const ending = createKeys(own)
    const { id, key } = await createKey()
    const app = express()
    const isInside = new Promise<express.Response>((resolve) => {
      app.get('/slow', ending.authenticate(), (_req, res) => resolve(res))
    })
    const { server, url } = await listen(app)

    const asked = fetch(`${url}/slow`, { headers: { ...bearer(key), Connection: 'close' } })
    const response = await isInside
    const ended = shutDown(server, ending, own)
    await expect(fetch(url)).rejects.toThrow('fetch failed')
    response.send('done')

    expect(await (await asked).text()).toBe('done')
    await ended
    const { lastUsedAt } = await apiKeys.get(id)
    expect(lastUsedAt).not.toBeNull()
    await expect(own.query('SELECT 1')).rejects.toThrow('closed')
  })
})

describe('a handler of AWS Lambda', () => {
  it('has written the use of a key when it answers', async () => {
    const frozen = createKeys(database.connect(), { listen: false })
    const handler = createHandler(frozen)
    const { id, key } = await createKey()

    expect(await handler(eventOf(key), {})).toMatchObject({
      statusCode: 200,
      body: '{"ranFor":"alice"}',
    })
    expect((await apiKeys.get(id)).lastUsedAt).not.toBeNull()
    expect(await handler(eventOf('nonsense'), {})).toMatchObject({ statusCode: 401 })

    await frozen.close()
  })
})

describe('a gateway', () => {
  it('gives the servers behind it the caller in place of the key', async () => {
    const { url: target } = await listen((req, res) => res.end(JSON.stringify(req.headers)))
    const { url } = await listen(createGateway(apiKeys, target))
    const { id, key } = await createKey(['READ_GRAPH'])
    const claims = {
      'X-Caller-Id': 'mallory',
      'x-api-key-id': '1',
      'X-Permissions': 'ALL',
      X_Caller_Id: 'mallory',
    }

    const accepted = await fetch(`${url}/any`, { headers: { ...bearer(key), ...claims } })
    const refused = await fetch(`${url}/any`, { headers: claims })

    const headers = await accepted.json()
    expect(headers).toMatchObject({
      'x-caller-id': 'alice',
      'x-api-key-id': id,
      'x-permissions': 'READ_GRAPH',
    })
    expect(JSON.stringify(headers)).not.toContain(key)
    expect(JSON.stringify(headers)).not.toContain('mallory')
    expect(headers).not.toHaveProperty('authorization')
    expect(refused.status).toBe(401)
  })
})

describe('connections that last', () => {
  it('end with their key, by Socket.IO', async () => {
    const { server, url } = await listen()
    const sockets = serveSocketIo(server, apiKeys)
    sockets.on('connection', (socket) => socket.emit('welcome', socket.data.userId))
    const { id, key } = await createKey()
    const connect = (token: unknown) =>
      io(url, { auth: { token }, reconnection: false, forceNew: true })

    const client = connect(key)
    const welcomed = await new Promise<string>((resolve) => {
      client.on('welcome', resolve)
    })
    const left = new Promise((resolve) => {
      client.on('disconnect', resolve)
    })
    await apiKeys.revoke(id)

    expect(welcomed).toBe('alice')
    expect(await left).toBe('io server disconnect')
    for (const token of [key, 'nonsense', undefined, { a: 1 }]) {
      const refused = connect(token)
      const reason = await new Promise<string>((resolve) => {
        refused.on('connect_error', ({ message }) => resolve(message))
      })
      expect(reason).toBe('invalid_api_key')
    }
    await sockets.close()
  })

  it('end with their key, by ws', async () => {
    const { server, url } = await listen()
    serveWebSockets(server, '/ws', apiKeys)
    const { id, key } = await createKey(['READ_GRAPH'])
    const { key: weak } = await createKey(['EXECUTE_GRAPH'])
    const connect = (headers: Record<string, string>) =>
      new WebSocket(`${url.replace('http', 'ws')}/ws?a=1`, { headers })

    const socket = connect(bearer(key))
    await once(socket, 'open')
    const left = once(socket, 'close')
    await apiKeys.revoke(id)

    expect((await left)[0]).toBe(4401)
    const refusals = [
      [{}, 401],
      [bearer(key), 401],
      [bearer(weak), 403],
    ] as const
    for (const [headers, status] of refusals) {
      const refused = connect(headers)
      const [error] = await once(refused, 'error')
      expect(String(error)).toContain(`Unexpected server response: ${status}`)
    }
  })
})

describe('GraphQL', () => {
  it('demands a permission for each field', async () => {
    const { url } = await listen(createGraphQl(apiKeys))
    const { key: weak } = await createKey(['READ_GRAPH'])
    const { key: strong } = await createKey()
    const ask = async (key: string | undefined, query: string) => {
      const answer = await fetch(`${url}/graphql`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json', ...(key && bearer(key)) },
        body: JSON.stringify({ query }),
      })
      return { status: answer.status, body: await answer.json() }
    }

    expect(await ask(weak, '{ me }')).toEqual({ status: 200, body: { data: { me: 'alice' } } })
    expect((await ask(strong, 'mutation { execute(graph: "7") }')).body).toEqual({
      data: { execute: 'executed 7' },
    })
    expect((await ask(weak, 'mutation { execute(graph: "7") }')).body).toMatchObject({
      errors: [{ extensions: { code: 'missing_permission', missing: ['EXECUTE_GRAPH'] } }],
    })
    expect(await ask(undefined, '{ me }')).toMatchObject({
      status: 401,
      body: { code: 'missing_credential' },
    })
  })
})

describe("refusals in the format of OpenAI's API", () => {
  it('are errors of its client, with their code', async () => {
    const own = createKeys(database.connect(), { onRefusal: refuseAsOpenAi })
    const { key } = await createKey(['READ_GRAPH'])
    const { url } = await listen(
      express()
        .get('/v1/models', own.requirePermission('READ_GRAPH', { cost: 1 }), (_req, res) => {
          res.json({ object: 'list', data: [{ id: 'graph', object: 'model' }] })
        })
        .post('/v1/chat/completions', own.requirePermission('EXECUTE_GRAPH')),
    )
    const clientOf = (apiKey: string) =>
      new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0, dangerouslyAllowBrowser: true })
    const completion = { model: 'graph', messages: [] }

    const { data } = await clientOf(key).models.list()
    const unknown = clientOf('nonsense').models.list()
    const forbidden = clientOf(key).chat.completions.create(completion)

    expect(data).toMatchObject([{ id: 'graph' }])
    await expect(unknown).rejects.toMatchObject({
      name: 'Error',
      constructor: AuthenticationError,
      status: 401,
      code: 'invalid_api_key',
      type: 'authentication_error',
    })
    await expect(forbidden).rejects.toMatchObject({
      constructor: PermissionDeniedError,
      code: 'missing_permission',
      type: 'permission_error',
    })
    await own.close()
  })
})

describe('a server of the Model Context Protocol', () => {
  it('shows a caller the tools that the key may use, until the key is revoked', async () => {
    const { url } = await listen(createMcp(apiKeys))
    const { key: weak } = await createKey(['READ_GRAPH'])
    const { id, key: strong } = await createKey()

    const [weakClient, strongClient] = [
      await connectClient(url, weak),
      await connectClient(url, strong),
    ]

    expect(await toolsOf(weakClient)).toEqual(['whoami'])
    expect(await toolsOf(strongClient)).toEqual(['whoami', 'execute'])
    expect(await strongClient.callTool({ name: 'whoami' })).toMatchObject({
      content: [{ text: 'alice' }],
    })
    expect(await weakClient.callTool({ name: 'execute' })).toMatchObject({ isError: true })
    await apiKeys.revoke(id)
    await expect(strongClient.listTools()).rejects.toMatchObject({ code: 401 })
    await expect(connectClient(url, 'nonsense')).rejects.toMatchObject({ code: 401 })
    await Promise.all([weakClient.close(), strongClient.close()])
  })
})
