import { literal } from '../../models/names'
import type { Tables } from '../../models/tables'
import { setImmediate, clearTimeout, type Background } from '../database/background'
import type { Clock } from '../database/clock'
import type { Connection } from '../database/connection'
import type { ChangeFeed } from '../freshness/change-feed'
import { digestOfAll } from '../importing/digests'
import type { ImportedKeys } from '../importing/imported-keys'
import { placeOf } from './cache'
import { fromStoredHash, type Digest } from '../keys/secret'
import { createNumberSet, type NumberSet } from './number-set'

/** Knows the hashes of all imported keys. */
export type KnownImports = ReturnType<typeof createKnownImports>

export interface KnownImportsParts {
  imported: ImportedKeys
  tables: Tables
  background: Background
  clock: Clock
  feed: ChangeFeed
  /** For reading, which no request waits for. */
  connection: Pick<Connection, 'query'>
}

/** How many keys are read in one query, and how long that may take. */
const pageSize = 20_000
const pageLimitMs = 10_000

/** How long reading rests: so many times as long as it took, and at least so long. */
const restFactor = 4
const leastRestMs = 200
const longestRestMs = 60_000

/**
 * Keeps 48 bits of the hash of each imported key in memory, so that a text that only looks like an imported key is refused without a query.
 * The keys of other systems have no check that would show this. A text that is not there is no key as long as the feed reports each key that is
 * imported. Otherwise, and until all hashes are read, the database is asked. A hash that is gone stays until the next reading, which costs at
 * most a query.
 */
export function createKnownImports(parts: KnownImportsParts) {
  const { background, clock, feed } = parts
  let known = createNumberSet()
  let isComplete = false
  /** Goes up with each report after which a reading under way may lack keys. */
  let version = 0
  let isReading = false
  let mayReadAt = -Infinity
  let timer: NodeJS.Timeout | undefined

  function noteMissing() {
    version++
    isComplete = false
    if (feed.lease.isActive) readSoon()
  }

  feed.listen({
    onAdded: noteMissing,
    onGap: noteMissing,
    onStop() {
      clearTimeout(timer)
      timer = undefined
    },
  })

  function readSoon() {
    if (isReading || timer !== undefined) return
    const restMs = Math.max(mayReadAt - clock.monotonic(), 0)
    timer = background.startTimer(() => {
      timer = undefined
      void read()
    }, restMs)
  }

  async function read() {
    isReading = true
    const startedAt = clock.monotonic()
    const readVersion = version
    try {
      const read = await readAll(parts)
      isComplete = read !== null && version === readVersion
      if (read !== null) known = read
    } catch {
      // The database is asked about each key meanwhile, and says itself what is wrong.
    } finally {
      isReading = false
      const tookMs = clock.monotonic() - startedAt
      const restMs = Math.min(Math.max(tookMs * restFactor, leastRestMs), longestRestMs)
      mayReadAt = clock.monotonic() + restMs
    }
    if (!isComplete && feed.lease.isActive) readSoon()
  }

  /** True if a number that is not in the set belongs to no key. */
  function mayRely(): boolean {
    if (isComplete && feed.isLive(clock.monotonic(), clock.wall())) return true
    if (!isComplete && feed.lease.isActive) readSoon()
    return false
  }

  return {
    /** True unless no imported key has the hash. */
    mayHave(digest: Digest): boolean {
      return known.has(numberOf(digest)) || !mayRely()
    },

    /** True unless no salted key has the locator. */
    mayHaveLocator(source: string, locator: string): boolean {
      return known.has(numberOf(locatorDigest(source, locator))) || !mayRely()
    },

    /** True if the set is complete, and each new key will be reported. */
    mayRely,

    /** Adds the hash of a key that this process has imported. */
    add(storedHash: string, salted: { source: string; locator: string } | null) {
      known.add(numberOf(fromStoredHash(storedHash)))
      if (salted) known.add(numberOf(locatorDigest(salted.source, salted.locator)))
    },

    get size() {
      return known.size
    },
  }
}

/** Returns the first 48 bits of a digest. */
function numberOf(digest: Digest): number {
  const high = (digest.charCodeAt(0) << 16) | (digest.charCodeAt(1) << 8) | digest.charCodeAt(2)
  const low = (digest.charCodeAt(3) << 16) | (digest.charCodeAt(4) << 8) | digest.charCodeAt(5)
  return high * 2 ** 24 + low
}

function locatorDigest(source: string, locator: string): Digest {
  return digestOfAll('locator', source, locator)
}

/** Reads all hashes and locators. Returns `null` if the reading may lack keys that were reported before. */
async function readAll(parts: KnownImportsParts): Promise<NumberSet | null> {
  const { tables, imported, connection, feed } = parts
  const sources = [...imported.byName.keys()].map(literal).join(', ')
  const known = createNumberSet()
  let isFirst = true
  for (let last: string | null = ''; last !== null;) {
    const { rows } = await connection.query(hashesSql(tables, sources, last), pageLimitMs)
    const [row = {}] = rows
    // Later pages are newer, and only the first could be too old.
    if (isFirst && !isCurrent(row, feed)) return null
    isFirst = false
    addHashes(known, `${row.hashes ?? ''}${row.retired ?? ''}`)
    last = row.last ?? null
    await nextTurn()
  }
  for (let last: string | null = ''; last !== null;) {
    const { rows } = await connection.query(locatorsSql(tables, sources, last), pageLimitMs)
    const [row = {}] = rows
    const locators = JSON.parse(row.locators ?? '[]') as [string, string][]
    for (const [source, locator] of locators) known.add(numberOf(locatorDigest(source, locator)))
    last = row.last ?? null
    await nextTurn()
  }
  return known
}

async function nextTurn() {
  await new Promise<void>((resolve) => {
    setImmediate(resolve)
  })
}

/** Hashes are read as 12 hexadecimal characters each, without anything between them. */
const digits = 12

function addHashes(known: NumberSet, hashes: string) {
  for (let at = 0; at < hashes.length; at += digits) {
    known.add(parseInt(hashes.slice(at, at + digits), 16))
  }
}

/** True if a reading has every key that the feed has reported, and comes from the primary. */
function isCurrent(row: Record<string, string | null>, feed: ChangeFeed): boolean {
  if (row.is_standby !== 'false' || !row.revision || !row.mark || !feed.lease.applied) return false
  const newest = { revision: Number(row.revision), mark: row.mark }
  return placeOf({ newest, triggers: null }, feed) !== 'older'
}

/** SQL for a page of hashes: of all keys that were imported, whatever secret they have by now, and of their secrets of before. */
function hashesSql({ keys, retiredSecrets, revisions }: Tables, sources: string, last: string) {
  const [source = '', id = ''] = last.split(' ')
  const after =
    last === '' ? '' : `AND (key.source, key.id) > (${literal(source)}, ${literal(id)}::uuid)`
  return `
    WITH page AS MATERIALIZED (
      SELECT key.source, key.id, key.hash FROM ${keys} AS key WHERE key.source IN (${sources}) ${after}
       ORDER BY key.source, key.id LIMIT ${pageSize}
    )
    SELECT newest.revision::text, newest.mark::text, pg_is_in_recovery()::text AS is_standby,
           (SELECT string_agg(left(page.hash, ${digits}), '') FROM page) AS hashes,
           (SELECT string_agg(left(old.hash, ${digits}), '') FROM ${retiredSecrets} AS old JOIN page ON page.id = old.api_key_id) AS retired,
           (SELECT page.source || ' ' || page.id FROM page ORDER BY page.source DESC, page.id DESC LIMIT 1) AS last
      FROM (SELECT revision, mark FROM ${revisions} ORDER BY revision DESC LIMIT 1) AS newest`
}

/** SQL for a page of the locators of keys that have a salt. */
function locatorsSql({ salts }: Tables, sources: string, last: string) {
  const [source = '', id = '', ...locator] = last.split(' ')
  const place = [source, locator.join(' ')].map(literal).join(', ')
  const after =
    last === ''
      ? ''
      : `AND (salted.source, salted.locator, salted.api_key_id) > (${place}, ${literal(id)}::uuid)`
  return `
    WITH page AS MATERIALIZED (
      SELECT salted.source, salted.locator, salted.api_key_id FROM ${salts} AS salted WHERE salted.source IN (${sources}) ${after}
       ORDER BY salted.source, salted.locator, salted.api_key_id LIMIT ${pageSize}
    )
    SELECT (SELECT json_agg(json_build_array(page.source, page.locator))::text FROM page) AS locators,
           (SELECT page.source || ' ' || page.api_key_id || ' ' || page.locator FROM page
             ORDER BY page.source DESC, page.locator DESC, page.api_key_id DESC LIMIT 1) AS last`
}
