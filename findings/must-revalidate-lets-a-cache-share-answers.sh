#!/usr/bin/env bash
# undici 7.30.2 (its cache interceptor) and http-cache-semantics 4.3.0
#
# Expected: `must-revalidate` makes a cache stricter. An answer to a request with `Authorization`, which caches do not share between
#   callers, is shared the less for it.
# Happens: the standard counts `must-revalidate` among the three directives that allow a shared cache to keep such an answer, beside
#   `public` and `s-maxage` (RFC 9111, 3.5), and caches do as it says. While the answer is fresh, the next caller gets it, whatever key
#   that caller sends. `proxy-revalidate`, which sounds alike, allows nothing.
# Seen, as the second caller gets an answer that names its caller, and as the other library may store it:
#   max-age=60: to bob, not stored
#   max-age=60, must-revalidate: to alice, stored
#   max-age=60, proxy-revalidate: to bob, not stored
#   private, max-age=60: to bob, not stored
# Why it matters for API keys: answers behind a guard belong to the owner of a key. An app that adds `must-revalidate` to be on the safe
#   side gives them to all callers behind one gateway for a minute. Say `private` or `no-store`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts undici@7.30.2 http-cache-semantics@4.3.0 >/dev/null

cat >cache.cjs <<'PROGRAM'
const { once } = require('node:events')
const { createServer } = require('node:http')
const CachePolicy = require('http-cache-semantics')
const { Agent, interceptors, request } = require('undici')

const expected = {
  'max-age=60': 'to bob, not stored',
  'max-age=60, must-revalidate': 'to alice, stored',
  'max-age=60, proxy-revalidate': 'to bob, not stored',
  'private, max-age=60': 'to bob, not stored',
}

async function main() {
  let field
  const server = createServer((req, res) => {
    res.setHeader('Cache-Control', field).end(req.headers.authorization)
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const url = `http://127.0.0.1:${server.address().port}`

  const seen = []
  for (field of Object.keys(expected)) {
    const dispatcher = new Agent().compose(interceptors.cache({ type: 'shared' }))
    let text
    for (const authorization of ['alice', 'bob']) {
      const { body } = await request(url, { dispatcher, headers: { authorization } })
      text = await body.text()
    }
    const asked = { method: 'GET', url, headers: { authorization: 'alice' } }
    const policy = new CachePolicy(asked, { status: 200, headers: { 'cache-control': field } })
    seen.push(`to ${text}, ${policy.storable() ? '' : 'not '}stored`)
    console.log(`${field}: ${seen.at(-1)}`)
  }
  process.exit(seen.join('; ') === Object.values(expected).join('; ') ? 0 : 1)
}

void main()
PROGRAM
node cache.cjs
