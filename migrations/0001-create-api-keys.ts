import { searchSql } from '../models/api-key'
import { defineMigration } from './migration'

/**
 * Creates `api_keys`. Indexes and constraints go unnamed, as such names belong to the whole schema and the app may
 * have given them away. There is none on `last_used_at`, so that noting a use stays a HOT update, for which the fill
 * factor leaves room. Lists are of one key prefix, as instances with different ones may share the table: `prefix` is the key
 * prefix, an underscore and six characters.
 */
export const createApiKeys = defineMigration(
  '0001-create-api-keys',
  ({ table, createTable, columnType }) => ({
    up: createTable(
      'api_keys',
      `
      CREATE TABLE ${table('api_keys')} (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        user_id ${columnType} NOT NULL,
        name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 100),
        description text CHECK (char_length(description) <= 500),
        prefix text NOT NULL CHECK (prefix ~ '^[a-z][a-z0-9_]*_[0-9A-Za-z]{6}$'),
        postfix text NOT NULL CHECK (postfix ~ '^[0-9A-Za-z]{8}$'),
        hash text NOT NULL UNIQUE CHECK (hash ~ '^[0-9a-f]{64}$'),
        secret_id text CHECK (secret_id ~ '^[0-9a-f]{16}$'),
        permissions text[] NOT NULL CHECK (
          cardinality(permissions) > 0
          AND array_ndims(permissions) = 1
          AND array_position(permissions, NULL) IS NULL
        ),
        status text NOT NULL DEFAULT 'ACTIVE' CHECK (status IN ('ACTIVE', 'SUSPENDED', 'REVOKED')),
        created_at timestamptz(3) NOT NULL DEFAULT now(),
        updated_at timestamptz(3) NOT NULL DEFAULT now(),
        last_used_at timestamptz(3),
        expires_at timestamptz(3),
        revoked_at timestamptz(3),
        CHECK ((status = 'REVOKED') = (revoked_at IS NOT NULL))
      ) WITH (fillfactor = 90);

      CREATE INDEX ON ${table('api_keys')} (user_id, created_at DESC, id DESC);
      CREATE INDEX ON ${table('api_keys')} (left(prefix, -7), created_at DESC, id DESC);
      CREATE INDEX ON ${table('api_keys')} (left(prefix, -7), status, created_at DESC, id DESC);
      CREATE INDEX ON ${table('api_keys')} USING gin (permissions);
      CREATE INDEX ON ${table('api_keys')} USING gin (${searchSql('')});
      `,
    ),
    down: `DROP TABLE IF EXISTS ${table('api_keys')}`,
  }),
)
