#!/usr/bin/env bash
# @modelcontextprotocol/sdk 1.32.2, with express 5.3.0
#
# Expected: `requireBearerAuth` lets a token pass that its verifier accepts. When a token expires is optional: in `AuthInfo` of the SDK
#   itself (`expiresAt?`), in an answer with a token (RFC 6749, 5.1) and in one about a token (RFC 7662, 2.2).
# Happens: without `expiresAt` the SDK answers 401 with `invalid_token` after the verifier has accepted. TypeScript does not complain.
#   The number of a year that is far away is taken, and so is Infinity, which JSON does not have.
# Seen, by what the verifier returned as `expiresAt`:
#   none: 401, Token has no expiration time
#   Infinity: 200
#   in-an-hour: 200
# Why it matters for API keys: keys without an expiry are the usual ones. Behind MCP each of them is refused, and the client, which has
#   been told that its token is invalid, starts to sign in anew. A verifier has to give a time that the key does not have.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  @modelcontextprotocol/sdk@1.32.2 express@5.3.0 >/dev/null

cat >app.cjs <<'PROGRAM'
const { once } = require('node:events')
const { requireBearerAuth } = require('@modelcontextprotocol/sdk/server/auth/middleware/bearerAuth.js')
const express = require('express')

async function main() {
  const app = express()
  const times = { none: undefined, Infinity, 'in-an-hour': Math.floor(Date.now() / 1000) + 3600 }
  const verifier = {
    verifyAccessToken: async (token) => ({
      token,
      clientId: 'a',
      scopes: [],
      ...(times[token] && { expiresAt: times[token] }),
    }),
  }
  app.get('/', requireBearerAuth({ verifier }), (req, res) => res.json({}))
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')

  const seen = []
  for (const token of Object.keys(times)) {
    const headers = { authorization: `Bearer ${token}` }
    const answer = await fetch(`http://127.0.0.1:${server.address().port}`, { headers })
    const { error_description: reason } = await answer.json()
    seen.push([answer.status, ...(reason ? [reason] : [])].join(', '))
    console.log(`${token}: ${seen.at(-1)}`)
  }
  process.exit(seen.join('; ') === '401, Token has no expiration time; 200; 200' ? 0 : 1)
}

void main()
PROGRAM
node app.cjs
