import { EventEmitter, once } from 'node:events'
import {
  Agent,
  createServer,
  IncomingMessage,
  request,
  ServerResponse,
  type RequestListener,
  type Server,
} from 'node:http'
import { Socket, type AddressInfo } from 'node:net'
import { PassThrough } from 'node:stream'

import express, { type Express } from 'express'
import { QueryTypes, type Sequelize } from 'sequelize'

import { InvalidApiKeyError, MissingPermissionError, type Guard } from '../../lib'
import { createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'
import { recordStatements } from '../support/statements'
import { until } from '../support/until'

let database: Database
let sequelize: Sequelize
/** Two processes: one serves, one changes. */
let [apiKeys, other]: TestApiKeys[] = []

beforeAll(async () => {
  database = await createDatabase()
  sequelize = database.connect()
})

beforeEach(() => {
  ;[apiKeys, other] = [createTestApiKeys(database), createTestApiKeys(database)]
})

afterEach(async () => {
  await serving().close()
  await changing().close()
})

afterAll(() => database.drop())

function serving(): TestApiKeys {
  if (!apiKeys) throw new Error('no instance')
  return apiKeys
}

function changing(): TestApiKeys {
  if (!other) throw new Error('no instance')
  return other
}

/** Requests a route behind guards, with a key that holds two permissions, and leaves its response open. */
async function openResponse(
  guardsOf: (apiKeys: TestApiKeys) => Guard[],
  wishes: Parameters<typeof newKey>[0] = {},
) {
  const { apiKey, plainTextKey } = await changing().create(
    newKey({ permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'], ...wishes }),
  )
  const seen = new EventEmitter()
  const app: Express = express()
  app.get('/', ...guardsOf(serving()), (req, res) => {
    const { signal } = serving().getApiKey(req)
    res.write('begun')
    seen.emit('signal', signal, res)
  })
  const server = app.listen(0)
  await once(server, 'listening')
  const { port } = server.address() as { port: number }

  const signalled = once(seen, 'signal') as Promise<[AbortSignal, express.Response]>
  const client = new AbortController()
  const fetching = fetch(`http://127.0.0.1:${port}`, {
    headers: { Authorization: `Bearer ${plainTextKey}` },
    signal: client.signal,
  }).catch(() => {})
  const [signal, res] = await signalled

  return {
    id: apiKey.id,
    signal,
    res,
    async close() {
      client.abort()
      await fetching
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

/** The reason of a signal, once it has aborted. */
async function reasonOf(signal: AbortSignal): Promise<unknown> {
  if (!signal.aborted) await once(signal, 'abort')
  return signal.reason
}

function requireRead(apiKeys: TestApiKeys) {
  return [apiKeys.requirePermission('READ_GRAPH')]
}

describe('the signal of a key', () => {
  it.each<[string, (id: string) => Promise<unknown>, string]>([
    ['revoked', (id) => changing().revoke(id), 'revoked'],
    ['suspended', (id) => changing().suspend(id), 'suspended'],
    ['deleted', (id) => sequelize.query(`DELETE FROM api_keys WHERE id = '${id}'`), 'unknown'],
    [
      'made to expire',
      (id) => changing().update(id, { expiresAt: new Date(Date.now() + 200) }),
      'expired',
    ],
  ])('aborts when the key is %s', async (_, change, reason) => {
    const { id, signal, close } = await openResponse(requireRead)
    expect(signal.aborted).toBe(false)

    await change(id)

    const error = await reasonOf(signal)
    expect(error).toBeInstanceOf(InvalidApiKeyError)
    expect(error).toMatchObject({ code: 'invalid_api_key', reason })
    await close()
  })

  it('aborts when the key expires by itself', async () => {
    const { signal, close } = await openResponse(requireRead, {
      expiresAt: new Date(Date.now() + 500),
    })

    expect(await reasonOf(signal)).toMatchObject({ reason: 'expired' })
    await close()
  })

  it('aborts when the key loses a permission that a guard demanded, and not for another permission', async () => {
    const { id, signal, close } = await openResponse((apiKeys) => [
      apiKeys.requirePermission('READ_GRAPH'),
      apiKeys.requireAnyPermission(['EXECUTE_GRAPH', 'EXECUTE_BLOCK']),
    ])

    await changing().setPermissions(id, ['READ_GRAPH', 'EXECUTE_BLOCK'])
    await changing().update(id, { name: 'Another name' })
    expect(signal.aborted).toBe(false)
    await changing().setPermissions(id, ['READ_GRAPH', 'READ_BLOCK'])

    const error = await reasonOf(signal)
    expect(error).toBeInstanceOf(MissingPermissionError)
    expect(error).toMatchObject({ missing: ['EXECUTE_GRAPH', 'EXECUTE_BLOCK'] })
    await close()
  })

  it('goes on when the expiry of the key is put off', async () => {
    const { id, signal, close } = await openResponse(requireRead, {
      expiresAt: new Date(Date.now() + 2_000),
    })
    const { signal: other, close: closeOther } = await openResponse(requireRead, {
      expiresAt: new Date(Date.now() + 2_000),
    })
    await changing().update(id, { expiresAt: new Date(Date.now() + 3_600_000_000) })

    // The second key expires later. By then, the timer of the first key is over as well.
    expect(await reasonOf(other)).toMatchObject({ reason: 'expired' })
    expect(signal.aborted).toBe(false)
    await changing().suspend(id)

    expect(await reasonOf(signal)).toMatchObject({ reason: 'suspended' })
    await Promise.all([close(), closeOther()])
  })

  it('is the same within a request, and differs between requests', async () => {
    const { plainTextKey } = await changing().create(newKey())
    const [first, second] = [
      await serving().verify(plainTextKey),
      await serving().verify(plainTextKey),
    ]
    if (!first.valid || !second.valid) throw new Error('refused')

    expect(first.apiKey.signal).toBe(first.apiKey.signal)
    expect(first.apiKey.signal).not.toBe(second.apiKey.signal)
    expect(JSON.stringify(first.apiKey)).not.toContain('signal')
  })

  it('is dropped when the response closes', async () => {
    const [one, two] = [await openResponse(requireRead), await openResponse(requireRead)]
    await one.close()
    if (!one.res.closed) await once(one.res, 'close')

    await changing().revoke(one.id)
    await changing().revoke(two.id)

    await reasonOf(two.signal)
    expect(one.signal.aborted).toBe(false)
    await two.close()
  })

  it('aborts without a request, until its event emitter closes', async () => {
    const [held, dropped] = [await changing().create(newKey()), await changing().create(newKey())]
    const socket = new EventEmitter()
    const [first, second] = [
      await serving().verify(held.plainTextKey),
      await serving().verify(dropped.plainTextKey, { until: socket }),
    ]
    if (!first.valid || !second.valid) throw new Error('refused')
    const signals = [first.apiKey.signal, second.apiKey.signal] as const

    socket.emit('close')
    await changing().revoke(dropped.apiKey.id)
    await changing().revoke(held.apiKey.id)

    expect(await reasonOf(signals[0])).toMatchObject({ reason: 'revoked' })
    expect(signals[1].aborted).toBe(false)
  })

  it('aborts for a change that comes while another change is checked', async () => {
    const statements = recordStatements()
    const slow = createTestApiKeys(database, {
      sequelize: database.connect({ dialectModule: statements.driver }),
    })
    const { apiKey, plainTextKey } = await changing().create(newKey())
    const verdict = await slow.verify(plainTextKey)
    if (!verdict.valid) throw new Error('refused')
    const { signal } = verdict.apiKey
    await until(async () => (await slow.health()).listener === 'up')

    const held = statements.holdLookUps()
    await changing().update(apiKey.id, { name: 'Another name' })
    await held
    await changing().revoke(apiKey.id)
    const [newest] = await sequelize.query<{ revision: number }>(
      'SELECT max(revision)::float8 AS revision FROM api_key_revisions',
      { type: QueryTypes.SELECT },
    )
    await until(async () => (await slow.health()).revision === newest?.revision)
    statements.letGo()

    expect(await reasonOf(signal)).toMatchObject({ reason: 'revoked' })
    await slow.close()
  })

  it('leaves no listener behind at its event emitter', async () => {
    const { apiKey, plainTextKey } = await changing().create(newKey())
    const socket = new EventEmitter()
    const verdict = await serving().verify(plainTextKey, { until: socket })
    if (!verdict.valid) throw new Error('refused')
    const { signal } = verdict.apiKey
    expect(socket.listenerCount('close')).toBe(1)

    await changing().revoke(apiKey.id)
    await reasonOf(signal)
  })

  it('aborts by an event if the key had expired before the signal was asked for', async () => {
    const expiresAt = new Date(Date.now() + 1_000)
    const { plainTextKey } = await changing().create(newKey({ expiresAt }))
    const verdict = await serving().verify(plainTextKey)
    if (!verdict.valid) throw new Error('refused')
    await until(() => Date.now() > expiresAt.getTime())

    const aborted = once(verdict.apiKey.signal, 'abort')

    await aborted
    expect(verdict.apiKey.signal.reason).toMatchObject({ reason: 'expired' })
  })

  it('aborts at once for a key that was revoked before the signal was asked for', async () => {
    const { apiKey, plainTextKey } = await changing().create(newKey())
    const verdict = await serving().verify(plainTextKey)
    if (!verdict.valid) throw new Error('refused')

    await changing().revoke(apiKey.id)

    expect(await reasonOf(verdict.apiKey.signal)).toMatchObject({ reason: 'revoked' })
  })
})

/** A key, and the signal of one use of it. */
interface Use {
  id: string
  signal: AbortSignal
}

/** Verifies a new key. */
async function useUntil(lifetime: EventEmitter): Promise<Use> {
  const { apiKey, plainTextKey } = await changing().create(newKey())
  const verdict = await serving().verify(plainTextKey, { until: lifetime })
  if (!verdict.valid) throw new Error('refused')
  return { id: apiKey.id, signal: verdict.apiKey.signal }
}

/** True if the signal aborts when its key is revoked. A second signal shows the time at which it should abort. */
async function isKept({ id, signal }: Use): Promise<boolean> {
  const other = await useUntil(new EventEmitter())
  await changing().revoke(id)
  await changing().revoke(other.id)
  await reasonOf(other.signal)
  return signal.aborted
}

/** Like the socket of Socket.IO, which emits the messages of its client, by names that the client chooses. */
class SocketOfSocketIo extends EventEmitter {
  connected = true

  get disconnected() {
    return !this.connected
  }

  disconnect() {
    this.connected = false
    this.emit('disconnect', 'transport close')
  }
}

describe('the end until which a signal is kept', () => {
  it.each(['close', 'finish', 'disconnect'])('may be the event %s', async (event) => {
    const lifetime = new EventEmitter()
    const use = await useUntil(lifetime)

    lifetime.emit(event)

    expect(await isKept(use)).toBe(false)
    expect(lifetime.eventNames()).toEqual([])
  })

  it('is no event that the client of a Socket.IO socket sends', async () => {
    const [kept, ended] = [new SocketOfSocketIo(), new SocketOfSocketIo()]
    const [keptUse, endedUse] = [await useUntil(kept), await useUntil(ended)]

    for (const event of ['close', 'finish']) kept.emit(event)
    ended.disconnect()

    expect(await isKept(keptUse)).toBe(true)
    expect(await isKept(endedUse)).toBe(false)
    expect(await isKept(await useUntil(ended))).toBe(false)
  })

  it('is not the moment when this side of a connection has finished and the client still sends', async () => {
    const [connection, other] = [new PassThrough(), new PassThrough()]
    const [use, otherUse] = [await useUntil(connection), await useUntil(other)]

    connection.end()
    other.destroy()
    await Promise.all([once(connection, 'finish'), once(other, 'close')])

    expect(await isKept(use)).toBe(true)
    expect(await isKept(otherUse)).toBe(false)
  })

  it.each([
    ['an address', '127.0.0.1'],
    ['a WebSocket without once and off', new EventTarget()],
    ['null', null],
  ])('must be an event emitter, not %s', async (_, lifetime) => {
    const { plainTextKey } = await changing().create(newKey())

    await expect(serving().verify(plainTextKey, { until: lifetime as never })).rejects.toThrow(
      new TypeError(
        'verify: until must be an event emitter, such as a response or a socket: it needs the methods once() and off()',
      ),
    )
  })
})

async function listen(listener: RequestListener): Promise<Server> {
  const server = createServer(listener).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port
}

describe('a request whose response does not close', () => {
  let key: { id: string; plainTextKey: string }
  let server: Server | undefined
  const upgraded: Socket[] = []

  beforeEach(async () => {
    const { apiKey, plainTextKey } = await changing().create(newKey())
    key = { id: apiKey.id, plainTextKey }
    server = undefined
  })

  afterEach(() => {
    jest.restoreAllMocks()
    // A server does not close upgraded connections.
    for (const socket of upgraded.splice(0)) socket.destroy()
    server?.closeAllConnections()
    server?.close()
  })

  function headers() {
    return { authorization: `Bearer ${key.plainTextKey}` }
  }

  /** Upgrades a request on which the server side only reads. */
  async function upgrade() {
    const seen = new EventEmitter()
    const app = express()
    app.get('/', serving().authenticate(), (req) => {
      seen.emit('signal', serving().getApiKey(req).signal, req.socket)
      req.socket
        .resume()
        .write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n')
    })
    server = await listen(app)
    server.on('upgrade', (req: IncomingMessage) => app(req, new ServerResponse(req)))
    const signalled = once(seen, 'signal') as Promise<[AbortSignal, Socket]>
    const upgrading = request({
      port: portOf(server),
      headers: { ...headers(), connection: 'Upgrade', upgrade: 'x' },
    }).end()
    const [, client] = (await once(upgrading, 'upgrade')) as [IncomingMessage, Socket]
    const [signal, socket] = await signalled
    upgraded.push(client, socket)
    return { client, signal, socket }
  }

  it('keeps its signal until its socket closes: an upgrade with a response that is never sent', async () => {
    const { client, signal, socket } = await upgrade()

    client.destroy()
    await once(socket, 'end')
    socket.end()
    await once(socket, 'close')

    expect(await isKept({ id: key.id, signal })).toBe(false)
  })

  it('keeps its signal as long as its client only stops sending', async () => {
    const { client, signal, socket } = await upgrade()

    client.end()
    await once(socket, 'end')

    expect(await isKept({ id: key.id, signal })).toBe(true)
  })

  it('has its signal abort before a process goes idle whose other clients have left', async () => {
    const { client, signal, socket } = await upgrade()
    client.end()
    await once(socket, 'end')
    await serving().flush()

    const now = performance.now.bind(performance)
    jest.spyOn(performance, 'now').mockImplementation(() => now() + 31_000)

    expect(await reasonOf(signal)).toEqual(new Error('the client has ended its connection'))
    await until(async () => (await serving().health()).feed === 'idle')
  })

  it('keeps its signal until its response has finished: a function behind a gateway', async () => {
    const app = express()
    let signal: AbortSignal | undefined
    app.get('/', serving().authenticate(), (req, res) => {
      signal = serving().getApiKey(req).signal
      res.end()
    })
    // Like the request and the response of an adapter, which no server has made.
    const req = Object.assign(new IncomingMessage(new Socket()), {
      method: 'GET',
      url: '/',
      headers: headers(),
    })
    const res = new ServerResponse(req)
    res.assignSocket(Object.assign(new PassThrough().resume(), { cork() {} }) as never)

    app(req, res)
    await once(res, 'finish')

    if (!signal) throw new Error('the guard refused')
    expect(await isKept({ id: key.id, signal })).toBe(false)
  })

  it('keeps its signal until its response closes, although the request does not know the response: plain http', async () => {
    const guard = serving().authenticate()
    const signals: AbortSignal[] = []
    server = await listen((req, res) => {
      guard(req, res, () => {
        signals.push(serving().getApiKey(req).signal)
        res.end()
      })
    })
    const agent = new Agent({ keepAlive: true })
    const asking = request({ port: portOf(server), headers: headers(), agent }).end()
    const [answer] = (await once(asking, 'response')) as [IncomingMessage]
    answer.resume()
    await once(answer, 'end')

    // The connection is open for the next request.
    expect(await isKept({ id: key.id, signal: signals[0] ?? AbortSignal.abort() })).toBe(false)
    agent.destroy()
  })

  it('keeps a signal that is kept until the request, whose body ends long before', async () => {
    const seen = new EventEmitter()
    server = await listen((req, res) => {
      req.resume().once('close', () => seen.emit('read', req, res))
    })
    const read = once(seen, 'read') as Promise<[IncomingMessage, ServerResponse]>
    const asking = request({ port: portOf(server), method: 'POST' }).end('{}')
    asking.on('error', () => {})
    const [req, res] = await read

    const [use, otherUse] = [await useUntil(req), await useUntil(req)]
    expect(await isKept(use)).toBe(true)
    asking.destroy()
    await once(res, 'close')

    expect(await isKept(otherUse)).toBe(false)
  })
})
