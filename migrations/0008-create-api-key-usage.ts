import { defineMigration } from './migration'
import { addColumns } from './names'

/**
 * Creates `api_key_usage`, where each key has a row for every hour of its use, and has keys tell from where they were last
 * used. It refers to keys and users without foreign keys: what was used stays used. All that is counted only ever grows, so
 * that processes add to one row without reading it: what was accepted is what was verified and not refused afterwards.
 *
 * `api_key_usage_writers` tells for each process which of its batches is in there, so that none is counted twice after an
 * answer got lost.
 */
export const createApiKeyUsage = defineMigration(
  '0008-create-api-key-usage',
  ({ table, createTable }) => {
    const [keys, usage, writers] = [
      table('api_keys'),
      table('api_key_usage'),
      table('api_key_usage_writers'),
    ]

    return {
      up: `
        ${createTable(
          'api_key_usage',
          `
        CREATE TABLE ${usage} (
          api_key_id uuid NOT NULL,
          user_id text NOT NULL,
          hour timestamptz(0) NOT NULL CHECK (mod(extract(epoch FROM hour)::numeric, 3600) = 0),
          verified bigint NOT NULL CHECK (verified >= 0),
          denied bigint NOT NULL CHECK (denied >= 0),
          rate_limited bigint NOT NULL CHECK (rate_limited >= 0),
          PRIMARY KEY (api_key_id, hour)
        ) WITH (fillfactor = 90);
        CREATE INDEX ON ${usage} (hour);
        CREATE INDEX ON ${usage} (user_id, hour);`,
        )}
        ${createTable(
          'api_key_usage_writers',
          `
        CREATE TABLE ${writers} (
          id uuid PRIMARY KEY,
          batch bigint NOT NULL CHECK (batch > 0),
          written_at timestamptz(3) NOT NULL
        ) WITH (fillfactor = 50);`,
        )}
        ${addColumns(
          keys,
          'last_used_from',
          `ADD COLUMN last_used_from text CHECK (last_used_from ~ '^[0-9a-f.:]{2,45}$')`,
        )}
      `,
      down: `
        ALTER TABLE IF EXISTS ${keys} DROP COLUMN IF EXISTS last_used_from;
        DROP TABLE IF EXISTS ${writers};
        DROP TABLE IF EXISTS ${usage};
      `,
    }
  },
)
