import { defineMigration } from './migration'

/**
 * Creates `api_key_events`. It refers to keys and users without foreign keys, and to users by text, because the trail outlives
 * keys, users and the type that their ids had.
 */
export const createApiKeyEvents = defineMigration(
  '0002-create-api-key-events',
  ({ table, createTable }) => ({
    up: createTable(
      'api_key_events',
      `
      CREATE TABLE ${table('api_key_events')} (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        api_key_id uuid NOT NULL,
        user_id text NOT NULL,
        action text NOT NULL CHECK (
          action IN ('created', 'updated', 'permissions_changed', 'suspended', 'reactivated', 'revoked')
        ),
        actor_type text NOT NULL CHECK (actor_type IN ('user', 'admin', 'system')),
        actor_id text CHECK (actor_id IS NOT NULL OR actor_type = 'system'),
        reason text CHECK (char_length(reason) <= 500),
        before jsonb,
        after jsonb,
        created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp()
      );

      CREATE INDEX ON ${table('api_key_events')} (api_key_id, id DESC);
      CREATE INDEX ON ${table('api_key_events')} (user_id, id DESC);
      CREATE INDEX ON ${table('api_key_events')} (action, id DESC);
      `,
    ),
    down: `DROP TABLE IF EXISTS ${table('api_key_events')}`,
  }),
)
