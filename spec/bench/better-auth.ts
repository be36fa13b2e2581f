import { createHash } from 'node:crypto'

import { apiKey } from '@better-auth/api-key'
import { betterAuth, type BetterAuthOptions } from 'better-auth'
import { getMigrations } from 'better-auth/db/migration'
import { Pool } from 'pg'

import { withClient } from './database'
import { plainTexts, type MintedKey } from './keys'

/** Like its documentation, without the limit of ten requests a day. */
function optionsOf(url: string) {
  return {
    database: new Pool({ connectionString: url, max: 10 }),
    baseURL: 'http://127.0.0.1',
    secret: createHash('sha256').update(url).digest('hex'),
    emailAndPassword: { enabled: true },
    plugins: [apiKey({ rateLimit: { enabled: false } })],
    logger: { disabled: true },
    telemetry: { enabled: false },
  } satisfies BetterAuthOptions
}

export function openBetterAuth(url: string) {
  return betterAuth(optionsOf(url))
}

export async function createBetterAuthTables(url: string) {
  const options = optionsOf(url)
  const { runMigrations } = await getMigrations(options)
  await runMigrations()
  await options.database.end()
}

/** Creates its tables, with rows like the rows of its own `createApiKey`. */
export async function fillWithBetterAuthKeys(url: string, keys: readonly MintedKey[]) {
  await createBetterAuthTables(url)
  await withClient(url, async (client) => {
    await client.query(
      `INSERT INTO apikey (id, "configId", "referenceId", key, enabled, "rateLimitEnabled", "requestCount",
                           permissions, "createdAt", "updatedAt")
       SELECT gen_random_uuid()::text, 'default', md5(hash)::uuid::text, hash, true, false, 0,
              '{"graphs":["read"]}', now(), now()
         FROM unnest($1::text[]) AS hash`,
      [plainTexts(keys).map((key) => createHash('sha256').update(key).digest('base64url'))],
    )
    await client.query('VACUUM ANALYZE')
  })
}
