#!/usr/bin/env bash
# cache-manager 7.2.9, cacheable 2.5.0, p-memoize 8.0.0 and lru-cache 11.5.3, beside async-cache-dedupe 3.4.0, memoizee 0.4.17 and
# dataloader 2.2.3
#
# Expected: what asks a cache after an entry was deleted gets what was loaded after that, also if a load was under way at that moment.
# Happens: in three of seven caches the load that began before the deletion stores what it brings, and whoever asks later gets that until
#   its time is over. lru-cache aborts the load instead, and rejects for those that wait for it, with an error that says "deleted". In the
#   other three the waiting caller gets the old value, and all later ones the new one.
# Seen, of a status that is ACTIVE when it is loaded, and changes to REVOKED, with a deletion from the cache, before the load is done:
#   cache-manager: first caller ACTIVE, next ACTIVE, later ACTIVE
#   cacheable: first caller ACTIVE, next ACTIVE, later ACTIVE
#   p-memoize: first caller ACTIVE, next ACTIVE, later ACTIVE
#   lru-cache: first caller deleted, next REVOKED, later REVOKED
#   async-cache-dedupe: first caller ACTIVE, next REVOKED, later REVOKED
#   memoizee: first caller ACTIVE, next REVOKED, later REVOKED
#   dataloader: first caller ACTIVE, next REVOKED, later REVOKED
# Why it matters for API keys: "delete it from the cache" is how a revocation takes effect before a time to live is over. A key that is in
#   use is being loaded often, most of all right after it was evicted by an earlier change, and works on after it was revoked. With
#   lru-cache, a good key whose name was changed gets a 500. Number the deletions, and store nothing that was begun before the last one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  cache-manager@7.2.9 cacheable@2.5.0 p-memoize@8.0.0 lru-cache@11.5.3 async-cache-dedupe@3.4.0 \
  memoizee@0.4.17 dataloader@2.2.3 >/dev/null

cat >caches.mjs <<'PROGRAM'
import { setTimeout as wait } from 'node:timers/promises'
import { createCache as createDedupe } from 'async-cache-dedupe'
import { createCache } from 'cache-manager'
import { Cacheable } from 'cacheable'
import DataLoader from 'dataloader'
import { LRUCache } from 'lru-cache'
import memoizee from 'memoizee'
import pMemoize, { pMemoizeClear } from 'p-memoize'

const caches = {
  'cache-manager': (load) => {
    const cache = createCache({ ttl: 60_000 })
    return { get: () => cache.wrap('key', load), evict: () => cache.del('key') }
  },
  cacheable: (load) => {
    const cache = new Cacheable({ ttl: 60_000 })
    return { get: () => cache.getOrSet('key', load), evict: () => cache.delete('key') }
  },
  'p-memoize': (load) => {
    const get = pMemoize(load)
    return { get: () => get('key'), evict: () => pMemoizeClear(get) }
  },
  'lru-cache': (load) => {
    const cache = new LRUCache({ max: 10, ttl: 60_000, fetchMethod: load })
    return { get: () => cache.fetch('key'), evict: () => cache.delete('key') }
  },
  'async-cache-dedupe': (load) => {
    const cache = createDedupe({ ttl: 60, storage: { type: 'memory' } }).define('keys', load)
    return { get: () => cache.keys('key'), evict: () => cache.clear('keys', 'key') }
  },
  memoizee: (load) => {
    const get = memoizee(load, { promise: true, length: 1 })
    return { get: () => get('key'), evict: () => get.delete('key') }
  },
  dataloader: (load) => {
    const loader = new DataLoader((keys) => Promise.all(keys.map(load)))
    return { get: () => loader.load('key'), evict: () => loader.clear('key') }
  },
}

const seen = []
for (const [name, make] of Object.entries(caches)) {
  let status = 'ACTIVE'
  const { get, evict } = make(async () => {
    const read = status
    await wait(100)
    return read
  })
  const ask = () => get().catch((error) => error.message)
  const first = ask()
  await wait(20)
  status = 'REVOKED'
  await evict()
  const next = ask()
  const answers = [await first, await next]
  await wait(200)
  answers.push(await ask())
  seen.push(answers.join(' '))
  console.log(`${name}: first caller ${answers[0]}, next ${answers[1]}, later ${answers[2]}`)
}
const isSame =
  seen.join() ===
  [
    ...Array(3).fill('ACTIVE ACTIVE ACTIVE'),
    'deleted REVOKED REVOKED',
    ...Array(3).fill('ACTIVE REVOKED REVOKED'),
  ].join()
process.exit(isSame ? 0 : 1)
PROGRAM
node caches.mjs
