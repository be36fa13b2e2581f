#!/usr/bin/env bash
# rate-limiter-flexible 11.4.0 and express-rate-limit 8.7.5 with rate-limit-redis 6.0.1, on ioredis 6.0.0 and redis 5.12.1
#
# Expected: while Redis is away, a limiter with `insuranceLimiter` counts in memory, and one with `passOnStoreError` lets requests pass.
# Happens: both wait for an error, and the clients of Redis give none. They keep commands until they are connected again: redis without
#   end, and ioredis for 20 attempts to connect, which take ten seconds. Each request waits as long. With `disableOfflineQueue: true`, or
#   `enableOfflineQueue: false`, the insurance is asked at once.
# Seen, of a request while nothing listens on the port of Redis:
#   rate-limiter-flexible, insurance, ioredis: no answer within 3 s
#   rate-limiter-flexible, insurance, redis: no answer within 3 s
#   express-rate-limit, pass on error, ioredis: no answer within 3 s
#   express-rate-limit, pass on error, redis: no answer within 3 s
#   the first without a queue: 200
#   the second without a queue: 200
# Why it matters for API keys: a limit per key stands before each route. Redis is a convenience there, and the option says that the app
#   can do without it. With a restart of Redis all requests with keys hang, those of a health check that has a key, too, and with them
#   what they hold. A test that mocks the store with an error is green.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  rate-limiter-flexible@11.4.0 express-rate-limit@8.7.5 rate-limit-redis@6.0.1 express@5.3.0 ioredis@6.0.0 \
  redis@5.12.1 >/dev/null

cat >limiters.cjs <<'PROGRAM'
const { once } = require('node:events')
const express = require('express')
const { rateLimit } = require('express-rate-limit')
const { Redis } = require('ioredis')
const { RateLimiterMemory, RateLimiterRedis } = require('rate-limiter-flexible')
const { RedisStore } = require('rate-limit-redis')
const { createClient } = require('redis')

process.on('unhandledRejection', () => {})
console.error = () => {}

function createFlexible(client, isRedis) {
  const limits = { points: 2, duration: 60 }
  const insuranceLimiter = new RateLimiterMemory(limits)
  const limiter = new RateLimiterRedis({ storeClient: client, useRedisPackage: isRedis, insuranceLimiter, ...limits })
  return (req, res, next) =>
    limiter.consume('a-key').then(
      () => next(),
      () => res.status(429).end(),
    )
}

function createPassing(sendCommand) {
  return rateLimit({ limit: 2, passOnStoreError: true, store: new RedisStore({ sendCommand }) })
}

async function main() {
  const closed = express().listen(0, '127.0.0.1')
  await once(closed, 'listening')
  const { port } = closed.address()
  await new Promise((resolve) => closed.close(resolve))

  const createIoredis = (options) => new Redis({ host: '127.0.0.1', port, ...options }).on('error', () => {})
  const createRedis = (options) => {
    const client = createClient({ url: `redis://127.0.0.1:${port}`, ...options }).on('error', () => {})
    client.connect().catch(() => {})
    return client
  }
  const limiters = {
    'rate-limiter-flexible, insurance, ioredis': () => createFlexible(createIoredis(), false),
    'rate-limiter-flexible, insurance, redis': () => createFlexible(createRedis(), true),
    'express-rate-limit, pass on error, ioredis': () => {
      const client = createIoredis()
      return createPassing((...words) => client.call(...words))
    },
    'express-rate-limit, pass on error, redis': () => {
      const client = createRedis()
      return createPassing((...words) => client.sendCommand(words))
    },
    'the first without a queue': () => createFlexible(createIoredis({ enableOfflineQueue: false }), false),
    'the second without a queue': () => createFlexible(createRedis({ disableOfflineQueue: true }), true),
  }
  const seen = []
  for (const [name, create] of Object.entries(limiters)) {
    const server = express()
      .use(create())
      .use((req, res) => res.end())
      .listen(0, '127.0.0.1')
    await once(server, 'listening')
    const answer = await fetch(`http://127.0.0.1:${server.address().port}`, { signal: AbortSignal.timeout(3000) }).then(
      ({ status }) => String(status),
      () => 'no answer within 3 s',
    )
    seen.push(answer)
    console.log(`${name}: ${answer}`)
  }
  process.exit(seen.join() === [...Array(4).fill('no answer within 3 s'), '200', '200'].join() ? 0 : 1)
}

void main()
PROGRAM
node limiters.cjs
