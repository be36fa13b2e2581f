import { hash } from 'node:crypto'

import { attributesFor, keyColumns, msSql, textSql } from '../../models/api-key'
import { onPrimary } from '../database/query'
import type { UserIdType } from '../../models/storage-options'
import type { Tables } from '../../models/tables'
import { createAddressList, type AddressList } from '../keys/addresses'
import { causeOf, sqlStateOf } from '../database/failures'
import { createInterner } from '../keys/interner'
import { limitsOf, type LimitOverrides, type Limits } from '../keys/limits'
import { readUserId } from '../keys/record'
import { fromStoredHash, toStoredHash, type Digest } from '../keys/secret'
import type { KeyPolicy, KeyRow } from './cache'
import type { Position } from '../freshness/change-log'
import type { Conditions } from '../freshness/change-log-sql'
import type { Moment } from '../database/clock'
import type { Connection, TextRow } from '../database/connection'

/** Rows of keys, and the newest entry of the log, as they were at one moment. */
export interface KeyReading {
  sentAt: Moment
  newest: Position
  /** Those that there are. */
  rows: Map<Digest, KeyRow>
  /** What the triggers that write the log were like. */
  triggers: string | null
  /** Whether the server is a standby, which may lag behind. */
  isStandby: boolean
  /** Whether logical replication feeds the table of keys: it may lag behind, too. */
  isSubscriber: boolean
  /** Whether the database knows of the bound that this process holds itself to. */
  isRegistered: boolean
}

/** Reads the keys that have these hashes; `null` where the database cannot tell what the newest entry of the log is. */
export type Lookup = (digests: readonly Digest[], limitMs: number) => Promise<KeyReading | null>

interface LookupParts {
  connection: Connection
  tables: Tables
  userIdType: UserIdType
  /** The app's, for keys that have none of their own. */
  limits: Limits
  conditions: Conditions
  /** Whether statements may be prepared; some poolers cannot keep them. */
  preparedStatements: boolean
}

/** SQLSTATEs with which a pooler betrays that it cannot keep prepared statements: missing, there already. */
const unprepared = /^(26000|42P05)$/

/** One indexed query in one snapshot. A key that is missing comes back with the newest entry, too. */
export function createLookup(parts: LookupParts): Lookup {
  const { connection, tables, userIdType } = parts
  const { isRegistered, isSubscriber, fingerprint } = parts.conditions
  const attributes = attributesFor('verified')
  const columns = attributes.map((name) => `key.${keyColumns[name].name}`).join(', ')
  const texts = attributes.map((name) => `${textSql('key', name)} AS "${name}"`).join(', ')
  const statement = `${onPrimary}
    SELECT newest.revision::text, newest.mark::text, pg_is_in_recovery()::text AS is_standby,
           (${isSubscriber})::text AS is_subscriber,
           (${isRegistered})::text AS is_registered, (${fingerprint}) AS fingerprint,
           key.found_hash AS hash, ${texts},
           (${msSql('key.last_used_at')})::text AS last_used_at_ms,
           (${msSql('key.works_until')})::text AS works_until_ms
      FROM (
        SELECT revision, mark FROM ${tables.revisions} ORDER BY revision DESC LIMIT 1
      ) AS newest
      LEFT JOIN (
        SELECT key.hash AS found_hash, NULL::timestamptz AS works_until, key.last_used_at, ${columns}
          FROM ${tables.keys} AS key WHERE key.hash = ANY($1::text[])
         UNION ALL
        SELECT old.hash,
               CASE WHEN old.hash = key.previous_hash THEN key.previous_works_until ELSE '-infinity' END,
               key.previous_last_used_at,
               ${columns}
          FROM ${tables.retiredSecrets} AS old JOIN ${tables.keys} AS key ON key.id = old.api_key_id
         WHERE old.hash = ANY($1::text[])
      ) AS key ON true`

  // By its text: behind a pooler, others may have prepared theirs on the connection of the server.
  const name = `express-api-keys ${hash('sha256', statement, 'base64url').slice(0, 16)}`
  let canPrepare = parts.preparedStatements
  const permissionSets = createInterner(readPermissions)
  // What comes from a row is a text of its own, and there may be a million. Of the status, the table has a constraint.
  const statuses = createInterner((status) => status as KeyRow['status'])
  const names = createInterner((name) => name)
  const addressLists = createInterner(readAddressList)
  // As the column is constrained, and written by us.
  const limitLists = createInterner((json) =>
    limitsOf(parts.limits, JSON.parse(json) as LimitOverrides),
  )
  const noPolicy: KeyPolicy = {
    allowedIps: null,
    metadata: '{}',
    limits: limitsOf(parts.limits, null),
  }

  /** READ COMMITTED, whatever the default, and nothing that a pooler would have to keep. The hashes are hexadecimal. */
  function spellOut(hashes: string[]) {
    const list = hashes.map((hash) => `'${hash}'`).join(', ')
    return `
      START TRANSACTION ISOLATION LEVEL READ COMMITTED READ ONLY;
      ${statement.replaceAll('$1', () => `ARRAY[${list}]`)};
      COMMIT`
  }

  async function ask(hashes: string[], limitMs: number) {
    if (!canPrepare) return connection.query(spellOut(hashes), limitMs)

    try {
      return await connection.query({ name, text: statement, values: [hashes] }, limitMs)
    } catch (error) {
      if (!unprepared.test(sqlStateOf(causeOf(error)))) throw error

      canPrepare = false
      return connection.query(spellOut(hashes), limitMs)
    }
  }

  function toKeyRow(row: TextRow): KeyRow {
    return {
      digest: fromStoredHash(row.hash ?? ''),
      id: row.id ?? '',
      userId: readUserId(row.userId, userIdType),
      name: names.of(row.name ?? ''),
      permissions: permissionSets.of(row.permissions ?? '[]'),
      status: statuses.of(row.status ?? ''),
      expiresAtMs: readTime(row.expiresAt),
      lastUsedAtMs: readTime(row.last_used_at_ms),
      worksUntilMs: readTime(row.works_until_ms),
      policy: policyOf(row),
    }
  }

  function policyOf({ allowedIps, metadata, limits }: TextRow): KeyPolicy {
    if (!allowedIps && !limits && metadata === noPolicy.metadata) return noPolicy
    return {
      allowedIps: allowedIps ? addressLists.of(allowedIps) : null,
      metadata: metadata ?? noPolicy.metadata,
      limits: limits ? limitLists.of(limits) : noPolicy.limits,
    }
  }

  return async function lookUp(digests, limitMs) {
    const { rows, sentAt } = await ask(digests.map(toStoredHash), limitMs)
    const [first] = rows
    if (!first) return null

    const found = rows.filter((row) => row.hash !== null).map(toKeyRow)
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

/** A time that is none, such as 'infinity', is over. */
function readTime(text: string | null | undefined): number | null {
  if (text === null || text === undefined) return null

  const ms = Number(text)
  return Number.isFinite(ms) && Math.abs(ms) <= 8.64e15 ? ms : -Infinity
}

function readPermissions(json: string): readonly string[] {
  const permissions: unknown = JSON.parse(json)
  if (!isListOfText(permissions)) {
    throw new TypeError('express-api-keys: the permissions of a key are not a list of names')
  }
  return Object.freeze(permissions)
}

function readAddressList(json: string): AddressList {
  // As the column is constrained.
  return createAddressList(JSON.parse(json) as string[])
}

/** `includes()` on a string such as '{READ_ALL}' would find permissions that the key does not hold. */
function isListOfText(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string')
}
