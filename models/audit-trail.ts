import { attributesFor, keyColumns, keyPrefixSql, type ColumnType } from './api-key'
import { literal } from './names'
import { saltSql } from './sealed-entry'
import type { Tables } from './tables'

/**
 * SQL that is true for the id of a key with one of these prefixes, and for NULL. If the key is deleted, its entries have its prefix. Entries of
 * other instances are in the same trail, because it is one chain.
 */
export function isOfKeyWithPrefix(
  id: string,
  tables: Tables,
  keyPrefixes: readonly string[],
): string {
  const own = keyPrefixes.map(literal)
  const prefix = `coalesce(entry.after, entry.before) ->> 'prefix'::text`
  // One entry at a time, by the indexes: as a join, the server would read all keys.
  return `coalesce(
    (SELECT ${keyPrefixSql('key.prefix')} FROM ${tables.keys} AS key WHERE key.id = ${id}),
    (SELECT ${keyPrefixSql(prefix)} FROM ${tables.events} AS entry
      WHERE entry.api_key_id = ${id} AND ${prefix} IS NOT NULL
      ORDER BY entry.id DESC LIMIT 1),
    ${own[0]}
  ) IN (${own.join(', ')})`
}

/**
 * The attributes of a key that tell two secrets apart: SHA-256 of the hash, in hexadecimal. So the trail shows that a hash was
 * exchanged, and holds no hash. Calls and routes leave them out.
 */
export const digestNames = ['hashDigest', 'previousHashDigest', 'pendingHashDigest'] as const

/** The attributes of a key that entries of the trail have. */
export const shownNames = [
  ...attributesFor('shown'),
  'previousSecret',
  'pendingRotation',
  ...digestNames,
] as const

/** The attributes whose values are personal. They are in columns of their own, so that they can be erased. */
export const personalNames: readonly string[] = attributesFor('personal')

const personalList = `'{${personalNames.join()}}'::text[]`

/** SQL for the attributes of a `jsonb` object that are not personal. */
export function openSql(object: string): string {
  return `${object} - ${personalList}`
}

/** SQL for the attributes of a `jsonb` object that are personal; NULL if there are none. */
export function personalSql(object: string): string {
  return `(SELECT pg_catalog.jsonb_object_agg(key, value) FROM jsonb_each(${object}) WHERE key = ANY(${personalList}))`
}

/** SQL for the digest of a hash. */
export function digestSql(hash: string): string {
  return `encode(sha256(pg_catalog.convert_to(${hash}, 'UTF8')), 'hex')`
}

/**
 * SQL for what the trail shows of a key, as JSON, from a row of the table of keys. Each attribute has the name and the form that
 * it has in records. The times of changes, uses and the revocation are left out, because they change with each entry or use.
 */
export function shownSql(key: string): string {
  const members = attributesFor('shown').map((attribute) => {
    const { name, type } = keyColumns[attribute]
    return `'${attribute}', ${jsonbOf(`${key}.${name}`, type)}`
  })

  const others = [
    `'previousSecret', ${previousSecretSql(key)}`,
    `'pendingRotation', ${pendingRotationSql(key)}`,
    `'hashDigest', ${digestSql(`${key}.hash`)}`,
    `'previousHashDigest', ${digestSql(`${key}.previous_hash`)}`,
    `'pendingHashDigest', ${digestSql(`${key}.pending_hash`)}`,
  ]
  return `pg_catalog.jsonb_build_object(${[...members, ...others].join(', ')})`
}

function previousSecretSql(key: string): string {
  return `CASE WHEN ${key}.previous_hash IS NOT NULL THEN pg_catalog.jsonb_build_object(
                       'prefix', ${key}.previous_prefix, 'postfix', ${key}.previous_postfix,
                       'worksUntil', ${timeSql(`${key}.previous_works_until`)}) END`
}

function pendingRotationSql(key: string): string {
  return `CASE WHEN ${key}.pending_hash IS NOT NULL THEN pg_catalog.jsonb_build_object(
                       'prefix', ${key}.pending_prefix, 'postfix', ${key}.pending_postfix,
                       'gracePeriodSeconds', ${key}.pending_grace_seconds) END`
}

/**
 * SQL for the same as JSON of a list, which the server writes several times as fast: in the order of `shownNames`, with times in
 * milliseconds since 1970.
 */
export function stateSql(key: string): string {
  const members = attributesFor('shown').map((attribute) => {
    const { name, type } = keyColumns[attribute]
    const value = `${key}.${name}`
    if (type === 'id') return `${value}::text`
    return type === 'time' ? `date_part('epoch', ${value}) * 1000::float8` : value
  })
  const secrets = [previousSecretSql(key), pendingRotationSql(key)]
  const digests = ['hash', 'previous_hash', 'pending_hash'].map((name) =>
    digestSql(`${key}.${name}`),
  )
  return `pg_catalog.json_build_array(${[...members, ...secrets, ...digests].join(', ')})`
}

/** The columns that make up what entries say of a key, the reference to its last entry, and its hashes. */
const stateColumns = new Set([
  'event_ref',
  'hash',
  ...['hash', 'prefix', 'postfix', 'works_until'].map((name) => `previous_${name}`),
  ...['hash', 'prefix', 'postfix', 'grace_seconds'].map((name) => `pending_${name}`),
  ...attributesFor('shown').map((attribute) => keyColumns[attribute].name),
])

/**
 * SQL for a digest of a key, of the origin that its entries go on from, and of the digests of these entries as one text, under the salt of the
 * owner of the last of them. Erasing the owner removes that salt, so that the digest then says nothing. Each part may be missing.
 */
export function stateDigestSql(
  key: string,
  { last, origin, digests }: { last: string; origin: string; digests: string },
): string {
  const columns = [...stateColumns].map((name) => `${key}.${name}`)
  const parts = [
    saltSql(last, 0),
    `record_send(ROW(${columns.join(', ')}))`,
    `record_send(ROW(${origin}.as_of, ${origin}.state))`,
    `pg_catalog.convert_to(${digests}, 'UTF8')`,
  ]
  return `encode(sha256(${parts.join(' || ')}), 'hex')`
}

/** The names of times. */
export const timeNames: ReadonlySet<string> = new Set(
  attributesFor('shown').filter((name) => keyColumns[name].type === 'time'),
)

function jsonbOf(value: string, type: ColumnType): string {
  // As text, whatever type an id has: all instances share one trigger.
  if (type === 'id') return `${value}::text`
  if (type === 'time') return timeSql(value)
  return type === 'json' ? jsonSql(value) : value
}

/**
 * Not all that json can hold can be jsonb, and no change may fail because of it. An escape string means the same
 * whatever `standard_conforming_strings` is in the session that makes the change.
 */
function jsonSql(json: string): string {
  return `CASE WHEN ${json}::text ~ E'\\\\\\\\u(0000|[dD][89a-fA-F])|[eE][+-]?[0-9]{4}'
               THEN pg_catalog.to_jsonb(${json}::text) ELSE ${json}::jsonb END`
}

/** SQL for a time as JavaScript writes it in JSON: with six digits for years from 10000, and `null` for an infinite time. */
export function timeSql(time: string): string {
  const utc = `${time} AT TIME ZONE 'UTC'`
  return `CASE WHEN isfinite(${time}) THEN
    CASE WHEN ${time} >= '10000-01-01T00:00:00Z' THEN '+' || lpad(to_char(${utc}, 'YYYY'), 6, '0') ELSE to_char(${utc}, 'YYYY') END
    || to_char(${utc}, '-MM-DD"T"HH24:MI:SS.MS"Z"') END`
}
