import { ownerIdSql, ownerTypeSql } from '../../models/owner'
import type { Findings } from './faults'
import type { Verification } from './read-trail'

/** So many are more than a verification lists. */
const mostRead = 1_000

/**
 * Compares the owners who are suspended with the last entry about the suspension of each owner, and each of these entries with the one before:
 * suspensions and their ends take turns. Otherwise an entry that was not sealed yet could be put in another place, under another id. An entry
 * without an owner is of a TRUNCATE, which ends all suspensions before it. An entry whose owner was erased is left out, because erasing ends a
 * suspension. Pruning leaves no trace of a suspension, so that a pruned trail may lack the entry of a suspension.
 */
export async function checkSuspensions(findings: Findings, { reader, tables }: Verification) {
  const { events, suspendedOwners, auditHead } = tables
  const sql = `
    WITH entry AS MATERIALIZED (
      SELECT id, owner_type, owner_id, action, lag(id) OVER of_owner AS id_before, lag(action) OVER of_owner AS action_before,
             max(id) FILTER (WHERE owner_type IS NULL) OVER (ORDER BY id) AS truncation_id
        FROM ${events} WHERE action IN ('owner_suspended', 'owner_reactivated')
      WINDOW of_owner AS (PARTITION BY owner_type, owner_id ORDER BY id)
    ), said AS (
      SELECT DISTINCT ON (owner_type, owner_id) owner_type AS type, owner_id COLLATE "C" AS name, id,
             action = 'owner_suspended' AND coalesce(id > (SELECT max(id) FROM entry WHERE owner_type IS NULL), true) AS is_suspended
        FROM entry WHERE owner_id IS NOT NULL ORDER BY owner_type, owner_id, id DESC
    ), suspended AS (
      SELECT ${ownerTypeSql('row')} AS type, ${ownerIdSql('row')} AS name, true AS is_suspended FROM ${suspendedOwners} AS row
    )
    SELECT json_build_array(said.id::text, type, name)::text AS json FROM said FULL JOIN suspended USING (type, name)
     WHERE coalesce(said.is_suspended, (SELECT max(last_pruned_id) FROM ${auditHead}) > 0, false) <> coalesce(suspended.is_suspended, false)
     UNION
    SELECT json_build_array(id::text, owner_type, owner_id)::text FROM entry
     WHERE owner_id IS NOT NULL AND action = action_before AND (truncation_id > id_before) IS NOT TRUE
     LIMIT ${mostRead}`
  for (const row of await reader.read('the suspensions of owners', sql)) {
    const [eventId, type, name] = JSON.parse(row) as [string | null, string, string]
    const message = `The trail and the ${type} ${name} do not agree on the suspension.`
    findings.report('contradicted', { eventId }, message)
  }
}
