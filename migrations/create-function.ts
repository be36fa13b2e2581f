import { keyColumns, keyPrefixSql, msSql, type KeyAttribute } from '../models/api-key'
import { insertEntriesSql, writtenColumns } from '../models/api-key-event'
import { claimColumns, claimSql } from '../models/api-key-request'
import { timeSql } from '../models/audit-trail'
import { literal, qualify } from '../models/names'
import { rowsInOrderSql } from '../models/rows'
import {
  isSuspendedByColumnSql,
  isSuspendedSql,
  ownerColumns,
  ownerIdSql,
  ownerTypeSql,
} from '../models/owner'
import type { Tables } from '../models/tables'
import type { Routine } from './routines'

/** The attributes that a new key is given. The database fills the other columns. */
export const newKeyAttributes = [
  'id',
  'userId',
  'organizationId',
  'service',
  'createdBy',
  'environment',
  'resources',
  'name',
  'description',
  'prefix',
  'postfix',
  'hash',
  'secretId',
  'permissions',
  'allowedIps',
  'metadata',
  'limits',
  'expiresAt',
  'eventRef',
] as const satisfies readonly KeyAttribute[]

/** Their columns. */
export const newKeyColumns = newKeyAttributes.map((name) => keyColumns[name].name)

/** The SQLSTATE with which the function refuses a transaction in which it could not count keys. */
export const wrongIsolation = '25001'

/**
 * Returns the function that creates keys and their entries of the audit trail, each key or none. It takes the keys and
 * the entries as JSON arrays of rows in the same order, and the owners, each once, as rows of keys. It returns a row
 * for each key: its place, from 1; `owner` if the database spells the owner in another way than the entry, so that no
 * key was made; and the time of its creation, if it was made. `most` has the maximum of keys for each type of owner. A key of an owner
 * who has that many, or who is suspended, is not made. Keys of each environment are counted alone: `key_prefixes` has all prefixes of
 * an environment by the prefix of its new keys.
 *
 * `given_claims` has the requests with an idempotency key, as rows of their table in the order of the keys, with `{}` for none. A key whose
 * request was made before is not made, and is `is_repeated`. A role that sends no claims needs no rights on that table.
 *
 * It is a function because a statement sees only the changes that were committed when it began. So the owners must be locked by a statement before the
 * statement that counts their keys. The lock is exclusive. Two transactions that share a lock would each count
 * without the keys of the other. Without a limit, nothing is counted, and the lock only keeps out what revokes all keys of an owner, or suspends the owner.
 *
 * With `patience`, the function waits for locks no longer than that. It puts the setting back, because triggers that wait at COMMIT obey
 * it as well.
 */
export function createFunction(tables: Tables): Routine {
  return {
    name: createFunctionName(tables),
    parameters: {
      given_keys: 'json',
      given_entries: 'json',
      owners: 'json',
      most: 'json',
      key_prefixes: 'json',
      at_ms: 'double precision',
      patience: 'text',
      given_claims: 'json',
    },
    returns:
      'TABLE (place integer, owner text, created_ms text, is_repeated text, is_suspended text)',
    body: bodyOf(tables),
  }
}

/** Returns the name of the function, qualified and quoted. */
export function createFunctionName({ schema }: Tables): string {
  return qualify(schema, 'api_key_create')
}

/**
 * SQL for the number of the advisory lock of an owner, from a row that has the columns of an owner. The collation of the column
 * decides: spellings that the column takes for one user have one lock.
 */
export function ownerLockSql({ keys }: Tables, row: string): string {
  const numberOf = (column: string) =>
    `pg_catalog.hashtextextended(${literal(`express-api-keys ${keys} ${column} `)} || ${row}.${column}::text, 0)`
  return `CASE WHEN ${row}.user_id IS NOT NULL THEN ${numberOf('user_id')}
               WHEN ${row}.organization_id IS NOT NULL THEN ${numberOf('organization_id')} ELSE ${numberOf('service')} END`
}

function bodyOf(tables: Tables): string {
  const { keys } = tables
  return `
        #variable_conflict use_column
        <<counting>>
        DECLARE
          patience_before text := current_setting('lock_timeout');
          owner_lock bigint;
          is_counted boolean;
          prefixes text[];
          maximum integer;
          wanted integer := 1;
          number bigint;
          new record;
          entry record;
        BEGIN
          -- Before any lock: all roles may call the function.
          IF NOT has_table_privilege(${literal(keys)}, 'INSERT') THEN
            RAISE insufficient_privilege USING MESSAGE = 'permission denied for table api_keys';
          END IF;
          IF patience IS NOT NULL THEN
            IF current_setting('transaction_isolation') <> 'read committed' THEN
              RAISE active_sql_transaction USING MESSAGE = 'express-api-keys: the transaction must be READ COMMITTED';
            END IF;
            PERFORM set_config('lock_timeout', patience, true);
          END IF;
          IF given_claims IS NULL AND json_array_length(given_keys) = 1 THEN
            ${createOneSql(tables)}
          ELSE
            -- Ordered by the numbers of the locks, because collations of owners differ.
            FOR owner_lock, is_counted IN
              SELECT ${ownerLockSql(tables, 'key')}, bool_or(api_key_create.most ->> ${ownerTypeSql('key')} IS NOT NULL)
                FROM json_populate_recordset(NULL::${keys}, owners) AS key GROUP BY 1 ORDER BY 1
            LOOP
              ${lockSql}
            END LOOP;
            IF given_claims IS NULL THEN
              RETURN QUERY ${createSql(tables)};
            ELSE
              RETURN QUERY ${createSql(tables, claimsSql(tables))};
            END IF;
          END IF;
          IF patience IS NOT NULL THEN
            PERFORM set_config('lock_timeout', patience_before, true);
          END IF;
        END`
}

const lockSql = `IF is_counted THEN
                PERFORM pg_advisory_xact_lock(owner_lock);
              ELSE
                PERFORM pg_advisory_xact_lock_shared(owner_lock);
              END IF;`

/** SQL that creates the only key. It takes half of the time of the statement for many keys, because its plans are small. */
function createOneSql(tables: Tables): string {
  const { keys, events } = tables
  const owners = Object.values(ownerColumns).map(
    (column) => `new.${column} IS NOT NULL THEN
              SELECT ${isSuspendedByColumnSql(tables, 'new', column)}, CASE WHEN is_counted THEN ${countByColumnSql(tables, 'new', column, 'counting')} END
                INTO is_suspended, number;`,
  )
  return `new := json_populate_record(NULL::${keys}, given_keys -> 0);
            entry := json_populate_record(NULL::${events}, given_entries -> 0);
            maximum := (most ->> ${ownerTypeSql('new')})::integer;
            is_counted := maximum IS NOT NULL;
            prefixes := key_prefixes ->> ${keyPrefixSql('new.prefix')};
            owner_lock := ${ownerLockSql(tables, 'new')};
            ${lockSql}
            IF ${owners.join(`
            ELSIF `)}
            END IF;
            place := 1;
            is_repeated := 'false';
            IF NOT ${isSpelledSql('new')} THEN
              owner := ${ownerIdSql('new')};
            ELSIF NOT is_suspended::boolean AND (number < maximum) IS NOT FALSE THEN
              WITH made AS (
                ${insertKeysSql(tables)}
                RETURNING created_at
              ), told AS (
                ${insertEntriesSql(tables, 'FROM made', afterSql)}
              )
              SELECT ${msSql('made.created_at')} INTO created_ms FROM made;
            END IF;
            RETURN NEXT;`
}

/** SQL for the keys that are allowed and have no claim, or a claim that succeeded. */
function claimsSql(tables: Tables): string {
  const from = `FROM (
        SELECT claim.scope, claim.key, claim.part, claim.body, allowed.id FROM allowed JOIN claim USING (ordinality) WHERE claim.scope IS NOT NULL
      ) AS claim`
  return `, claim AS MATERIALIZED (
              SELECT * FROM ${rowsInOrderSql(tables.requests, claimColumns, 'given_claims')} AS claim
            ), succeeded AS (${claimSql(tables, from)}
            ), claimed AS MATERIALIZED (
              SELECT allowed.* FROM allowed JOIN claim USING (ordinality)
               WHERE claim.scope IS NULL OR allowed.id IN (SELECT id FROM succeeded)
            )`
}

/** SQL that creates the keys of one of its tables, and answers for all. */
function createSql(tables: Tables, claims?: string): string {
  const { keys, events } = tables
  const creatable = claims === undefined ? 'allowed' : 'claimed'
  const isRepeated =
    claims === undefined ? 'false' : '(made.id IS NULL AND wanted.id IN (SELECT id FROM allowed))'
  const ofMade = 'FROM made JOIN entry ON entry.ref = made.event_ref ORDER BY entry.ordinality'
  return `
            WITH entry AS MATERIALIZED (
              SELECT * FROM ${rowsInOrderSql(events, writtenColumns, 'given_entries')} AS entry
            ), wanted AS MATERIALIZED (
              SELECT key.*, ${ownerTypeSql('key')} AS owner_type, ${ownerIdSql('key')} AS owner_id, ${isSpelledSql('key')} AS is_spelled,
                     dense_rank() OVER (ORDER BY key.user_id, key.organization_id, key.service, ${keyPrefixSql('key.prefix')}) AS owner_number
                FROM ${rowsInOrderSql(keys, newKeyColumns, 'given_keys')} AS key
                JOIN entry ON entry.ordinality = key.ordinality
            ), owner AS MATERIALIZED (
              SELECT owner_number, maximum, CASE WHEN maximum IS NOT NULL THEN ${countSql(tables, 'owner')} END AS number,
                     ${isSuspendedSql(tables, 'owner')} AS is_suspended
                FROM (
                  SELECT DISTINCT ON (owner_number) owner_number, user_id, organization_id, service, (most ->> owner_type)::integer AS maximum,
                         count(*) OVER (PARTITION BY owner_number) AS wanted, (key_prefixes ->> ${keyPrefixSql('prefix')})::text[] AS prefixes
                    FROM wanted
                ) AS owner
            ), numbered AS (
              SELECT wanted.*, row_number() OVER (PARTITION BY wanted.owner_number ORDER BY wanted.ordinality) AS place_of_owner
                FROM wanted WHERE is_spelled
            ), allowed AS (
              -- A join, because a subquery would read all counts for each key.
              SELECT numbered.* FROM numbered JOIN owner USING (owner_number)
               WHERE NOT owner.is_suspended AND (owner.maximum IS NULL OR numbered.place_of_owner + owner.number <= owner.maximum)
            )${claims ?? ''}, made AS (
              ${insertKeysSql(tables, `FROM ${creatable} AS new ORDER BY new.ordinality`)}
              RETURNING id, event_ref, created_at
            ), told AS (
              ${insertEntriesSql(tables, ofMade, afterSql)}
            )
            SELECT wanted.ordinality::integer, CASE WHEN NOT wanted.is_spelled THEN wanted.owner_id END,
                   (${msSql('made.created_at')})::text, ${isRepeated}::text, owner.is_suspended::text
              FROM wanted JOIN owner USING (owner_number) LEFT JOIN made ON made.id = wanted.id`
}

/** True if the database spells the owner of a new key as its entry does. */
function isSpelledSql(key: string): string {
  return `(${ownerIdSql(key)} = entry.owner_id)`
}

/**
 * SQL for the number of keys of an owner that are neither revoked nor expired, at most `maximum`, whose prefixes are in `prefixes` of
 * the row or the block of that name: columns of the app may have the same names. If there is room for the `wanted` keys beside all keys
 * of the owner, it is the number of all keys, which an index has. The prefix is compared as an expression that no index has. Before the
 * first ANALYZE, for example after a restore, the server would read all keys of the prefix.
 */
function countByColumnSql({ keys }: Tables, row: string, column: string, given = row): string {
  const tooMany = `greatest(${given}.maximum - ${given}.wanted + 1, 0)`
  return `coalesce((
                SELECT nullif(count(*), ${tooMany}) FROM (
                  SELECT FROM ${keys} AS own WHERE own.${column} = ${row}.${column} LIMIT ${tooMany}
                ) AS own
              ), (
                SELECT count(*) FROM (
                  SELECT FROM ${keys} AS living
                   WHERE living.${column} = ${row}.${column} AND ${keyPrefixSql('living.prefix')} || '' = ANY (${given}.prefixes) AND living.status <> 'REVOKED'
                     AND (living.expires_at IS NULL OR living.expires_at > to_timestamp(api_key_create.at_ms / 1000))
                   LIMIT ${given}.maximum
                ) AS living
              ))`
}

/** SQL for the same of an owner of any type. */
function countSql(tables: Tables, row: string): string {
  const counted = Object.values(ownerColumns).map(
    (column) => `WHEN ${row}.${column} IS NOT NULL THEN ${countByColumnSql(tables, row, column)}`,
  )
  return `CASE ${counted.join(' ')} END`
}

/** SQL that writes keys. Their rows come from the given clauses under the name `new`. */
function insertKeysSql({ keys }: Tables, clauses = ''): string {
  const values = newKeyColumns.map((column) => `new.${column}`)
  return `INSERT INTO ${keys} (${newKeyColumns.join(', ')}) SELECT ${values.join(', ')} ${clauses}`
}

/** SQL for the value of a new key in its entry, which ends with the time of its creation. As text, because jsonb would be read and written anew. */
const afterSql = `(left(entry.after::text, -1) || ',"createdAt":' || coalesce('"' || ${timeSql('made.created_at')} || '"', 'null') || '}')::json`
