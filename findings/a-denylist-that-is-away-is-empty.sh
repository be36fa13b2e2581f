#!/usr/bin/env bash
# keyv 5.6.0 (6.1.0 does so in `get` and `set`, once it has a listener for `error`), cache-manager 7.2.9 and cacheable 2.5.0, beside
# unstorage 1.17.6
#
# Expected: `get` rejects if the store cannot be asked, and `set` rejects if it cannot write. Keyv presents itself as storage for key
#   and value, with Redis and Postgres below it.
# Happens: keyv emits `error`, and `get` resolves to undefined, as if there were no such entry. `set` resolves to false, which few look
#   at, and `has` rejects. In cache-manager and cacheable `set` resolves to what it resolves to if it has written. unstorage rejects.
# Seen, of a store that rejects, as a store does whose database is away:
#   keyv: get undefined, set false, has an error
#   cache-manager: get undefined, set "revoked"
#   cacheable: get undefined, set true
#   unstorage: get an error, set an error
# Why it matters for API keys: as a cache it is right, and the key is looked up. But "is this token on the list of revoked ones", "was
#   this Idempotency-Key used" and "how many failures has this address" are asked in the same words. While Redis is away, nothing is
#   revoked or limited, and a revocation is answered with 204 and lost. Nothing is logged without a listener. Do not ask a cache what must
#   be known, or count `error` events and refuse with 503.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' >package.json
npm install --no-audit --no-fund --loglevel error --ignore-scripts \
  keyv@5.6.0 cache-manager@7.2.9 cacheable@2.5.0 unstorage@1.17.6 >/dev/null

cat >denylist.mjs <<'PROGRAM'
import { createCache } from 'cache-manager'
import { Cacheable } from 'cacheable'
import { Keyv } from 'keyv'
import { createStorage } from 'unstorage'

const reject = async () => {
  throw new Error('connect ECONNREFUSED')
}
const store = { get: reject, set: reject, has: reject, delete: reject, clear: reject, on: () => store }
const driver = { getItem: reject, setItem: reject, hasItem: reject, removeItem: reject, getKeys: () => [] }

const keyv = new Keyv({ store })
const cache = createCache({ stores: [new Keyv({ store })] })
const cacheable = new Cacheable({ secondary: new Keyv({ store }) })
const storage = createStorage({ driver })

const stores = {
  keyv: {
    get: () => keyv.get('token'),
    set: () => keyv.set('token', 'revoked'),
    has: () => keyv.has('token'),
  },
  'cache-manager': { get: () => cache.get('token'), set: () => cache.set('token', 'revoked') },
  cacheable: { get: () => cacheable.get('token'), set: () => cacheable.set('token', 'revoked') },
  unstorage: { get: () => storage.getItem('token'), set: () => storage.setItem('token', 'revoked') },
}
const seen = []
for (const [name, calls] of Object.entries(stores)) {
  const outcomes = []
  for (const [title, call] of Object.entries(calls)) {
    outcomes.push(`${title} ${await call().then((value) => JSON.stringify(value), () => 'an error')}`)
  }
  seen.push(outcomes.join(', '))
  console.log(`${name}: ${seen.at(-1)}`)
}
const expected = [
  'get undefined, set false, has an error',
  'get undefined, set "revoked"',
  'get undefined, set true',
  'get an error, set an error',
]
process.exit(seen.join() === expected.join() ? 0 : 1)
PROGRAM
node denylist.mjs
