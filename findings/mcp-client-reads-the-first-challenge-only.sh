#!/usr/bin/env bash
# @modelcontextprotocol/sdk 1.32.2, beside oauth4webapi 3.8.8
#
# Expected: a client reads `WWW-Authenticate` by its grammar (RFC 9110, 11.6.1): several challenges in any order, each with parameters,
#   whose values may hold any text in quotes.
# Happens: the client of the SDK looks at the first word of the field. If it is not Bearer, there is no challenge for it, although one
#   follows. And it searches the field for `scope=` with a pattern, which finds the words of `error_description` before the parameter.
# Seen, of three challenges that mean what they say:
#   Bearer, then Basic: SDK scope read, oauth4webapi scope read
#   Basic, then Bearer: SDK nothing, oauth4webapi scope read
#   "scope=all is missing" in the description: SDK scope all, oauth4webapi scope read
# Why it matters for API keys: a server that takes keys both by Basic and as Bearer tokens announces both, and Express's `res.append`
#   puts them into one field in the order of the guards. If Basic comes first, clients of MCP find neither the metadata of the resource
#   nor the scope, and fall back on guesses. Put Bearer first, and no `scope=` into sentences.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  @modelcontextprotocol/sdk@1.32.2 oauth4webapi@3.8.8 >/dev/null

cat >challenges.mjs <<'PROGRAM'
import { extractWWWAuthenticateParams } from '@modelcontextprotocol/sdk/client/auth.js'
import { customFetch, protectedResourceRequest } from 'oauth4webapi'

const bearer = 'Bearer error="insufficient_scope", scope="read"'
const fields = {
  'Bearer, then Basic': `${bearer}, Basic realm="api"`,
  'Basic, then Bearer': `Basic realm="api", ${bearer}`,
  '"scope=all is missing" in the description':
    'Bearer error="insufficient_scope", error_description="scope=all is missing", scope="read"',
}

async function scopeByOAuth4WebApi(answer) {
  const url = new URL('https://api.example')
  const options = { [customFetch]: async () => answer }
  const request = protectedResourceRequest('token', 'GET', url, undefined, undefined, options)
  const { cause } = await request.catch((error) => error)
  return cause.find(({ scheme }) => scheme === 'bearer')?.parameters.scope
}

const seen = []
for (const [name, field] of Object.entries(fields)) {
  const answer = new Response(null, { status: 403, headers: { 'WWW-Authenticate': field } })
  const { scope } = extractWWWAuthenticateParams(answer)
  const other = await scopeByOAuth4WebApi(answer)
  const show = (found) => (found ? `scope ${found.replaceAll('"', '')}` : 'nothing')
  seen.push(`SDK ${show(scope)}, oauth4webapi ${show(other)}`)
  console.log(`${name}: ${seen.at(-1)}`)
}
const right = 'oauth4webapi scope read'
const expected = [`SDK scope read, ${right}`, `SDK nothing, ${right}`, `SDK scope all, ${right}`]
process.exit(seen.join('; ') === expected.join('; ') ? 0 : 1)
PROGRAM
node challenges.mjs
