import { personalNames, shownSql } from '../../models/audit-trail'
import { literal } from '../../models/names'
import type { Tables } from '../../models/tables'
import type { Connection } from '../database/connection'
import { writeLimitMs } from '../database/writer'
import { ApiKeysError } from '../errors'
import type { Head, SigningParts } from './head'
import type { Signer } from './signing'

/*
 * After pruning, the remaining entries only show how a key has changed since then. An *origin* holds the last state of
 * a key in its pruned entries: for each attribute, the value of the `after` with the greatest id. It never holds values
 * from the row of the key. Otherwise pruning would accept a change that has no entry. The entries of the key that
 * follow have ids above `asOf`.
 *
 * The head has the number of origins and the sum of their signatures modulo 2^256, under the secret `originSecretId`:
 *
 *   HMAC(secret, 'origin', JSON of [apiKeyId, asOf, state])
 *
 * An entry whose personal values were erased says that nothing is known of them: the state then has no such value, and `isErased`.
 *
 * Each page of pruning subtracts what it removes and adds what it writes, in the statement that moves the head. If a row is edited,
 * removed or put back by hand, the sum stays wrong.
 */

/** The last state of a key in its pruned entries. */
export interface Origin {
  apiKeyId: string
  /** The greatest id of an entry that was pruned, as text; 0 for a key from before the trail. */
  asOf: string
  /** JSON, as the database writes `jsonb`. */
  state: string
}

/** The origins that a write of the head replaces, by others or by none. */
export interface OriginChange {
  was: Origin | null
  now: Origin | null
}

/** The members of the head that describe origins. */
type Sum = Pick<Head, 'originCount' | 'originSum' | 'originSecretId'>

interface Parts extends SigningParts {
  connection: Pick<Connection, 'query'>
}

const modulus = 2n ** 256n

/** How many origins are read at a time. */
const readAtOnce = 2_000

/** Returns the number that an origin adds to the sum; `null` if the app does not have the secret. */
export function weightOf(signer: Signer, secretId: string | null, origin: Origin): bigint | null {
  const { apiKeyId, asOf, state } = origin
  const mac = signer.signAs(secretId, 'origin', JSON.stringify([apiKeyId, asOf, state]))
  return mac === null ? null : BigInt(`0x${mac}`)
}

/** Returns a sum after a difference, in hexadecimal. */
export function plus(sum: string, difference: bigint): string {
  const total = (BigInt(`0x${sum}`) + difference) % modulus
  return (total < 0n ? total + modulus : total).toString(16).padStart(64, '0')
}

/** Returns the members of the head after some origins have changed. The sum must be one of the app's first secret. */
export function sumAfter({ signer }: Parts, head: Sum, changes: readonly OriginChange[]): Sum {
  const weight = (origin: Origin | null) =>
    origin ? (weightOf(signer, signer.secretId, origin) ?? 0n) : 0n
  let [count, difference] = [BigInt(head.originCount), 0n]
  for (const { was, now } of changes) {
    count += BigInt(now ? 1 : 0) - BigInt(was ? 1 : 0)
    difference += weight(now) - weight(was)
  }
  const originSum = plus(head.originSum, difference)
  return { originCount: String(count), originSum, originSecretId: signer.secretId }
}

/**
 * Returns the members of the head with a sum under the app's first secret. The difference to what the sum should have been stays.
 * Returns `null` if the sum is one of that secret already, or of a secret that the app does not have.
 */
export async function sumAnew(parts: Parts, head: Sum): Promise<Sum | null> {
  const { signer, connection, tables } = parts
  const { originSecretId: oldId, originSum, originCount } = head
  if (oldId === signer.secretId || originCount === '0') return null

  let [difference, last] = [0n, '00000000-0000-0000-0000-000000000000']
  for (;;) {
    const sql = `SELECT ${originSql} AS origin FROM ${tables.origins}
      WHERE api_key_id > '${last}' ORDER BY api_key_id LIMIT ${readAtOnce}`
    const { rows } = await connection.query(sql, writeLimitMs)
    for (const row of rows) {
      const origin = JSON.parse(row.origin ?? 'null') as Origin
      const [before, after] = [oldId, signer.secretId].map((id) => weightOf(signer, id, origin))
      if (typeof before !== 'bigint' || typeof after !== 'bigint') return null
      difference += after - before
      last = origin.apiKeyId
    }
    if (rows.length < readAtOnce) break
  }
  return { originCount, originSum: plus(originSum, difference), originSecretId: signer.secretId }
}

/** Returns the members of the head after some origins have changed. Refuses a sum of a secret that the app does not have. */
export async function sumOf(parts: Parts, head: Sum, changes: readonly OriginChange[]) {
  const before = (await sumAnew(parts, head)) ?? head
  if (before.originCount !== '0' && before.originSecretId !== parts.signer.secretId) {
    throw new ApiKeysError('audit_trail_not_intact')
  }
  return sumAfter(parts, before, changes)
}

const originSql = toJson('api_key_id', 'as_of', 'state')

/** SQL for an origin as JSON. */
export function toJson(id: string, asOf: string, state: string): string {
  return `json_build_object('apiKeyId', ${id}, 'asOf', ${asOf}::text, 'state', ${state}::text)::text`
}

/** Returns the keys without any entry, as origins. They are from before the trail. */
export async function readKeysWithoutEntries({
  connection,
  tables,
}: Parts): Promise<OriginChange[]> {
  const { rows } = await connection.query(
    `SELECT ${toJson('key.id', '0', shownSql('key'))} AS origin FROM ${tables.keys} AS key
      WHERE NOT EXISTS (SELECT FROM ${tables.events} AS event WHERE event.api_key_id = key.id)`,
    writeLimitMs,
  )
  return rows.map(({ origin }) => ({ was: null, now: JSON.parse(origin ?? 'null') as Origin }))
}

/**
 * Returns how the origins change when entries are pruned. What an entry of a key says goes before what the entries before it said.
 * A `deleted` ends a key, and a `truncated` ends all keys.
 */
export async function readOriginChanges(
  { connection, tables }: Parts,
  ids: readonly string[],
): Promise<OriginChange[]> {
  const { events, origins } = tables
  const { rows } = await connection.query(
    `
     WITH entry AS MATERIALIZED (
       SELECT id, api_key_id, action, ${objectSql('after')} || ${objectSql('personal_after')} AS after, erased[4] IS NOT NULL AS is_erased
         FROM ${events} WHERE id = ANY('{${ids.join()}}'::bigint[])
          AND action NOT IN ('retired_secret_used', 'owner_suspended', 'owner_reactivated', 'owner_erased')
     ), emptied AS (SELECT coalesce(max(id), -1) AS id FROM entry WHERE action = 'truncated'
     ), gone AS (SELECT api_key_id, max(id) AS id FROM entry WHERE action = 'deleted' GROUP BY api_key_id
     ), old AS (
       SELECT api_key_id, as_of, state FROM ${origins}
        WHERE api_key_id IN (SELECT api_key_id FROM entry) OR as_of < (SELECT id FROM emptied)
     ), said AS (
       SELECT api_key_id, as_of AS id, state AS after, false AS is_erased FROM old
        UNION ALL SELECT api_key_id, id, after, is_erased FROM entry WHERE action NOT IN ('deleted', 'truncated')
     ), living AS (
       SELECT said.* FROM emptied CROSS JOIN said LEFT JOIN gone USING (api_key_id)
        WHERE said.id > greatest(emptied.id, coalesce(gone.id, -1))
     ), latest AS (
       SELECT DISTINCT ON (api_key_id, name) api_key_id, name, value
         FROM (
           SELECT api_key_id, id, attribute.* FROM living CROSS JOIN LATERAL jsonb_each(after) AS attribute (name, value)
            UNION ALL
           SELECT api_key_id, id, name, CASE name WHEN 'isErased' THEN to_jsonb(true) END
             FROM living CROSS JOIN unnest('{isErased,${personalNames.join()}}'::text[]) AS name WHERE is_erased
         ) AS said ORDER BY api_key_id, name, id DESC
     ), merged AS (
       SELECT api_key_id, jsonb_object_agg(name, value) FILTER (WHERE value IS NOT NULL) AS state FROM latest GROUP BY api_key_id
     ), new AS (
       SELECT api_key_id, max(id) AS as_of, coalesce(merged.state, '{}') AS state
         FROM living LEFT JOIN merged USING (api_key_id) GROUP BY api_key_id, merged.state
     )
     SELECT CASE WHEN old.as_of IS NOT NULL THEN ${toJson('old.api_key_id', 'old.as_of', 'old.state')} END AS was,
            CASE WHEN new.as_of IS NOT NULL THEN ${toJson('new.api_key_id', 'new.as_of', 'new.state')} END AS now
       FROM old FULL JOIN new USING (api_key_id)`,
    writeLimitMs,
  )
  return rows.map(({ was, now }) => ({
    was: JSON.parse(was ?? 'null') as Origin | null,
    now: JSON.parse(now ?? 'null') as Origin | null,
  }))
}

/** SQL for the members of a value. Other roles may have written any JSON. */
function objectSql(value: string): string {
  return `CASE json_typeof(${value}) WHEN 'object' THEN ${value}::jsonb ELSE '{}' END`
}

/** SQL of the parts of a statement that write changed origins if the head has moved. */
export function writeOriginsSql({ origins }: Tables, changes: readonly OriginChange[]): string {
  const removed = changes.flatMap(({ was, now }) => (was && !now ? [was.apiKeyId] : []))
  const written = changes.flatMap(({ now }) => now ?? [])
  const rows = written.map(({ apiKeyId, asOf, state }) => ({ id: apiKeyId, as_of: asOf, state }))
  return `
    gone AS (DELETE FROM ${origins} WHERE api_key_id = ANY('{${removed.join()}}'::uuid[]) AND EXISTS (SELECT FROM moved)),
    put AS (
      INSERT INTO ${origins} (api_key_id, as_of, state)
      SELECT id, as_of, state::jsonb FROM json_to_recordset(${literal(JSON.stringify(rows))}) AS row (id uuid, as_of bigint, state text)
       WHERE EXISTS (SELECT FROM moved)
          ON CONFLICT (api_key_id) DO UPDATE SET as_of = excluded.as_of, state = excluded.state
    )`
}
