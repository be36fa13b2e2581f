import { literal } from './names'

export const statuses = ['ACTIVE', 'SUSPENDED', 'REVOKED'] as const

export type Status = (typeof statuses)[number]

/** A key as `keySql` reads it. Nothing of it is a hash. */
export interface ApiKeyRow {
  id: string
  /** As text, whatever its type. */
  userId: string
  name: string
  description: string | null
  prefix: string
  postfix: string
  permissions: string[]
  status: Status
  /** Addresses and ranges; `null` for all. */
  allowedIps: string[] | null
  metadata: Record<string, unknown>
  /** Those of this key; `null` for the app's. */
  limits: Record<string, unknown> | null
  createdAt: Time
  updatedAt: Time
  lastUsedAt: Time | null
  lastUsedFrom: string | null
  expiresAt: Time | null
  revokedAt: Time | null
  /** The ends of the secret before the current one, and when it stops working. */
  previousPrefix: string | null
  previousPostfix: string | null
  previousWorksUntil: Time | null
  previousLastUsedAt: Time | null
}

/** Milliseconds since 1970; text for an infinite time. */
export type Time = number | string

/** SQL for a key as JSON, from a row of the table of keys. */
export function keySql(key: string): string {
  const attributes: Record<keyof ApiKeyRow, string> = {
    id: `${key}.id`,
    userId: `${key}.user_id::text`,
    name: `${key}.name`,
    description: `${key}.description`,
    prefix: `${key}.prefix`,
    postfix: `${key}.postfix`,
    permissions: `${key}.permissions`,
    status: `${key}.status`,
    allowedIps: `${key}.allowed_ips`,
    metadata: `${key}.metadata`,
    limits: `${key}.limits`,
    createdAt: msSql(`${key}.created_at`),
    updatedAt: msSql(`${key}.updated_at`),
    lastUsedAt: msSql(`${key}.last_used_at`),
    lastUsedFrom: `${key}.last_used_from`,
    expiresAt: msSql(`${key}.expires_at`),
    revokedAt: msSql(`${key}.revoked_at`),
    previousPrefix: `${key}.previous_prefix`,
    previousPostfix: `${key}.previous_postfix`,
    previousWorksUntil: msSql(`${key}.previous_works_until`),
    previousLastUsedAt: msSql(`${key}.previous_last_used_at`),
  }
  const members = Object.entries(attributes).map(([name, sql]) => `'${name}', ${sql}`)
  return `json_build_object(${members.join(', ')})::text`
}

/**
 * SQL that is true for a key whose plain text begins with a key prefix. Instances with different key prefixes may share the
 * tables, for example one for test keys. Each of them sees and changes its own keys only.
 */
export function isOfPrefix(key: string, keyPrefix: string): string {
  return `${keyPrefixSql(`${key}.prefix`)} = ${literal(keyPrefix)}`
}

/** SQL that is true if the table has keys of other prefixes. Each half is a look into an index. */
export function hasOtherPrefixes(table: string, keyPrefix: string): string {
  const [prefix, own] = [keyPrefixSql('other.prefix'), literal(keyPrefix)]
  return `(EXISTS (SELECT FROM ${table} AS other WHERE ${prefix} < ${own})
           OR EXISTS (SELECT FROM ${table} AS other WHERE ${prefix} > ${own}))`
}

/** SQL for the key prefix in what lists show of a key: without the underscore and six characters. Indexes hold it. */
export function keyPrefixSql(prefix: string): string {
  return `left(${prefix}, -7)`
}

/**
 * SQL for what a search looks for in a key: the words of its name and description, and what lists show of its plain text as
 * one word. An index holds it.
 */
export function searchSql(key: string): string {
  return (
    `(to_tsvector('pg_catalog.simple', ${key}name || ' ' || coalesce(${key}description, ''))` +
    // With a position: words that begin alike are found in a row only if each of them has one.
    ` || (${key}prefix || ':1')::tsvector)`
  )
}

/** SQL for a time in milliseconds since 1970: as a number, which no setting of the session changes. */
export function msSql(time: string): string {
  return `extract(epoch FROM ${time}) * 1000`
}

/** SQL for the time that a parameter names in milliseconds since 1970. */
export function timeOfParameter(number: number): string {
  return `to_timestamp($${number}::float8 / 1000)`
}

/** What a change may write, and the column that holds it. */
export const changeableColumns = {
  name: 'name',
  description: 'description',
  permissions: 'permissions',
  status: 'status',
  expiresAt: 'expires_at',
  allowedIps: 'allowed_ips',
  metadata: 'metadata',
  limits: 'limits',
  previousHash: 'previous_hash',
  previousSecretId: 'previous_secret_id',
  previousPrefix: 'previous_prefix',
  previousPostfix: 'previous_postfix',
  previousWorksUntil: 'previous_works_until',
  previousLastUsedAt: 'previous_last_used_at',
} as const
