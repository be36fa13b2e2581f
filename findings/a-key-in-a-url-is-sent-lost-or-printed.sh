#!/usr/bin/env bash
# The fetch of Node 20, undici 7.30.2, ky 1.14.3, ofetch 1.5.1, node-fetch 3.3.2, axios 1.21.1, got 14.6.6 and superagent 10.4.2
#
# Expected: a URL with a key before its host, `https://key@host`, is sent with Basic credentials, or refused by an error that does not
#   repeat it.
# Happens: three things. axios, got, superagent and Node's own `http` send Basic. undici's `request` leaves the key out, without
#   an error. fetch, and what is built on it, refuses the URL by an error whose message has all of it.
# Seen, of http://a-key@127.0.0.1:
#   http: Basic a-key:
#   axios: Basic a-key:
#   got: Basic a-key:
#   superagent: Basic a-key:
#   undici.request: nothing
#   fetch: an error with the key
#   ky: an error with the key
#   ofetch: an error with the key
#   node-fetch: an error with the key
# Why it matters for API keys: an address with the key in it is one setting instead of two, so that registries, proxies and error trackers
#   give it out so (a DSN). When the client is changed for fetch, the key is in the log of each start. With undici the server answers 401,
#   and the address in the settings is right. Split the URL before it is used.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  undici@7.30.2 ky@1.14.3 ofetch@1.5.1 node-fetch@3.3.2 axios@1.21.1 got@14.6.6 superagent@10.4.2 >/dev/null

cat >clients.mjs <<'PROGRAM'
import { once } from 'node:events'
import http from 'node:http'
import axios from 'axios'
import got from 'got'
import ky from 'ky'
import nodeFetch from 'node-fetch'
import { ofetch } from 'ofetch'
import superagent from 'superagent'
import { request } from 'undici'

let field
const server = http
  .createServer((req, res) => {
    field = req.headers.authorization
    res.end()
  })
  .listen(0, '127.0.0.1')
await once(server, 'listening')
const url = `http://a-key@127.0.0.1:${server.address().port}`

const clients = {
  http: async () => {
    const [answer] = await once(http.get(url), 'response')
    answer.resume()
  },
  axios: () => axios.get(url),
  got: () => got(url),
  superagent: () => superagent.get(url),
  'undici.request': () => request(url),
  fetch: () => fetch(url),
  ky: () => ky(url),
  ofetch: () => ofetch(url),
  'node-fetch': () => nodeFetch(url),
}
const seen = []
for (const [name, send] of Object.entries(clients)) {
  field = undefined
  try {
    await send()
    const [scheme, text = ''] = field?.split(' ') ?? ['nothing']
    seen.push(`${scheme} ${Buffer.from(text, 'base64')}`.trim())
  } catch (error) {
    seen.push(`an error ${error.message.includes('a-key') ? 'with the key' : 'without it'}`)
  }
  console.log(`${name}: ${seen.at(-1)}`)
}
const expected = [...Array(4).fill('Basic a-key:'), 'nothing', ...Array(4).fill('an error with the key')]
process.exit(seen.join() === expected.join() ? 0 : 1)
PROGRAM
node clients.mjs
