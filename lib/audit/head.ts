import type { Sequelize } from 'sequelize'

import { timeSql } from '../../models/audit-trail'
import { literal } from '../../models/names'
import type { Tables } from '../../models/tables'
import type { Connection } from '../database/connection'
import { selectJson } from '../database/query'
import { ApiKeysError, InvalidInputError } from '../errors'
import { isPlainObject } from '../keys/metadata'
import type { Signature, SignatureCheck, Signer } from './signing'

/** The parts that the functions of this folder work with. */
export interface Trail extends SigningParts {
  sequelize: Sequelize
  /** For writes in the background, for which neither the app nor a change waits. */
  connection: Connection
}

/** The parts that suffice to sign. */
export interface SigningParts {
  tables: Tables
  signer: Signer
}

/** A place in the chain, with the hash of everything up to there: an empty one at position 0, where the chain begins. */
export interface Link {
  position: number
  hash: string
}

/**
 * The row that says where the chain ends. It also holds the checkpoint, where the chain begins after entries were pruned. One
 * signature covers both; before the first seal there is none. A process writes the row only if it is still as the process read it.
 */
export interface Head extends Link {
  /** The last seal that was pruned, by its position as text; 0 and an empty hash for none. */
  checkpointPosition: string
  checkpointHash: string
  /** The greatest id of an entry that was pruned. */
  lastPrunedId: string
  /** All entries that were pruned are older; `null` for none. */
  prunedBefore: string | null
  /** The number of origins, as text, and the sum of their signatures, in hexadecimal. */
  originCount: string
  originSum: string
  /** The secret of those signatures. */
  originSecretId: string | null
  /** The number of keys from before the trail that were adopted as origins, as text; `null` before that. */
  adopted: string | null
  mac: string | null
  secretId: string | null
}

/** The head, its version, and the last seal with the greatest id of an entry that has a seal. */
export interface End {
  head: Head | null
  /** It changes with each write to the row. */
  version: string | null
  tail: (Link & { lastEventId: string }) | null
}

const columns = {
  position: 'position',
  hash: 'hash',
  checkpointPosition: 'checkpoint_position',
  checkpointHash: 'checkpoint_hash',
  lastPrunedId: 'last_pruned_id',
  prunedBefore: 'pruned_before',
  originCount: 'origin_count',
  originSum: 'origin_sum',
  originSecretId: 'origin_secret_id',
  adopted: 'adopted',
} as const

/** The names of the signed members, in that order. The compiler knows them, `Object.keys` does not. */
const names = Object.keys(columns) as (keyof typeof columns)[]

/**
 * SQL for the version of the head. Its values are not enough, because a new trail may begin with the values of an old
 * trail.
 */
const versionSql = `xmin::text || ctid::text`

/** SQL for the end of the chain as JSON. One statement has one snapshot, so that no seal comes between head and tail. */
export function endSql({ auditHead, seals }: Tables): string {
  return `
    SELECT pg_catalog.json_build_object('version', (SELECT ${versionSql} FROM ${auditHead}), 'head', (
      SELECT pg_catalog.json_build_object(
               'position', position, 'hash', hash, 'checkpointPosition', checkpoint_position::text,
               'checkpointHash', checkpoint_hash, 'lastPrunedId', last_pruned_id::text,
               'prunedBefore', coalesce(${timeSql('pruned_before')}, pruned_before::text), 'originCount', origin_count::text,
               'originSum', origin_sum, 'originSecretId', origin_secret_id, 'adopted', adopted::text, 'mac', mac, 'secretId', secret_id
             ) FROM ${auditHead}
    ), 'tail', (
      SELECT pg_catalog.json_build_object('position', position, 'hash', hash, 'lastEventId', (SELECT max(event_id)::text FROM ${seals}))
        FROM ${seals} ORDER BY position DESC LIMIT 1
    ))::text AS json`
}

/**
 * Signs a head, and returns SQL that writes it if the row still has the version that was read. It returns a row if it
 * does. Otherwise another process was faster. No lock is held from the reading to the writing.
 */
export function moveHeadSql({ signer, tables }: SigningParts, version: string | null, head: Head) {
  const { mac, secretId } = signer.sign('head', headText(head))
  const row = Object.fromEntries(names.map((name) => [columns[name], head[name]]))
  const json = literal(JSON.stringify({ ...row, mac, secret_id: secretId }))
  const list = [...Object.values(columns), 'mac', 'secret_id'].join(', ')
  return `
    UPDATE ${tables.auditHead} SET sealed_at = clock_timestamp(),
           (${list}) = (SELECT ${list} FROM pg_catalog.json_populate_record(NULL::${tables.auditHead}, ${json}))
     WHERE ${versionSql} = ${literal(version ?? '')} RETURNING position`
}

/** Returns the text of a head that is signed. */
export function headText(head: Head): string {
  return JSON.stringify(names.map((name) => head[name]))
}

/** Checks the signature of a head. */
export function checkHead(signer: Signer, head: Head): SignatureCheck {
  const { mac, secretId } = head
  return mac === null ? 'invalid' : signer.check('head', headText(head), { mac, secretId })
}

const unusedText = JSON.stringify([0, '', '0', '', '0', null, '0', '0'.repeat(64), null, null])

/** True if nothing was sealed or pruned yet, so that the head is as `migrate()` has made it. */
export function isUnused(head: Head): boolean {
  return head.mac === null && headText(head) === unusedText
}

/** True if the head is validly signed and names the last seal. */
export function isReliable(signer: Signer, head: Head, tail: Link | null): boolean {
  const { position, hash } = endOf(head, tail)
  if (head.position !== position || head.hash !== hash) return false
  return isUnused(head) || checkHead(signer, head) === 'valid'
}

/** Returns the last link, or the place where the chain begins. */
export function endOf({ checkpointPosition, checkpointHash }: Head, tail: Link | null): Link {
  return tail ?? { position: Number(checkpointPosition), hash: checkpointHash }
}

/**
 * Takes a head that is not reliable, and returns a head that a process may sign. The new head claims no pruning beyond the last
 * sealed entry.
 */
export function withoutClaims(head: Head, tail: End['tail']): Head {
  const { lastPrunedId: claimed, prunedBefore: time } = head
  const sealed = tail?.lastEventId ?? '0'
  const lastPrunedId = BigInt(claimed) < BigInt(sealed) ? claimed : sealed
  const isPast = time === null || Date.parse(time) < Date.now()
  return { ...head, lastPrunedId, prunedBefore: isPast ? time : new Date().toISOString() }
}

/** Reads a head that a seal doubts; `null` if the text was never a head. Its signature says if its members are good. */
export function readHead(json: string): Head | null {
  try {
    const head = JSON.parse(json) as Head
    return isPlainObject(head) && headText(head) !== '' ? head : null
  } catch {
    return null
  }
}

/** The end of the audit trail: how many entries there were, and a hash of all of them. */
export interface AuditHead extends Link, Signature {
  /** When it was exported. */
  at: string
}

/** Returns the signed end of the chain, to be kept elsewhere. */
export async function exportHead({ sequelize, signer, tables }: Trail): Promise<AuditHead> {
  const options = { transaction: null }
  const [{ head, tail }] = await selectJson<[End]>(sequelize, endSql(tables), options)
  if (!head || !isReliable(signer, head, tail)) throw new ApiKeysError('audit_trail_not_intact')
  return signExport(signer, head)
}

/** Signs the end of the chain for use elsewhere. This signature is not valid in the table. */
export function signExport(signer: Signer, { position, hash }: Link): AuditHead {
  const unsigned = { position, hash, at: new Date().toISOString() }
  return { ...unsigned, ...signer.sign('exported head', exportText(unsigned)) }
}

/**
 * Refuses a head that this trail did not export, because a good trail would look bad beside it. A head of a secret that is gone
 * is accepted as it is.
 */
export function refuseForeign(signer: Signer, head: AuditHead) {
  if (signer.check('exported head', exportText(head), head) !== 'invalid') return
  throw new InvalidInputError([{ pointer: '#/head', message: 'was not exported here' }])
}

function exportText({ position, hash, at }: Omit<AuditHead, keyof Signature>): string {
  return JSON.stringify([position, hash, at])
}
