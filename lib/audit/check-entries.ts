import { entryDigestSql } from '../../models/sealed-entry'
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

/** How many entries a statement compares. It returns few of them, unless there are many faults. */
const entriesAtOnce = 20_000

/**
 * How long before that seal the library may have signed an entry: longer than transactions are open. An entry is not compared with the seals
 * that were written with its own, or in full pages before it, because entries wait for their seals if no process lives.
 */
const oldestMs = dayMs

/** How long after its seal an entry may claim that it was signed: clocks differ. */
const newestMs = 300_000

/**
 * Compares each entry with its seal, in the order of the ids, and checks the signatures of entries for which no seal vouches. The
 * database compares the digests, so it returns nothing of an entry that is as it was sealed. Returns how many entries wait for a seal.
 */
export async function checkEntries(
  walk: Walk,
  { reader, tables }: Verification,
  { unproven }: Erasures,
) {
  let unsealed = 0
  for (let last: string | null = '-9223372036854775808'; last !== null;) {
    const rows: string[] = await reader.read(
      'its entries beside their seals',
      pageSql(tables, last),
    )
    last = (JSON.parse(rows[0] ?? '{"last":null}') as { last: string | null }).last
    for await (const part of inParts(rows.slice(1))) {
      for (const row of part) {
        const entry = JSON.parse(row) as Found
        if (entry.isWaiting) unsealed++
        checkFound(walk, entry, unproven.has(entry.eventId))
      }
    }
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

/** SQL for the end of a page of entries and seals, then for what is not in order between the last page and this end. */
function pageSql({ events, seals, unsealed }: Tables, after: string): string {
  const sealedMs = `date_part('epoch', sealed_at) * 1000`
  const nth = (id: string, table: string) =>
    `(SELECT ${id} FROM ${table} WHERE ${id} > '${after}' ORDER BY ${id} OFFSET ${entriesAtOnce - 1} LIMIT 1)`
  const within = (id: string) =>
    `${id} > '${after}' AND ${id} <= (SELECT coalesce(last, 9223372036854775807) FROM page)`
  const lastBefore = (position: string, time: string) => `
        SELECT position, sealed_at FROM ${seals}
         WHERE position < ${position} AND sealed_at <> ${time} ORDER BY position DESC LIMIT 1`
  return `
    WITH RECURSIVE page AS MATERIALIZED (
      SELECT least(${nth('event_id', seals)}, ${nth('id', events)}) AS last
    ), found AS MATERIALIZED (
      SELECT coalesce(event.id, seal.event_id)::text AS event_id, seal.position, seal.digest, event.found,
             CASE WHEN event.id IS NOT NULL THEN ${contentSql('event')} END AS content,
             seal.event_id IS NULL AND event.id IN (SELECT event_id FROM ${unsealed}) AS is_waiting,
             coalesce(event.erased IS NOT NULL AND seal.position IS NOT NULL, false) AS is_erased, event.signed_at, seal.ms, seal.sealed_at
        FROM (
          SELECT *, split_part(entry_mac, ':', 2)::float8 AS signed_at, ${entryDigestSql('own')} AS found
            FROM ${events} AS own WHERE ${within('id')}
        ) AS event
        FULL JOIN (SELECT *, ${sealedMs} AS ms FROM ${seals} WHERE ${within('event_id')}) AS seal ON seal.event_id = event.id
       WHERE event.found IS DISTINCT FROM seal.digest OR (NOT seal.is_genuine AND event.actor_type <> 'database')
          OR abs(event.signed_at - seal.ms + ${middleMs}) > ${newestMs + middleMs}
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
    SELECT json_build_object('last', last::text)::text AS json FROM page
    UNION ALL
    SELECT json_build_object(
             'eventId', event_id, 'position', position, 'digest', digest, 'found', found.found, 'content', content,
             'isWaiting', is_waiting, 'isErased', is_erased, 'signedAt', signed_at, 'sealedAt', ms, 'sealedBefore', started.before
           )::text
      FROM found LEFT JOIN started USING (sealed_at)`
}
