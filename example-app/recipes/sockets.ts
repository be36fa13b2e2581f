import type { Server as HttpServer } from 'node:http'

import { ApiKeysError } from 'express-api-keys'
import { Server, type Socket } from 'socket.io'
import { WebSocketServer } from 'ws'

import type { Keys } from './api-keys'

/** Serves Socket.IO. Clients give the key in `auth`, and are disconnected when it ends. */
export function serveSocketIo(server: HttpServer, apiKeys: Keys): Server {
  const io = new Server(server)

  // Socket.IO does not wait for middleware, so a rejection must reach `next`.
  io.use((socket, next) => {
    admit(socket).then(() => next(), next)
  })

  return io

  async function admit(socket: Socket): Promise<void> {
    const { token } = socket.handshake.auth
    const ip = socket.handshake.address
    const verdict = await apiKeys.verify(String(token), { until: socket, ip })
    // The code of the verdict says more than a client should know.
    if (!verdict.valid) throw new Error('invalid_api_key')

    const { signal, userId } = verdict.apiKey
    signal.addEventListener('abort', () => socket.disconnect(true))
    socket.data = { userId }
  }
}

/** Serves WebSockets by `ws`, beside other upgrades. Clients send the key in the header, and are closed with 4401 when it ends. */
export function serveWebSockets(server: HttpServer, path: string, apiKeys: Keys): WebSocketServer {
  const webSockets = new WebSocketServer({ noServer: true })

  server.on('upgrade', (req, socket, head) => {
    if (new URL(req.url ?? '', 'http://localhost').pathname !== path) return

    apiKeys.authenticateRequest(req, { permissions: 'READ_GRAPH' }).then(
      ({ signal }) => {
        webSockets.handleUpgrade(req, socket, head, (webSocket) => {
          signal.addEventListener('abort', () => webSocket.close(4401, 'The API key has ended'))
          webSockets.emit('connection', webSocket, req)
        })
      },
      (error: unknown) => {
        const status = error instanceof ApiKeysError ? error.status : 500
        socket.end(`HTTP/1.1 ${status} Refused\r\nConnection: close\r\n\r\n`)
      },
    )
  })

  return webSockets
}
