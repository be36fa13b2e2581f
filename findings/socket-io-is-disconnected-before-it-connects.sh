#!/usr/bin/env bash
# socket.io 4.8.4 with socket.io-client 4.8.4.
#
# Expected: `socket.disconnected` is true once a socket has disconnected, and a socket that middleware refuses reports its end.
# Happens: middleware (`io.use`) runs before the socket is connected, and `disconnected` is true there, as it is after the end. A
#   socket that middleware refuses emits no `disconnect`, also not when its connection closes. Only `socket.conn`, the connection
#   that sockets may share, reports an end: `close`.
# Seen:
#   in middleware: connected false, disconnected true, connection open
#   after it: connected true, disconnected false, connection open
#   refused in middleware: 0 events disconnect, 1 event close of its connection
# Why it matters for API keys: middleware is where a key is verified, so it is where an app begins to watch if the key is revoked, until
#   the socket ends. What asks `disconnected` takes the socket for ended at once, and the connection outlives its key. What waits for
#   `disconnect` alone keeps the watch over each refused socket for ever.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts socket.io@4.8.4 socket.io-client@4.8.4 >/dev/null

cat >sockets.cjs <<'PROGRAM'
const { once } = require('node:events')
const { createServer } = require('node:http')
const { Server } = require('socket.io')
const { io } = require('socket.io-client')

const stateOf = ({ connected, disconnected, conn }) =>
  `connected ${connected}, disconnected ${disconnected}, connection ${conn.readyState}`

async function main() {
  const server = createServer()
  const sockets = new Server(server)
  const seen = {}
  const ends = { disconnect: 0, close: 0 }
  sockets.use((socket, next) => {
    if (socket.handshake.auth.token === 'good') {
      seen.before = stateOf(socket)
      return next()
    }
    socket.on('disconnect', () => ends.disconnect++)
    socket.conn.on('close', () => ends.close++)
    next(new Error('refused'))
  })
  sockets.on('connection', (socket) => {
    seen.after = stateOf(socket)
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const url = `http://127.0.0.1:${server.address().port}`
  const options = { forceNew: true, reconnection: false, transports: ['websocket'] }

  const good = io(url, { ...options, auth: { token: 'good' } })
  await new Promise((resolve) => good.on('connect', resolve))
  const bad = io(url, { ...options, auth: { token: 'bad' } })
  await new Promise((resolve) => bad.on('connect_error', resolve))
  bad.io.engine.close()
  good.close()
  await sockets.close()

  console.log(`in middleware: ${seen.before}`)
  console.log(`after it: ${seen.after}`)
  console.log(`refused in middleware: ${ends.disconnect} events disconnect, ${ends.close} event close of its connection`)
  const isSame =
    seen.before === 'connected false, disconnected true, connection open' &&
    seen.after === 'connected true, disconnected false, connection open' &&
    ends.disconnect === 0 &&
    ends.close === 1
  process.exit(isSame ? 0 : 1)
}

void main()
PROGRAM
node sockets.cjs
