#!/usr/bin/env bash
# @codegenie/serverless-express 4.17.1 (@vendia/serverless-express 4.12.6 alike), with express 5.3.0
#
# Expected: a response ends with `close`, whatever became of it. Node's documents promise that event for each response, and
#   that is what `stream.finished`, `addAbortSignal` and libraries wait for.
# Happens: the adapter's response emits `finish`, and never `close`. serverless-http 4.0.0 emits both.
# Seen:
#   Node: finish, close
#   @codegenie/serverless-express: finish
# Why it matters for API keys: what is kept for as long as a response lasts (a watch on the key, a timer, a place in a
#   limit) is kept for ever in a warm function, once for each request. Listen for both events.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error @codegenie/serverless-express@4.17.1 express@5.3.0 >/dev/null

cat >app.cjs <<'PROGRAM'
const { once } = require('node:events')
const serverlessExpress = require('@codegenie/serverless-express')
const express = require('express')

async function main() {
  let events = []
  const app = express()
  app.get('/', (req, res) => {
    for (const name of ['finish', 'close']) res.on(name, () => events.push(name))
    res.json({})
  })

  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  await (await fetch(`http://127.0.0.1:${server.address().port}`)).text()
  await new Promise((resolve) => setTimeout(resolve, 500))
  const ofNode = events.join(', ')

  events = []
  const headers = { host: 'example.com' }
  const requestContext = { http: { method: 'GET', path: '/', sourceIp: '203.0.113.7' }, stage: '$default' }
  const event = { version: '2.0', rawPath: '/', rawQueryString: '', headers, requestContext }
  await serverlessExpress({ app })({ ...event, isBase64Encoded: false }, {})
  await new Promise((resolve) => setTimeout(resolve, 500))
  const ofAdapter = events.join(', ')

  console.log(`Node: ${ofNode}`)
  console.log(`@codegenie/serverless-express: ${ofAdapter}`)
  process.exit(ofNode === 'finish, close' && ofAdapter === 'finish' ? 0 : 1)
}

void main()
PROGRAM
node app.cjs
