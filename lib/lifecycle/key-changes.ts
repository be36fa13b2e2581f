import { randomUUID } from 'node:crypto'

import {
  attributesFor,
  isOfPrefixes,
  keyColumns,
  keySql,
  type ApiKeyRow,
  type KeyAttribute,
} from '../../models/api-key'
import type { ChangeAction } from '../../models/api-key-event'
import { digestSql } from '../../models/audit-trail'
import { isOwnedSql } from '../../models/owner'
import type { Change, KeyState } from '../audit/trail'
import type { TextRow } from '../database/connection'
import type { Run } from '../database/query'
import { isSame } from '../keys/metadata'
import { ownerRow, type Owner } from '../keys/owner'
import { readTime, withExpiry, type ApiKeyRecord } from '../keys/record'
import type { MintedSecret } from '../keys/secret'
import type { Circumstances, GivenParts } from './calls'
import { changeSql, noPendingSecret, noPreviousSecret, onlySql, pendingRow } from './change-sql'
import type { Claim } from './idempotency'
import { pendingAfter, secretsAfter } from './secrets-after'
import { readRecord } from './store'

/** The id of a key, and its owner if only that owner may reach it. */
export type Wanted = { id: string; owner?: Owner | undefined }

/** A key, and the version of its row. By the version, a write notices that the row has changed since it was read. */
export interface ReadKey extends KeyState {
  version: string
  place: string
  /** True if the last rotation has made a secret that was never used, while the secret before still works. */
  isUnused: boolean
  /** The id of the app's secret under which the pending secret of the key is hashed. */
  pendingSecretId: string | null
}

/** The decision about a key. */
export interface Decision {
  action: ChangeAction
  /** New values. Undefined and unchanged values are left out. */
  changes: { [Name in keyof ApiKeyRecord]?: ApiKeyRecord[Name] | undefined }
  /**
   * The new secret. The secret before works on if `changes` has it as `previousSecret`. Without a `previousSecret`, the
   * new secret replaces it, and the secret before that keeps its time.
   */
  secret?: Omit<MintedSecret, 'plainTextKey'>
  /** The time of the first use of that secret, if it was used before it became the current one. */
  firstUsedAt?: Date
  /** The new secret that waits for its first use. `changes` has its `pendingRotation`. */
  pending?: Omit<MintedSecret, 'plainTextKey'>
  /** The time from which on the key may be idle anew, and the time at which it expires then. Without `maxIdleDays` there is none. */
  renewal?: { renewedAt: Date; idleExpiresAt: Date } | undefined
  /** The request that is carried out once. */
  claim?: Claim | undefined
}

/** A decided change. */
export interface Planned {
  change: Change & { before: ReadKey; after: KeyState }
  /** The parameters of the statement. */
  row: {
    id: string
    version: string
    place: string
    changes: object
    keeps_secret: boolean
    claim: Claim | null
  }
  circumstances: Circumstances
}

/** SQL that reads keys of the instance. */
function readKeysSql(parts: GivenParts, join: string, where: string): string {
  const { tables, environments, keysSize } = parts
  return `${keysSize.comment()}
    SELECT ${keysSize.sql} AS keys_size, ${keySql(tables, 'key')} AS json, ${digestSql('key.hash')} AS hash_digest,
           ${digestSql('key.previous_hash')} AS previous_hash_digest, ${digestSql('key.pending_hash')} AS pending_hash_digest,
           key.pending_secret_id, key.xmin::text AS version, key.ctid::text AS place,
           (key.first_used_at IS NULL AND key.previous_works_until > clock_timestamp())::text AS is_unused
      FROM ${tables.keys} AS key ${join} WHERE ${isOfPrefixes('key', environments.keyPrefixes)} AND ${where}`
}

/** SQL that reads the keys of the instance for which a condition is true, and locks their rows. */
export function lockKeysSql(parts: GivenParts, where: string, order: string): string {
  return `${readKeysSql(parts, '', where)} ${order} FOR NO KEY UPDATE OF key`
}

/** Reads a row of these statements. */
export function toReadKey(parts: GivenParts, row: TextRow): ReadKey {
  const key = JSON.parse(row.json ?? '') as ApiKeyRow
  return {
    record: readRecord(parts, key),
    permissions: key.permissions,
    environment: key.environment,
    prefix: key.prefix,
    previousPrefix: key.previousPrefix,
    hashDigest: row.hash_digest ?? '',
    previousHashDigest: row.previous_hash_digest ?? null,
    pendingHashDigest: row.pending_hash_digest ?? null,
    version: row.version ?? '',
    place: row.place ?? '',
    isUnused: row.is_unused === 'true',
    pendingSecretId: row.pending_secret_id ?? null,
  }
}

/** Reads keys of the instance by their ids. */
export async function readKeys(
  parts: GivenParts,
  run: Run,
  wanted: readonly Wanted[],
  locks: '' | 'FOR NO KEY UPDATE OF key',
): Promise<ReadKey[]> {
  const row = `(SELECT * FROM pg_catalog.json_populate_recordset(NULL::${parts.tables.keys}, $1::json) ${onlySql(wanted)}) AS wanted`
  const sql = readKeysSql(parts, `JOIN ${row} USING (id)`, isOwnedSql('key', 'wanted'))
  const rows = wanted.map(({ id, owner }) => ({ id, ...(owner && ownerRow(owner)) }))
  const found = await run(`${sql} ${locks}`, [JSON.stringify(rows)])
  parts.keysSize.note(found[0]?.keys_size)
  return found.map((row) => toReadKey(parts, row))
}

/** Plans a change that was decided; `null` if it changes nothing. */
export function plan(
  read: ReadKey,
  { action, changes, secret, firstUsedAt, pending, renewal, claim }: Decision,
  circumstances: Circumstances,
): Planned | null {
  const { record, permissions } = read
  const before = { ...record, permissions }
  const news = Object.entries(changes).filter(
    ([name, value]) => value !== undefined && !isSame(value, before[name as keyof ApiKeyRecord]),
  )
  if (news.length === 0 && !secret && !pending && !renewal) return null

  const ref = randomUUID()
  const row: Record<string, unknown> = { event_ref: ref }
  for (const [name, value] of news) {
    if (name in keyColumns) row[keyColumns[name as KeyAttribute].name] = value
  }
  if (changes.owner) Object.assign(row, noOwner, ownerRow(changes.owner))
  if (renewal) row.renewed_at = renewal.renewedAt
  const { previousSecret, pendingRotation } = changes
  const keepsSecret = Boolean(secret && previousSecret)
  if (secret) {
    Object.assign(row, { hash: secret.hash, secret_id: secret.secretId })
    row.first_used_at = firstUsedAt ?? null
  }
  if (pending && pendingRotation) Object.assign(row, pendingRow(pending, pendingRotation))
  else if (pendingRotation === null) Object.assign(row, noPendingSecret)
  if (keepsSecret) row.previous_works_until = previousSecret?.worksUntil
  else if (previousSecret === null) Object.assign(row, noPreviousSecret)

  const after = {
    ...read,
    record: withExpiry({
      ...record,
      ...Object.fromEntries(news),
      ...(renewal && { idleExpiresAt: renewal.idleExpiresAt }),
    }),
    permissions: changes.permissions ?? permissions,
    ...secretsAfter(read, secret, previousSecret),
    ...pendingAfter(read, pending, pendingRotation),
  }
  return {
    change: { action, before: read, after, ref },
    row: {
      id: record.id,
      version: read.version,
      place: read.place,
      changes: row,
      keeps_secret: keepsSecret,
      claim: claim ?? null,
    },
    circumstances,
  }
}

const noOwner = { user_id: null, organization_id: null, service: null }

/**
 * Writes changes and their entries in one statement, and returns the changes that were made. A change is not made if the row of the
 * key has changed since it was read, or if another transaction has locked it.
 */
export async function writeChanges(
  parts: GivenParts,
  run: Run,
  planned: readonly Planned[],
): Promise<{ made: Planned[]; xid: string | null }> {
  const entries = planned.map(({ change, circumstances }) =>
    parts.audit.toRow(change, circumstances),
  )
  const rows = await run(changeSql(parts, planned), [
    JSON.stringify(planned.map(({ row }) => row)),
    JSON.stringify(entries),
  ])
  const byRef = new Map(planned.map((each) => [each.change.ref, each]))
  const made: Planned[] = []
  for (const { ref, updated_ms: updatedMs, revoked_ms: revokedMs } of rows) {
    const each = byRef.get(ref ?? '')
    if (!each) continue
    const { record } = each.change.after
    record.updatedAt = readTime(updatedMs ?? '')
    record.revokedAt = typeof revokedMs === 'string' ? readTime(revokedMs) : null
    made.push(each)
  }
  return { made, xid: rows[0]?.xid ?? null }
}

/** True if the change log reports a change to all processes. */
export function isLogged({ row }: Planned): boolean {
  return Object.keys(row.changes).some((column) => loggedColumns.has(column))
}

const loggedColumns = new Set<string>(attributesFor('logged').map((name) => keyColumns[name].name))
