#!/usr/bin/env bash
# lru-cache 11.5.3, node-cache 5.1.2, keyv 5.6.0, cache-manager 7.2.9 and cacheable 2.5.0, beside quick-lru 7.3.0 and
# @isaacs/ttlcache 2.1.5
#
# Expected: of entries with 1000 ms, 1 ms and 0 ms to live, the last is gone first. Or 0 means the time that the cache was made with.
# Happens: in five of seven caches an entry with 0 to live has no end at all, also where the cache was made with a time of its own. In
#   cacheable the same goes for less than 0. An entry with 1 ms is gone after it, so that the border is between two neighbours. The
#   sixth has it gone, and the seventh throws.
# Seen, in caches made with 100 ms, of entries with 1 ms, with 0 and with -1000 ms, after 300 ms:
#   lru-cache: gone, kept, gone
#   node-cache: gone, kept, gone
#   keyv: gone, kept, gone
#   cache-manager: gone, kept, gone
#   cacheable: gone, kept, kept
#   quick-lru: gone, gone, gone
#   @isaacs/ttlcache: gone, refused, refused
# Why it matters for API keys: an app that caches a key until it expires computes what is left of its life, and rounds it down. In its
#   last moment that is 0, and the key is good in that process for ever. It takes a request in the last millisecond, or in the last
#   second with node-cache, which a busy key always has. Do not cache what has less than 1 to live, and compare the expiry at each use.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  lru-cache@11.5.3 node-cache@5.1.2 keyv@5.6.0 cache-manager@7.2.9 cacheable@2.5.0 quick-lru@7.3.0 \
  @isaacs/ttlcache@2.1.5 >/dev/null

cat >caches.mjs <<'PROGRAM'
import { setTimeout as wait } from 'node:timers/promises'
import { TTLCache } from '@isaacs/ttlcache'
import { createCache } from 'cache-manager'
import { Cacheable } from 'cacheable'
import Keyv from 'keyv'
import { LRUCache } from 'lru-cache'
import NodeCache from 'node-cache'
import QuickLRU from 'quick-lru'

const max = 10
const makers = {
  'lru-cache': () => new LRUCache({ max, ttl: 100 }),
  'node-cache': () => new NodeCache({ stdTTL: 0.1, checkperiod: 0 }),
  keyv: () => new Keyv({ ttl: 100 }),
  'cache-manager': () => createCache({ ttl: 100 }),
  cacheable: () => new Cacheable({ ttl: 100 }),
  'quick-lru': () => new QuickLRU({ maxSize: max, maxAge: 100 }),
  '@isaacs/ttlcache': () => new TTLCache({ max, ttl: 100 }),
}

/** The last argument of `set`, if it is not the time in milliseconds. */
const timeFor = {
  'lru-cache': (ttl) => ({ ttl }),
  'node-cache': (ttl) => ttl / 1000,
  'quick-lru': (maxAge) => ({ maxAge }),
  '@isaacs/ttlcache': (ttl) => ({ ttl }),
}

const seen = []
for (const [name, make] of Object.entries(makers)) {
  const outcomes = []
  for (const ms of [1, 0, -1000]) {
    const cache = make()
    try {
      await cache.set('key', 'good', timeFor[name]?.(ms) ?? ms)
      await wait(300)
      outcomes.push((await cache.get('key')) === 'good' ? 'kept' : 'gone')
    } catch {
      outcomes.push('refused')
    }
  }
  seen.push(outcomes.join(', '))
  console.log(`${name}: ${seen.at(-1)}`)
}
const forever = 'gone, kept, gone'
const expected = [forever, forever, forever, forever, 'gone, kept, kept', 'gone, gone, gone', 'gone, refused, refused']
process.exit(seen.join('; ') === expected.join('; ') ? 0 : 1)
PROGRAM
node caches.mjs
