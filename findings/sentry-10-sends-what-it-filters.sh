#!/usr/bin/env bash
# @sentry/node 10.78.0, with express 5.3.0
#
# Expected: a header that the SDK holds to be sensitive is filtered wherever it is sent, the more so with
#   `sendDefaultPii` left at false. Version 11.12.0 does so.
# Happens: one transaction says both. The span's attribute `http.request.header.authorization` is "[Filtered]", and
#   `request.headers.authorization` of the same transaction, and of the error's event, has the value in full.
# Seen:
#   transaction: span attribute [Filtered], request header Bearer a-key
#   event: request header Bearer a-key
# Why it matters for API keys: each traced request and each reported error carries its caller's key out of the house,
#   and whoever looks at the attributes of a span believes that it does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error @sentry/node@10.78.0 express@5.3.0 >/dev/null

cat >app.cjs <<'PROGRAM'
const Sentry = require('@sentry/node')

const sent = []
Sentry.init({
  dsn: 'https://public@sentry.example/1',
  tracesSampleRate: 1,
  transport: (options) =>
    Sentry.createTransport(options, async ({ body }) => {
      for (const line of String(body).split('\n')) sent.push(JSON.parse(line))
      return { statusCode: 200 }
    }),
})
const express = require('express')
const { get } = require('node:http')

const app = express()
app.get('/', () => {
  throw new Error('The route has failed')
})
Sentry.setupExpressErrorHandler(app)
app.use((error, req, res, next) => res.status(500).end())

const server = app.listen(0, '127.0.0.1', () => {
  const { port } = server.address()
  Sentry.suppressTracing(() =>
    get({ port, host: '127.0.0.1', headers: { authorization: 'Bearer a-key' } }, async (res) => {
      res.resume()
      await new Promise((resolve) => res.once('end', () => setTimeout(resolve, 500)))
      await Sentry.flush()
      const transaction = sent.find(({ type, request }) => type === 'transaction' && request)
      const event = sent.find(({ exception }) => exception)
      const attribute = transaction?.contexts.trace.data['http.request.header.authorization']
      const headers = [transaction, event].map((one) => one?.request.headers?.authorization)
      console.log(`transaction: span attribute ${attribute}, request header ${headers[0]}`)
      console.log(`event: request header ${headers[1]}`)
      const isAsSeen = attribute === '[Filtered]' && headers.every((value) => value === 'Bearer a-key')
      process.exit(isAsSeen ? 0 : 1)
    }),
  )
})
PROGRAM
node app.cjs
