import { ownerIdSql, ownerTypeSql } from '../../models/owner'
import type { Tables } from '../../models/tables'
import { hourMs } from '../database/clock'
import { withoutStandbys } from '../database/query'
import type { Owner } from '../keys/owner'
import { toStoredHash } from '../keys/secret'
import type { Batch, Tally } from './counts'
import { erasedType } from './erase'
import type { UsedKey } from './last-uses'

/*
 * Several statements in one text take no parameters. Ids, hashes, times and addresses have safe forms, and ids of owners, which may be
 * any text, are written in hexadecimal.
 */

const ownerTypeOf = ({ owner }: { owner: Owner }) => owner.type
const ownerIdOf = ({ owner }: { owner: Owner }) =>
  `"${Buffer.from(String(owner.id)).toString('hex')}"`

/** Returns the items as the text of an array. */
function arrayOf(items: readonly (string | number)[]): string {
  return `'{${items.join()}}'`
}

/**
 * Returns SQL that writes the last uses of keys, and the first use of each current secret. It returns the ids of the keys that it leaves out because another transaction has
 * locked their rows. Waiting for a lock would hold up transactions that wait for a lock of ours.
 */
export function lastUsesSql(
  tables: Tables,
  keys: readonly UsedKey[],
  resolutionMs: number,
): string {
  const column = (read: (key: UsedKey) => string | number) => arrayOf(keys.map(read))
  const found = `latest JOIN ${tables.keys} AS key ON key.id = latest.id
           LEFT JOIN noted AS before ON before.id = key.id AND before.hash = key.previous_hash
           LEFT JOIN noted AS current ON current.id = key.id AND current.hash = key.hash`
  // A key that was transferred since then shows no address of a client of its former owner.
  const isOwners = `latest.owner_type = ${ownerTypeSql('key')} AND latest.owner_id = ${ownerIdSql('key')}`
  // Decided on the locked row, so that no use overwrites a later use.
  const isDue = `(${isDueAfter('key.last_used_at', 'latest.used_at', resolutionMs)}
           OR (before.id IS NOT NULL AND ${isDueAfter('key.previous_last_used_at', 'before.used_at', resolutionMs)})
           OR (current.id IS NOT NULL AND key.first_used_at IS NULL))`
  return `${withoutStandbys};
       WITH noted AS (
         SELECT id, hash, to_timestamp(used_at_ms / 1000::float8)::timestamptz(3) AS used_at, used_from,
                owner_type, pg_catalog.convert_from(decode(owner_id, 'hex'), 'UTF8') AS owner_id
           FROM unnest(
             ${column(({ id }) => id)}::uuid[], ${column(({ digest }) => toStoredHash(digest))}::text[],
             ${column(({ lastUsedAtMs }) => lastUsedAtMs)}::float8[],
             ${column(({ lastUsedFrom }) => lastUsedFrom ?? 'NULL')}::text[],
             ${column(ownerTypeOf)}::text[], ${column(ownerIdOf)}::text[]
           ) AS noted (id, hash, used_at_ms, used_from, owner_type, owner_id)
       ), latest AS (
         SELECT DISTINCT ON (id) id, used_at, used_from, owner_type, owner_id FROM noted ORDER BY id, used_at DESC
       ), used AS (
         SELECT key.id, latest.used_at, CASE WHEN ${isOwners} THEN latest.used_from END AS used_from, before.used_at AS before_used_at,
                current.used_at AS current_used_at, current.hash AS current_hash
           FROM ${found}
          WHERE ${isDue}
          ORDER BY key.id
            FOR NO KEY UPDATE OF key SKIP LOCKED
       ), written AS (
         UPDATE ${tables.keys} AS key
            SET last_used_at = greatest(key.last_used_at, used.used_at),
                last_used_from = CASE WHEN key.last_used_at >= used.used_at THEN key.last_used_from ELSE used.used_from END,
                first_used_at = coalesce(key.first_used_at, CASE WHEN key.hash = used.current_hash THEN used.current_used_at END),
                previous_last_used_at = greatest(key.previous_last_used_at, used.before_used_at)
           FROM used WHERE key.id = used.id
         RETURNING key.id
       )
       SELECT key.id::text
         FROM ${found}
        WHERE ${isDue} AND key.id NOT IN (SELECT id FROM written)`
}

/** Returns SQL that is true if a use is later than the use that is written, by more than the resolution. */
function isDueAfter(written: string, used: string, resolutionMs: number): string {
  return `(${written} IS NULL OR (${written} < ${used} AND ${written} <= ${used} - interval '${resolutionMs} milliseconds'))`
}

/**
 * Returns SQL that adds a batch to the counts of other processes, unless the database has this batch already. Uses from before their
 * owner was erased are counted without the owner: the key no longer has this owner, and an entry of the key has lost an owner.
 */
export function countsSql(tables: Tables, writerId: string, { number, tallies }: Batch): string {
  const column = (read: (tally: Tally) => string | number) => arrayOf(tallies.map(read))
  return `${withoutStandbys};
       WITH news AS (
         INSERT INTO ${tables.usageWriters} AS writer (id, batch, written_at)
         VALUES ('${writerId}', ${number}, clock_timestamp())
             ON CONFLICT (id) DO UPDATE SET batch = excluded.batch, written_at = excluded.written_at
          WHERE writer.batch < excluded.batch
         RETURNING batch
       )
       INSERT INTO ${tables.usage} AS usage (api_key_id, owner_type, owner_id, hour, verified, denied, rate_limited)
       SELECT id, CASE WHEN is_erased THEN '${erasedType}' ELSE owner_type END,
              CASE WHEN is_erased THEN gen_random_uuid()::text ELSE pg_catalog.convert_from(decode(owner_id, 'hex'), 'UTF8') END,
              to_timestamp(hour::float8 * ${hourMs / 1000}::float8), sum(verified), sum(denied), sum(rate_limited)
         FROM unnest(
           ${column(({ id }) => id)}::uuid[],
           ${column(ownerTypeOf)}::text[], ${column(ownerIdOf)}::text[],
           ${column(({ hour }) => hour)}::int[], ${column(({ verified }) => verified)}::bigint[],
           ${column(({ denied }) => denied)}::bigint[],
           ${column(({ rateLimited }) => rateLimited)}::bigint[]
         ) AS counted (id, owner_type, owner_id, hour, verified, denied, rate_limited)
        CROSS JOIN LATERAL (
          SELECT ${wasErasingSql(tables)} AND NOT EXISTS (
                   SELECT FROM ${tables.keys} AS key
                    WHERE key.id = counted.id AND ${ownerTypeSql('key')} = counted.owner_type
                      AND encode(pg_catalog.convert_to(${ownerIdSql('key')}, 'UTF8'), 'hex') = counted.owner_id
                 ) AND EXISTS (
                   SELECT FROM ${tables.events} AS event
                    WHERE event.api_key_id = counted.id AND coalesce(event.erased[1], event.erased[2]) IS NOT NULL
                 ) AS is_erased
        ) AS erasing
        WHERE EXISTS (SELECT FROM news)
        GROUP BY id, hour, owner_type, owner_id, is_erased
        ORDER BY id, hour, 2, 3
           ON CONFLICT (api_key_id, hour, owner_type, owner_id) DO UPDATE
          SET verified = usage.verified + excluded.verified,
              denied = usage.denied + excluded.denied,
              rate_limited = usage.rate_limited + excluded.rate_limited`
}

/** SQL that is true if an owner was erased in the last week, so that few statements look for the owners of their uses. */
function wasErasingSql({ events }: Tables): string {
  return `coalesce((SELECT created_at FROM ${events} WHERE action = 'owner_erased' ORDER BY id DESC LIMIT 1) > clock_timestamp() - interval '7 days', false)`
}
