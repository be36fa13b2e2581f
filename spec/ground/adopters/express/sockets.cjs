const { once } = require('node:events')
const { createServer } = require('node:http')

const { Server } = require('socket.io')
const { io } = require('socket.io-client')
const { WebSocket, WebSocketServer } = require('ws')

const { setUp } = require('./set-up.cjs')

/*
 * Connections that last. For Socket.IO and for ws, it prints the owner of a key, the end of the connection after a
 * revocation, and the end of a connection without a good key.
 */

const { apiKeys, sequelize } = setUp()
const server = createServer()

const socketServer = new Server(server)
socketServer.use(async (socket, next) => {
  const { token } = socket.handshake.auth
  const verdict = await apiKeys.verify(token, { until: socket, ip: socket.handshake.address })
  if (!verdict.valid) return next(new Error(verdict.code))

  socket.data.apiKey = verdict.apiKey
  next()
})
socketServer.on('connection', (socket) => {
  const { signal, userId } = socket.data.apiKey
  signal.addEventListener('abort', () => socket.disconnect(true))
  socket.emit('welcome', userId)
})

const webSocketServer = new WebSocketServer({ noServer: true })
server.on('upgrade', (req, socket, head) => {
  if (req.url !== '/ws') return

  apiKeys.authenticateRequest(req, { permissions: 'READ_GRAPH' }).then(
    ({ signal, userId }) => {
      webSocketServer.handleUpgrade(req, socket, head, (webSocket) => {
        signal.addEventListener('abort', () => webSocket.close(4401))
        webSocket.send(userId)
      })
    },
    ({ status }) => socket.end(`HTTP/1.1 ${status} Refused\r\nConnection: close\r\n\r\n`),
  )
})

/** A client of each kind. Emits `welcome`, `ended` and `refused`. */
const connect = {
  'socket.io'(port, token) {
    const socket = io(`http://127.0.0.1:${port}`, { auth: { token }, reconnection: false })
    socket.on('disconnect', () => socket.emitReserved('ended', 'by the server'))
    socket.on('connect_error', ({ message }) => socket.emitReserved('refused', message))
    return socket
  },

  ws(port, token) {
    const headers = { authorization: `Bearer ${token}` }
    const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`, { headers })
    socket.on('message', (text) => socket.emit('welcome', String(text)))
    socket.on('close', (code) => socket.emit('ended', code))
    socket.on('error', ({ message }) => socket.emit('refused', message))
    return socket
  },
}

async function main() {
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address()

  for (const [kind, open] of Object.entries(connect)) {
    const key = { userId: 'alice', name: kind, permissions: ['READ_GRAPH'] }
    const { apiKey, plainTextKey } = await apiKeys.create(key)

    const socket = open(port, plainTextKey)
    const [welcomed] = await once(socket, 'welcome')
    const ending = once(socket, 'ended')
    await apiKeys.revoke(apiKey.id)
    const [ended] = await ending
    const [refused] = await once(open(port, plainTextKey), 'refused')
    console.log(JSON.stringify({ kind, welcomed, ended, refused }))
  }
  server.close()
  await socketServer.close()
  await apiKeys.close()
  await sequelize.close()
}

void main()
