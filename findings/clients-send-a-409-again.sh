#!/usr/bin/env bash
# openai 6.49.0, @anthropic-ai/sdk 1.14.0, stripe 23.1.0 and @octokit/plugin-retry 8.1.1 (with @octokit/core 7.0.8),
# beside got 14.6.6
#
# Expected: 409 says that the request conflicts with the state of what it is about, which a person has to resolve (RFC 9110, 15.5.10).
#   No client sends it again as it is, least of all a POST without `Idempotency-Key`.
# Happens: the four clients take 409 for a lock that is soon free, and send the same request two or three times more. openai and
#   anthropic do it with a POST and send no key with it. Octokit does it with a 412 as well, which cannot have another answer.
# Seen, of one POST of each (got, told to retry each POST, as it should be):
#   openai: 409 3 requests, 412 1 request, 422 1 request
#   anthropic: 409 3 requests, 412 1 request, 422 1 request
#   stripe: 409 3 requests, 412 1 request, 422 1 request
#   octokit: 409 4 requests, 412 4 requests, 422 1 request
#   got: 409 1 request, 412 1 request, 422 1 request
# Why it matters for API keys: "this key is revoked" and "you have as many keys as are allowed" are conflicts. In the SDK of a service,
#   which is written or generated after one of these, each costs three or four requests, counts so in limits and in alarms for refusals,
#   and answers after a second. A refusal has to cost little, and its repetitions must change nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  openai@6.49.0 @anthropic-ai/sdk@1.14.0 stripe@23.1.0 @octokit/core@7.0.8 @octokit/plugin-retry@8.1.1 \
  got@14.6.6 >/dev/null

cat >clients.mjs <<'PROGRAM'
import { once } from 'node:events'
import { createServer } from 'node:http'
import Anthropic from '@anthropic-ai/sdk'
import { Octokit } from '@octokit/core'
import { retry } from '@octokit/plugin-retry'
import got from 'got'
import OpenAI from 'openai'
import Stripe from 'stripe'

let requests = 0
let status
const server = createServer((req, res) => {
  requests++
  req.resume()
  res.writeHead(status, { 'Content-Type': 'application/json' }).end('{ "error": { "message": "no" } }')
}).listen(0, '127.0.0.1')
await once(server, 'listening')
const { port } = server.address()
const url = `http://127.0.0.1:${port}`

const octokit = new (Octokit.plugin(retry))({
  baseUrl: url,
  retry: { retryAfterBaseValue: 50 },
  log: { debug() {}, info() {}, warn() {}, error() {} },
})
const calls = {
  openai: () => new OpenAI({ apiKey: 'a', baseURL: url }).post('/keys', { body: {} }),
  anthropic: () => new Anthropic({ apiKey: 'a', baseURL: url }).post('/keys', { body: {} }),
  stripe: () => new Stripe('a', { host: '127.0.0.1', port, protocol: 'http' }).customers.create({}),
  octokit: () => octokit.request('POST /keys'),
  got: () => got.post(url, { json: {}, retry: { limit: 2, methods: ['POST'] } }),
}

const seen = []
for (const [name, call] of Object.entries(calls)) {
  const counts = []
  for (status of [409, 412, 422]) {
    requests = 0
    await Promise.resolve(call()).catch(() => {})
    counts.push(requests)
  }
  const [conflict, failed, invalid] = counts.map((count) => `${count} request${count === 1 ? '' : 's'}`)
  console.log(`${name}: 409 ${conflict}, 412 ${failed}, 422 ${invalid}`)
  seen.push(counts.join(' '))
}
process.exit(seen.join() === '3 1 1,3 1 1,3 1 1,4 4 1,1 1 1' ? 0 : 1)
PROGRAM
node clients.mjs
