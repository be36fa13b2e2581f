#!/usr/bin/env bash
# The fetch of Node 20, node-fetch 3.3.2, ofetch 1.5.1, ky 1.14.3 and superagent 10.4.2, beside undici 7.30.2, axios 1.21.1, got 14.6.6 and
# Node's own http
#
# Expected: a field whose value is undefined, because a variable of the environment is missing, is left out or refused, and so is null.
# Happens: the standard of fetch makes text of each value. fetch and what is built on it send the words "undefined" and "null". ky leaves
#   undefined out and sends "null". http and superagent refuse undefined and send "null". undici sends an empty field for null. axios
#   leaves out both, and got refuses null.
# Seen, of X-Api-Key as undefined and as null:
#   fetch: undefined, null
#   node-fetch: undefined, null
#   ofetch: undefined, null
#   ky: no field, null
#   superagent: an error, null
#   http: an error, null
#   undici.request: no field, an empty field
#   axios: no field, no field
#   got: no field, an error
# Why it matters for API keys: the caller asks why its key is invalid, when it has sent none. A server that answers a missing key with
#   public data answers 401, one that slows down addresses with wrong keys slows down an office, and a key named "null" is cached, logged
#   and counted as one client. A client that is rewritten from axios to fetch begins with it. Refuse to start without the key.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  node-fetch@3.3.2 ofetch@1.5.1 ky@1.14.3 superagent@10.4.2 undici@7.30.2 axios@1.21.1 got@14.6.6 >/dev/null

cat >values.mjs <<'PROGRAM'
import { once } from 'node:events'
import { createServer, get } from 'node:http'
import axios from 'axios'
import got from 'got'
import ky from 'ky'
import nodeFetch from 'node-fetch'
import { ofetch } from 'ofetch'
import superagent from 'superagent'
import * as undici from 'undici'

let field
const server = createServer((req, res) => {
  field = req.headers['x-api-key']
  res.writeHead(200, { 'Content-Type': 'application/json' }).end('{}')
}).listen(0, '127.0.0.1')
await once(server, 'listening')
const url = `http://127.0.0.1:${server.address().port}`

const clients = {
  fetch: (headers) => fetch(url, { headers }),
  'node-fetch': (headers) => nodeFetch(url, { headers }),
  ofetch: (headers) => ofetch(url, { headers }),
  ky: (headers) => ky(url, { headers }),
  superagent: async (headers) => superagent.get(url).set(headers),
  http: async (headers) => {
    const [answer] = await once(get(url, { headers }), 'response')
    answer.resume()
  },
  'undici.request': (headers) => undici.request(url, { headers }),
  axios: (headers) => axios.get(url, { headers }),
  got: (headers) => got(url, { headers }),
}
const seen = []
for (const [name, send] of Object.entries(clients)) {
  const outcomes = []
  for (const value of [undefined, null]) {
    const outcome = await send({ 'X-Api-Key': value }).then(() => field ?? 'no field', () => 'an error')
    outcomes.push(outcome || 'an empty field')
  }
  seen.push(outcomes.join(', '))
  console.log(`${name}: ${seen.at(-1)}`)
}
const expected = [
  ...Array(3).fill('undefined, null'),
  'no field, null',
  ...Array(2).fill('an error, null'),
  'no field, an empty field',
  'no field, no field',
  'no field, an error',
]
process.exit(seen.join('; ') === expected.join('; ') ? 0 : 1)
PROGRAM
node values.mjs
