import { shownNames, shownSql } from '../../models/audit-trail'
import { literal } from '../../models/names'
import type { Tables } from '../../models/tables'

/** A place where the trail does not agree with itself or with a key, and the number of the comparison that found it. */
export type Contradiction = [
  source: number,
  eventId: string | null,
  apiKeyId: string,
  name: string,
  said: unknown,
  known: unknown,
]

/** The most contradictions that each comparison finds. Some values differ for the database and not for JavaScript. */
export const maxContradictions = 1_000

/** The comparisons. The owner that each entry names counts if no entry of the key has the owner among its attributes. */
const comparisonsSql = ({ keys, auditHead }: Tables) => [
  `SELECT id, api_key_id, name, before, known
     FROM attribute WHERE known_id IS NOT NULL AND before IS DISTINCT FROM known`,
  `SELECT attribute.id, api_key_id, name, after, ${valueSql('present.state')}
     FROM attribute JOIN present USING (api_key_id, era)
    WHERE is_last AND after IS DISTINCT FROM ${valueSql('present.state')}`,
  `SELECT id, api_key_id, 'userId', user_id, owner
     FROM present WHERE user_id IS DISTINCT FROM owner AND NOT EXISTS (
       SELECT FROM attribute WHERE attribute.api_key_id = present.api_key_id AND attribute.era = present.era AND name = 'userId'
     )`,
  `SELECT referred.id, api_key_id, 'its last change', ref, event_ref
     FROM referred JOIN present USING (api_key_id, era) WHERE ref IS NOT NULL AND ref IS DISTINCT FROM event_ref`,
  `SELECT last.id, coalesce(last.api_key_id, key.id), 'its existence', true, false
     FROM last FULL JOIN ${keys} AS key ON key.id = last.api_key_id
    WHERE (last.id IS NOT NULL AND last.is_gone = (key.id IS NOT NULL)) OR (
      last.id IS NULL AND key.created_at >= coalesce((SELECT min(pruned_before) FROM ${auditHead}), '-infinity')
    )`,
]

/**
 * SQL for the places where the trail contradicts itself or the keys. It compares what an entry says of an attribute with the
 * entry before and with the row of the key. The entries of a key are in the order of their ids, because each was written under
 * the lock of its row. A TRUNCATE ends what came before it.
 *
 * Any role that may write to the trail may have written any JSON, so values that are no objects are left out.
 *
 * Entries that were pruned are not known: entries with ids up to the greatest that was pruned are left out, and a key that is as old as
 * they are needs no entry. The limits come from the table itself, because JavaScript cannot read every time that it may hold.
 */
export function contradictionsSql(tables: Tables): string {
  const { keys, events, auditHead } = tables
  const members = 'event_id, api_key_id, name, said, known'
  const selects = comparisonsSql(tables).map((sql, source) => {
    const found = `(${sql} LIMIT ${maxContradictions}) AS found (${members})`
    return `SELECT json_build_array(${source}, ${members})::text AS json FROM ${found}`
  })
  return `
    WITH entry AS (
      SELECT event.id, event.api_key_id, event.user_id, event.action, event.ref,
             CASE json_typeof(event.before) WHEN 'object' THEN event.before::jsonb END AS before,
             CASE json_typeof(event.after) WHEN 'object' THEN event.after::jsonb END AS after,
             (SELECT count(*) FROM ${events} AS emptied WHERE emptied.action = 'truncated' AND emptied.id < event.id) AS era
        FROM ${events} AS event
       WHERE event.id > coalesce((SELECT max(last_pruned_id) FROM ${auditHead}), 0) AND event.action NOT IN ('truncated', 'retired_secret_used')
    ), attribute AS (
      SELECT entry.id::text, entry.api_key_id, entry.era, name,
             ${valueSql('entry.before')} AS before, ${valueSql('entry.after')} AS after,
             lag(entry.id) OVER each AS known_id, lag(${valueSql('entry.after')}) OVER each AS known,
             lead(entry.id) OVER each IS NULL AS is_last
        FROM entry CROSS JOIN LATERAL jsonb_object_keys(coalesce(entry.before, '{}') || coalesce(entry.after, '{}')) AS name
       WHERE name IN (${shownNames.map(literal).join(', ')})
      WINDOW each AS (PARTITION BY entry.api_key_id, entry.era, name ORDER BY entry.id)
    ), last AS (
      SELECT DISTINCT ON (api_key_id) id::text, api_key_id, user_id, era, action = 'deleted' OR EXISTS (
               SELECT FROM ${events} AS emptied WHERE emptied.action = 'truncated' AND emptied.id > entry.id
             ) AS is_gone
        FROM entry ORDER BY api_key_id, entry.id DESC
    ), referred AS (
      SELECT DISTINCT ON (api_key_id) id::text, api_key_id, era, ref
        FROM entry WHERE ref IS NOT NULL OR action = 'created' ORDER BY api_key_id, entry.id DESC
    ), present AS MATERIALIZED (
      SELECT last.id, last.api_key_id, last.user_id, last.era, key.event_ref, key.user_id::text AS owner, ${shownSql('key')} AS state
        FROM last JOIN ${keys} AS key ON key.id = last.api_key_id WHERE NOT last.is_gone
    )
    ${selects.join(' UNION ALL ')}`
}

/**
 * SQL for the value that an object has for an attribute. No value and `null` are the same, as for JavaScript. Owners are compared
 * as text, because an app may change the type of its ids from a number to text.
 */
function valueSql(object: string): string {
  return `CASE name WHEN 'userId' THEN to_jsonb(${object} ->> name) ELSE nullif(${object} -> name, 'null') END`
}
