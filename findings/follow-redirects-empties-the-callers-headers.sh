#!/usr/bin/env bash
# follow-redirects 1.16.3, beside the fetch of Node 20, axios 1.21.1, got 14.6.6 and superagent 10.4.2
#
# Expected: a client that is redirected to another origin leaves `Authorization` out of the request to it, and that is all. The object
#   with headers that it was given stays as it was.
# Happens: follow-redirects deletes the field from the caller's own object. Apps make that object once and use it for each request, so
#   that a single redirect elsewhere (a file in a bucket, a page of a moved host) takes the key out of all requests that come after it,
#   to the right host as well. axios, which is built on it, copies the headers first.
# Seen, as the right host gets `Authorization` before and after a redirect of another request to another origin:
#   fetch: Bearer a-key, then Bearer a-key
#   axios: Bearer a-key, then Bearer a-key
#   got: Bearer a-key, then Bearer a-key
#   superagent: Bearer a-key, then Bearer a-key
#   follow-redirects: Bearer a-key, then nothing
# Why it matters for API keys: a client that has worked for days gets 401 with each request until it is started anew, and its key is
#   good all the while. The server sees requests without a key and cannot say more. Give each request headers of its own.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  follow-redirects@1.16.3 axios@1.21.1 got@14.6.6 superagent@10.4.2 >/dev/null

cat >clients.mjs <<'PROGRAM'
import { once } from 'node:events'
import { createServer } from 'node:http'
import axios from 'axios'
import redirects from 'follow-redirects'
import got from 'got'
import superagent from 'superagent'

async function listen(answer) {
  const server = createServer(answer)
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return `http://127.0.0.1:${server.address().port}`
}

let field
const otherUrl = await listen((req, res) => res.end())
const url = await listen((req, res) => {
  if (req.url === '/elsewhere') return res.writeHead(302, { Location: otherUrl }).end()
  field = req.headers.authorization ?? 'nothing'
  res.end()
})

const clients = {
  fetch: (to, headers) => fetch(to, { headers }),
  axios: (to, headers) => axios.get(to, { headers }),
  got: (to, headers) => got(to, { headers }),
  superagent: (to, headers) => superagent.get(to).set(headers),
  'follow-redirects': async (to, headers) => {
    const [answer] = await once(redirects.http.get(to, { headers }), 'response')
    await once(answer.resume(), 'end')
  },
}
const losing = []
for (const [name, get] of Object.entries(clients)) {
  const headers = { authorization: 'Bearer a-key' }
  await get(`${url}/`, headers)
  const before = field
  await get(`${url}/elsewhere`, headers)
  await get(`${url}/`, headers)
  console.log(`${name}: ${before}, then ${field}`)
  if (field !== before) losing.push(name)
}
process.exit(losing.join() === 'follow-redirects' ? 0 : 1)
PROGRAM
node clients.mjs
