#!/usr/bin/env bash
# Expected: several schemes in `security` of OpenAPI are alternatives, of which a client uses one. Only schemes within one of its objects
#   go together.
# Happens: both clients send the key by every scheme that they have a value for. The code of hey-api has no alternatives any more: the
#   list of the document becomes one flat list. One function for the key (`auth: () => key`), as its documents show it, has a value for
#   each.
# Seen, of an operation that takes a Bearer token or `X-Api-Key`, and of one that takes both together:
#   hey-api, one of two: Authorization and X-Api-Key
#   hey-api, both: Authorization and X-Api-Key
#   swagger-client, one of two: Authorization and X-Api-Key
#   swagger-client, both: Authorization and X-Api-Key
# Why it matters for API keys: a server that offers both fields has to decide on requests with two keys. If it refuses them, as RFC 6750
#   has it for a token that is sent in two ways (section 3.1), each request of these clients is a 400. If it reads one of them, a caller
#   cannot know which. Describe one scheme, or accept the same key twice.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  @hey-api/openapi-ts@0.95.0 typescript@5.9.3 swagger-client@3.37.3 esbuild@0.25.9 >/dev/null

cat >clients.mjs <<'PROGRAM'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { createClient } from '@hey-api/openapi-ts'
import { build } from 'esbuild'
import SwaggerClient from 'swagger-client'

let fields
const server = createServer((req, res) => {
  const names = { authorization: 'Authorization', 'x-api-key': 'X-Api-Key' }
  fields = Object.keys(names).filter((name) => req.headers[name] !== undefined)
  fields = fields.map((name) => names[name]).join(' and ')
  res.writeHead(200, { 'Content-Type': 'application/json' }).end('{}')
}).listen(0, '127.0.0.1')
await once(server, 'listening')
const url = `http://127.0.0.1:${server.address().port}`

const responses = { 200: { description: 'A list.' } }
const spec = {
  openapi: '3.1.0',
  info: { title: 'Keys', version: '1' },
  servers: [{ url }],
  components: {
    securitySchemes: {
      bearer: { type: 'http', scheme: 'bearer' },
      field: { type: 'apiKey', in: 'header', name: 'X-Api-Key' },
    },
  },
  paths: {
    '/either': { get: { operationId: 'either', security: [{ bearer: [] }, { field: [] }], responses } },
    '/both': { get: { operationId: 'both', security: [{ bearer: [], field: [] }], responses } },
  },
}

await createClient({ input: spec, output: './generated', logs: { level: 'silent' } })
const code = `
  export { client } from './generated/client.gen'
  export * as operations from './generated'`
await build({
  stdin: { contents: code, resolveDir: process.cwd(), loader: 'ts' },
  bundle: true,
  format: 'esm',
  outfile: 'generated.mjs',
  logLevel: 'error',
})
const { client, operations } = await import(`${process.cwd()}/generated.mjs`)
client.setConfig({ auth: () => 'a-key' })
const swagger = await SwaggerClient({ spec, authorizations: { bearer: { value: 'a-key' }, field: { value: 'a-key' } } })

const calls = {
  'hey-api, one of two': () => operations.either(),
  'hey-api, both': () => operations.both(),
  'swagger-client, one of two': () => swagger.apis.default.either(),
  'swagger-client, both': () => swagger.apis.default.both(),
}
const seen = []
for (const [name, call] of Object.entries(calls)) {
  fields = 'no request'
  await call()
  seen.push(fields)
  console.log(`${name}: ${fields}`)
}
process.exit(seen.join() === Array(4).fill('Authorization and X-Api-Key').join() ? 0 : 1)
PROGRAM
node clients.mjs
