#!/usr/bin/env bash
# ratelimit-header-parser 0.1.0 and express-rate-limit 8.7.5, of the same team, with express 5.3.0
#
# Expected: the parser reads what the limiter sends, in each of its forms. If it cannot read `RateLimit`, it returns nothing, or takes
#   the older fields that stand beside it.
# Happens: it returns an object, whose numbers are NaN and whose date is invalid, for the form of
#   draft-ietf-httpapi-ratelimit-headers-08 and later. The older fields beside it do not count. There is no error, and a comparison with
#   NaN is false.
# Seen, after the last request that is allowed, by the forms that the limiter can send:
#   draft-6: remaining 0, slow down: true
#   draft-7: remaining 0, slow down: true
#   draft-8: remaining NaN, slow down: false
#   draft-8 and X-RateLimit: remaining NaN, slow down: false
# Why it matters for API keys: a server that moves to the form of the current draft stops the clients that waited at `remaining < 1`
#   from waiting, and they run into 429 with each burst. To send the older fields as well does not help them. Tell users of keys which
#   form is sent, and keep it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  express-rate-limit@8.7.5 ratelimit-header-parser@0.1.0 express@5.3.0 >/dev/null

cat >limits.cjs <<'PROGRAM'
const { once } = require('node:events')
const express = require('express')
const { rateLimit } = require('express-rate-limit')
const { parseRateLimit } = require('ratelimit-header-parser')

const forms = {
  'draft-6': { standardHeaders: 'draft-6', legacyHeaders: false },
  'draft-7': { standardHeaders: 'draft-7', legacyHeaders: false },
  'draft-8': { standardHeaders: 'draft-8', legacyHeaders: false },
  'draft-8 and X-RateLimit': { standardHeaders: 'draft-8', legacyHeaders: true },
}

async function main() {
  const seen = []
  for (const [name, form] of Object.entries(forms)) {
    const app = express()
    app.use(rateLimit({ limit: 1, windowMs: 60_000, ...form }))
    app.get('/', (req, res) => res.end())
    const server = app.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { headers } = await fetch(`http://127.0.0.1:${server.address().port}`)
    const { remaining } = parseRateLimit(headers)
    seen.push(`remaining ${remaining}, slow down: ${remaining < 1}`)
    console.log(`${name}: ${seen.at(-1)}`)
  }
  const [good, bad] = ['remaining 0, slow down: true', 'remaining NaN, slow down: false']
  process.exit(seen.join('; ') === [good, good, bad, bad].join('; ') ? 0 : 1)
}

void main()
PROGRAM
node limits.cjs
