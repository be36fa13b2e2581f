import type { Transaction } from 'sequelize'

import { auditTriggers } from '../../migrations/audit-triggers'
import { alteredTriggersSql } from '../../migrations/triggers'
import type { Tables } from '../../models/tables'
import { sqlStateOf } from '../database/failures'
import { limitStatements, selectJson } from '../database/query'
import { canonical } from '../keys/metadata'
import { checkAnchor, checkSeal, endWalk, startWalk, type Walk } from './check-seals'
import { contradictionsSql, maxContradictions, type Contradiction } from './contradictions-sql'
import { checkEntry, readContent } from './entry'
import { createFindings, maxFaults, type AuditFault, type Findings } from './faults'
import { endSql, refuseForeign, signExport } from './head'
import type { AuditHead, End, Trail } from './head'
import { pageSize, sealsSql, type Seal } from './seal'

/** The result of a verification of the audit trail. */
export interface AuditVerification {
  /** True if every entry could be checked, and nothing is wrong. */
  isIntact: boolean
  /** How many entries were checked. */
  entries: number
  /** How many entries came before them and were pruned. */
  pruned: number
  /** How many entries were written meanwhile. They are sealed soon. */
  unsealed: number
  /** How many entries only a secret could vouch for that is not among `secrets`. */
  unverifiable: number
  /** The end of the trail that was checked, to be kept elsewhere; `null` unless the trail is intact. */
  head: AuditHead | null
  /** The first 100. */
  faults: AuditFault[]
  /** The changes that this verification would not have found, in sentences. */
  cannotFind: string[]
}

/** The longest time that a statement takes. Some statements read the whole trail. */
const statementLimitMs = 3_600_000

/** The savepoint to which verification goes back after a statement that failed. */
const savepoint = 'api_key_reading'

/** The SQLSTATEs of statements that fail because of the values or the number of rows that they meet. */
const isOfValues = /^(2[12]...|54...)$/

/**
 * Compares the whole trail with its seals, with itself and with the keys, in one snapshot.
 *
 * @param anchor a head that was exported before and kept elsewhere
 */
export async function verify(trail: Trail, anchor?: AuditHead): Promise<AuditVerification> {
  if (anchor) refuseForeign(trail.signer, anchor)

  return trail.sequelize.transaction(async (transaction) => {
    const isolation = 'SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY'
    const sql = `${isolation}; ${limitStatements(statementLimitMs)}; SAVEPOINT ${savepoint}`
    await trail.sequelize.query(sql, { transaction })
    return verifySnapshot(trail, transaction, anchor)
  })
}

async function verifySnapshot(trail: Trail, transaction: Transaction, anchor?: AuditHead) {
  const { signer, tables } = trail
  const findings = createFindings()
  const read = createReader(trail, transaction, findings)
  const [found] = await read<End>('its end', endSql(tables))
  const walk = startWalk(findings, signer, found?.head ?? null)
  let anchoredHash = anchor?.position === walk.start.position ? walk.start.hash : undefined

  let page: Seal[]
  do {
    page = await read<Seal>('its seals', sealsSql(tables, walk.end.position))
    for (const seal of page) {
      if (checkSeal(walk, seal) && !seal.isGenuine) checkOrigin(walk, seal)
      if (seal.position === anchor?.position) anchoredHash = seal.hash
    }
  } while (page.length === pageSize)
  endWalk(walk)
  if (anchor) checkAnchor(walk, anchor, anchoredHash)

  const unsealed = await checkUnsealed(read, findings, tables)
  await checkContradictions(read, findings, tables)
  const altered = `(${alteredTriggersSql(auditTriggers(tables))}) AS altered`
  const alteredSql = `SELECT to_json(altered.name)::text AS json FROM ${altered}`
  for (const trigger of await read<string>('its triggers', alteredSql)) {
    const message = `The trigger ${trigger} is gone, switched off or not as it was made.`
    findings.report('unguarded', {}, message)
  }

  const { faults, faultCount, unverifiable } = findings
  const { entries, start, end } = walk
  const isIntact = faultCount === 0 && unverifiable === 0
  const counts = { entries, pruned: start.position, unsealed, unverifiable }
  const head = isIntact ? signExport(signer, end) : null
  return { isIntact, ...counts, head, faults, cannotFind: limitsOf(walk, anchor) }
}

/** The process that sealed the entry did not find that the library wrote it. The secrets may have been added since. */
function checkOrigin({ findings, signer }: Walk, seal: Seal) {
  const entry = readContent(seal.content ?? '')
  if (entry.actorType === 'database') return
  const check = checkEntry(signer, entry)
  if (check === 'unknown') findings.unverifiable++
  if (check === 'invalid') findings.report('inserted', seal, 'The library did not write the entry.')
}

type Read = ReturnType<typeof createReader>

/** Creates the function that reads a part of the trail. If the database cannot read it, that is a fault. */
function createReader(trail: Trail, transaction: Transaction, findings: Findings) {
  return async function read<Row>(part: string, sql: string): Promise<Row[]> {
    try {
      return await selectJson<Row[]>(trail.sequelize, sql, { transaction })
    } catch (error) {
      const state = sqlStateOf(error)
      if (!isOfValues.test(state)) throw error

      await trail.sequelize.query(`ROLLBACK TO SAVEPOINT ${savepoint}`, { transaction })
      findings.report('unreadable', {}, `The database cannot read ${part} (SQLSTATE ${state}).`)
      return []
    }
  }
}

/** Checks the entries without a seal, and returns how many wait for one. */
async function checkUnsealed(read: Read, findings: Findings, tables: Tables): Promise<number> {
  const { events, seals, unsealed } = tables
  const [found] = await read<{ waiting: number; stray: string[] }>(
    'what waits for a seal',
    `WITH open AS (
       SELECT id, EXISTS (SELECT FROM ${unsealed} AS waiting WHERE waiting.event_id = event.id) AS is_waiting
         FROM ${events} AS event WHERE NOT EXISTS (SELECT FROM ${seals} AS seal WHERE seal.event_id = event.id)
     ), stray AS (
       SELECT id FROM open WHERE NOT is_waiting ORDER BY id LIMIT ${maxFaults}
     )
     SELECT json_build_object(
              'waiting', (SELECT count(*) FROM open WHERE is_waiting),
              'stray', (SELECT coalesce(json_agg(id::text), '[]') FROM stray)
            )::text AS json`,
  )
  for (const eventId of found?.stray ?? []) {
    findings.report('inserted', { eventId }, 'The entry has no seal, and waits for none.')
  }

  const repeated = await read<string>(
    'its references',
    `SELECT to_json(max(id)::text)::text AS json
       FROM ${events} WHERE ref IS NOT NULL GROUP BY ref HAVING count(*) > 1 ORDER BY max(id) LIMIT ${maxFaults}`,
  )
  for (const eventId of repeated) {
    findings.report('inserted', { eventId }, 'The entry repeats another one.')
  }
  return found?.waiting ?? 0
}

async function checkContradictions(read: Read, findings: Findings, tables: Tables) {
  const sql = contradictionsSql(tables)
  const contradictions = await read<Contradiction>('its entries beside the keys', sql)
  const counts = new Map<number, number>()
  for (const [source, eventId, apiKeyId, name, said, known] of contradictions) {
    counts.set(source, (counts.get(source) ?? 0) + 1)
    if (isSameTo(name, said, known)) continue
    const message = `The trail and the key ${apiKeyId} do not agree on ${name}.`
    findings.report('contradicted', { eventId }, message)
  }
  if ([...counts.values()].includes(maxContradictions)) {
    const message = 'The trail and the keys differ in more places than were looked at.'
    findings.report('contradicted', {}, message)
  }
}

/**
 * True if two values are the same in JavaScript. The numbers of metadata may have more digits than JavaScript can distinguish, and
 * JSON that cannot be jsonb is in the trail as text.
 */
function isSameTo(name: string, said: unknown, known: unknown): boolean {
  const isJson = name === 'metadata' || name === 'limits'
  try {
    const [a, b] = [said, known].map((value): unknown =>
      isJson && typeof value === 'string' ? JSON.parse(value) : value,
    )
    return canonical(a) === canonical(b)
  } catch {
    // The values differ for the database. They are no JSON, or nested too deep for JavaScript.
    return false
  }
}

/** Returns the changes that a verification would not have found, in sentences. */
function limitsOf({ signer, start, findings }: Walk, anchor?: AuditHead): string[] {
  const isForgeable = signer.isKeyed && signer.acceptUnkeyed
  const isPruned = anchor !== undefined && anchor.position < start.position
  return [
    'An entry of `database` that was written by hand, and that fits: it looks like one of a trigger.',
    !signer.isKeyed &&
      'A trail that was computed anew as a whole, which needs no secret: set the option `secrets`.',
    isForgeable &&
      'A trail that was forged without a secret, as if from before there were secrets, as long as `acceptUnkeyed` is set.',
    !anchor &&
      'A trail that was put back as a whole or begun anew, with its head: keep a head elsewhere, and pass it.',
    isPruned &&
      'A trail other than the trail of the head that was passed: the last entry of that head was pruned.',
    findings.unverifiable > 0 &&
      'Changes of entries for which only a secret vouches that is not among `secrets`: add it there, at the end.',
  ].filter((sentence) => typeof sentence === 'string')
}
