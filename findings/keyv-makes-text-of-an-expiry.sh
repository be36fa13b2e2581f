#!/usr/bin/env bash
# keyv 5.6.0 (6.1.0 alike), beside cache-manager 7.2.9, cacheable 2.5.0, node-cache 5.1.2 and lru-cache 11.5.3
#
# Expected: a cache in the memory of the process gives back what it was given. Dates turn to text on the way to Redis, and there is none.
# Happens: keyv writes each value as JSON, into its own Map, too. A Date comes back as text. `text <= new Date()` compares NaN with a
#   number: it is false, without an error. cache-manager and cacheable, which are built on keyv, keep the Date.
# Seen, of a key that expired a minute ago, as the caller gets it that fills the cache, and the callers after it:
#   keyv: expired, then good
#   cache-manager: expired, then expired
#   cacheable: expired, then expired
#   node-cache: expired, then expired
#   lru-cache: expired, then expired
# Why it matters for API keys: `if (key.expiresAt <= new Date()) refuse()` stands behind the cache, because keys expire while they are
#   cached. It refuses with each miss and never with a hit, so that a key in use has no end as long as it is in use. TypeScript believes
#   the type that `get` was told. Store a number, or compare in the database.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  keyv@5.6.0 cache-manager@7.2.9 cacheable@2.5.0 node-cache@5.1.2 lru-cache@11.5.3 >/dev/null

cat >expiry.mjs <<'PROGRAM'
import { createCache } from 'cache-manager'
import { Cacheable } from 'cacheable'
import { Keyv } from 'keyv'
import { LRUCache } from 'lru-cache'
import NodeCache from 'node-cache'

const caches = {
  keyv: new Keyv(),
  'cache-manager': createCache(),
  cacheable: new Cacheable(),
  'node-cache': new NodeCache(),
  'lru-cache': new LRUCache({ max: 10 }),
}

async function findKey(cache) {
  const cached = await cache.get('key')
  if (cached) return cached

  const key = { expiresAt: new Date(Date.now() - 60_000) }
  await cache.set('key', key)
  return key
}

const seen = []
for (const [name, cache] of Object.entries(caches)) {
  const outcomes = []
  for (let times = 0; times < 2; times++) {
    const { expiresAt } = await findKey(cache)
    outcomes.push(expiresAt <= new Date() ? 'expired' : 'good')
  }
  seen.push(outcomes.join(', then '))
  console.log(`${name}: ${seen.at(-1)}`)
}
const expected = ['expired, then good', ...Array(4).fill('expired, then expired')]
process.exit(seen.join() === expected.join() ? 0 : 1)
PROGRAM
node expiry.mjs
