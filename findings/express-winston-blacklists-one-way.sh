#!/usr/bin/env bash
# express-winston 4.2.0, with winston 3.19.0 and express 5.3.0
#
# Expected: `bodyBlacklist: ['secret']` keeps a property of that name out of what is logged of bodies, once
#   `responseWhitelist: ['body']` has the bodies of answers logged as well.
# Happens: it concerns the bodies of requests. Those of answers are logged whole. (`responseFilter` can change them.)
# Seen:
#   request: {"name":"x"}
#   answer: {"id":1,"secret":"of the answer"}
# Why it matters for API keys: a new key is in the answer to the request that creates it, and nowhere else. A log that is
#   believed to leave out `plainTextKey` has every key.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error express-winston@4.2.0 winston@3.19.0 express@5.3.0 >/dev/null

cat >app.cjs <<'PROGRAM'
const { once } = require('node:events')
const { Writable } = require('node:stream')
const express = require('express')
const { logger } = require('express-winston')
const { transports } = require('winston')

async function main() {
  let logged
  const stream = new Writable({
    write(chunk, encoding, done) {
      logged = JSON.parse(String(chunk)).meta
      stream.emit('logged')
      done()
    },
  })
  const app = express()
  app.use(express.json())
  app.use(
    logger({
      transports: [new transports.Stream({ stream })],
      requestWhitelist: ['body'],
      responseWhitelist: ['body'],
      bodyBlacklist: ['secret'],
    }),
  )
  app.post('/', (req, res) => res.json({ id: 1, secret: 'of the answer' }))
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')

  const written = once(stream, 'logged')
  await fetch(`http://127.0.0.1:${server.address().port}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ name: 'x', secret: 'of the request' }),
  })
  await written
  const request = JSON.stringify(logged.req.body)
  const answer = JSON.stringify(logged.res.body)
  console.log(`request: ${request}`)
  console.log(`answer: ${answer}`)
  process.exit(!request.includes('of the request') && answer.includes('of the answer') ? 0 : 1)
}

void main()
PROGRAM
node app.cjs
