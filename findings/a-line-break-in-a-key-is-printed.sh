#!/usr/bin/env bash
# The fetch of Node 20, undici 7.30.2, ky 1.14.3, openai 6.49.0, axios 1.21.1, got 14.6.6, superagent 10.4.2 and node-fetch 3.3.2
#
# Expected: a key with a line break in it, as a file or a secret of Kubernetes ends with one, is refused by all clients or cleaned by all,
#   and no error has the value of the field.
# Happens: fetch, and what is built on it, cuts a break at the end. With a break further in it throws an error whose message is the value,
#   key and all. axios takes out each character that a field cannot have, wherever it is, so that two lines are sent as one key. The
#   others refuse both, and name the field alone.
# Seen, of `Bearer a-key` with a line break at its end, and with another line after that:
#   fetch: sends Bearer a-key, then an error with the key
#   undici.fetch: sends Bearer a-key, then an error with the key
#   ky: sends Bearer a-key, then an error with the key
#   openai: sends Bearer a-key, then an error with the key
#   axios: sends Bearer a-key, then sends Bearer a-keyanother
#   got: an error without it, then an error without it
#   superagent: an error without it, then an error without it
#   node-fetch: an error without it, then an error without it
# Why it matters for API keys: a file of secrets gets a second line when a key is rotated, or a comment. Then the first thing that each
#   process logs is the key. With axios the server sees a key that does not exist, and counts a failure. And what works in one service, by
#   fetch, fails in the next, by got. Trim keys where they are read, and refuse what is not one word.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  undici@7.30.2 ky@1.14.3 openai@6.49.0 axios@1.21.1 got@14.6.6 superagent@10.4.2 node-fetch@3.3.2 >/dev/null

cat >clients.mjs <<'PROGRAM'
import { once } from 'node:events'
import { createServer } from 'node:http'
import axios from 'axios'
import got from 'got'
import ky from 'ky'
import nodeFetch from 'node-fetch'
import OpenAI from 'openai'
import superagent from 'superagent'
import * as undici from 'undici'

let field
const server = createServer((req, res) => {
  field = req.headers.authorization
  res.writeHead(200, { 'Content-Type': 'application/json' }).end('{}')
}).listen(0, '127.0.0.1')
await once(server, 'listening')
const url = `http://127.0.0.1:${server.address().port}`

const clients = {
  fetch: (headers) => fetch(url, { headers }),
  'undici.fetch': (headers) => undici.fetch(url, { headers }),
  ky: (headers) => ky(url, { headers }),
  openai: (headers) => new OpenAI({ apiKey: headers.authorization.slice('Bearer '.length), baseURL: url }).get('/'),
  axios: (headers) => axios.get(url, { headers }),
  got: (headers) => got(url, { headers }),
  superagent: (headers) => superagent.get(url).set(headers),
  'node-fetch': (headers) => nodeFetch(url, { headers }),
}
const seen = []
for (const [name, send] of Object.entries(clients)) {
  const outcomes = []
  for (const key of ['a-key\n', 'a-key\nanother']) {
    try {
      await send({ authorization: `Bearer ${key}` })
      outcomes.push(`sends ${field}`)
    } catch (error) {
      outcomes.push(`an error ${error.message.includes('a-key') ? 'with the key' : 'without it'}`)
    }
  }
  seen.push(outcomes.join(', then '))
  console.log(`${name}: ${seen.at(-1)}`)
}
const expected = [
  ...Array(4).fill('sends Bearer a-key, then an error with the key'),
  'sends Bearer a-key, then sends Bearer a-keyanother',
  ...Array(3).fill('an error without it, then an error without it'),
]
process.exit(seen.join() === expected.join() ? 0 : 1)
PROGRAM
node clients.mjs
