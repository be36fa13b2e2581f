import { auditTriggers } from '../../migrations/audit-triggers'
import { createFunction } from '../../migrations/create-function'
import { alteredRoutinesSql } from '../../migrations/routines'
import { alteredTriggersSql } from '../../migrations/triggers'
import { allowMs } from '../database/answer-limit'
import type { AuditProgress } from '../keys/fields'
import { suspectsSql } from './agreeing-states'
import { checkBlocks } from './check-blocks'
import { checkUnsealedEntries } from './check-entries'
import { checkErasures, notesSql, readNotes } from './check-erasures'
import { checkOrigins } from './check-origins'
import { checkRepeats } from './check-repeats'
import { checkSuspensions } from './check-suspensions'
import { checkTables } from './check-tables'
import { checkKeys, entriesByKeySql } from './check-keys'
import { checkAnchor, endWalk, startWalk, type Walk } from './check-seals'
import { createFindings, joinFindings, type AuditFault, type Findings } from './faults'
import { endSql, refuseForeign, signExport } from './head'
import type { AuditHead, End, Trail } from './head'
import { exportSnapshot, readBeside } from './read-beside'
import {
  beginReadingSql,
  createReader,
  readSnapshotSql,
  statementLimitMs,
  type Verification,
} from './read-trail'

/** The result of a verification of the audit trail. */
export interface AuditVerification {
  /** True if every entry could be checked, and nothing is wrong. */
  isIntact: boolean
  /** How many entries were checked. */
  entries: number
  /** How many entries came before them and were pruned. */
  pruned: number
  /** The number of keys that were there before the trail, and were taken over as they were. */
  adopted: number
  /** How many entries have lost personal values by `eraseOwner`. */
  erased: number
  /** How many entries were written during the verification. They are sealed soon. */
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

/** The options of a verification. */
export interface VerificationOptions {
  /** A head that was exported before and kept elsewhere. */
  head?: AuditHead | undefined
  /** If it throws, the verification ends with its error. */
  onProgress?: ((progress: AuditProgress) => void) | undefined
}

/**
 * Compares the whole trail with its seals, with itself and with the keys, in one snapshot.
 */
export async function verify(trail: Trail, options: VerificationOptions) {
  const { sequelize, signer } = trail
  if (options.head) refuseForeign(signer, options.head)

  return sequelize.transaction(async (transaction) => {
    allowMs(transaction, statementLimitMs)
    await sequelize.query(readSnapshotSql(), { transaction })
    const snapshot = await exportSnapshot(sequelize, transaction)
    await sequelize.query(beginReadingSql(entriesByKeySql(trail.tables)), { transaction })
    const suspects = readBeside(sequelize, snapshot, suspectsSql(trail.tables))
    const reader = createReader(sequelize, transaction)
    try {
      return await verifySnapshot(trail, { reader, suspects }, options)
    } finally {
      await suspects.end(transaction)
    }
  })
}

async function verifySnapshot(
  { signer, tables }: Trail,
  { reader, suspects }: Pick<Verification, 'reader' | 'suspects'>,
  { head: anchor, onProgress }: VerificationOptions,
): Promise<AuditVerification> {
  const ends = await reader.read('its end', endSql(tables))
  const { head = null, tail = null } = ends[0] ? (JSON.parse(ends[0]) as End) : {}
  const [beside, ofKeys, ofTriggers] = [createFindings(), createFindings(), createFindings()]
  const walk = startWalk(createFindings(), signer, head)
  const total = Math.max((tail?.position ?? 0) - walk.start.position, 0)
  const onRows = createCounter(total, onProgress)
  const notes = await reader.read('its erasures', notesSql(tables))
  const erasures = readNotes(signer, notes, ['valid', 'unknown'])
  const verification = { reader, suspects, tables, onRows, anchor }

  const sealed = await checkBlocks(walk, beside, verification, erasures)
  const { unproven } = erasures
  const besideWalk = { ...walk, findings: beside }
  const unsealed = await checkUnsealedEntries(besideWalk, verification, { sealed, unproven })
  endWalk(walk)
  if (anchor) checkAnchor(walk, anchor)
  await checkOrigins({ ...walk, findings: ofTriggers }, verification)
  const found = joinFindings([reader.findings, walk.findings, beside, ofTriggers])
  const areSealsIntact = found.faultCount === 0 && found.unverifiable === 0
  await checkKeys(ofKeys, verification, areSealsIntact ? walk.late : null)
  await checkRepeats(ofTriggers, verification)
  await checkSuspensions(ofTriggers, verification)
  await checkTriggers(ofTriggers, verification)
  await checkTables(ofTriggers, verification)
  const erased = await checkErasures(ofTriggers, verification, erasures)

  const all = [reader.findings, walk.findings, beside, ofKeys, ofTriggers]
  const { faults, faultCount, unverifiable } = joinFindings(all)
  const { entries, start, end } = walk
  onProgress?.({ verified: entries, total: entries })
  const isIntact = faultCount === 0 && unverifiable === 0
  const adopted = Number(head?.adopted ?? 0)
  const counts = { entries, pruned: start.position, adopted, erased, unsealed, unverifiable }
  const exported = isIntact ? signExport(signer, end) : null
  const cannotFind = limitsOf(walk, { unverifiable, erased }, anchor)
  return { isIntact, ...counts, head: exported, faults, cannotFind }
}

/** Counts seals. */
function createCounter(total: number, onProgress: VerificationOptions['onProgress']) {
  let rows = 0
  return (count: number) => {
    rows += count
    onProgress?.({ verified: Math.min(rows, total), total })
  }
}

async function checkTriggers(findings: Findings, { reader, tables }: Verification) {
  const altered = `
    SELECT 'trigger ' || name AS json FROM (${alteredTriggersSql(auditTriggers(tables))}) AS trigger
     UNION ALL
    SELECT 'function ' || name FROM (${alteredRoutinesSql([createFunction(tables)])}) AS function`
  for (const guard of await reader.read('its triggers', altered)) {
    const message = `The ${guard} is gone, switched off or not as it was made.`
    findings.report('unguarded', {}, message)
  }
}

/** Returns the changes that a verification would not have found, in sentences. */
function limitsOf(
  { signer, start }: Walk,
  { unverifiable, erased }: Pick<AuditVerification, 'unverifiable' | 'erased'>,
  anchor?: AuditHead,
): string[] {
  const isForgeable = signer.isKeyed && signer.acceptUnkeyed
  const isPruned = anchor !== undefined && anchor.position < start.position
  return [
    'An entry of `database` that was written by hand, and that fits: it looks like one of a trigger.',
    'An entry that was removed together with its change before it was sealed: only the process that made the change reports it (`audit_entry_lost`).',
    'Another time of an entry that was taken out and put in again before it was sealed, from five minutes before its signature to five minutes after its seal; and if older entries were pruned, another place of an entry about a suspension, from that time on.',
    'Changes by a superuser who has replaced functions of Postgres: the database computes the digests of entries and of their seals.',
    'Rows that a policy for row level security hides from verification: with it, the owner of a table can hide a key or a suspension.',
    'A change of what no entry has: the times of changes and uses of a key, retired secrets, the reason and the time of a suspension; and with the triggers off `renewed_at`, `revoked_at`, `source`, `created_by` and the ids of secrets.',
    'A key that was put in within a day together with its entry of another database, if the apps of both have the same `secrets`, or none: give each database secrets of its own.',
    !signer.isKeyed &&
      'A trail that was computed again as a whole, which needs no secret: set the option `secrets`.',
    erased > 0 &&
      'A change of a personal value of a key whose entries were erased, for example of its name: no entry vouches for the value before.',
    isForgeable &&
      'A trail that was forged without a secret, as if from before there were secrets, as long as `acceptUnkeyed` is set.',
    !anchor &&
      'A trail that was put back as a whole or started over, with its head: keep a head elsewhere, and pass it.',
    isPruned &&
      'A trail other than the trail of the head that was passed: the last entry of that head was pruned.',
    unverifiable > 0 &&
      'Changes of entries for which only a secret vouches that is not among `secrets`: add it there, at the end.',
  ].filter((sentence) => typeof sentence === 'string')
}
