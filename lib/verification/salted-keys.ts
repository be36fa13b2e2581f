import { literal } from '../../models/names'
import type { Tables } from '../../models/tables'
import type { Connection } from '../database/connection'
import { ApiKeysError } from '../errors'
import type { ChangeFeed } from '../freshness/change-feed'
import { saltedText, type AcceptedSource } from '../importing/imported-keys'
import { groupOf } from '../keys/addresses'
import type { Digest } from '../keys/secret'
import type { CachedKey, KeyCache } from './cache'
import type { FailedAttempts } from './failed-attempts'
import type { KnownImports } from './known-imports'
import type { KeyCaller } from './verified-key'

/** Finds the hashes of keys that another system has stored with a salt. */
export type SaltedKeys = ReturnType<typeof createSaltedKeys>

interface SaltedKeysParts {
  tables: Tables
  connection: Pick<Connection, 'query'>
  known: KnownImports
  feed: ChangeFeed
  attempts: FailedAttempts
}

/** How many values are made at once. Node has four threads for them, which serve files and look-ups of names as well. */
const mostAtOnce = 2

/** How many requests may wait for that. Each value takes a tenth of a second. */
const mostWaiting = 20

/** How many keys may have one locator. Locators are short, so that two keys may share one. */
const mostOfLocator = 20

/** How many keys are remembered by what was found for them. */
const mostFound = 10_000

/**
 * Makes the part that finds the hash of a salted key. That takes long, on purpose, and every client can send such a text. So a text with
 * an unknown locator costs nothing. The rest runs in few threads, for one request of an address at a time, and counts against its address.
 */
export function createSaltedKeys(parts: SaltedKeysParts) {
  const { known, feed, attempts } = parts
  const underWay = new Map<Digest, Promise<Digest[]>>()
  /** The hashes that were found, by the hash that the key gets at its first use. An empty list is for no key. */
  let found = new Map<Digest, Digest[]>()

  feed.listen({
    onAdded: () => (found = new Map()),
    onGap: () => (found = new Map()),
  })

  async function derive(accepted: AcceptedSource, key: string, caller: Pick<KeyCaller, 'ip'>) {
    const { source, hashersOf } = accepted
    const { salted, locate, name } = source
    if (!salted || !locate) return []
    const salts = await readSalts(parts, name, locate(key))
    const digests: Digest[] = []
    for (const { recipe, salt } of salts) {
      const derived = await queue.run(groupOf(caller.ip ?? null), () =>
        salted.derive(key, recipe, salt),
      )
      const text = saltedText({ recipe, salt, derived })
      for (const hasher of hashersOf(text.length)) digests.push(hasher.digest(text))
    }
    return digests.filter((digest) => known.mayHave(digest))
  }

  return {
    /** True unless no salted key can be meant by a text. */
    mayHave({ source }: AcceptedSource, key: string): boolean {
      const { salted, locate, name } = source
      return salted !== undefined && locate !== undefined && known.mayHaveLocator(name, locate(key))
    },

    /** Returns the cached key whose hash was found before, given the hash that the key gets at its first use. */
    foundOf(next: Digest, cache: Pick<KeyCache, 'use'>): CachedKey | undefined {
      const [digest] = found.get(next) ?? []
      return digest === undefined ? undefined : cache.use(digest)
    },

    /** Returns the hashes that a key may have, given the hash that it gets at its first use. */
    async find(
      accepted: AcceptedSource,
      key: string,
      next: Digest,
      caller: Pick<KeyCaller, 'ip'>,
    ): Promise<readonly Digest[]> {
      const before = found.get(next)
      // A key that was not found may have been imported since, unless that would have been reported.
      if (before && (before.length > 0 || known.mayRely())) return before
      const same = underWay.get(next)
      if (same) return same

      if (!attempts.mayLookUp(caller)) throw new ApiKeysError('too_many_lookups')
      const finding = derive(accepted, key, caller).finally(() => underWay.delete(next))
      underWay.set(next, finding)
      const digests = await finding
      if (found.size >= mostFound) found = new Map()
      found.set(next, digests)
      return digests
    },
  }
}

async function readSalts(
  { tables, connection, feed }: SaltedKeysParts,
  source: string,
  locator: string,
) {
  const { rows } = await connection.query(
    `SELECT recipe, salt FROM ${tables.salts}
      WHERE source = ${literal(source)} AND locator = ${literal(locator)} ORDER BY api_key_id LIMIT ${mostOfLocator}`,
    feed.patienceMs(),
  )
  return rows.map(({ recipe, salt }) => ({ recipe: recipe ?? '', salt: salt ?? '' }))
}

/** One for all instances of the process, because they share the threads. */
const queue = createQueue()

/** Makes a queue that runs a few pieces of work at once, and one for each address. It refuses what would wait for long. */
function createQueue() {
  const waiting: { address: string; start(): void }[] = []
  const busy = new Set<string>()

  function startNext() {
    if (busy.size >= mostAtOnce) return
    const next = waiting.findIndex(({ address }) => !busy.has(address))
    if (next === -1) return
    const [work] = waiting.splice(next, 1)
    work?.start()
  }

  return {
    async run<Result>(address: string, work: () => Promise<Result>): Promise<Result> {
      if (waiting.length >= mostWaiting) throw new ApiKeysError('too_many_lookups')
      await new Promise<void>((resolve) => {
        const start = () => {
          busy.add(address)
          resolve()
        }
        waiting.push({ address, start })
        startNext()
      })
      try {
        return await work()
      } finally {
        busy.delete(address)
        startNext()
      }
    },
  }
}
