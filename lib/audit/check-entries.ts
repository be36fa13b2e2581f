import { entryDigestSql } from '../../models/sealed-entry'
import type { Tables } from '../../models/tables'
import { newestMs, oldestMs } from './chain'
import type { Erasures } from './check-erasures'
import { checkContent, type Walk } from './check-seals'
import { checkEntry, contentSql, readContent, type Content } from './entry'
import { inParts, pageSize, type Verification } from './read-trail'
import { sealedAtOnce } from './seal'

/** An entry that is not as its seal says, or has no seal, or that was not found to be genuine. */
interface Found {
  eventId: string
  /** `null` if the entry has no seal; and so is `digest`. */
  position: number | null
  digest: string | null
  /** `null` if the entry is gone; and so is `content`. */
  found: string | null
  content: Content | null
  isWaiting: boolean
  /** True if the entry has lost personal values. */
  isErased: boolean
  /** Times in milliseconds since 1970: of the signature of the library, of the seal, and of the last seal before those that were written without a pause. */
  signedAt: number | null
  sealedAt: number | null
  sealedBefore: number | null
  /** True if an entry of the library has an id or a time from before it was signed, or a time from after its seal. */
  isMoved: boolean
}

/** A part of the chain. */
interface Part {
  from: string
  to: string
}

/**
 * Compares the entries of a part of the chain with their seals, and checks the signatures of entries for which no seal vouches. The
 * database compares the digests, so it returns only entries that are not as they were sealed. Returns the number of entries that are.
 */
export async function checkSealedEntries(
  walk: Walk,
  { reader, tables }: Verification,
  { part, unproven }: { part: Part } & Pick<Erasures, 'unproven'>,
): Promise<number> {
  const read = async (sql: string) => reader.read('its entries beside their seals', sql)
  const [counts] = await read(matchingSql(tables, part))
  if (counts === undefined) return 0
  const [seals = 0, matching = 0] = JSON.parse(counts) as number[]
  if (seals === matching) return matching

  const rows = await read(foundSql(tables, sealedSql(tables, part)))
  for await (const some of inParts(rows)) {
    for (const row of some) checkFound(walk, JSON.parse(row) as Found, unproven)
  }
  return matching
}

/** Checks the entries that have no seal, if there are more entries than were found to be sealed. Returns how many wait for a seal. */
export async function checkUnsealedEntries(
  walk: Walk,
  { reader, tables }: Verification,
  { sealed, unproven }: { sealed: number } & Pick<Erasures, 'unproven'>,
): Promise<number> {
  const read = async (sql: string) => reader.read('its entries without a seal', sql)
  const [count] = await read(`SELECT count(*)::text AS json FROM ${tables.events}`)
  if (count === String(sealed)) return 0

  let unsealed = 0
  for (let last: string | null = null; ;) {
    const rows = await read(foundSql(tables, unsealedSql(tables, last)))
    for await (const some of inParts(rows)) {
      for (const row of some) {
        const entry = JSON.parse(row) as Found
        if (entry.isWaiting) unsealed++
        checkFound(walk, entry, unproven)
        last = entry.eventId
      }
    }
    if (rows.length < pageSize) return unsealed
  }
}

function checkFound(walk: Walk, entry: Found, unproven: ReadonlySet<string>) {
  const { findings, signer } = walk
  const { eventId, position, digest, content, isWaiting } = entry
  const place = { eventId, position }
  if (position !== null && digest !== null && !checkContent(walk, { ...entry, position, digest }))
    return
  if (position === null && !isWaiting)
    return findings.report('inserted', place, 'The entry has no seal, and waits for none.')
  const stored = readContent(content ?? [])
  if (stored.actorType === 'database') return

  // If a process has sealed the entry, it did not find that the library wrote it. The secrets may have been added since.
  // The signature of an erased entry says nothing. The note of the erasing says if it was good.
  const ofNote = unproven.has(eventId) ? 'invalid' : 'valid'
  const check = entry.isErased ? ofNote : checkEntry(signer, stored)
  if (check === 'unknown') findings.unverifiable++
  if (check === 'invalid')
    findings.report('inserted', place, 'The library did not write the entry.')
  else if (isOutOfTime(entry)) findings.report('inserted', place, outOfTime)
  else if (entry.isMoved) findings.report('inserted', place, moved)
}

const outOfTime =
  'The entry was signed long before it was sealed, or after it: it was put back, or its transaction was open for a day, or a clock was set.'

const moved =
  'The entry has a time or an id from before it was signed, or a time from after it was sealed: it was taken out and put in again, or a clock was set.'

/** The middle of the time in which an entry may have been signed, before its seal. */
const middleMs = (oldestMs - newestMs) / 2

/**
 * An entry that was pruned and put back is genuine, and as old as it was. An entry is not compared with the seals that were written with its
 * own, or in full pages before it, because entries wait for their seals if no process lives.
 */
function isOutOfTime({ signedAt, sealedAt, sealedBefore }: Found): boolean {
  if (signedAt === null || sealedAt === null) return false
  return (
    signedAt > sealedAt + newestMs || (sealedBefore !== null && signedAt < sealedBefore - oldestMs)
  )
}

const sealedMs = `date_part('epoch', sealed_at) * 1000`

const signedMs = `split_part(entry_mac, ':', 2)::float8`

/** SQL that is true for an entry that was signed, and that claims that it was written before that, or after it was sealed. */
const isMoved = `(signed_at IS NOT NULL AND coalesce(least(created_ms, id / 1000.0) < signed_at - ${newestMs} OR created_ms > ms + ${newestMs}, false))`

/**
 * SQL that is true for an entry whose seal does not say that it is genuine, or that was not signed at about the time of the seal, and
 * written in between.
 */
const isDoubtful = `((is_genuine IS NOT TRUE AND actor_type <> 'database') OR coalesce(abs(signed_at - ms + ${middleMs}) > ${newestMs + middleMs}, false) OR ${isMoved})`

/** SQL for the number of seals of a part, and of entries that are as their seals say. */
function matchingSql(tables: Tables, part: Part): string {
  return `
    SELECT json_build_array(count(*), count(*) FILTER (WHERE found = digest AND NOT ${isDoubtful}))::text AS json
      FROM (${sealedSql(tables, part)}) AS entry`
}

/** SQL for the seals of a part, each with its entry. The server looks up each entry alone, because it does not know how many there are. */
function sealedSql({ events, seals }: Tables, { from, to }: Part): string {
  return `
      SELECT seal.*, ${sealedMs} AS ms, event.*
        FROM (SELECT position, event_id, digest, is_genuine, sealed_at FROM ${seals} WHERE position BETWEEN '${from}' AND '${to}') AS seal
        LEFT JOIN LATERAL (SELECT ${foundValues} FROM ${events} AS event WHERE id = seal.event_id OFFSET 0) AS event ON true`
}

/** SQL for a page of entries without a seal, after one of them. */
function unsealedSql({ events, seals }: Tables, last: string | null): string {
  const after = last === null ? '' : `AND id > '${last}'`
  return `
      SELECT NULL::bigint AS position, NULL::bigint AS event_id, NULL AS digest, NULL::boolean AS is_genuine, NULL::timestamptz AS sealed_at,
             NULL::float8 AS ms, ${foundValues}
        FROM ${events} AS event WHERE NOT EXISTS (SELECT FROM ${seals} WHERE event_id = event.id) ${after}
       ORDER BY id LIMIT ${pageSize}`
}

/** SQL for what a check reads of an entry. */
const foundValues = `id, actor_type, ${signedMs} AS signed_at, date_part('epoch', created_at) * 1000 AS created_ms, erased IS NOT NULL AS has_lost, event, ${entryDigestSql('event')} AS found`

/** SQL for the entries that are not as their seals say, or are not known to be genuine. */
function foundSql({ seals, unsealed }: Tables, entriesSql: string): string {
  const lastBefore = (position: string, time: string) => `
        SELECT position, sealed_at FROM ${seals}
         WHERE position < ${position} AND sealed_at <> ${time} ORDER BY position DESC LIMIT 1`
  return `
    WITH RECURSIVE found AS MATERIALIZED (
      SELECT coalesce(id, event_id)::text AS event_id, position, digest, found, ms, sealed_at, signed_at, ${isMoved} AS is_moved,
             CASE WHEN id IS NOT NULL THEN ${contentSql('(event)')} END AS content,
             position IS NULL AND id IN (SELECT event_id FROM ${unsealed}) AS is_waiting, coalesce(has_lost AND position IS NOT NULL, false) AS is_erased
        FROM (${entriesSql}) AS entry
       WHERE found IS DISTINCT FROM digest OR ${isDoubtful}
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
             'isWaiting', is_waiting, 'isErased', is_erased, 'signedAt', signed_at, 'sealedAt', ms, 'sealedBefore', started.before, 'isMoved', is_moved
           )::text AS json
      FROM found LEFT JOIN started USING (sealed_at) ORDER BY event_id::bigint`
}
