import { searchSql } from '../models/api-key'
import { literal } from '../models/names'
import type { Tables } from '../models/tables'
import { createFunction } from './create-function'
import { keyRules } from './row-rules'
import { secretTriggers } from './secret-triggers'
import { unless, type Step } from './step'
import { isHexSql, matchesSql, sourceForm } from './text-forms'

/**
 * Creates the tables of keys, of suspended owners, of retired secrets and of requests.
 *
 * Indexes and constraints have no names of ours, because such names belong to the whole schema and the app may use them. No
 * index has `last_used_at`, so that the note of a use stays a HOT update; the fill factor leaves room for it. Lists are of one
 * key prefix, because instances with different prefixes may share the table: `prefix` is the key prefix, an underscore and six
 * characters. An environment has prefixes of its own, so that its lists need no other index. Metadata and limits are `json`. The text of `jsonb` can be far longer than the stored text, so its size
 * could not be limited.
 *
 * A key may have a new secret while the secret before still works. The row of the key lets that secret work, so that a key never
 * has more than two. The table of retired secrets recognises every secret that a key has had, or may get at its first use; it lets no caller in.
 *
 * A key of another system has a `source`. If that system stores a salt for each key, the table of salts has the salt until the first use
 * of the key. The locator is the part of the key by which its salt is found.
 *
 * A key belongs to a user, an organization or a service. The column `organization_id` is there before the app has organizations.
 *
 * The table of requests has the changes that were made under an idempotency key. The statement that makes a change writes its row, too.
 */
export function createApiKeys(tables: Tables, types: OwnerIdTypes): Step {
  return {
    name: '0001-create-api-keys',
    tables: {
      api_keys: keysSql(tables, types),
      api_key_suspended_owners: suspendedOwnersSql(tables, types),
      api_key_retired_secrets: retiredSecretsSql(tables),
      api_key_salts: saltsSql(tables),
      api_key_requests: requestsSql(tables),
    },
    triggers: [...keyRules(tables), ...secretTriggers(tables)],
    routines: [createFunction(tables)],
    finish: referenceSql(tables),
  }
}

/** The types of the columns with the ids of owners. */
export interface OwnerIdTypes {
  user_id: string
  organization_id: string
}

const hasOneOwner = 'CHECK (num_nonnulls(user_id, organization_id, service) = 1)'

/** SQL for the index of a list that has the newest keys first. */
function listIndexSql(keys: string, column: string): string {
  return `
      CREATE INDEX ON ${keys} (${column}, created_at DESC, id DESC) WHERE ${column} IS NOT NULL;`
}

function organizationIndexSql(keys: string): string {
  return listIndexSql(keys, 'organization_id')
}

/**
 * SQL that gives `organization_id` another type in a table in which no row has one. It does not write the rows again, so that it
 * takes milliseconds whatever their number is.
 */
export function newOrganizationColumnSql(
  { keys, suspendedOwners }: Tables,
  type: string,
  table: string,
) {
  const constraints = table === suspendedOwners ? ` UNIQUE, ADD ${hasOneOwner}` : ''
  return `
      ALTER TABLE ${table} DROP COLUMN organization_id, ADD COLUMN organization_id ${type}${constraints};
      ${table === keys ? organizationIndexSql(keys) : ''}`
}

function keysSql({ keys }: Tables, types: OwnerIdTypes): string {
  return `
      CREATE TABLE ${keys} (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        user_id ${types.user_id},
        organization_id ${types.organization_id},
        service text,
        -- Without a foreign key, because the key outlives its maker.
        created_by text,
        environment text,
        resources json,
        name text NOT NULL,
        description text,
        prefix text NOT NULL,
        postfix text NOT NULL,
        hash text NOT NULL UNIQUE,
        secret_id text,
        permissions text[] NOT NULL,
        status text NOT NULL DEFAULT 'ACTIVE',
        created_at timestamptz(3) NOT NULL DEFAULT now(),
        updated_at timestamptz(3) NOT NULL DEFAULT now(),
        last_used_at timestamptz(3),
        -- The first use of the current secret.
        first_used_at timestamptz(3),
        last_used_from text,
        expires_at timestamptz(3),
        revoked_at timestamptz(3),
        -- The last rotation or reactivation, from which on the key may be idle anew.
        renewed_at timestamptz(3),
        allowed_ips text[],
        metadata json NOT NULL DEFAULT '{}',
        limits json,
        previous_hash text,
        previous_secret_id text,
        previous_prefix text,
        previous_postfix text,
        previous_works_until timestamptz(3),
        previous_last_used_at timestamptz(3),
        -- A new secret that waits for its first use. Its hash is among the retired secrets until then.
        pending_hash text, pending_prefix text, pending_postfix text,
        pending_secret_id text,
        pending_grace_seconds integer,
        -- When the key was exposed, by whom that was found, and its place. Such a key is never active again.
        exposed json,
        -- For an imported key. Its prefix is '@', the source, an underscore and six characters, until it is rotated.
        source text,
        -- Each change by the library gives it a new value, which its audit entry has too.
        event_ref uuid
      ) WITH (fillfactor = 90);

      ${['user_id', 'service', 'created_by'].map((column) => listIndexSql(keys, column)).join('')}
      ${organizationIndexSql(keys)}
      CREATE INDEX ON ${keys} (left(prefix, -7), created_at DESC, id DESC);
      CREATE INDEX ON ${keys} (left(prefix, -7), status, created_at DESC, id DESC);
      CREATE INDEX ON ${keys} (left(prefix, -7), expires_at) WHERE expires_at IS NOT NULL;
      CREATE INDEX ON ${keys} (revoked_at) WHERE exposed IS NOT NULL;
      CREATE INDEX ON ${keys} (source, id) WHERE source IS NOT NULL;
      CREATE INDEX ON ${keys} USING gin (permissions);
      CREATE INDEX ON ${keys} USING gin (${searchSql('')});`
}

/** A row refuses all keys of its owner. It is gone once the owner is reactivated. */
function suspendedOwnersSql({ suspendedOwners }: Tables, types: OwnerIdTypes): string {
  return `
      CREATE TABLE ${suspendedOwners} (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        user_id ${types.user_id} UNIQUE,
        organization_id ${types.organization_id} UNIQUE,
        service text UNIQUE,
        reason text CHECK (char_length(reason) <= 500),
        suspended_at timestamptz(3) NOT NULL DEFAULT now(),
        -- The library gives it a value, which its audit entry has too.
        event_ref uuid,
        ${hasOneOwner}
      );`
}

function retiredSecretsSql({ retiredSecrets }: Tables): string {
  return `
      CREATE TABLE ${retiredSecrets} (
        hash text PRIMARY KEY CHECK (${isHexSql('hash', 64)}),
        api_key_id uuid NOT NULL,
        retired_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
        UNIQUE (api_key_id, hash)
      );`
}

/** Without a foreign key, so that a TRUNCATE of the keys works as before. A trigger deletes the salt of a deleted key. */
function saltsSql({ salts }: Tables): string {
  return `
      CREATE TABLE ${salts} (
        source text CHECK (${matchesSql('source', sourceForm)}),
        locator text CHECK (char_length(locator) BETWEEN 1 AND 255),
        api_key_id uuid,
        recipe text NOT NULL CHECK (char_length(recipe) BETWEEN 1 AND 255),
        salt text NOT NULL CHECK (char_length(salt) <= 255),
        PRIMARY KEY (source, locator, api_key_id)
      );
      CREATE INDEX ON ${salts} (api_key_id);`
}

/** The time is set after a wait for another request, so that no claim is older than it looks. */
function requestsSql({ requests }: Tables): string {
  return `
      CREATE TABLE ${requests} (
        scope text CHECK (${isHexSql('scope', 64)}),
        key text CHECK (${isHexSql('key', 64)}),
        part integer,
        body text NOT NULL CHECK (${isHexSql('body', 64)}),
        api_key_ids uuid[] NOT NULL,
        created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (scope, key, part)
      );
      CREATE INDEX ON ${requests} (created_at);`
}

/**
 * The foreign key is added by itself, because each of the two tables may be made again alone. A previous secret that is
 * not retired stops working, because nothing would recognise it later.
 */
function referenceSql({ keys, retiredSecrets }: Tables): string {
  return unless(
    `EXISTS (
          SELECT FROM pg_catalog.pg_constraint
           WHERE conrelid = ${literal(keys)}::regclass AND confrelid = ${literal(retiredSecrets)}::regclass
        )`,
    `
          UPDATE ${keys}
             SET previous_hash = NULL, previous_secret_id = NULL, previous_prefix = NULL,
                 previous_postfix = NULL, previous_works_until = NULL, previous_last_used_at = NULL
           WHERE previous_hash IS NOT NULL
             AND (id, previous_hash) NOT IN (SELECT api_key_id, hash FROM ${retiredSecrets});
          UPDATE ${keys}
             SET pending_hash = NULL, pending_secret_id = NULL, pending_prefix = NULL, pending_postfix = NULL, pending_grace_seconds = NULL
           WHERE pending_hash IS NOT NULL
             AND (id, pending_hash) NOT IN (SELECT api_key_id, hash FROM ${retiredSecrets});
          ALTER TABLE ${keys}
            ADD FOREIGN KEY (id, previous_hash) REFERENCES ${retiredSecrets} (api_key_id, hash),
            ADD FOREIGN KEY (id, pending_hash) REFERENCES ${retiredSecrets} (api_key_id, hash);`,
  )
}
