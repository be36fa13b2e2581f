import { stateDigestSql, stateSql } from '../../models/audit-trail'
import { literal } from '../../models/names'
import type { Tables } from '../../models/tables'
import { writeLimitMs } from '../database/writer'
import { createFindings } from './faults'
import type { Head } from './head'
import { linesSql, readLines, type Row } from './read-trail'
import type { SealingParts } from './seal'
import { addEntry, beginAt, compareRow, emptyStory, entryValues } from './story'

/*
 * A process that seals the last entry of a key compares all entries of the key with its row. If they agree, the seal keeps a digest of that
 * row. Later, no entry of the key has changed if the seals are intact, so the entries still agree with the row if it has the same
 * digest, and if the entry is still the last. Verification has the database compare the digests, and reads only the entries of all
 * other keys: these are the *suspects*.
 */

/** So many suspects are looked at one by one. If there are more, verification compares all keys. */
export const mostSuspects = 10_000

/** A key with more entries is always a suspect, so that each seal takes about as long. */
const mostEntries = 50

/**
 * SQL for the keys whose entries are to be compared. Entries are late if they were sealed behind entries with greater ids: their keys may
 * have agreed with their other entries before.
 */
export function suspectsSql(
  { events, seals, keys, origins, auditHead }: Tables,
  late: readonly string[],
): string {
  const isKnown = `id > (SELECT coalesce(max(last_pruned_id), 0) FROM ${auditHead})`
  const hasNoEntry = `NOT EXISTS (SELECT FROM ${events} AS event WHERE event.api_key_id = origin.api_key_id AND event.${isKnown})`
  return `
    SELECT id::text AS json FROM (
      SELECT coalesce(last.api_key_id, key.id) AS id
        FROM (SELECT api_key_id, max(id) AS id FROM ${events} WHERE api_key_id IS NOT NULL AND ${isKnown} GROUP BY api_key_id) AS last
        JOIN ${events} AS event ON event.id = last.id
        LEFT JOIN ${seals} AS seal ON seal.event_id = last.id
        FULL JOIN ${keys} AS key ON key.id = last.api_key_id
       WHERE last.id IS NULL OR seal.state_digest IS DISTINCT FROM ${stateDigestSql('key', 'event')}
       UNION ALL
      SELECT api_key_id FROM ${origins} AS origin WHERE ${hasNoEntry}
       UNION ALL
      SELECT api_key_id FROM ${events} WHERE id = ANY('{${late.join()}}'::bigint[]) AND api_key_id IS NOT NULL
    ) AS suspect GROUP BY id ORDER BY id LIMIT ${mostSuspects + 1}`
}

/** Returns the digests of the keys that agree with all of their entries, by the ids of their last entries. */
export async function readAgreeingStates(
  { connection, tables }: SealingParts,
  { head, waiting }: { head: Head; waiting: readonly { eventId: string }[] },
): Promise<Map<string, string>> {
  const ids = waiting.map(({ eventId }) => eventId)
  if (ids.length === 0) return new Map()
  const { rows } = await connection.query(storiesSql(tables, ids, head.lastPrunedId), writeLimitMs)
  const [{ keys = null, origins = null, entries = null } = {}] = rows
  return agreeingStates(readLines(keys), readLines(origins), readLines(entries))
}

/** SQL for the keys of some entries, with their origins and entries, each as the lines of one text. */
function storiesSql({ events, keys, origins }: Tables, ids: readonly string[], pruned: string) {
  const values = ['key.id', 'key.event_ref', stateSql('key'), stateDigestSql('key', 'last')]
  const joined = `FROM own JOIN last ON last.api_key_id = own.id JOIN ${keys} AS key ON key.id = own.id`
  // By two columns, so that the server reads their index, whatever it takes the number of entries for.
  return `
    WITH own AS MATERIALIZED (
      SELECT DISTINCT api_key_id AS id FROM ${events}
       WHERE id = ANY('{${ids.join()}}'::bigint[]) AND api_key_id IS NOT NULL
         AND NOT EXISTS (SELECT FROM ${events} WHERE action = 'truncated')
    ), entry AS MATERIALIZED (
      SELECT entry.* FROM own CROSS JOIN LATERAL (
        SELECT * FROM ${events} AS event
         WHERE (event.api_key_id, event.id) > (own.id, ${literal(pruned)}::bigint) AND (event.api_key_id, event.id) <= (own.id, 9223372036854775807)
         ORDER BY event.api_key_id DESC, event.id DESC LIMIT ${mostEntries + 1}
      ) AS entry
    ), last AS (
      SELECT DISTINCT ON (api_key_id) * FROM entry ORDER BY api_key_id, id DESC
    )
    SELECT (${linesSql(values, joined)}) AS keys,
           (${linesSql(['api_key_id', 'as_of', 'state'], `FROM ${origins} WHERE api_key_id IN (SELECT id FROM own)`)}) AS origins,
           (${linesSql(entryValues, 'FROM entry ORDER BY api_key_id, id')}) AS entries`
}

/** Compares the entries of each key with its origin and its row. Returns the digests of those that agree, by the ids of their last entries. */
function agreeingStates(keys: readonly Row[], origins: readonly Row[], entries: readonly Row[]) {
  const rows = new Map(keys.map((row) => [row[0], row]))
  const beginnings = new Map(origins.map((row) => [row[0], row]))
  const agreeing = new Map<string, string>()
  for (const [apiKeyId, own] of byKey(entries)) {
    const findings = createFindings()
    const story = emptyStory(apiKeyId)
    const origin = beginnings.get(apiKeyId)
    if (origin) beginAt(story, origin)
    for (const entry of own) addEntry(findings, story, entry)
    const row = rows.get(apiKeyId)
    compareRow(findings, story, story.action === 'deleted', row)
    const lastId = own.at(-1)?.[1]
    if (findings.faultCount === 0 && own.length <= mostEntries && lastId !== undefined)
      agreeing.set(lastId, row?.[3] ?? '')
  }
  return agreeing
}

function byKey(entries: readonly Row[]): Map<string, Row[]> {
  const groups = new Map<string, Row[]>()
  for (const entry of entries) {
    const [apiKeyId = ''] = entry
    const group = groups.get(apiKeyId)
    if (group) group.push(entry)
    else groups.set(apiKeyId, [entry])
  }
  return groups
}
