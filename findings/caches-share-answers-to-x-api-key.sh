#!/usr/bin/env bash
# undici 7.30.2 (its cache interceptor), got 14.6.6 and http-cache-semantics 4.3.0
#
# Expected: a cache does not give one caller's answer to another, if the answer does not allow it: a key in `X-Api-Key` is a credential
#   like a key in `Authorization`.
# Happens: the rule for shared caches is about the field `Authorization` by name (RFC 9111, 3.5). No other field counts, as long as `Vary`
#   does not list it. An answer to a request with `X-Api-Key` is stored and given to the next caller, whose key is another. An answer to
#   `Authorization` is not stored at all, also not for the same caller.
# Seen, of answers with `max-age=60` to alice, alice again, and bob:
#   undici, authorization: alice, alice, bob (3 requests)
#   undici, x-api-key: alice, alice, alice (1 request)
#   got, authorization: alice, alice, bob (3 requests)
#   got, x-api-key: alice, alice, alice (1 request)
#   http-cache-semantics: authorization not stored, x-api-key stored
# Why it matters for API keys: both fields look like a matter of taste. A gateway, a backend for a frontend or a worker that calls an API
#   for many users through one client with a cache mixes up their answers with one and caches nothing with the other. Answers behind a
#   guard need `private` or `no-store`, and `Vary` with the name of the field.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  undici@7.30.2 got@14.6.6 http-cache-semantics@4.3.0 >/dev/null

cat >caches.mjs <<'PROGRAM'
import { once } from 'node:events'
import { createServer } from 'node:http'
import got from 'got'
import CachePolicy from 'http-cache-semantics'
import { Agent, interceptors, request } from 'undici'

let requests = 0
const server = createServer(({ headers }, res) => {
  requests++
  res.writeHead(200, { 'Cache-Control': 'max-age=60' }).end(headers['x-api-key'] ?? headers.authorization)
}).listen(0, '127.0.0.1')
await once(server, 'listening')
const url = `http://127.0.0.1:${server.address().port}`

const clients = {
  undici() {
    const dispatcher = new Agent().compose(interceptors.cache())
    return async (headers) => (await request(url, { dispatcher, headers })).body.text()
  },
  got() {
    const cache = new Map()
    return async (headers) => (await got(url, { cache, headers })).body
  },
}
const fields = ['authorization', 'x-api-key']
const seen = []
const show = (line) => {
  seen.push(line)
  console.log(line)
}
for (const [name, create] of Object.entries(clients)) {
  for (const field of fields) {
    requests = 0
    const get = create()
    const answers = []
    for (const caller of ['alice', 'alice', 'bob']) answers.push(await get({ [field]: caller }))
    show(`${name}, ${field}: ${answers.join(', ')} (${requests} ${requests === 1 ? 'request' : 'requests'})`)
  }
}
const outcomes = fields.map((field) => {
  const answer = { status: 200, headers: { 'cache-control': 'max-age=60' } }
  const isStorable = new CachePolicy({ url: '/', method: 'GET', headers: { [field]: 'alice' } }, answer).storable()
  return `${field} ${isStorable ? 'stored' : 'not stored'}`
})
show(`http-cache-semantics: ${outcomes.join(', ')}`)

const apart = 'authorization: alice, alice, bob (3 requests)'
const together = 'x-api-key: alice, alice, alice (1 request)'
const expected = ['undici', 'got'].flatMap((name) => [`${name}, ${apart}`, `${name}, ${together}`])
expected.push('http-cache-semantics: authorization not stored, x-api-key stored')
process.exit(seen.join() === expected.join() ? 0 : 1)
PROGRAM
node caches.mjs
