#!/usr/bin/env bash
# axios-retry 4.5.0 (with axios 1.21.1), got 14.6.6, openai 6.49.0
#
# Expected: a client that obeys `Retry-After` waits at least as long as it says, or gives up.
# Happens: all three hand the time to `setTimeout` as it is. A timer holds 2^31 - 1 ms at most (24.8 days) and fires after 1 ms
#   if it is given more. After `Retry-After: 2592000` (30 days) they send all their retries within milliseconds. (got 16.1.0
#   gives up, and openai 7.59.0 waits as if there were no such field.)
# Seen:
#   axios-retry: 4 requests, although each answer said 30 days
#   got: 3 requests, although each answer said 30 days
#   openai: 3 requests, although each answer said 30 days
# Why it matters for API keys: a monthly quota that is used up asks for days of patience. Just then each call of a client
#   becomes three or four. Send at most 2147483 seconds.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error \
  axios@1.21.1 axios-retry@4.5.0 got@14.6.6 openai@6.49.0 >/dev/null

cat >clients.mjs <<'PROGRAM'
import { once } from 'node:events'
import { createServer } from 'node:http'

import axios from 'axios'
import axiosRetry from 'axios-retry'
import got from 'got'
import OpenAI from 'openai'

let requests = 0
const server = createServer((req, res) => {
  requests++
  res.writeHead(429, { 'Retry-After': '2592000', 'Content-Type': 'application/json' })
  res.end('{}')
}).listen(0, '127.0.0.1')
await once(server, 'listening')
const url = `http://127.0.0.1:${server.address().port}`

const client = axios.create()
axiosRetry(client, {
  retries: 3,
  retryDelay: axiosRetry.exponentialDelay,
  retryCondition: ({ response }) => response?.status === 429,
})

const calls = {
  'axios-retry': () => client.get(url),
  got: () => got(url),
  openai: () => new OpenAI({ apiKey: 'none', baseURL: url }).models.list(),
}

// A timer of ours that ends the wait for a client that obeys.
const tenSeconds = () => new Promise((resolve) => setTimeout(resolve, 10_000))
const counts = []
for (const [name, call] of Object.entries(calls)) {
  requests = 0
  await Promise.race([call().catch(() => {}), tenSeconds()])
  counts.push(requests)
  console.log(`${name}: ${requests} requests, although each answer said 30 days`)
}
process.exit(counts.join() === '4,3,3' ? 0 : 1)
PROGRAM
node --disable-warning=TimeoutOverflowWarning clients.mjs
