#!/usr/bin/env bash
# express-openapi-validator 5.6.2 with express 5.3.0
#
# Expected: an error that a security handler throws is answered with its status, as Express answers it. If an operation takes one of two
#   schemes, a caller who uses one of them gets the answer of that one.
# Happens: the validator knows 401 and 403 from its handlers. Each other status becomes 500, and the headers of the error are gone. Of
#   several schemes the answer is about the first in the document, whichever the caller uses: "Authorization header required" for a key in
#   `X-Api-Key` that is revoked or used up.
# Seen, of handlers that throw an error with the status 401, 403, 429 and 503:
#   one scheme, key in Authorization: 401, 403, 500, 500, refused
#   two schemes, key in Authorization: 401, 403, 500, 500, refused
#   two schemes, key in X-Api-Key: 401, 401, 401, 401, Authorization header required
# Why it matters for API keys: limits and outages are answered with 429 and 503 and `Retry-After`, for which clients wait. Out of a
#   handler they are 500, which rings alarms, or a 401 about a field that the caller has no reason to send. Use handlers to say which
#   scheme there is, and let a guard of its own refuse.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  express-openapi-validator@5.6.2 express@5.3.0 >/dev/null

cat >validator.cjs <<'PROGRAM'
const { once } = require('node:events')
const express = require('express')
const OpenApiValidator = require('express-openapi-validator')

const responses = { 200: { description: 'A list.' } }
const apiSpec = {
  openapi: '3.0.3',
  info: { title: 'Keys', version: '1' },
  components: {
    securitySchemes: {
      bearer: { type: 'http', scheme: 'bearer' },
      field: { type: 'apiKey', in: 'header', name: 'X-Api-Key' },
    },
  },
  paths: {
    '/one': { get: { security: [{ bearer: [] }], responses } },
    '/two': { get: { security: [{ bearer: [] }, { field: [] }], responses } },
  },
}

async function main() {
  let status
  const refuse = () => {
    throw Object.assign(new Error('refused'), { status })
  }
  const app = express()
  app.use(OpenApiValidator.middleware({ apiSpec, validateSecurity: { handlers: { bearer: refuse, field: refuse } } }))
  app.use((error, req, res, next) => res.status(error.status).json(error.message))
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')

  const requests = {
    'one scheme, key in Authorization': ['/one', { Authorization: 'Bearer a-key' }],
    'two schemes, key in Authorization': ['/two', { Authorization: 'Bearer a-key' }],
    'two schemes, key in X-Api-Key': ['/two', { 'X-Api-Key': 'a-key' }],
  }
  const seen = []
  for (const [name, [path, headers]] of Object.entries(requests)) {
    const outcomes = []
    const messages = new Set()
    for (status of [401, 403, 429, 503]) {
      const answer = await fetch(`http://127.0.0.1:${server.address().port}${path}`, { headers })
      outcomes.push(answer.status)
      messages.add(await answer.json())
    }
    seen.push([...outcomes, ...messages].join(', '))
    console.log(`${name}: ${seen.at(-1)}`)
  }
  const expected = [
    '401, 403, 500, 500, refused',
    '401, 403, 500, 500, refused',
    '401, 401, 401, 401, Authorization header required',
  ]
  process.exit(seen.join() === expected.join() ? 0 : 1)
}

void main()
PROGRAM
node validator.cjs
