#!/usr/bin/env bash
# stripe 23.1.0, svix 1.99.1, @workos-inc/node 8.13.0 and resend 6.38.0, read by structured-headers 2.1.0
#
# Expected: `Idempotency-Key` is a string of structured fields, which stands in quotes: draft-ietf-httpapi-idempotency-key-header
#   says so since 2020. Clients of services that popularised the field send it so, or at least all in one form.
# Happens: none of the clients sends quotes. Three put a word before a UUID, so that a strict parser reads a token. The fourth sends
#   what the caller gives: a bare UUID is a token if it begins with a letter, and a parse error if it begins with a digit.
# Seen, as the parser takes the field of each client:
#   stripe: token
#   svix: token
#   workos: token
#   resend, with a UUID that begins with e: token
#   resend, with a UUID that begins with 8: error
# Why it matters for API keys: a server that creates keys under `Idempotency-Key`, and parses it to the letter, refuses every client
#   in the field. A server that takes any item of structured fields refuses ten of sixteen UUIDs, so that it seems to work in a
#   test. Take the text between quotes, and beside it a bare key of letters, digits and dashes, by a rule of one's own.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error \
  stripe@23.1.0 svix@1.99.1 @workos-inc/node@8.13.0 resend@6.38.0 structured-headers@2.1.0 >/dev/null

cat >keys.cjs <<'PROGRAM'
const { once } = require('node:events')
const http = require('node:http')
const { Resend } = require('resend')
const Stripe = require('stripe')
const { parseItem, Token } = require('structured-headers')
const { Svix } = require('svix')
const { WorkOS } = require('@workos-inc/node')

/** The calls of each client that the servers of its vendor would take; here, loopback takes them. */
const calls = {
  stripe: (port) =>
    new Stripe('key', { host: '127.0.0.1', port, protocol: 'http' }).customers.create({ name: 'a' }),
  svix: (port) =>
    new Svix('key.eu', { serverUrl: `http://127.0.0.1:${port}` }).application.create({ name: 'a' }),
  workos: (port) =>
    new WorkOS('key', { apiHostname: '127.0.0.1', port, https: false }).auditLogs.createEvent('a', {
      action: 'a',
      occurredAt: new Date(),
      actor: { id: 'a', type: 'a' },
      targets: [],
      context: { location: 'a' },
    }),
  'resend, with a UUID that begins with e': (port) =>
    send(port, 'e03978ea-40d5-43dd-bc93-6894a57f9324'),
  'resend, with a UUID that begins with 8': (port) =>
    send(port, '8e03978e-40d5-43dd-bc93-6894a57f9324'),
}

function send(port, idempotencyKey) {
  const mail = { from: 'a@example.com', to: 'b@example.com', subject: 'a', text: 'a' }
  const client = new Resend('key', { baseUrl: `http://127.0.0.1:${port}` })
  return client.emails.send(mail, { idempotencyKey })
}

/** Says what the field is to a parser of structured fields. */
function kindOf(field) {
  try {
    const [value] = parseItem(field)
    return value instanceof Token ? 'token' : typeof value
  } catch {
    return 'error'
  }
}

async function main() {
  let field
  const server = http.createServer((req, res) => {
    field = req.headers['idempotency-key']
    req.resume()
    res.setHeader('content-type', 'application/json').end('{ "id": "a" }')
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')

  const kinds = []
  for (const [name, call] of Object.entries(calls)) {
    field = undefined
    // The answer is none of the vendor's: only the request counts.
    await Promise.resolve(call(server.address().port)).catch(() => {})
    kinds.push(field === undefined ? 'none' : kindOf(field))
    console.log(`${name}: ${kinds.at(-1)}`)
  }
  process.exit(kinds.join() === 'token,token,token,token,error' ? 0 : 1)
}

void main()
PROGRAM
node keys.cjs
