#!/usr/bin/env bash
# ioredis 6.0.0 (5.11.1 alike), beside redis 5.12.1, on redis-server (Debian's package; it has to be installed)
#
# Expected: a command whose reply is lost with the connection is rejected, because the client cannot know if it was done. redis does so.
# Happens: ioredis connects again and sends the command once more (`autoResendUnfulfilledCommands` is true). It was done the first time,
#   so INCR counts twice. The caller of SET with NX, or of GETDEL, gets the answer of the second time: that another caller was first.
#   With false, ioredis rejects as redis does.
# Seen, where the connection ends between the command and its reply:
#   ioredis, INCR: 2
#   ioredis, SET NX: null
#   ioredis, GETDEL: null
#   redis, INCR: Socket closed unexpectedly
#   redis, SET NX: Socket closed unexpectedly
#   redis, GETDEL: Socket closed unexpectedly
# Why it matters for API keys: counts of uses are too high after each failover, which is bearable. A lock on an Idempotency-Key, taken
#   by SET NX, is refused to the request that holds it, so that no request creates the key, and a one-time code is used up by no
#   request. Write a value that the caller knows for its own, and read it back if the answer is no.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts ioredis@6.0.0 redis@5.12.1 >/dev/null
port=$(node -e 'const s = net.createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close() })')
redis-server --port "$port" --bind 127.0.0.1 --dir "$folder" --save '' >/dev/null &
server=$!

cat >commands.cjs <<'PROGRAM'
const { once } = require('node:events')
const net = require('node:net')
const { setTimeout: wait } = require('node:timers/promises')
const Redis = require('ioredis')
const { createClient } = require('redis')

const serverPort = Number(process.argv[2])

async function main() {
  let isCutting = false
  const proxy = net.createServer((client) => {
    const server = net.connect(serverPort, '127.0.0.1')
    client.pipe(server)
    server.on('data', (reply) => {
      if (!isCutting) return client.write(reply)
      isCutting = false
      client.destroy()
    })
    for (const socket of [client, server]) {
      socket.on('error', () => {})
      socket.on('close', () => (client.destroy(), server.destroy()))
    }
  })
  await once(proxy.listen(0, '127.0.0.1'), 'listening')
  const { port } = proxy.address()

  const direct = new Redis(serverPort, '127.0.0.1')
  direct.on('error', () => {})
  const ioredis = new Redis(port, '127.0.0.1')
  ioredis.on('error', () => {})
  await ioredis.ping()
  const redis = createClient({ url: `redis://127.0.0.1:${port}` })
  redis.on('error', () => {})
  await redis.connect()

  const calls = {
    'ioredis, INCR': () => ioredis.incr('uses'),
    'ioredis, SET NX': () => ioredis.set('lock', 'a', 'NX'),
    'ioredis, GETDEL': () => ioredis.getdel('code'),
    'redis, INCR': () => redis.incr('uses'),
    'redis, SET NX': () => redis.set('lock', 'a', { NX: true }),
    'redis, GETDEL': () => redis.getDel('code'),
  }
  const seen = []
  for (const [name, call] of Object.entries(calls)) {
    await direct.flushall()
    await direct.set('code', 'a')
    while (!redis.isReady || ioredis.status !== 'ready') await wait(50)
    isCutting = true
    seen.push(await call().then(String, ({ message }) => message))
    console.log(`${name}: ${seen.at(-1)}`)
  }
  const lost = 'Socket closed unexpectedly'
  process.exit(seen.join() === `2,null,null,${lost},${lost},${lost}` ? 0 : 1)
}

void main()
PROGRAM
node commands.cjs "$port"
