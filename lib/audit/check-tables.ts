import { literal } from '../../models/names'
import { ownerColumns } from '../../models/owner'
import type { Findings } from './faults'
import type { Verification } from './read-trail'

/**
 * Finds tables that may have two rows with one id, or one place. An entry beside its copy could hide another one that is gone, and two seals
 * with one place would not both be links of the chain. A key beside its copy, or a key with the hash of another, could work unseen.
 */
export async function checkTables(findings: Findings, { reader, tables }: Verification) {
  const { keys, suspendedOwners, events, seals, auditHead, origins } = tables
  const unique = [
    [events, 'id'],
    [seals, 'position'],
    [seals, 'event_id'],
    [auditHead, 'is_the_one'],
    [origins, 'api_key_id'],
    [keys, 'id'],
    [keys, 'hash'],
    [suspendedOwners, 'id'],
    ...Object.values(ownerColumns).map((column) => [suspendedOwners, column] as const),
  ] as const
  const rows = unique.map(
    ([table, column]) => `(${literal(table)}, ${literal(table)}::regclass, ${literal(column)})`,
  )
  const sql = `
    SELECT DISTINCT own.name AS json FROM (VALUES ${rows.join(', ')}) AS own (name, relation, "column")
     WHERE EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhparent = own.relation)
        OR NOT EXISTS (
          SELECT FROM pg_catalog.pg_index AS index
            JOIN pg_catalog.pg_attribute AS key ON key.attrelid = index.indrelid AND key.attnum = index.indkey[0]
           WHERE index.indrelid = own.relation AND key.attname = own."column" AND (key.attnotnull OR own.relation = ${literal(suspendedOwners)}::regclass)
             AND indnkeyatts = 1 AND indpred IS NULL AND indisunique AND indisvalid AND indisready
        ) ORDER BY 1`
  for (const name of await reader.read('its tables', sql)) {
    const message = `The table ${name} may have a row twice: a unique index is gone, or another table inherits from it.`
    findings.report('unguarded', {}, message)
  }
}
