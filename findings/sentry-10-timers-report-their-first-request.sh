#!/usr/bin/env bash
# @sentry/node 10.78.0, with express 5.3.0
#
# Expected: what a timer does long after a request was answered is no part of that request. What is reported of it names
#   no caller.
# Happens: a timer that a request has started (a pool, a cache, a heartbeat, made at first use) runs in that request's
#   isolation scope for ever. Each span that begins in it becomes a transaction of its own, with the URL and the headers of
#   that first request. There is no limit in time. (In 11.12.0 such a span is not sent.)
# Seen, of a timer that ran three times after its request was answered:
#   refresh the cache: http://127.0.0.1:<port>/first with Bearer the-first-callers-key
#   refresh the cache: http://127.0.0.1:<port>/first with Bearer the-first-callers-key
#   refresh the cache: http://127.0.0.1:<port>/first with Bearer the-first-callers-key
# Why it matters for API keys: without any traffic a process reports the first caller's key every few hundred milliseconds,
#   and what goes wrong in the background is put down to a caller who is not there. A library that starts timers or
#   connections on demand has to leave the request's async context first.
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
app.get('/first', (req, res) => {
  let left = 3
  const timer = setInterval(() => {
    Sentry.startSpan({ name: 'refresh the cache' }, () => undefined)
    if (--left === 0) {
      clearInterval(timer)
      void report()
    }
  }, 300)
  res.end()
})

const server = app.listen(0, '127.0.0.1', () => {
  const { port } = server.address()
  const headers = { authorization: 'Bearer the-first-callers-key' }
  Sentry.suppressTracing(() =>
    get({ port, host: '127.0.0.1', path: '/first', headers }, (res) => res.resume()),
  )
})

async function report() {
  await Sentry.flush()
  const late = sent.filter(({ transaction }) => transaction === 'refresh the cache' )
  const reports = late.filter(({ type }) => type === 'transaction')
  for (const { transaction, request } of reports) {
    console.log(`${transaction}: ${request?.url} with ${request?.headers?.authorization}`)
  }
  const named = reports.filter(({ request }) => request?.headers?.authorization === 'Bearer the-first-callers-key')
  process.exit(named.length === 3 ? 0 : 1)
}
PROGRAM
node app.cjs
