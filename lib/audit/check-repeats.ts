import type { Tables } from '../../models/tables'
import type { Findings } from './faults'
import type { Verification } from './read-trail'

/** So many are more than a verification lists. */
const mostRead = 1_000

/**
 * Finds entries that repeat another one. A role that may write to the trail can copy an entry of the library with its signature, for example
 * the end of a suspension. The comparison with the keys finds copies of all entries but these: entries about owners, and entries whose ids are
 * not above the greatest that was pruned.
 */
export async function checkRepeats(findings: Findings, { reader, tables }: Verification) {
  for (const row of await reader.read('its entries about owners', repeatsSql(tables))) {
    const [eventId, position] = JSON.parse(row) as [string, number | null]
    findings.report('inserted', { eventId, position }, 'The entry repeats another one.')
  }
}

/** SQL for all entries but the first that have one reference. The first is the entry that was sealed first. */
function repeatsSql({ events, seals, auditHead }: Tables): string {
  const pruned = `(SELECT max(last_pruned_id) FROM ${auditHead})`
  return `
    SELECT json_build_array(id::text, position)::text AS json FROM (
      SELECT own.id, seal.position, row_number() OVER (PARTITION BY own.api_key_id, own.ref ORDER BY seal.position, own.id) AS place
        FROM (
          SELECT id, api_key_id, ref FROM ${events} WHERE action IN ('owner_suspended', 'owner_reactivated', 'owner_erased')
           UNION
          SELECT id, api_key_id, ref FROM ${events} WHERE api_key_id IN (SELECT api_key_id FROM ${events} WHERE id <= ${pruned})
        ) AS own LEFT JOIN ${seals} AS seal ON seal.event_id = own.id WHERE own.ref IS NOT NULL
    ) AS entry WHERE place > 1 ORDER BY position, id LIMIT ${mostRead}`
}
