import { withClient } from './database'
import { openBuild } from './ours'
import { keyPrefix } from './keys'
import { createBetterAuthTables } from './better-auth'

/*
 * The databases of the part `manage`. All have as many keys of as many users, so that no table is smaller than another.
 */

/** How many users share the keys of a database. */
export const userCount = 5_000

export function userOf(number: number): string {
  return `user-${number % userCount}`
}

/** Fills a database for one variant with a number of keys. */
export async function fillForVariant(
  url: string,
  {
    tables,
    build,
    keys,
  }: { tables: 'ours' | 'betterAuth' | 'byHand'; build: string; keys: number },
) {
  if (tables === 'ours') await fillOurs(url, build, keys)
  if (tables === 'betterAuth') await fillBetterAuth(url, keys)
  if (tables === 'byHand') await fillByHand(url, keys)
  await withClient(url, async (client) => {
    await client.query('VACUUM ANALYZE')
  })
}

async function fillOurs(url: string, build: string, keys: number) {
  const { apiKeys, sequelize } = openBuild({ url, build })
  await apiKeys.migrate()
  await apiKeys.close()
  await sequelize.close()

  await withClient(url, async (client) => {
    // The keys are older than the audit trail, like the keys of an app that imports them.
    const { rows } = await client.query<{ sql: string }>(
      `SELECT format('ALTER TABLE api_keys ENABLE %s TRIGGER %I', CASE tgenabled WHEN 'A' THEN 'ALWAYS' END, tgname) AS sql
         FROM pg_trigger WHERE tgrelid = 'api_keys'::regclass AND NOT tgisinternal`,
    )
    await client.query('ALTER TABLE api_keys DISABLE TRIGGER USER')
    await client.query(
      `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions, created_at)
       SELECT 'user-' || number % ${userCount}, 'Deployment ' || number, $1, '00000000',
              encode(sha256(number::text::bytea), 'hex'), '{READ_GRAPH}',
              now() - number * interval '1 second' - interval '2 days'
         FROM generate_series(1, $2::int) AS number`,
      [`${keyPrefix}_000000`, keys],
    )
    for (const { sql } of rows) await client.query(sql)
  })
}

async function fillBetterAuth(url: string, keys: number) {
  await createBetterAuthTables(url)
  await withClient(url, async (client) => {
    await client.query(
      `INSERT INTO apikey (id, "configId", "referenceId", name, key, enabled, "rateLimitEnabled", "requestCount",
                           permissions, "createdAt", "updatedAt")
       SELECT gen_random_uuid()::text, 'default', 'user-' || number % ${userCount}, 'Deployment ' || number,
              encode(sha256(number::text::bytea), 'hex'), true, false, 0, '{"graphs":["read"]}',
              now() - number * interval '1 second', now()
         FROM generate_series(1, $1::int) AS number`,
      [keys],
    )
  })
}

/** The tables of an app without the library, one of them for an audit trail. */
async function fillByHand(url: string, keys: number) {
  await withClient(url, async (client) => {
    await client.query(
      `CREATE TABLE keys (
         id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
         user_id text NOT NULL,
         name text NOT NULL,
         hash text NOT NULL UNIQUE,
         permissions text[] NOT NULL,
         status text NOT NULL DEFAULT 'ACTIVE',
         created_at timestamptz NOT NULL DEFAULT now(),
         expires_at timestamptz,
         last_used_at timestamptz
       );
       CREATE INDEX ON keys (user_id, created_at DESC);
       CREATE TABLE key_events (
         id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
         key_id uuid NOT NULL,
         action text NOT NULL,
         actor text NOT NULL,
         before jsonb,
         after jsonb,
         created_at timestamptz NOT NULL DEFAULT now()
       );
       CREATE INDEX ON key_events (key_id)`,
    )
    await client.query(
      `INSERT INTO keys (user_id, name, hash, permissions, created_at)
       SELECT 'user-' || number % ${userCount}, 'Deployment ' || number,
              encode(sha256(number::text::bytea), 'hex'), '{READ_GRAPH}', now() - number * interval '1 second'
         FROM generate_series(1, $1::int) AS number`,
      [keys],
    )
  })
}
