import { createHash } from 'node:crypto'

import { literal } from '../models/names'
import { functionConfigSql, functionSettingsSql } from './function-settings'

/** A function of ours that triggers call. */
export interface TriggerFunction {
  /** Qualified and quoted. */
  name: string
  /** In PL/pgSQL. */
  body: string
}

/** A trigger of ours, as data: from it, the trigger is made, and the trigger of the database is compared with it. */
export interface Trigger {
  name: string
  /** Qualified and quoted. */
  table: string
  /** For example `AFTER INSERT OR DELETE`. */
  fires: string
  forEach: 'ROW' | 'STATEMENT'
  /** Without it, the trigger fires each time. */
  when?: string
  /** The name of the rows that a statement has inserted. */
  newTable?: string
  /** True if the trigger fires when the transaction commits. */
  isDeferred?: boolean
  /** True if the trigger does not fire in a session that replicates, or claims to. All other triggers fire always. */
  isSilentInReplica?: boolean
  calls: TriggerFunction
}

/**
 * SQL that is true in a worker of logical replication. The publisher has reported and numbered the changes that a worker applies. The
 * setting alone is not enough: tools set it while they load data, and such changes count.
 */
export const isReplicationWorker = `current_setting('session_replication_role') = 'replica' AND EXISTS (
              SELECT FROM pg_stat_get_subscription(NULL) WHERE pid = pg_backend_pid()
            )`

/**
 * A statement that returns from a trigger in such a worker. It looks at the setting first, because an expression in PL/pgSQL that has a query
 * takes ten times as long.
 */
export function returnInReplication(value: 'NULL' | 'NEW' | 'OLD'): string {
  return `IF current_setting('session_replication_role') = 'replica' THEN
            IF ${isReplicationWorker} THEN
              RETURN ${value};
            END IF;
          END IF;`
}

/**
 * A statement that returns from a trigger if an UPDATE changes none of these columns. A condition of the trigger would do the same. But the
 * server copies conditions for each statement on the table, and parses them for each UPDATE. With many columns, that takes as long as
 * calling the trigger for thirty rows.
 */
export function returnUnlessChanged(columns: readonly string[]): string {
  return `IF TG_OP = 'UPDATE' THEN
            IF NOT (${changesAny(columns)}) THEN
              RETURN NULL;
            END IF;
          END IF;`
}

/** SQL that is true if a setting does not name this transaction. */
export function isNotIn(setting: string): string {
  return `current_setting('${setting}', true) IS DISTINCT FROM pg_current_xact_id()::text`
}

/** SQL for the condition of a trigger that is true if an UPDATE changes any of these columns. */
export function changesAny(columns: readonly string[]): string {
  return columns.map((column) => `OLD.${column} IS DISTINCT FROM NEW.${column}`).join(' OR ')
}

/**
 * SQL that creates the functions of triggers. They run as their owner, so that a role that may change a key may also log the change.
 * No role may use them: a trigger on a table of its own could hold the lock of the log.
 */
export function createFunctions(triggers: readonly Trigger[]): string {
  return functionsOf(triggers)
    .map(
      ([name, body]) => `
      CREATE OR REPLACE FUNCTION ${name}() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER ${functionSettingsSql} AS $function$${body}$function$;
      REVOKE EXECUTE ON FUNCTION ${name}() FROM PUBLIC;`,
    )
    .join('')
}

/** SQL that drops the functions of triggers, and the triggers with them. */
export function dropFunctions(triggers: readonly Trigger[]): string {
  return functionsOf(triggers)
    .map(([name]) => `DROP FUNCTION IF EXISTS ${name}() CASCADE;`)
    .join('')
}

/** Each function once, because several triggers may call it. */
function functionsOf(triggers: readonly Trigger[]): [name: string, body: string][] {
  return [...new Map(triggers.map(({ calls }) => [calls.name, calls.body]))]
}

/** SQL that creates triggers, in place of the triggers that have their names. */
export function createTriggers(triggers: readonly Trigger[]): string {
  return triggers.map(createTrigger).join('')
}

function createTrigger(trigger: Trigger): string {
  const { name, table, fires, forEach, when, newTable, isDeferred, isSilentInReplica, calls } =
    trigger
  const clauses = [
    isDeferred && 'DEFERRABLE INITIALLY DEFERRED',
    newTable && `REFERENCING NEW TABLE AS ${newTable}`,
    `FOR EACH ${forEach}`,
    when && `WHEN (${when})`,
  ]
  return `
      DROP TRIGGER IF EXISTS ${name} ON ${table};
      CREATE ${isDeferred ? 'CONSTRAINT TRIGGER' : 'TRIGGER'} ${name} ${fires} ON ${table}
        ${clauses.filter(Boolean).join(' ')} EXECUTE FUNCTION ${calls.name}();
      ${isSilentInReplica ? '' : `ALTER TABLE ${table} ENABLE ALWAYS TRIGGER ${name};`}`
}

/**
 * SQL for the names of the triggers that are not as `createTriggers` made them: a trigger is missing or switched off, has another
 * event or condition, or calls a function with another body.
 */
export function alteredTriggersSql(triggers: readonly Trigger[]): string {
  return `
    SELECT format('%s on %s', made.name, made.kept::regclass) AS name
      FROM (VALUES ${triggers.map(toRow).join(', ')})
        AS made (name, kept, enabled, type, is_deferred, new_table, condition, body)
     WHERE NOT EXISTS (
       SELECT FROM pg_catalog.pg_trigger AS trigger
         JOIN pg_catalog.pg_proc AS function ON function.oid = trigger.tgfoid
        WHERE trigger.tgrelid = made.kept::regclass AND trigger.tgname = made.name
          AND trigger.tgenabled::text IN ('A', made.enabled) AND trigger.tgtype = made.type AND trigger.tgattr = ''
          AND trigger.tginitdeferred = made.is_deferred
          AND coalesce(trigger.tgnewtable, '') = made.new_table
          AND coalesce(regexp_replace(
                lower(substring(pg_catalog.pg_get_triggerdef(trigger.oid) FROM ' WHEN (.*) EXECUTE FUNCTION ')),
                ${literal(notation.source)}, '', 'g'
              ), '') = made.condition
          AND md5(function.prosrc) = made.body AND function.prosecdef
          AND function.proconfig = ${functionConfigSql}
     )`
}

/**
 * The parts of a condition that Postgres writes in its own way, which may differ from version to version. If the database quotes all
 * identifiers, it quotes the names of types, too.
 */
const notation = /row\(|::"?text"?|[\s()"]/g

function toRow(trigger: Trigger): string {
  const { name, table, when = '', newTable = '', isDeferred = false, calls } = trigger
  const enabled = trigger.isSilentInReplica ? 'O' : 'A'
  const condition = when.toLowerCase().replace(notation, '')
  const body = createHash('md5').update(calls.body).digest('hex')
  const [before, after] = [
    [name, table, enabled],
    [newTable, condition, body],
  ].map((texts) => texts.map(literal).join(', '))
  return `(${before}, ${typeOf(trigger)}, ${isDeferred}, ${after})`
}

/** The bits of `pg_trigger.tgtype`. */
const typeBits = { ROW: 1, BEFORE: 2, INSERT: 4, DELETE: 8, UPDATE: 16, TRUNCATE: 32 }

function typeOf({ fires, forEach }: Trigger): number {
  const words = new Set([...fires.split(' '), forEach])
  return Object.entries(typeBits).reduce(
    (type, [word, bit]) => type + (words.has(word) ? bit : 0),
    0,
  )
}
