import { stateDigestSql, stateSql } from '../../models/audit-trail'
import { literal } from '../../models/names'
import { entryDigestSql } from '../../models/sealed-entry'
import type { Tables } from '../../models/tables'
import { writeLimitMs } from '../database/writer'
import { createFindings } from './faults'
import type { Head } from './head'
import { linesSql, readLines, type Row } from './read-trail'
import type { SealingParts } from './seal'
import { addEntry, beginAt, compareRow, emptyStory, entryValues } from './story'

/*
 * A process that seals the last entry of a key compares all entries of the key with its row. If they agree, the seal keeps a digest of all
 * that was compared: the row, the entries and their origin. They may all have been false for a moment, and agree. Later, if the seals
 * are intact, the entries are those that were sealed. If they and the row still have that digest, they still agree. Verification has
 * the database compute the digests, and reads only the entries of all other keys: these are the *suspects*.
 */

/** So many suspects are looked at one by one. If there are more, verification compares all keys. */
export const mostSuspects = 10_000

/** A key with more entries is always a suspect, so that each seal takes about as long. */
const mostEntries = 50

/** SQL for the keys of which the seals of their last entries do not say that they agree with all of their entries. */
export function suspectsSql({ events, seals, keys, origins, auditHead }: Tables): string {
  const isKnown = `id > (SELECT coalesce(max(last_pruned_id), 0) FROM ${auditHead})`
  const hasNoEntry = `NOT EXISTS (SELECT FROM ${events} AS event WHERE event.api_key_id = origin.api_key_id AND event.${isKnown})`
  const digest = stateDigestSql('key', {
    last: 'event',
    origin: 'origin',
    digests: 'story.digests',
  })
  return `
    SELECT id::text AS json FROM (
      SELECT coalesce(story.api_key_id, key.id) AS id
        FROM (
          SELECT event.api_key_id, max(event.id) AS last_id,
                 string_agg(coalesce(seal.digest, 'unsealed'), '' ORDER BY event.id) AS digests
            FROM ${events} AS event LEFT JOIN ${seals} AS seal ON seal.event_id = event.id
           WHERE event.api_key_id IS NOT NULL AND event.${isKnown} GROUP BY event.api_key_id
        ) AS story
        JOIN ${events} AS event ON event.id = story.last_id
        LEFT JOIN ${seals} AS seal ON seal.event_id = story.last_id
        LEFT JOIN ${origins} AS origin ON origin.api_key_id = story.api_key_id
        FULL JOIN ${keys} AS key ON key.id = story.api_key_id
       WHERE (seal.state_digest = ${digest}) IS NOT TRUE
       UNION ALL
      SELECT api_key_id FROM ${origins} AS origin WHERE ${hasNoEntry}
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
  return agreeingStates({
    keys: readLines(keys),
    origins: readLines(origins),
    entries: readLines(entries),
  })
}

/**
 * SQL for the keys of some entries with their digests, for their origins and for their entries, each as the lines of one text. Each row is
 * looked up alone. Otherwise the server would read all keys and all origins, because it expects many entries.
 */
function storiesSql({ events, keys, origins }: Tables, ids: readonly string[], pruned: string) {
  const digest = stateDigestSql('key', {
    last: 'story',
    origin: 'origin',
    digests: 'story.digests',
  })
  const originSql = `(SELECT * FROM ${origins} AS origin WHERE origin.api_key_id = story.id OFFSET 0) AS origin`
  const keySql = `(SELECT * FROM ${keys} AS key WHERE key.id = story.id OFFSET 0) AS key`
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
    ), story AS MATERIALIZED (
      SELECT api_key_id AS id, string_agg(${entryDigestSql('entry')}, '' ORDER BY id) AS digests, (array_agg(salt ORDER BY id DESC))[1] AS salt
        FROM entry GROUP BY api_key_id
    )
    SELECT (${linesSql(
      ['story.id', digest, 'key.id', 'key.event_ref', stateSql('key')],
      `FROM story LEFT JOIN LATERAL ${originSql} ON true LEFT JOIN LATERAL ${keySql} ON true`,
    )}) AS keys,
           (${linesSql(['story.id', 'origin.as_of', 'origin.state'], `FROM story CROSS JOIN LATERAL ${originSql}`)}) AS origins,
           (${linesSql(entryValues, 'FROM entry ORDER BY api_key_id, id')}) AS entries`
}

/** Compares the entries of each key with its origin and its row. Returns the digests of those that agree, by the ids of their last entries. */
function agreeingStates({
  keys,
  origins,
  entries,
}: Record<'keys' | 'origins' | 'entries', readonly Row[]>) {
  const rows = new Map(keys.map((row) => [row[0], row]))
  const beginnings = new Map(origins.map((row) => [row[0], row]))
  const agreeing = new Map<string, string>()
  for (const [apiKeyId, own] of byKey(entries)) {
    const findings = createFindings()
    const story = emptyStory(apiKeyId)
    const origin = beginnings.get(apiKeyId)
    if (origin) beginAt(story, origin)
    for (const entry of own) addEntry(findings, story, entry)
    const [, digest, ...row] = rows.get(apiKeyId) ?? []
    compareRow(findings, story, story.action === 'deleted', row[0] === '' ? undefined : row)
    const lastId = own.at(-1)?.[1]
    const isAlike = findings.faultCount === 0 && own.length <= mostEntries
    if (isAlike && lastId !== undefined && digest !== undefined) agreeing.set(lastId, digest)
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
