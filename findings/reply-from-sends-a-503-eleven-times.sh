#!/usr/bin/env bash
# Expected: a proxy hands on a 503 with `Retry-After`, so that the caller waits. If the proxy retries by itself, it waits as long as the
#   answer says.
# Happens: @fastify/reply-from (and @fastify/http-proxy, which is built on it) sends a GET that got a 503 ten times more, by default, and
#   hands on the last answer. It reads `Retry-After` and takes the seconds for milliseconds. A POST is sent once.
# Seen, of the requests that reach the server for one of the caller, and of the time that they take:
#   @fastify/reply-from, GET, Retry-After 60: 11 requests within 5 s
#   @fastify/reply-from, GET, no Retry-After: 11 requests within 5 s
#   @fastify/reply-from, POST, Retry-After 60: 1 request within 5 s
#   http-proxy-middleware, GET, Retry-After 60: 1 request within 5 s
# Why it matters for API keys: a guard that cannot ask its database answers 503 and says when to come back. Behind this proxy the service
#   that is down gets eleven times the load in that moment, each request looks up a key, and limits by address count eleven. Set
#   `maxRetriesOn503: 0` there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  @fastify/reply-from@12.6.5 fastify@5.12.8 http-proxy-middleware@3.0.11 express@5.3.0 >/dev/null

cat >proxies.mjs <<'PROGRAM'
import { once } from 'node:events'
import { createServer } from 'node:http'
import replyFrom from '@fastify/reply-from'
import express from 'express'
import Fastify from 'fastify'
import { createProxyMiddleware } from 'http-proxy-middleware'

let requests = 0
const server = createServer((req, res) => {
  requests++
  req.resume()
  res.writeHead(503, req.url === '/plain' ? {} : { 'Retry-After': '60' }).end()
}).listen(0, '127.0.0.1')
await once(server, 'listening')
const target = `http://127.0.0.1:${server.address().port}`

const fastify = Fastify()
await fastify.register(replyFrom, { base: target })
fastify.all('/*', (req, reply) => reply.from(req.url))
const fastifyUrl = await fastify.listen({ port: 0, host: '127.0.0.1' })
const app = express().use(createProxyMiddleware({ target })).listen(0, '127.0.0.1')
await once(app, 'listening')
const appUrl = `http://127.0.0.1:${app.address().port}`

const calls = {
  '@fastify/reply-from, GET, Retry-After 60': [`${fastifyUrl}/`, 'GET'],
  '@fastify/reply-from, GET, no Retry-After': [`${fastifyUrl}/plain`, 'GET'],
  '@fastify/reply-from, POST, Retry-After 60': [`${fastifyUrl}/`, 'POST'],
  'http-proxy-middleware, GET, Retry-After 60': [`${appUrl}/`, 'GET'],
}
const seen = []
for (const [name, [url, method]] of Object.entries(calls)) {
  requests = 0
  const startedAt = Date.now()
  await fetch(url, { method })
  const time = Date.now() - startedAt < 5000 ? 'within 5 s' : 'later'
  seen.push(`${requests} ${requests === 1 ? 'request' : 'requests'} ${time}`)
  console.log(`${name}: ${seen.at(-1)}`)
}
const many = '11 requests within 5 s'
const single = '1 request within 5 s'
process.exit(seen.join() === [many, many, single, single].join() ? 0 : 1)
PROGRAM
node proxies.mjs
