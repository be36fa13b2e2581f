#!/usr/bin/env bash
# Node 20 and express 5.3.0
#
# Expected: `req.ip` is the address of the client for as long as there is a request. If it were gone at some moment, it would be gone
#   for each app.
# Happens: Node asks the system for the address when it is read first, and keeps it. The system does not know it any more once the
#   connection has ended. If the client went away before its answer, `req.ip` is undefined at `close`, unless anything has read it before:
#   a limiter, a logger, or `req.ip` on a line without effect. Behind a proxy that Express trusts, the address comes from a field and
#   stays, and that of the proxy goes.
# Seen, at `close` of an answer for which the client did not wait:
#   not read before: nothing
#   read before: 127.0.0.1
#   not read before, trust proxy: 203.0.113.7
# Why it matters for API keys: where a key was used from is recorded at the end of a request, with its status. Those records have no
#   address for clients that give up, which are those that a timeout or an attack makes. The day on which morgan, which reads it early, is
#   replaced, they lose it, and no line about addresses was touched. Limits of failures that count at `close` put all of them under
#   "undefined". Read the address in the first middleware.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  express@5.3.0 >/dev/null

cat >addresses.cjs <<'PROGRAM'
const { once } = require('node:events')
const net = require('node:net')
const express = require('express')

async function addressAtClose({ isRead = false, trust = false }) {
  const app = express().set('trust proxy', trust ? 1 : false)
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = net.connect(server.address().port, '127.0.0.1')
  client.write('GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n')
  return new Promise((resolve) => {
    app.use((req, res) => {
      if (isRead) void req.ip
      res.once('close', () => resolve(req.ip))
      client.destroy()
    })
  })
}

async function main() {
  const requests = {
    'not read before': {},
    'read before': { isRead: true },
    'not read before, trust proxy': { trust: true },
  }
  const seen = []
  for (const [title, request] of Object.entries(requests)) {
    seen.push((await addressAtClose(request)) ?? 'nothing')
    console.log(`${title}: ${seen.at(-1)}`)
  }
  process.exit(seen.join() === 'nothing,127.0.0.1,203.0.113.7' ? 0 : 1)
}

void main()
PROGRAM
node addresses.cjs
