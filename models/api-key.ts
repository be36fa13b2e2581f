import { literal } from './names'
import { isSuspendedSql } from './owner'
import type { Tables } from './tables'

/** The statuses of a key in the database. */
export const statuses = ['ACTIVE', 'SUSPENDED', 'REVOKED'] as const

export type Status = (typeof statuses)[number]

/** A key in the form of `keySql`. It has no hash. */
export interface ApiKeyRow {
  id: string
  /** The owner: one of the three is not `null`. Ids are text, whatever their types are. */
  userId: string | null
  organizationId: string | null
  service: string | null
  /** The user who made the key, as text; `null` if the app made it. */
  createdBy: string | null
  /** `null` for a key from before the app had environments. */
  environment: string | null
  /** The ids of the resources that the key is bound to, by the type of resource; `null` for a key that is not bound. */
  resources: Record<string, readonly string[]> | null
  name: string
  description: string | null
  prefix: string
  postfix: string
  permissions: string[]
  status: Status
  /** Addresses and ranges; `null` for all. */
  allowedIps: string[] | null
  metadata: Record<string, unknown>
  /** The limits of this key; `null` for the app's. */
  limits: Record<string, unknown> | null
  createdAt: Time
  updatedAt: Time
  lastUsedAt: Time | null
  lastUsedFrom: string | null
  expiresAt: Time | null
  revokedAt: Time | null
  /** The time from which on its idleness counts anew; `null` if it was never renewed. */
  renewedAt: Time | null
  /** The ends of the secret before the current one, and when it stops working. */
  previousPrefix: string | null
  previousPostfix: string | null
  previousWorksUntil: Time | null
  previousLastUsedAt: Time | null
  /** The ends of a secret that waits for its first use, and the seconds that the current one works after that. */
  pendingPrefix: string | null
  pendingPostfix: string | null
  pendingGraceSeconds: number | null
  /** The place where the key was exposed; `null` if none is known. */
  exposed: { at: string; source: string; url: string | null } | null
  /** The source that the key was imported from; `null` for a key that the library made. */
  source: string | null
  ownerSuspended: boolean
}

/** Milliseconds since 1970; text for an infinite time. */
export type Time = number | string

/** The kind of a column: text, a number, an id of any type, a time, a list of texts or a JSON object. */
export type ColumnType = 'text' | 'number' | 'id' | 'time' | 'list' | 'json'

/**
 * A use of a column besides the statements that name it. `record`: records have it. `watched`: a change leaves an entry in the
 * audit trail. `shown`: likewise, and the entry shows the values. `logged`: the log of changes reports a change to all processes.
 * `verified`: verification reads it. `personal`: erasing a person
 * removes the values from the audit trail.
 */
type ColumnUse = 'record' | 'watched' | 'shown' | 'logged' | 'verified' | 'personal'

/**
 * The columns of a key, by the names that they have in JavaScript and in JSON. Records, the audit trail, the change log and
 * verification take their columns from here.
 */
export const keyColumns = {
  id: column('id', 'id', 'record', 'watched', 'logged', 'verified'),
  userId: column('user_id', 'id', 'record', 'shown', 'logged', 'verified', 'personal'),
  organizationId: column(
    'organization_id',
    'id',
    'record',
    'shown',
    'logged',
    'verified',
    'personal',
  ),
  service: column('service', 'text', 'record', 'shown', 'logged', 'verified', 'personal'),
  createdBy: column('created_by', 'text', 'record', 'watched'),
  environment: column('environment', 'text', 'record', 'shown', 'logged', 'verified'),
  resources: column('resources', 'json', 'record', 'shown', 'logged', 'verified', 'personal'),
  name: column('name', 'text', 'record', 'shown', 'logged', 'verified', 'personal'),
  description: column('description', 'text', 'record', 'shown', 'personal'),
  prefix: column('prefix', 'text', 'record', 'shown', 'logged', 'verified'),
  postfix: column('postfix', 'text', 'record', 'shown'),
  hash: column('hash', 'text', 'watched', 'logged'),
  secretId: column('secret_id', 'text', 'watched'),
  permissions: column('permissions', 'list', 'record', 'shown', 'logged', 'verified'),
  status: column('status', 'text', 'record', 'shown', 'logged', 'verified'),
  allowedIps: column('allowed_ips', 'list', 'record', 'shown', 'logged', 'verified', 'personal'),
  metadata: column('metadata', 'json', 'record', 'shown', 'logged', 'verified', 'personal'),
  limits: column('limits', 'json', 'record', 'shown', 'logged', 'verified'),
  createdAt: column('created_at', 'time', 'record', 'shown'),
  updatedAt: column('updated_at', 'time', 'record'),
  lastUsedAt: column('last_used_at', 'time', 'record'),
  lastUsedFrom: column('last_used_from', 'text', 'record'),
  firstUsedAt: column('first_used_at', 'time'),
  expiresAt: column('expires_at', 'time', 'record', 'shown', 'logged', 'verified'),
  revokedAt: column('revoked_at', 'time', 'record', 'watched'),
  renewedAt: column('renewed_at', 'time', 'record', 'watched', 'logged'),
  previousHash: column('previous_hash', 'text', 'watched', 'logged'),
  previousSecretId: column('previous_secret_id', 'text', 'watched'),
  previousPrefix: column('previous_prefix', 'text', 'record', 'watched'),
  previousPostfix: column('previous_postfix', 'text', 'record', 'watched'),
  previousWorksUntil: column('previous_works_until', 'time', 'record', 'watched', 'logged'),
  previousLastUsedAt: column('previous_last_used_at', 'time', 'record'),
  pendingHash: column('pending_hash', 'text', 'watched', 'logged'),
  pendingSecretId: column('pending_secret_id', 'text', 'watched'),
  pendingPrefix: column('pending_prefix', 'text', 'record', 'watched'),
  pendingPostfix: column('pending_postfix', 'text', 'record', 'watched'),
  pendingGraceSeconds: column('pending_grace_seconds', 'number', 'record', 'watched'),
  exposed: column('exposed', 'json', 'record', 'shown', 'personal'),
  source: column('source', 'text', 'record', 'watched'),
  eventRef: column('event_ref', 'id'),
} satisfies Record<Exclude<keyof ApiKeyRow, 'ownerSuspended'>, unknown> & Record<string, unknown>

/** The name of a column in JavaScript. */
export type KeyAttribute = keyof typeof keyColumns

/** The attributes whose columns have a use. */
export type AttributeFor<Use extends ColumnUse> = {
  [Name in KeyAttribute]: Use extends (typeof keyColumns)[Name]['uses'][number] ? Name : never
}[KeyAttribute]

function column<const Uses extends ColumnUse[]>(name: string, type: ColumnType, ...uses: Uses) {
  return { name, type, uses }
}

/** Returns the attributes whose columns have a use. */
export function attributesFor<Use extends ColumnUse>(use: Use): AttributeFor<Use>[] {
  const columns = Object.entries<{ uses: ColumnUse[] }>(keyColumns)
  // The condition is that of the type.
  return columns.flatMap(([name, { uses }]) => (uses.includes(use) ? [name as never] : []))
}

/** SQL for columns of these uses. A `json` column is cast to text, because `json` cannot be compared. */
export function comparableColumns(...uses: ColumnUse[]): string[] {
  return Object.values<{ name: string; type: ColumnType; uses: ColumnUse[] }>(keyColumns)
    .filter((column) => column.uses.some((use) => uses.includes(use)))
    .map(({ name, type }) => (type === 'json' ? `${name}::text` : name))
}

/** SQL for a key as JSON, from a row of the table of keys. */
export function keySql(tables: Tables, key: string): string {
  const members = attributesFor('record').map((attribute) => {
    const { name, type } = keyColumns[attribute]
    return `'${attribute}', ${jsonOf(`${key}.${name}`, type)}`
  })
  members.push(`'ownerSuspended', ${isSuspendedSql(tables, key)}`)
  return `pg_catalog.json_build_object(${members.join(', ')})::text`
}

function jsonOf(value: string, type: ColumnType): string {
  if (type === 'id') return `${value}::text`
  return type === 'time' ? msSql(value) : value
}

/** SQL for the column of an attribute as text, whatever the settings of the session are: JSON for lists and objects. */
export function textSql(key: string, attribute: KeyAttribute): string {
  const { name, type } = keyColumns[attribute]
  const value = `${key}.${name}`
  if (type === 'list') return `pg_catalog.to_json(${value})::text`
  return type === 'time' ? `(${msSql(value)})::text` : `${value}::text`
}

/** SQL for the value of an attribute that a parameter gives. */
export function parameterSql(attribute: KeyAttribute, number: number): string {
  return keyColumns[attribute].type === 'time' ? timeOfParameter(number) : `$${number}`
}

/** SQL for the time from which on a key was not used. A rotation and a reactivation count like a use. */
export function idleSinceSql(key: string): string {
  const times = ['created_at', 'last_used_at', 'previous_last_used_at', 'renewed_at']
  return `greatest(${times.map((name) => `${key}.${name}`).join(', ')})`
}

/** SQL for the time at which a key expires; NULL if it does not. Without `maxIdleDays`, idleness is of infinite length. */
export function endSql(key: string, idleMs: number): string {
  if (idleMs === Infinity) return `${key}.expires_at`
  return `least(${key}.expires_at, ${idleSinceSql(key)} + interval '${idleMs} milliseconds')`
}

/**
 * SQL that is true for a key whose plain text begins with one of these key prefixes. Instances with different key prefixes may share
 * the tables. Each of them sees and changes its own keys only.
 */
export function isOfPrefixes(key: string, keyPrefixes: readonly string[]): string {
  return `${keyPrefixSql(`${key}.prefix`)} IN (${keyPrefixes.map(literal).join(', ')})`
}

/** SQL that is true if the table has keys of other prefixes. */
export function hasOtherPrefixes(table: string, keyPrefixes: readonly string[]): string {
  return `EXISTS (${otherPrefixesSql(table, keyPrefixes)})`
}

/** SQL for all other prefixes of keys in the table, as `key_prefix`. It goes from each to the next by an index, and so reads one key of each. */
export function otherPrefixesSql(table: string, keyPrefixes: readonly string[]): string {
  const prefix = keyPrefixSql('key.prefix')
  return `
    WITH RECURSIVE present AS (
      (SELECT ${prefix} AS key_prefix FROM ${table} AS key ORDER BY ${prefix} LIMIT 1)
       UNION ALL
      SELECT (SELECT ${prefix} FROM ${table} AS key WHERE ${prefix} > present.key_prefix ORDER BY ${prefix} LIMIT 1)
        FROM present WHERE present.key_prefix IS NOT NULL
    )
    SELECT present.key_prefix FROM present WHERE present.key_prefix NOT IN (${keyPrefixes.map(literal).join(', ')})`
}

/** SQL for the key prefix in the column `prefix`: without the underscore and six characters. Indexes have this expression. */
export function keyPrefixSql(prefix: string): string {
  return `left(${prefix}, -7)`
}

/**
 * SQL for the text of a key that a search compares: the words of its name and description, and its `prefix` as one word. An index
 * has this expression.
 */
export function searchSql(key: string): string {
  return (
    `(pg_catalog.to_tsvector('pg_catalog.simple', ${key}name || ' ' || coalesce(${key}description, ''))` +
    // With a position: a phrase of words that begin alike is found only if each word has a position.
    ` || (${key}prefix || ':1')::tsvector)`
  )
}

/** SQL for a time in milliseconds since 1970: as a number, which no setting of the session changes. */
export function msSql(time: string): string {
  return `extract(epoch FROM ${time}) * 1000.0`
}

/** SQL for the time that a parameter names in milliseconds since 1970. */
export function timeOfParameter(number: number): string {
  return `to_timestamp($${number}::float8 / 1000::float8)`
}
