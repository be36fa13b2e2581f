import type { Tables } from '../models/tables'
import type { Step } from './step'

/**
 * Creates the usage of keys, in which each key has a row for every hour of its use, and the notices of keys that are about to
 * expire.
 *
 * Usage refers to keys and owners without foreign keys, because it outlives them. A key that changes hands within an hour has a row for
 * each owner. Its counts only grow, so that processes add to
 * one row without reading it: accepted uses are the verified uses that were not refused later. Each process notes its last
 * batch in `api_key_usage_writers`, so that no batch counts twice if an answer is lost.
 */
export function createApiKeyUsage({ usage, usageWriters, expiryNotices }: Tables): Step {
  return {
    name: '0003-create-api-key-usage',

    tables: {
      api_key_usage: `
      CREATE TABLE ${usage} (
        api_key_id uuid NOT NULL,
        owner_type text NOT NULL,
        owner_id text NOT NULL,
        hour timestamptz(0) NOT NULL CHECK (mod(extract(epoch FROM hour)::numeric, 3600) = 0),
        verified bigint NOT NULL CHECK (verified >= 0),
        denied bigint NOT NULL CHECK (denied >= 0),
        rate_limited bigint NOT NULL CHECK (rate_limited >= 0),
        PRIMARY KEY (api_key_id, hour, owner_type, owner_id)
      ) WITH (fillfactor = 90);
      CREATE INDEX ON ${usage} (hour);
      CREATE INDEX ON ${usage} (owner_type, owner_id, hour);`,

      api_key_usage_writers: `
      CREATE TABLE ${usageWriters} (
        id uuid PRIMARY KEY,
        batch bigint NOT NULL CHECK (batch > 0),
        written_at timestamptz(3) NOT NULL
      ) WITH (fillfactor = 50);`,

      api_key_expiry_notices: `
      CREATE TABLE ${expiryNotices} (
        api_key_id uuid,
        expires_at timestamptz(3),
        days_left integer,
        -- Until then one process may report it; NULL once all listeners have succeeded.
        claimed_until timestamptz(3),
        PRIMARY KEY (api_key_id, expires_at, days_left)
      );`,
    },
  }
}
