import { timeSql } from '../../models/audit-trail'
import { literal } from '../../models/names'
import { select, selectJson } from '../database/query'
import { inTransaction, writeLimitMs } from '../database/writer'
import { ApiKeysError } from '../errors'
import type { Pruning } from '../keys/input'
import { differingSql, notesSql, readNotes } from './check-erasures'
import { checkContent, checkSeal, startWalk } from './check-seals'
import { isOldSql, pageSize, sealsSql, type Seal } from './chain'
import { createFindings } from './faults'
import { endSql, isReliable, moveHeadSql } from './head'
import type { End, Head, Trail } from './head'
import { readOriginChanges, sumOf, writeOriginsSql } from './origins'
import { durably, lockLimitMs } from './seal'

/**
 * Removes entries from the start of the chain up to the first that was sealed later, a page at a time. With each page it moves the
 * checkpoint, from which the chain goes on. Returns how many entries there were.
 */
export async function prune(trail: Trail, { olderThanDays, dryRun }: Pruning): Promise<number> {
  const sql = `SELECT pg_catalog.to_json(${timeSql(`(now() - ${olderThanDays}::float8 * interval '24 hours')`)})::text AS json`
  const [before] = await selectJson<[string]>(trail.sequelize, sql, { transaction: null })
  if (dryRun) return countPrunable(trail, before)

  for (let pruned = 0; ;) {
    const count = await prunePage(trail, before)
    // Another process has sealed in between.
    if (count === null) continue
    pruned += count
    if (count < pageSize) return pruned
  }
}

/** Returns the number of entries before the first that was sealed later. */
async function countPrunable(trail: Trail, before: string): Promise<number> {
  const { seals, auditHead } = trail.tables
  const kept = `${seals} AS seal WHERE seal.position > (SELECT checkpoint_position FROM ${auditHead})`
  const isOld = isOldSql(trail.tables, 'seal', literal(before))
  const firstYoung = `SELECT seal.position FROM ${kept} AND NOT ${isOld} ORDER BY seal.position LIMIT 1`
  const sql = `SELECT pg_catalog.to_json(count(*))::text AS json
      FROM ${kept} AND seal.position < coalesce((${firstYoung}), ${Number.MAX_SAFE_INTEGER})`
  const [count] = await selectJson<[number]>(trail.sequelize, sql, { transaction: null })
  return count
}

/**
 * Removes a page, and returns how many entries it had; `null` if the head was written in between, so that nothing was
 * removed.
 */
async function prunePage(trail: Trail, time: string): Promise<number | null> {
  const { sequelize, signer, tables, connection } = trail
  const after = `(SELECT checkpoint_position FROM ${tables.auditHead})`
  const options = { transaction: null }
  const [{ head, version, tail }] = await selectJson<[End]>(sequelize, endSql(tables), options)
  const pageSql = sealsSql(tables, after, literal(time))
  const page = await selectJson<Seal[]>(sequelize, pageSql, options)
  // Pruning must not remove the traces of a change.
  if (!head || !isReliable(signer, head, tail)) throw new ApiKeysError('audit_trail_not_intact')

  const firstYoung = page.findIndex(({ isOld }) => !isOld)
  const old = firstYoung === -1 ? page : page.slice(0, firstYoung)
  const last = old.at(-1)
  if (!last) return 0
  await refuseBroken(trail, head, old)
  const ids = old.map(({ eventId }) => eventId)
  await refuseErased(trail, ids)

  const lastPrunedId = [head.lastPrunedId, ...ids].map(BigInt).reduce((a, b) => (a > b ? a : b))
  const { position, hash: checkpointHash } = last
  const ends = { checkpointPosition: String(position), checkpointHash, prunedBefore: time }
  const changes = await readOriginChanges(trail, ids)
  const sum = await sumOf(trail, head, changes)
  const next = { ...head, ...ends, ...sum, lastPrunedId: String(lastPrunedId) }
  const { rows } = await connection.query(
    inTransaction(
      `${durably};
       SELECT set_config('${tables.settings.pruning}', pg_current_xact_id()::text, true);
       WITH moved AS (${moveHeadSql(trail, version, next)}),
            entries AS (
              DELETE FROM ${tables.events} WHERE id = ANY('{${ids.join()}}'::bigint[]) AND EXISTS (SELECT FROM moved)
            ),
            ${writeOriginsSql(tables, changes)},
            seals AS (DELETE FROM ${tables.seals} WHERE position <= ${position} AND EXISTS (SELECT FROM moved))
       SELECT count(*)::text AS moved FROM moved`,
      lockLimitMs,
    ),
    writeLimitMs,
  )
  return rows[0]?.moved === '1' ? old.length : null
}

/** Refuses to prune entries whose personal values were removed, but not by the library. The origins would have none of these values. */
async function refuseErased({ sequelize, signer, tables }: Trail, ids: readonly string[]) {
  const options = { transaction: null }
  const rows = await select<{ json: string }>(sequelize, notesSql(tables), options)
  const notes = readNotes(
    signer,
    rows.map(({ json }) => json),
    ['valid'],
  )
  const found = await select(sequelize, differingSql(tables, notes, ids), options)
  if (found.length > 0) throw new ApiKeysError('audit_trail_not_intact')
}

/**
 * Refuses to prune entries that are not as they were sealed. A known secret must vouch for the last of them, so the walk goes on
 * to a seal that it signed, or to the end: the head was found to be reliable.
 */
async function refuseBroken(trail: Trail, head: Head, old: Seal[]) {
  const findings = createFindings()
  const walk = startWalk(findings, trail.signer, head)
  for (let page = old; ;) {
    for (const seal of page) {
      checkSeal(walk, seal)
      checkContent(walk, seal)
    }
    if (
      findings.faultCount + findings.unverifiable + walk.misfits.length + walk.edited.length >
      0
    ) {
      throw new ApiKeysError('audit_trail_not_intact')
    }
    if (walk.pending === 0 || page.length === 0) return
    const sql = sealsSql(trail.tables, walk.end.position)
    page = await selectJson<Seal[]>(trail.sequelize, sql, { transaction: null })
  }
}
