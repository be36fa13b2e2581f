#!/usr/bin/env bash
# lru-cache 11.5.3 and @isaacs/ttlcache 2.1.5, beside node-cache 5.1.2, keyv 5.6.0, cache-manager 7.2.9 and cacheable 2.5.0,
# under jest 30.5.2
#
# Expected: under Jest's fake timers an hour passes for a cache as it passes for `Date`, by `advanceTimersByTime` and by `setSystemTime`.
#   If it does not, then for no cache.
# Happens: lru-cache and @isaacs/ttlcache take the global `performance` when they are loaded, and Jest puts another object in its place.
#   For them no time passes, whatever a test does. The others ask `Date`.
# Seen, of an entry with a minute to live, an hour later by each way:
#   lru-cache: advanced kept, set kept
#   @isaacs/ttlcache: advanced kept, set kept
#   cacheable: advanced gone, set gone
#   node-cache: advanced gone, set gone
#   keyv: advanced gone, set gone
#   cache-manager: advanced gone, set gone
# Why it matters for API keys: "a revoked key is refused once the cache has expired" is the test that each cache of keys has. With
#   lru-cache it fails for good code, and its opposite, "a request an hour later needs no query", is green although production asks each
#   minute. Give lru-cache a clock of one's own by its option `perf`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  lru-cache@11.5.3 @isaacs/ttlcache@2.1.5 node-cache@5.1.2 keyv@5.6.0 cache-manager@7.2.9 cacheable@2.5.0 \
  jest@30.5.2 >/dev/null

cat >caches.test.js <<'PROGRAM'
const { TTLCache } = require('@isaacs/ttlcache')
const { createCache } = require('cache-manager')
const { Cacheable } = require('cacheable')
const { Keyv } = require('keyv')
const { LRUCache } = require('lru-cache')
const NodeCache = require('node-cache')

const caches = {
  'lru-cache': () => new LRUCache({ max: 10, ttl: 60_000 }),
  '@isaacs/ttlcache': () => new TTLCache({ ttl: 60_000 }),
  cacheable: () => new Cacheable({ ttl: 60_000 }),
  'node-cache': () => new NodeCache({ stdTTL: 60 }),
  keyv: () => new Keyv({ ttl: 60_000 }),
  'cache-manager': () => createCache({ ttl: 60_000 }),
}
const ways = {
  advanced: () => jest.advanceTimersByTimeAsync(3_600_000),
  set: () => jest.setSystemTime(Date.now() + 3_600_000),
}

afterEach(() => jest.useRealTimers())

it('loses what has expired', async () => {
  const seen = []
  for (const [name, create] of Object.entries(caches)) {
    const outcomes = []
    for (const [way, pass] of Object.entries(ways)) {
      jest.useFakeTimers()
      const cache = create()
      await cache.set('key', 'good')
      await pass()
      outcomes.push(`${way} ${(await cache.get('key')) ? 'kept' : 'gone'}`)
      jest.useRealTimers()
    }
    seen.push(`${name}: ${outcomes.join(', ')}`)
  }
  process.stdout.write(`${seen.join('\n')}\n`)
  expect(seen).toEqual([
    'lru-cache: advanced kept, set kept',
    '@isaacs/ttlcache: advanced kept, set kept',
    'cacheable: advanced gone, set gone',
    'node-cache: advanced gone, set gone',
    'keyv: advanced gone, set gone',
    'cache-manager: advanced gone, set gone',
  ])
})
PROGRAM
echo '{ "private": true, "jest": { "transform": {} } }' >package.json
node node_modules/jest/bin/jest.js --silent 2>/dev/null
