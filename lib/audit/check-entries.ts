import { entryDigestSql, rowDigestSql } from '../../models/sealed-entry'
import type { Tables } from '../../models/tables'
import { dayMs } from '../database/clock'
import type { Erasures } from './check-erasures'
import { checkContent, type Walk } from './check-seals'
import { checkEntry, contentSql, readContent } from './entry'
import { inParts, type Verification } from './read-trail'
import { sealedAtOnce } from './seal'

/** An entry that is not as its seal says, or has no seal, or that was not found to be genuine. */
interface Found {
  eventId: string
  /** `null` if the entry has no seal; and so is `digest`. */
  position: number | null
  digest: string | null
  /** `null` if the entry is gone; and so is `content`. */
  found: string | null
  content: string | null
  isWaiting: boolean
  /** True if the entry has lost personal values. */
  isErased: boolean
  /** Times in milliseconds since 1970: of the signature of the library, of the seal, and of the last seal before those that were written without a pause. */
  signedAt: number | null
  sealedAt: number | null
  sealedBefore: number | null
}

/** A page of entries and seals: all with ids above one, up to another, or to the last of them. */
interface Page {
  after: string
  last: string | null
  entries: number
  seals: number
}

/** The least id that an entry can have. The library makes none so small. */
const leastId = '-9223372036854775808'

/** How many entries a statement compares. The database may share the work of many entries among processes. */
const entriesAtOnce = 50_000

/**
 * How long before that seal the library may have signed an entry: longer than transactions are open. An entry is not compared with the seals
 * that were written with its own, or in full pages before it, because entries wait for their seals if no process lives.
 */
const oldestMs = dayMs

/** How long after its seal an entry may claim that it was signed: clocks differ. */
const newestMs = 300_000

/**
 * Compares each entry with its seal, in the order of the ids, and checks the signatures of entries for which no seal vouches. The
 * database compares the digests, so it returns nothing of a page whose entries are all as they were sealed. Returns how many entries wait
 * for a seal.
 */
export async function checkEntries(
  walk: Walk,
  { reader, tables }: Verification,
  { unproven }: Erasures,
) {
  const read = async (sql: string) => reader.read('its entries beside their seals', sql)
  let unsealed = 0
  for (let after: string | null = leastId; after !== null;) {
    const [end] = await read(pageEndSql(tables, after))
    const page: Page = { after, ...(JSON.parse(end ?? '{}') as Omit<Page, 'after'>) }
    const [matching] = end === undefined ? [] : await read(matchingSql(tables, page))
    if (matching === undefined) return unsealed

    const { entries, seals } = page
    const isAlike = entries === seals && matching === String(seals)
    const rows: string[] = isAlike ? [] : await read(foundSql(tables, page))
    for await (const part of inParts(rows)) {
      for (const row of part) {
        const entry = JSON.parse(row) as Found
        if (entry.isWaiting) unsealed++
        checkFound(walk, entry, unproven.has(entry.eventId))
      }
    }
    after = page.last
  }
  return unsealed
}

function checkFound(walk: Walk, entry: Found, isUnproven: boolean) {
  const { findings, signer } = walk
  const { eventId, position, digest, content, isWaiting } = entry
  const place = { eventId, position }
  if (position !== null && digest !== null && !checkContent(walk, { ...entry, position, digest }))
    return
  if (position === null && !isWaiting)
    return findings.report('inserted', place, 'The entry has no seal, and waits for none.')
  const stored = readContent(content ?? '[]')
  if (stored.actorType === 'database') return

  // If a process has sealed the entry, it did not find that the library wrote it. The secrets may have been added since.
  // The signature of an erased entry says nothing. The note of the erasing says if it was good.
  const check = !entry.isErased ? checkEntry(signer, stored) : isUnproven ? 'invalid' : 'valid'
  if (check === 'unknown') findings.unverifiable++
  if (check === 'invalid')
    findings.report('inserted', place, 'The library did not write the entry.')
  else if (isOutOfTime(entry)) findings.report('inserted', place, outOfTime)
}

const outOfTime =
  'The entry was signed long before it was sealed, or after it: it was put back, or its transaction was open for a day, or a clock was set.'

/** The middle of the time in which an entry may have been signed, before its seal. */
const middleMs = (oldestMs - newestMs) / 2

/** An entry that was pruned and put back is genuine, and as old as it was. */
function isOutOfTime({ signedAt, sealedAt, sealedBefore }: Found): boolean {
  if (signedAt === null || sealedAt === null) return false
  return (
    signedAt > sealedAt + newestMs || (sealedBefore !== null && signedAt < sealedBefore - oldestMs)
  )
}

/** SQL for the end of the page of entries and seals after an id. */
function pageEndSql({ events, seals }: Tables, after: string): string {
  const nth = (id: string, table: string) =>
    `(SELECT ${id} FROM ${table} WHERE ${isAbove(id, after)} ORDER BY ${id} OFFSET ${entriesAtOnce - 1} LIMIT 1)`
  const counted = (id: string, table: string) =>
    `(SELECT count(*) FROM ${table} WHERE ${isAbove(id, after)} AND ${id} <= coalesce(page.last, 9223372036854775807))`
  return `
    SELECT json_build_object(
             'last', last::text, 'entries', ${counted('id', events)}, 'seals', ${counted('event_id', seals)}
           )::text AS json
      FROM (SELECT least(${nth('event_id', seals)}, ${nth('id', events)}) AS last OFFSET 0) AS page`
}

/** SQL that is true for the ids after one, and for the least. */
function isAbove(id: string, after: string): string {
  return `${id} ${after === leastId ? '>=' : '>'} '${after}'`
}

function within(id: string, { after, last }: Page): string {
  return `${isAbove(id, after)} ${last === null ? '' : `AND ${id} <= '${last}'`}`
}

const sealedMs = `date_part('epoch', sealed_at) * 1000`

const signedMs = `split_part(entry_mac, ':', 2)::float8`

/** SQL that is true for an entry whose seal does not say that it is genuine, or that was not signed at about the time of the seal. */
const isDoubtful = `((NOT is_genuine AND actor_type <> 'database') OR coalesce(abs(signed_at - ms + ${middleMs}) > ${newestMs + middleMs}, false))`

/** SQL for the number of entries of a page that are as their seals say. The database joins so many rows in several processes at once. */
function matchingSql({ events, seals }: Tables, page: Page): string {
  return `
    SELECT count(*)::text AS json FROM (
      SELECT is_genuine, actor_type, ${signedMs} AS signed_at, ${sealedMs} AS ms,
             CASE WHEN erased IS NULL THEN ${rowDigestSql('event')} = row_digest ELSE ${entryDigestSql('event')} = digest END AS is_same
        FROM ${events} AS event JOIN ${seals} AS seal ON id = event_id WHERE ${within('id', page)} AND ${within('event_id', page)}
    ) AS entry
     WHERE is_same AND NOT ${isDoubtful}`
}

/** SQL for what is not in order in a page. */
function foundSql({ events, seals, unsealed }: Tables, page: Page): string {
  const lastBefore = (position: string, time: string) => `
        SELECT position, sealed_at FROM ${seals}
         WHERE position < ${position} AND sealed_at <> ${time} ORDER BY position DESC LIMIT 1`
  return `
    WITH RECURSIVE found AS MATERIALIZED (
      SELECT coalesce(event.id, seal.event_id)::text AS event_id, seal.position, seal.digest, event.found,
             CASE WHEN event.id IS NOT NULL THEN ${contentSql('event')} END AS content,
             seal.event_id IS NULL AND event.id IN (SELECT event_id FROM ${unsealed}) AS is_waiting,
             coalesce(event.erased IS NOT NULL AND seal.position IS NOT NULL, false) AS is_erased, event.signed_at, seal.ms, seal.sealed_at
        FROM (
          SELECT *, ${signedMs} AS signed_at, ${entryDigestSql('own')} AS found FROM ${events} AS own WHERE ${within('id', page)}
        ) AS event
        FULL JOIN (SELECT *, ${sealedMs} AS ms FROM ${seals} WHERE ${within('event_id', page)}) AS seal ON seal.event_id = event.id
       WHERE event.found IS DISTINCT FROM seal.digest OR ${isDoubtful}
    ), run (sealed_at, pages, position, before) AS (
      SELECT own.sealed_at, 0, before.position, before.sealed_at
        FROM (SELECT sealed_at, min(position) AS position FROM found WHERE sealed_at IS NOT NULL GROUP BY sealed_at) AS own
        LEFT JOIN LATERAL (${lastBefore('own.position', 'own.sealed_at')}) AS before ON true
       UNION ALL
      SELECT run.sealed_at, pages + 1, before.position, before.sealed_at
        FROM run
        JOIN ${seals} AS first ON first.position = run.position - ${sealedAtOnce - 1} AND first.sealed_at = run.before
        LEFT JOIN LATERAL (${lastBefore('first.position', 'run.before')}) AS before ON true
    ), started AS MATERIALIZED (
      SELECT DISTINCT ON (sealed_at) sealed_at, date_part('epoch', before) * 1000 AS before FROM run ORDER BY sealed_at, pages DESC
    )
    SELECT json_build_object(
             'eventId', event_id, 'position', position, 'digest', digest, 'found', found.found, 'content', content,
             'isWaiting', is_waiting, 'isErased', is_erased, 'signedAt', signed_at, 'sealedAt', ms, 'sealedBefore', started.before
           )::text AS json
      FROM found LEFT JOIN started USING (sealed_at) ORDER BY event_id::bigint`
}
