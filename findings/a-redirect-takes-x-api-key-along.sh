#!/usr/bin/env bash
# The fetch of Node 20, undici 7.30.2, axios 1.21.1, got 14.6.6, superagent 10.4.2, needle 3.5.0, node-fetch 3.3.2 and curl 7.88
# (Debian's)
#
# Expected: a client that is redirected to another host leaves the key behind, whichever field it is in.
# Happens: all of them know `Authorization` by name, as the standard of fetch does, and take it out. `X-Api-Key` is a field like any
#   other, and goes to wherever the answer points. Only axios has an option for further fields, `sensitiveHeaders`, which is empty by
#   default.
# Seen, as the other host gets each field:
#   fetch: Authorization no, X-Api-Key yes
#   undici, redirect: Authorization no, X-Api-Key yes
#   axios: Authorization no, X-Api-Key yes
#   axios, sensitiveHeaders: Authorization no, X-Api-Key no
#   got: Authorization no, X-Api-Key yes
#   superagent: Authorization no, X-Api-Key yes
#   needle: Authorization no, X-Api-Key yes
#   node-fetch: Authorization no, X-Api-Key yes
#   curl: Authorization no, X-Api-Key yes
# Why it matters for API keys: redirects to other hosts are common in APIs: a file in a bucket, a report on a CDN, a host that has moved.
#   With the key in `X-Api-Key`, the logs of each such host have it. A server that offers both fields decides by that for its callers.
#   Prefer `Authorization`, or answer with a URL in the body instead of a redirect.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  undici@7.30.2 axios@1.21.1 got@14.6.6 superagent@10.4.2 needle@3.5.0 node-fetch@3.3.2 >/dev/null

cat >clients.mjs <<'PROGRAM'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { promisify } from 'node:util'
import axios from 'axios'
import got from 'got'
import needle from 'needle'
import nodeFetch from 'node-fetch'
import superagent from 'superagent'
import { Agent, interceptors, request } from 'undici'

async function listen(host, answer) {
  const server = createServer(answer).listen(0, host)
  await once(server, 'listening')
  return server.address().port
}

let fields
const other = await listen('127.0.0.1', (req, res) => {
  fields = req.headers
  res.end()
})
// Two names of this machine are two hosts for a client.
const port = await listen('127.0.0.1', (req, res) => res.writeHead(302, { Location: `http://localhost:${other}/` }).end())
const url = `http://127.0.0.1:${port}/`
const headers = () => ({ authorization: 'Bearer a-key', 'x-api-key': 'a-key' })

const clients = {
  fetch: () => fetch(url, { headers: headers() }),
  'undici, redirect': () => {
    const dispatcher = new Agent().compose(interceptors.redirect({ maxRedirections: 1 }))
    return request(url, { dispatcher, headers: headers() })
  },
  axios: () => axios.get(url, { headers: headers() }),
  'axios, sensitiveHeaders': () => axios.get(url, { headers: headers(), sensitiveHeaders: ['X-Api-Key'] }),
  got: () => got(url, { headers: headers() }),
  superagent: () => superagent.get(url).set(headers()),
  needle: () => needle('get', url, { headers: headers(), follow_max: 1 }),
  'node-fetch': () => nodeFetch(url, { headers: headers() }),
  curl: () => {
    const words = Object.entries(headers()).flatMap(([name, value]) => ['--header', `${name}: ${value}`])
    return promisify(execFile)('curl', ['--silent', '--location', ...words, url])
  },
}
const seen = []
for (const [name, get] of Object.entries(clients)) {
  fields = undefined
  await get()
  const has = (field) => (fields[field] === undefined ? 'no' : 'yes')
  seen.push(`Authorization ${has('authorization')}, X-Api-Key ${has('x-api-key')}`)
  console.log(`${name}: ${seen.at(-1)}`)
}
const keeping = Object.keys(clients).filter((name, at) => seen[at] === 'Authorization no, X-Api-Key no')
const passing = seen.filter((line) => line === 'Authorization no, X-Api-Key yes')
process.exit(keeping.join() === 'axios, sensitiveHeaders' && passing.length === seen.length - 1 ? 0 : 1)
PROGRAM
node clients.mjs
