import { alteredTriggersSql, type Trigger } from '../../migrations/triggers'
import { literal } from '../../models/names'
import { ownerIdSql, ownerTypeSql } from '../../models/owner'
import type { Tables } from '../../models/tables'
import { isFedSql, withoutStandbys } from '../database/query'

/** The most changes that are read one by one. After more changes, the whole cache is evicted. */
export const maxChanges = 10_000

/** SQL that is read together with the log or keys. It decides if a process may rely on the reading. */
export type Conditions = ReturnType<typeof conditionsOf>

/** Returns the conditions for a process that keeps a bound and needs some triggers. */
export function conditionsOf(tables: Tables, triggers: readonly Trigger[], boundMs: number) {
  const watched = [...new Set(triggers.map(({ table }) => table))]

  return {
    /** True once the bound of this process is registered in the database, confirmed within the hour. */
    isRegistered: `EXISTS (
    SELECT FROM ${tables.bounds} WHERE bound_ms >= ${boundMs} AND registered_at > now() - interval '1 hour'
  )`,

    /**
     * The version of the triggers that write the log; NULL unless all are there and enabled, and their numbers go up.
     * It changes when a trigger, its function or the sequence of the numbers is altered or made again. It also changes
     * when another server takes over, or the server starts again, because such a server may lack the last keys. Their
     * creation has no number.
     */
    fingerprint: `
    SELECT pg_catalog.string_agg(
             pg_catalog.concat_ws(' ', trigger.oid, trigger.tgrelid, trigger.xmin, function.oid, function.xmin),
             ', ' ORDER BY trigger.oid
           ) || (
             SELECT pg_catalog.concat_ws(' ', ',', sequence.seqrelid, sequence.xmin, extract(epoch FROM pg_postmaster_start_time()))
               FROM pg_catalog.pg_sequence AS sequence
              WHERE sequence.seqrelid = ${toRelation(tables.revisionRegister)} AND sequence.seqincrement = 1 AND NOT sequence.seqcycle
           )
      FROM pg_catalog.pg_trigger AS trigger
      JOIN pg_catalog.pg_proc AS function ON function.oid = trigger.tgfoid
     WHERE trigger.tgrelid IN (${watched.map(toRelation).join(', ')})
       AND trigger.tgname IN (${triggers.map(({ name }) => literal(name)).join(', ')})
       AND trigger.tgenabled = 'A'
    HAVING count(*) = ${triggers.length}`,

    /** Keys arrive late while a subscription feeds their table. */
    isSubscriber: isFedSql(tables.keys),
  }
}

/**
 * Returns SQL that reads the definitions of the triggers themselves, which takes longer. It returns their version if all are as the
 * migrations made them.
 */
export function confirmationSql(fingerprint: string, triggers: readonly Trigger[]): string {
  return `
    START TRANSACTION ISOLATION LEVEL READ COMMITTED READ ONLY;
    SELECT (${fingerprint}) AS fingerprint WHERE NOT EXISTS (${alteredTriggersSql(triggers)});
    COMMIT`
}

/**
 * Returns SQL that reads what follows an entry. It is READ COMMITTED, whatever the default is, because a serializable reader could
 * make transactions of the app fail.
 */
export function pollSql(tables: Tables, revision: number | null, conditions: Conditions): string {
  const hasOwner = `(${ownerIdSql('change')} IS NOT NULL)`
  const { revisions, changes } = tables
  const { fingerprint, isSubscriber, isRegistered } = conditions
  return `
      START TRANSACTION ISOLATION LEVEL READ COMMITTED READ ONLY;
      SELECT newest.revision::text, newest.mark::text, seen.mark::text AS seen_mark,
             since.ids::text, (
               SELECT json_agg(entry.xid::text) FROM (
                 SELECT xid FROM ${revisions} WHERE revision > ${revision} ORDER BY revision LIMIT ${maxChanges + 1}
               ) AS entry
             )::text AS xids,
             since.owners::text, since.has_all::text, since.has_new::text, since.has_added::text, since.count::text,
             (${fingerprint}) AS fingerprint,
             pg_is_in_recovery()::text AS is_standby, (${isSubscriber})::text AS is_subscriber,
             (${isRegistered})::text AS is_registered,
             (extract(epoch FROM clock_timestamp()) * 1000)::text AS server_ms
        FROM (VALUES (1)) AS one
        LEFT JOIN (
          SELECT revision, mark FROM ${revisions} ORDER BY revision DESC LIMIT 1
        ) AS newest ON true
        LEFT JOIN ${revisions} AS seen ON seen.revision = ${revision}
        LEFT JOIN (
          SELECT json_agg(key_id) FILTER (WHERE key_id IS NOT NULL) AS ids,
                 json_agg(${ownerTypeSql('change')} || ' ' || ${ownerIdSql('change')}) FILTER (WHERE ${hasOwner}) AS owners, count(*),
                 coalesce(bool_or(key_id IS NULL AND NOT ${hasOwner} AND is_new IS NOT TRUE), false) AS has_all,
                 coalesce(bool_or(is_new), false) AS has_new,
                 coalesce(bool_or(is_new AND key_id IS NULL), false) AS has_added
            FROM (
              -- An entry without changes is damaged. It counts as a change of everything.
              SELECT change.key_id, change.user_id, change.organization_id, change.service, change.is_new
                FROM (
                  SELECT mark FROM ${revisions} WHERE revision > ${revision}
                   ORDER BY revision LIMIT ${maxChanges + 1}
                ) AS entry
                LEFT JOIN LATERAL (
                  -- In the order of the primary key, so that the server reads only these rows. Otherwise it would
                  -- read the whole table after a transaction with a million changes.
                  SELECT change.key_id, change.user_id, change.organization_id, change.service, change.is_new FROM ${changes} AS change
                   WHERE change.mark = entry.mark ORDER BY change.mark, change.place LIMIT ${maxChanges + 1}
                ) AS change ON true
               LIMIT ${maxChanges + 1}
            ) AS change
        ) AS since ON true;
      COMMIT`
}

/**
 * Returns SQL that removes the entries of more than an hour ago, because a process that was away for longer evicts its
 * cache. The newest entry stays. It removes a limited number, always from the beginning up to an entry that stays. A
 * gap behind an older entry would hide changes from a process that reads on from that entry. Times may be in another
 * order than numbers, if the server's clock was set back. Processes that prune at once wait for each other. One text is
 * one transaction. If a failover brings old entries back, they are removed again.
 */
export function pruneSql({ revisions, changes, settings }: Tables): string {
  return `${withoutStandbys};
         SELECT set_config('${settings.pruning}', pg_current_xact_id()::text, true);
         WITH first AS (
           SELECT revision, created_at FROM ${revisions} ORDER BY revision LIMIT 10000
         ), kept AS (
           SELECT coalesce(min(revision) FILTER (WHERE created_at >= now() - interval '1 hour'), max(revision)) AS revision
             FROM first
         ), old AS (
           SELECT entry.revision FROM ${revisions} AS entry, kept
            WHERE entry.revision < kept.revision
            ORDER BY entry.revision FOR UPDATE OF entry
         ), removed AS (
           DELETE FROM ${revisions} AS entry USING old WHERE entry.revision = old.revision
           RETURNING entry.mark
         )
         DELETE FROM ${changes} AS change USING removed WHERE change.mark = removed.mark`
}

function toRelation(name: string): string {
  return `${literal(name)}::regclass`
}
