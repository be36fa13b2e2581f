import type { Sequelize, Transaction } from 'sequelize'

import { isOfPrefix } from '../../models/api-key'
import { run, select } from '../database/query'
import type { Tables } from '../../models/tables'

/** The part of an instance whose notices are claimed. */
export interface NoticeParts {
  sequelize: Sequelize
  tables: Tables
  keyPrefix: string
}

/** A notice of expiry that this process has claimed. */
export interface Claim {
  id: string
  expiresAtMs: string
  daysLeft: string
}

/** How many notices a process claims at once. */
export const maxClaims = 500

/** How long a claim lasts without renewal, after the process that made it has died. */
export const leaseMs = 5_000

/** SQL for the end of a claim that is made or renewed now. */
export const leaseEnd = `clock_timestamp() + interval '${leaseMs} milliseconds'`

/**
 * Claims the notices that are due. A key that was created within 7 days of its expiry has no notice for 7 days. A key that is
 * found with less than a day left has the notice for the last day only.
 */
export async function claimDue(
  { sequelize, tables, keyPrefix }: NoticeParts,
  transaction: Transaction,
): Promise<Claim[]> {
  return select<Claim>(
    sequelize,
    `WITH old AS (
       DELETE FROM ${tables.expiryNotices} WHERE expires_at < now() - interval '1 day'
     )
     INSERT INTO ${tables.expiryNotices} AS notice (api_key_id, expires_at, days_left, claimed_until)
     SELECT key.id, key.expires_at, due.days_left, ${leaseEnd}
       FROM ${tables.keys} AS key
      CROSS JOIN LATERAL (
        SELECT CASE WHEN key.expires_at <= now() + interval '1 day' THEN 1 ELSE 7 END AS days_left
      ) AS due
      WHERE ${isOfPrefix('key', keyPrefix)}
        AND key.expires_at > now() AND key.expires_at <= now() + interval '7 days'
        AND key.expires_at IS NOT NULL AND key.status <> 'REVOKED'
        AND key.created_at <= key.expires_at - due.days_left * interval '1 day'
        AND NOT EXISTS (
          SELECT FROM ${tables.expiryNotices} AS told
           WHERE (told.api_key_id, told.expires_at, told.days_left)
                 = (key.id, key.expires_at, due.days_left)
             AND (told.claimed_until IS NULL OR told.claimed_until > clock_timestamp())
        )
      ORDER BY key.expires_at, key.id
      LIMIT ${maxClaims}
         ON CONFLICT (api_key_id, expires_at, days_left) DO UPDATE
        SET claimed_until = EXCLUDED.claimed_until
      WHERE notice.claimed_until <= clock_timestamp()
     RETURNING notice.api_key_id AS id, notice.days_left::text AS "daysLeft",
               (extract(epoch FROM notice.expires_at) * 1000)::bigint::text AS "expiresAtMs"`,
    { transaction },
  )
}

/** Sets the end of claims to a time in SQL. `NULL` keeps a claim for good, and such a claim stays as it is. */
export async function setClaims(
  { sequelize, tables }: NoticeParts,
  claims: Iterable<Claim>,
  end: string,
) {
  const all = [...claims]
  if (all.length === 0) return

  await run(
    sequelize,
    `UPDATE ${tables.expiryNotices} AS notice SET claimed_until = ${end}
       FROM unnest($1::uuid[], $2::bigint[], $3::integer[]) AS claim (id, expires_at_ms, days_left)
      WHERE notice.api_key_id = claim.id AND notice.days_left = claim.days_left
        AND notice.expires_at = 'epoch'::timestamptz + claim.expires_at_ms * interval '1 millisecond'
        AND notice.claimed_until IS NOT NULL`,
    {
      bind: [
        all.map(({ id }) => id),
        all.map(({ expiresAtMs }) => expiresAtMs),
        all.map(({ daysLeft }) => daysLeft),
      ],
      transaction: null,
    },
  )
}

/** Returns how many milliseconds the claims of all processes last at most without renewal; 0 if there are none. */
export async function claimedForMs({ sequelize, tables, keyPrefix }: NoticeParts): Promise<number> {
  const [row] = await select<{ ms: string | null }>(
    sequelize,
    `SELECT ceil(extract(epoch FROM max(claimed_until) - clock_timestamp()) * 1000)::text AS ms
       FROM ${tables.expiryNotices} AS notice JOIN ${tables.keys} AS key ON key.id = notice.api_key_id
      WHERE claimed_until > clock_timestamp() AND notice.expires_at > now()
        AND ${isOfPrefix('key', keyPrefix)}`,
    { transaction: null },
  )
  return Number(row?.ms ?? 0)
}
