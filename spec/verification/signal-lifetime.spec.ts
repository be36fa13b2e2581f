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

import express from 'express'

import { newKey } from '../support/keys'
import { reasonOf, useTwoProcesses } from '../support/two-processes'
import { until } from '../support/until'

const processes = useTwoProcesses()

/** A key, and the signal of one use of it. */
interface Use {
  id: string
  signal: AbortSignal
}

/** Verifies a new key. */
async function useUntil(lifetime: EventEmitter): Promise<Use> {
  const { apiKey, plainTextKey } = await processes.changing.create(newKey())
  const verdict = await processes.serving.verify(plainTextKey, { until: lifetime })
  if (!verdict.valid) throw new Error('refused')
  return { id: apiKey.id, signal: verdict.apiKey.signal }
}

/** True if the signal aborts when its key is revoked. A second signal shows the time at which it should abort. */
async function isKept({ id, signal }: Use): Promise<boolean> {
  const other = await useUntil(new EventEmitter())
  await processes.changing.revoke(id)
  await processes.changing.revoke(other.id)
  await reasonOf(other.signal)
  return signal.aborted
}

/** Like the socket of Socket.IO, which emits the messages of its client, by names that the client chooses. */
class SocketOfSocketIo extends EventEmitter {
  readonly conn = Object.assign(new EventEmitter(), { readyState: 'open' })

  constructor(public connected = true) {
    super()
  }

  get disconnected() {
    return !this.connected
  }

  disconnect() {
    this.connected = false
    this.conn.readyState = 'closed'
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

  it('is not the state of a Socket.IO socket that is about to connect', async () => {
    const use = await useUntil(new SocketOfSocketIo(false))

    expect(await isKept(use)).toBe(true)
  })

  it('is the end of its connection for a Socket.IO socket that was refused', async () => {
    const [refused, late] = [new SocketOfSocketIo(false), new SocketOfSocketIo(false)]
    const use = await useUntil(refused)

    refused.conn.emit('close')
    late.conn.readyState = 'closed'
    const lateUse = await useUntil(late)

    expect(await isKept(use)).toBe(false)
    expect(await isKept(lateUse)).toBe(false)
    expect(refused.conn.eventNames()).toEqual([])
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
    const { plainTextKey } = await processes.changing.create(newKey())

    await expect(
      processes.serving.verify(plainTextKey, { until: lifetime as never }),
    ).rejects.toThrow(
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
    const { apiKey, plainTextKey } = await processes.changing.create(newKey())
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
    app.get('/', processes.serving.authenticate(), (req) => {
      seen.emit('signal', processes.serving.getApiKey(req).signal, req.socket)
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
    await processes.serving.flush()

    const now = performance.now.bind(performance)
    jest.spyOn(performance, 'now').mockImplementation(() => now() + 31_000)

    expect(await reasonOf(signal)).toEqual(new Error('the client has ended its connection'))
    await until(async () => (await processes.serving.health()).feed === 'idle')
  })

  it('keeps its signal until its response has finished: a function behind a gateway', async () => {
    const app = express()
    let signal: AbortSignal | undefined
    app.get('/', processes.serving.authenticate(), (req, res) => {
      signal = processes.serving.getApiKey(req).signal
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
    const guard = processes.serving.authenticate()
    const signals: AbortSignal[] = []
    server = await listen((req, res) => {
      guard(req, res, () => {
        signals.push(processes.serving.getApiKey(req).signal)
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
