import { keyColumns, msSql } from '../../models/api-key'
import { insertEntriesSql } from '../../models/api-key-event'
import { claimSql } from '../../models/api-key-request'
import type { Tables } from '../../models/tables'
import type { PendingRotation } from '../keys/record'
import type { MintedSecret } from '../keys/secret'
import type { GivenParts } from './calls'

/** The columns that a change may write. The secret before comes from the row itself. */
const changedColumns = (
  [
    'userId',
    'organizationId',
    'service',
    'createdBy',
    'name',
    'description',
    'prefix',
    'postfix',
    'hash',
    'secretId',
    'permissions',
    'status',
    'allowedIps',
    'metadata',
    'limits',
    'resources',
    'expiresAt',
    'renewedAt',
    'firstUsedAt',
    'lastUsedFrom',
    'previousWorksUntil',
    'pendingHash',
    'pendingSecretId',
    'pendingPrefix',
    'pendingPostfix',
    'pendingGraceSeconds',
    'exposed',
    'eventRef',
  ] as const
).map((name) => keyColumns[name].name)

/** The columns of the secret before, and the columns of the current secret that they take over. */
const keptColumns = {
  previous_hash: 'hash',
  previous_secret_id: 'secret_id',
  previous_prefix: 'prefix',
  previous_postfix: 'postfix',
  previous_last_used_at: 'last_used_at',
}

/** The columns of the secret before, for a key without one. */
export const noPreviousSecret = Object.fromEntries(
  [...Object.keys(keptColumns), 'previous_works_until'].map((column) => [column, null]),
)

/** The columns of a new secret that waits for its first use. */
export function pendingRow(
  { hash, secretId }: Pick<MintedSecret, 'hash' | 'secretId'>,
  { prefix, postfix, gracePeriodSeconds }: PendingRotation,
) {
  return {
    pending_hash: hash,
    pending_secret_id: secretId,
    pending_prefix: prefix,
    pending_postfix: postfix,
    pending_grace_seconds: gracePeriodSeconds,
  }
}

/** The same for a key without one. */
export const noPendingSecret = {
  pending_hash: null,
  pending_secret_id: null,
  pending_prefix: null,
  pending_postfix: null,
  pending_grace_seconds: null,
}

/**
 * SQL that writes the changes of `$1` and the entries of `$2`. Both `xmin` and `ctid` are compared, because a
 * transaction of the caller may write two versions of a row with one `xmin`. A hash moves between the two tables in one
 * statement, because it may not be both current and retired. The columns that a change does not name come from the row
 * itself.
 */
export function changeSql(
  { tables, keysSize }: Pick<GivenParts, 'tables' | 'keysSize'>,
  planned: readonly { row: { changes: object; claim: object | null } }[],
): string {
  const changes = planned.map(
    ({ row }): { hash?: string; pending_hash?: string | null; first_used_at?: Date | null } =>
      row.changes,
  )
  const hasRotations = changes.some(({ hash, pending_hash: pending }) => hash ?? pending)
  const hasActivations = changes.some(({ first_used_at: firstUsedAt }) => firstUsedAt)
  const hasClaims = planned.some(({ row }) => row.claim)
  const { keys, events, retiredSecrets } = tables
  const kept = Object.entries(keptColumns)
  const columns = [...changedColumns, ...kept.map(([column]) => column)]
  const values = [
    ...changedColumns.map((column) => `new.${column}`),
    ...kept.map(
      ([column, from]) => `CASE WHEN wanted.keeps_secret THEN key.${from} ELSE new.${column} END`,
    ),
  ]
  // A role that may not write retired secrets can make all other changes.
  const retiredSql = `
      INSERT INTO ${retiredSecrets} (hash, api_key_id)
      SELECT key.hash, key.id FROM ${keys} AS key JOIN mine USING (id) JOIN wanted USING (id) WHERE wanted.changes ->> 'hash'::text IS NOT NULL
      UNION ALL SELECT wanted.changes ->> 'pending_hash'::text, mine.id FROM mine JOIN wanted USING (id) WHERE wanted.changes ->> 'pending_hash'::text IS NOT NULL`
  // A pending secret that becomes the current one is no longer among the retired secrets.
  const activatedSql = `
      DELETE FROM ${retiredSecrets} AS old USING mine JOIN wanted USING (id)
       WHERE old.api_key_id = mine.id AND old.hash = wanted.changes ->> 'hash'::text`
  return `${keysSize.comment()}
    WITH wanted AS MATERIALIZED (
      SELECT * FROM json_to_recordset($1::json) AS wanted (id uuid, version text, place text, changes json, keeps_secret boolean, claim json) ${onlySql(planned)}
    ), ${hasClaims ? 'free' : 'mine'} AS MATERIALIZED (
      SELECT key.id FROM ${keys} AS key
        JOIN wanted ON wanted.id = key.id AND wanted.version = key.xmin::text AND wanted.place = key.ctid::text
       ORDER BY key.id FOR NO KEY UPDATE OF key SKIP LOCKED
    )${hasClaims ? claimsSql(tables) : ''}${
      hasRotations
        ? `, retired AS (${retiredSql}
    )`
        : ''
    }${
      hasActivations
        ? `, activated AS (${activatedSql}
    )`
        : ''
    }, done AS (
      UPDATE ${keys} AS key
         -- As key.*, because key alone would be a column of the app that has this name.
         SET (${columns.join(', ')}) = (SELECT ${values.join(', ')} FROM pg_catalog.json_populate_record(key.*, wanted.changes) AS new),
             revoked_at = CASE
               WHEN wanted.changes ->> 'status'::text IS NULL THEN key.revoked_at
               WHEN wanted.changes ->> 'status'::text = 'REVOKED' THEN clock_timestamp()
             END,
             updated_at = clock_timestamp()
        FROM wanted JOIN mine USING (id) WHERE key.id = wanted.id
      RETURNING key.event_ref, key.updated_at, key.revoked_at
    ), told AS (
      ${insertEntriesSql(tables, `FROM pg_catalog.json_populate_recordset(NULL::${events}, $2::json) AS entry JOIN done ON done.event_ref = entry.ref`)}
      RETURNING id, ref
    )
    SELECT done.event_ref::text AS ref, (${msSql('done.updated_at')})::text AS updated_ms, (${msSql('done.revoked_at')})::text AS revoked_ms,
           told.id::text AS event_id, pg_current_xact_id()::text AS xid
      FROM done JOIN told ON told.ref = done.event_ref`
}

/** SQL for the keys whose rows are free and that have no claim, or a claim that succeeded. */
function claimsSql(tables: Tables): string {
  const from = `FROM (
        SELECT claim.*, free.id FROM free JOIN wanted USING (id), json_to_record(wanted.claim) AS claim (scope text, key text, part integer, body text)
      ) AS claim`
  return `, succeeded AS (${claimSql(tables, from)}
    ), mine AS MATERIALIZED (
      SELECT free.id FROM free JOIN wanted USING (id) WHERE wanted.claim IS NULL OR free.id IN (SELECT id FROM succeeded)
    )`
}

/** SQL by which the server plans a single row of JSON as such. Otherwise it expects a hundred rows, for which it may read a whole table. */
export function onlySql({ length }: { length: number }): string {
  return length === 1 ? 'LIMIT 1' : ''
}
