#!/usr/bin/env bash
# express-fileupload 1.5.2 and formidable 3.5.4 (with a callback), beside multer 2.5.0 and express 5.3.0, on Node 20
#
# Expected: what runs after a middleware is in the same context of AsyncLocalStorage as what ran before, whatever the middleware is for.
#   If it were not, then for each request.
# Happens: pieces of a body arrive in the context of the connection, which is older than that of any middleware. Code that goes on from an
#   event of the body is there. formidable calls back in the request's context if the body came with the headers, and in none if it came
#   later. express-fileupload loses the context each time. multer and the parsers of Express go back to it, and so does `await`.
# Seen, of a file that arrives in one piece with the headers, and of one that arrives after them, as the handler reads the tenant:
#   express.raw: acme, acme
#   multer: acme, acme
#   formidable, await: acme, acme
#   formidable, callback: acme, none
#   express-fileupload: none, none
# Why it matters for API keys: the owner of a key, or the tenant, is put into AsyncLocalStorage behind the guard, and hooks, loggers and
#   row level security read it there. In tests files are small. In production each larger file is stored without a tenant, logged without
#   a key, or fails, and it looks like the network. Run the guard after the upload is parsed, or wrap `next` in `AsyncResource.bind`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  express-fileupload@1.5.2 formidable@3.5.4 multer@2.5.0 express@5.3.0 >/dev/null

cat >context.mjs <<'PROGRAM'
import { AsyncLocalStorage } from 'node:async_hooks'
import { once } from 'node:events'
import { request } from 'node:http'
import { setTimeout as wait } from 'node:timers/promises'
import express from 'express'
import fileUpload from 'express-fileupload'
import formidable from 'formidable'
import multer from 'multer'

const uploadDir = process.cwd()
const parsers = {
  'express.raw': express.raw({ type: 'multipart/form-data' }),
  multer: multer({ storage: multer.memoryStorage() }).single('file'),
  'formidable, await': async (req, res, next) => {
    await formidable({ uploadDir }).parse(req)
    next()
  },
  'formidable, callback': (req, res, next) => formidable({ uploadDir }).parse(req, (error) => next(error)),
  'express-fileupload': fileUpload(),
}
const tenants = new AsyncLocalStorage()
const app = express()
app.use((req, res, next) => tenants.run('acme', next))
for (const [name, parser] of Object.entries(parsers)) {
  app.post(`/${encodeURIComponent(name)}`, parser, (req, res) => res.end(tenants.getStore() ?? 'none'))
}
const server = app.listen(0, '127.0.0.1')
await once(server, 'listening')

const body = [
  '--limit',
  'Content-Disposition: form-data; name="file"; filename="keys.csv"',
  'Content-Type: text/csv',
  '',
  'id,name',
  '--limit--',
  '',
].join('\r\n')

async function send(name, isTogether) {
  const headers = { 'Content-Type': 'multipart/form-data; boundary=limit', 'Content-Length': body.length }
  const path = `/${encodeURIComponent(name)}`
  const sent = request({ port: server.address().port, host: '127.0.0.1', method: 'POST', path, headers, agent: false })
  if (!isTogether) {
    sent.flushHeaders()
    await wait(200)
  }
  sent.end(body)
  const [answer] = await once(sent, 'response')
  return (await answer.toArray()).join('')
}

const seen = []
for (const name of Object.keys(parsers)) {
  seen.push(`${await send(name, true)}, ${await send(name, false)}`)
  console.log(`${name}: ${seen.at(-1)}`)
}
const expected = [...Array(3).fill('acme, acme'), 'acme, none', 'none, none']
process.exit(seen.join() === expected.join() ? 0 : 1)
PROGRAM
node context.mjs
