import { personalGroups } from '../../models/sealed-entry'
import type { Tables } from '../../models/tables'
import { checkEntry, contentSql, readContent, type Content } from './entry'
import type { Findings } from './faults'
import type { Verification } from './read-trail'
import type { SignatureCheck, Signer } from './signing'

/** The notes of erasings that the library wrote, and the entries that nobody could vouch for before their values were erased. */
export interface Erasures {
  notes: readonly string[]
  unproven: ReadonlySet<string>
}

/** A note of an erasing. */
interface Note {
  id: string
  /** `null` if its seal says that the library wrote it. */
  content: Content | null
  unproven: unknown
}

/** An entry that is not erased as the notes say. */
interface Differing {
  eventId: string
  position: number | null
  /** True if it has values that a note says were erased. */
  isBack: boolean
}

/** So many are more than a verification lists. */
const mostRead = 1_000

/** SQL for the notes of erasings, as JSON. */
export function notesSql({ events, seals }: Tables): string {
  return `
    SELECT pg_catalog.json_build_object(
             'id', event.id::text, 'content', CASE WHEN seal.is_genuine IS NOT TRUE THEN ${contentSql('event')} END,
             'unproven', CASE json_typeof(event.after) WHEN 'object' THEN event.after -> 'unproven'::text END
           )::text AS json
      FROM ${events} AS event LEFT JOIN ${seals} AS seal ON seal.event_id = event.id WHERE event.action = 'owner_erased'`
}

/**
 * Returns what the notes say that the library wrote. Verification also takes notes that a secret may have signed that is gone, because it
 * counts them as unverifiable.
 */
export function readNotes(
  signer: Signer,
  rows: readonly string[],
  trusted: readonly SignatureCheck[],
): Erasures {
  const notes = rows
    .map((row) => JSON.parse(row) as Note)
    .filter(
      ({ content }) =>
        content === null || trusted.includes(checkEntry(signer, readContent(content))),
    )
  const unproven = notes.flatMap(({ unproven }) => (Array.isArray(unproven) ? unproven : []))
  return { notes: notes.map(({ id }) => id), unproven: new Set(unproven.map(String)) }
}

/** SQL for the entries that are not erased as the notes say, as JSON; only those among some entries if their ids are given. */
export function differingSql(
  { events, seals }: Tables,
  { notes }: Erasures,
  ids?: readonly string[],
): string {
  const groups = personalGroups.map((_, group) => `(erased[${group + 1}] IS NOT NULL)::integer`)
  const among = ids ? `AND id = ANY('{${ids.join()}}'::bigint[])` : ''
  return `
    WITH said AS MATERIALIZED (
      SELECT id.value::bigint AS id, bit_or(part.key::bit(${personalGroups.length})) AS groups
        FROM (SELECT after FROM ${events} WHERE id = ANY('{${notes.join()}}'::bigint[]) OFFSET 0) AS note
       CROSS JOIN LATERAL json_each(note.after -> 'erased'::text) AS part
       CROSS JOIN LATERAL json_array_elements_text(part.value) AS id
       GROUP BY 1
    ), found AS (
      SELECT id, pg_catalog.concat(${groups.join(', ')})::bit(${personalGroups.length}) AS groups FROM ${events} WHERE erased IS NOT NULL ${among}
    )
    SELECT pg_catalog.json_build_object(
             'eventId', id::text, 'position', seal.position,
             'isBack', found.groups IS NULL OR (said.groups & ~found.groups)::integer > 0
           )::text AS json
      FROM found ${ids ? 'LEFT' : 'FULL'} JOIN said USING (id) LEFT JOIN ${seals} AS seal ON seal.event_id = id
     WHERE found.groups IS DISTINCT FROM said.groups AND (found.groups IS NOT NULL OR id IN (SELECT id FROM ${events}))
     ORDER BY id LIMIT ${mostRead}`
}

/** Compares the entries that are erased with the notes of erasings. Returns how many entries are erased. */
export async function checkErasures(
  findings: Findings,
  { reader, tables }: Verification,
  erasures: Erasures,
): Promise<number> {
  for (const row of await reader.read('its erasures', differingSql(tables, erasures))) {
    const { eventId, position, isBack } = JSON.parse(row) as Differing
    const message = isBack
      ? 'The entry has personal values that were erased.'
      : 'Personal values of the entry were removed, but not by the library.'
    findings.report('edited', { eventId, position }, message)
  }
  const sql = `SELECT count(*)::text AS json FROM ${tables.events} WHERE erased IS NOT NULL`
  const [count = '0'] = await reader.read('its erasures', sql)
  return Number(count)
}
