import { attributesFor, idleSinceSql, keyColumns, msSql, textSql } from '../../models/api-key'
import { onPrimary } from '../database/query'
import { isSuspendedSql } from '../../models/owner'
import type { Tables } from '../../models/tables'
import type { Settings } from '../read-options'
import { createAddressList } from '../keys/addresses'
import { causeOf, sqlStateOf } from '../database/failures'
import { isListOfNames } from '../keys/grantable'
import { createInterner } from '../keys/interner'
import { limitsOf, type LimitOverrides } from '../keys/limits'
import type { IdTypes } from '../keys/owner'
import { readOwner } from '../keys/record'
import { createBindingsReader } from '../keys/resources'
import { fromStoredHash, toStoredHash, type Digest } from '../keys/secret'
import { misplaced, type KeyPolicy, type KeyRow } from './cache'
import type { OwnerCache } from './owners'
import type { Position } from '../freshness/change-log'
import type { Conditions } from '../freshness/change-log-sql'
import type { Moment } from '../database/clock'
import type { Connection, TextRow } from '../database/connection'
import { nameOf, unprepared, type PlannedSize } from '../database/prepared'

/** Rows of keys, and the newest entry of the log, read at one moment. */
export interface KeyReading {
  sentAt: Moment
  newest: Position
  /** The rows that there are. */
  rows: Map<Digest, KeyRow>
  /** The version of the triggers that write the log. */
  triggers: string | null
  /** True if the server is a standby, which may lag behind. */
  isStandby: boolean
  /** True if logical replication feeds the table of keys, which may lag behind, too. */
  isSubscriber: boolean
  /** True if the database knows the bound of this process. */
  isRegistered: boolean
}

/** Reads the keys that have these hashes; `null` if the log has no entry at all. */
export type Lookup = (digests: readonly Digest[], limitMs: number) => Promise<KeyReading | null>

interface LookupParts extends Pick<
  Settings,
  'limits' | 'environments' | 'permissions' | 'preparedStatements' | 'resources' | 'idleMs'
> {
  tables: Tables
  idTypes: IdTypes
  owners: OwnerCache
  connection: Connection
  conditions: Conditions
  keysSize: PlannedSize
}

/** Makes the look-up of keys: one indexed query in one snapshot. If a key is missing, it returns the newest entry of the log alone. */
export function createLookup(parts: LookupParts): Lookup {
  const ask = createAsk(parts)
  const readRow = createRowReader(parts)

  return async function lookUp(digests, limitMs) {
    const { rows, sentAt } = await ask(digests.map(toStoredHash), limitMs)
    const [first] = rows
    if (!first) return null
    parts.keysSize.note(first.keys_size)

    const found = rows.filter((row) => row.hash !== null).map(readRow)
    return {
      sentAt,
      newest: { revision: Number(first.revision), mark: String(first.mark) },
      rows: new Map(found.map((row) => [row.digest, row])),
      triggers: first.fingerprint ?? null,
      isStandby: first.is_standby !== 'false',
      isSubscriber: first.is_subscriber !== 'false',
      isRegistered: first.is_registered === 'true',
    }
  }
}

function createAsk(parts: LookupParts) {
  const { connection, keysSize } = parts
  const sql = lookupSql(parts)
  let canPrepare = parts.preparedStatements

  return async function ask(hashes: string[], limitMs: number) {
    const text = `${sql} ${keysSize.comment()}`
    if (!canPrepare) return connection.query(unpreparedSql(text, hashes), limitMs)

    try {
      return await connection.query({ name: nameOf(text), text, values: [hashes] }, limitMs)
    } catch (error) {
      if (!unprepared.test(sqlStateOf(causeOf(error)))) throw error

      canPrepare = false
      return connection.query(unpreparedSql(text, hashes), limitMs)
    }
  }
}

function lookupSql({ tables, conditions, keysSize, idleMs }: LookupParts): string {
  const { isRegistered, isSubscriber, fingerprint } = conditions
  const attributes = attributesFor('verified')
  const idleSince = idleMs === Infinity ? 'NULL::timestamptz' : idleSinceSql('key')
  const all = attributes.map((name) => `key.${keyColumns[name].name}`)
  const columns = [`${idleSince} AS idle_since`, ...all].join(', ')
  const texts = attributes.map((name) => `${textSql('key', name)} AS "${name}"`).join(', ')
  return `${onPrimary}
    SELECT newest.revision::text, newest.mark::text, pg_is_in_recovery()::text AS is_standby,
           (${isSubscriber})::text AS is_subscriber,
           (${isRegistered})::text AS is_registered, (${fingerprint}) AS fingerprint, ${keysSize.sql} AS keys_size,
           key.found_hash AS hash, key.found_prefix, ${texts},
           (${msSql('key.last_used_at')})::text AS last_used_at_ms,
           (${msSql('key.works_until')})::text AS works_until_ms, key.is_pending::text,
           (${msSql('key.idle_since')})::text AS idle_since_ms,
           (${isSuspendedSql(tables, 'key')})::text AS owner_suspended
      FROM (
        SELECT revision, mark FROM ${tables.revisions} ORDER BY revision DESC LIMIT 1
      ) AS newest
      LEFT JOIN (
        -- The first use of a secret is noted, however recent the last use of the key is.
        SELECT key.hash AS found_hash, key.prefix AS found_prefix, NULL::timestamptz AS works_until, false AS is_pending,
               CASE WHEN key.first_used_at IS NOT NULL THEN key.last_used_at END AS last_used_at, ${columns}
          FROM ${tables.keys} AS key WHERE key.hash = ANY($1::text[])
         UNION ALL
        SELECT old.hash, CASE WHEN old.hash = key.pending_hash THEN key.pending_prefix ELSE key.previous_prefix END,
               CASE old.hash WHEN key.previous_hash THEN key.previous_works_until WHEN key.pending_hash THEN NULL ELSE '-infinity' END,
               coalesce(old.hash = key.pending_hash, false),
               CASE WHEN old.hash = key.previous_hash THEN key.previous_last_used_at END,
               ${columns}
          FROM ${tables.retiredSecrets} AS old JOIN ${tables.keys} AS key ON key.id = old.api_key_id
         WHERE old.hash = ANY($1::text[])
      ) AS key ON true`
}

/** READ COMMITTED, whatever the default, and nothing that a pooler would have to keep. The hashes are hexadecimal. */
function unpreparedSql(text: string, hashes: readonly string[]): string {
  const list = hashes.map((hash) => `'${hash}'`).join(', ')
  return `
      START TRANSACTION ISOLATION LEVEL READ COMMITTED READ ONLY;
      ${text.replaceAll('$1', () => `ARRAY[${list}]`)};
      COMMIT`
}

/** Makes the function that reads a row. The rows share equal values, because there may be a million rows. */
function createRowReader(parts: LookupParts) {
  const { idTypes, owners, limits: appLimits, environments, permissions, resources, idleMs } = parts
  const permissionsOf = createInterner((json) => permissions.heldBy(readNames(json)))
  // A constraint of the table guarantees it.
  const statusOf = createInterner((status) => status as KeyRow['status'])
  const nameOf = createInterner((name) => name)
  // Constraints of the table hold the forms of both.
  const addressesOf = createInterner((json) => createAddressList(JSON.parse(json) as string[]))
  const bindingsOf = createBindingsReader([...resources.keys()])
  const policies = new Map(
    environments.all.map(({ name, limits }) => [name, policiesOf({ ...appLimits, ...limits })]),
  )
  const otherPolicies = policiesOf(appLimits)

  function policiesOf(own: LimitOverrides) {
    const limitsOfKey = createInterner((json) => limitsOf(own, JSON.parse(json) as LimitOverrides))
    const noPolicy: KeyPolicy = {
      allowedIps: null,
      metadata: '{}',
      limits: limitsOf(own),
      bindings: bindingsOf(null),
    }
    return { limitsOfKey, noPolicy }
  }

  function readPolicy(row: TextRow, environment: string | null): KeyPolicy {
    const { allowedIps, metadata, limits, resources } = row
    const { limitsOfKey, noPolicy } = policies.get(environment) ?? otherPolicies
    const hasNone = !allowedIps && !limits && !resources && metadata === noPolicy.metadata
    if (hasNone) return noPolicy
    return {
      allowedIps: allowedIps ? addressesOf(allowedIps) : null,
      metadata: metadata ?? noPolicy.metadata,
      limits: limits ? limitsOfKey(limits) : noPolicy.limits,
      bindings: bindingsOf(resources),
    }
  }

  return function readRow(row: TextRow): KeyRow {
    const { userId = null, organizationId = null, service = null } = row
    const expiresAtMs = readTime(row.expiresAt)
    const idleSinceMs = readTime(row.idle_since_ms) ?? Infinity
    const isSuspended = row.status === 'ACTIVE' && row.owner_suspended === 'true'
    const key = { environment: row.environment ?? null, prefix: row.prefix ?? '' }
    // The prefix of a secret that works no longer is not kept. Such a secret is refused all the same.
    const environment = environments.ofSecret(key, row.found_prefix ?? key.prefix)
    return {
      digest: fromStoredHash(row.hash ?? ''),
      id: row.id ?? '',
      owner: owners.of(readOwner({ userId, organizationId, service }, idTypes)),
      name: nameOf(row.name ?? ''),
      permissions: permissionsOf(row.permissions ?? '[]'),
      // The keys of a suspended owner are refused like suspended keys.
      status: isSuspended ? 'SUSPENDED' : statusOf(row.status ?? ''),
      expiresAtMs,
      endsAtMs: Math.min(expiresAtMs ?? Infinity, idleSinceMs + idleMs),
      lastUsedAtMs: readTime(row.last_used_at_ms),
      worksUntilMs: readTime(row.works_until_ms),
      isPending: row.is_pending === 'true',
      environment: environment ? environment.name : misplaced,
      policy: readPolicy(row, environment?.name ?? null),
    }
  }
}

/** Reads a time. A time that JavaScript cannot express, such as 'infinity', counts as over. */
function readTime(text: string | null | undefined): number | null {
  if (text === null || text === undefined) return null

  const ms = Number(text)
  return Number.isFinite(ms) && Math.abs(ms) <= 8.64e15 ? ms : -Infinity
}

function readNames(json: string): readonly string[] {
  const names: unknown = JSON.parse(json)
  if (!isListOfNames(names)) {
    throw new TypeError('express-api-keys: the permissions of a key are not a list of names')
  }
  return names
}
