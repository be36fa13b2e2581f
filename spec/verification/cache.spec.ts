import * as fc from 'fast-check'

import { CachedKey, createKeyCache, type KeyRow } from '../../lib/verification/cache'
import { unbound } from '../support/keys'
import { cachedUser } from '../support/owners'
import { runsOf } from '../support/runs'
import { allOf } from '../support/permissions'

const size = 4

const owner = cachedUser('alice')

/** One of the secrets of a key. */
function secretOf(key: number, secret: number): CachedKey {
  const row: KeyRow = {
    digest: `digest-${key}-${secret}`,
    id: `key-${key}`,
    owner,
    name: 'Deployment',
    permissions: allOf(['READ_GRAPH']),
    status: 'ACTIVE',
    expiresAtMs: null,
    endsAtMs: Infinity,
    lastUsedAtMs: null,
    worksUntilMs: null,
    isPending: false,
    environment: null,
    policy: { allowedIps: null, metadata: '{}', limits: [], bindings: unbound },
  }
  return new CachedKey(row, { monotonic: 0, wall: 0, isFollowed: true })
}

const key = fc.nat(2)
const secret = fc.nat(2)

const action = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('set' as const), key, secret }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('use' as const), key, secret }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('evict' as const), key, secret }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('evict all' as const), key, secret }),
  },
)

describe('the cache of keys', () => {
  it('is bounded, has the keys that were cached last, and evicts a key with all of its secrets', () => {
    fc.assert(
      fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
        const cache = createKeyCache(size)
        const added = new Map<string, CachedKey>()

        for (const { do: what, key, secret } of actions) {
          const cached = secretOf(key, secret)
          const { digest, id } = cached
          const sizeBefore = cache.size
          const isNew = cache.get(digest) === undefined
          if (what === 'set') {
            cache.set(cached)
            added.set(digest, cached)
          } else if (what === 'use') {
            cache.use(digest)
          } else {
            if (what === 'evict') cache.evict(id)
            else cache.evictAll()
            for (const [digest, other] of added) {
              if (what === 'evict all' || other.id === id) added.delete(digest)
            }
          }
          // A key is evicted only to make room.
          const sizeAfter = what === 'set' && isNew ? Math.min(sizeBefore + 1, size) : sizeBefore
          expect(what === 'set' || what === 'use' ? cache.size : sizeAfter).toBe(sizeAfter)
          // The value that was added last is there, whichever value was evicted for it.
          expect(what !== 'set' || cache.get(digest) === cached).toBe(true)

          const stored = [...added].filter(([digest]) => cache.get(digest) !== undefined)
          expect(cache.size).toBe(stored.length)
          expect(cache.size).toBeLessThanOrEqual(size)
          for (const [digest, cached] of stored) expect(cache.get(digest)).toBe(cached)
        }
      }),
      { numRuns: runsOf(1_000) },
    )
  })

  it('finds a key by the fingerprint of its last text, as long as the key is cached', () => {
    const change = fc.oneof(
      action,
      fc.record({ do: fc.constant('note' as const), key, secret, text: fc.nat(5) }),
    )
    fc.assert(
      fc.property(fc.array(change, { maxLength: 60 }), (changes) => {
        const cache = createKeyCache(size)
        const noted = new Map<string, CachedKey>()

        for (const next of changes) {
          const { digest, id } = secretOf(next.key, next.secret)
          if (next.do === 'set') cache.set(secretOf(next.key, next.secret))
          if (next.do === 'evict') cache.evict(id)
          if (next.do === 'evict all') cache.evictAll()
          const cached = cache.use(digest)
          if (next.do === 'note' && cached) {
            // A text is one key alone.
            const fingerprint = `text ${next.text} of ${digest}`
            cache.noteFingerprint(fingerprint, cached)
            for (const [other, { digest: of }] of noted) if (of === digest) noted.delete(other)
            noted.set(fingerprint, cached)
          }

          for (const [fingerprint, key] of noted) {
            if (cache.get(key.digest) !== key) noted.delete(fingerprint)
          }
          for (let text = 0; text <= 5; text++) {
            const fingerprint = `text ${text} of ${digest}`
            expect(cache.useFingerprint(fingerprint)).toBe(noted.get(fingerprint))
          }
        }
      }),
      { numRuns: runsOf(1_000) },
    )
  })

  it('has the hashes of no key that were added last, 10,000 at most, until it evicts them', () => {
    const cache = createKeyCache(size)
    const moment = { monotonic: 0, wall: 0 }
    const hashes = Array.from({ length: 25_000 }, (_, number) => `digest-${number}`)

    let largest = 0
    for (const hash of hashes) {
      cache.setUnknown(hash, moment)
      largest = Math.max(largest, cache.unknownSize)
    }
    const cached = hashes.filter((hash) => cache.unknownSince(hash) === moment)
    expect(largest).toBe(10_000)
    expect(cached.length).toBeGreaterThanOrEqual(5_000)
    expect(cached).toEqual(hashes.slice(-cached.length))

    const [first = '', ...others] = cached
    cache.evictUnknown(first)
    expect(cached.filter((hash) => cache.unknownSince(hash))).toEqual(others)

    cache.evictAllUnknown()
    expect(hashes.filter((hash) => cache.unknownSince(hash))).toEqual([])
    expect(cache.unknownSize).toBe(0)
  })
})
