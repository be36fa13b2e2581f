import { hash as digestOf } from 'node:crypto'

import type { Transaction } from 'sequelize'

import type { Tables } from '../../models/tables'
import { warn } from '../../models/warnings'
import { sqlStateOf } from '../database/failures'
import { selectJson } from '../database/query'
import { ApiKeysError } from '../errors'
import { checkEntry, contentSql, entryDigestSql, readContent } from './entry'
import { checkHead, endOf, endSql, isReliable } from './head'
import { signExport, toHeadRow, withoutClaims, writeHeadSql } from './head'
import type { AuditHead, End, Head, Trail, Link } from './head'

/*
 * Each entry has a seal, and the seals are a chain:
 *
 *   digest = SHA-256(the whole entry as the database has it)
 *   hash   = SHA-256(hash of the seal before, members of the seal, the digest among them)
 *   mac    = HMAC(secret, hash)
 *
 * Only the last seal of those that are written at once has a MAC. It vouches for all entries up to there.
 *
 * The hash covers the id of the secret. Otherwise a seal could pass for a seal of a secret that is gone.
 *
 * The head has the number of seals and the hash of the last seal, under an HMAC of its own. A hash covers everything before it,
 * so one signature that can be checked vouches for all entries up to there, whatever secrets signed them.
 *
 * A transaction of the library seals its entries when it is about to commit. It locks the head then, after all other locks, so
 * that no transaction of the app ever holds the head. Entries that such transactions or triggers write wait for the next seal.
 * The chain is in the order of the sealing, which may differ from the order of the ids.
 */

/** An entry as it is sealed. */
export interface SealedEntry {
  eventId: string
  /** True if the library was found to have written the entry when it was sealed. */
  isGenuine: boolean
  /** The head that was found when the entry was sealed, as JSON, if it was not reliable; else `null`. */
  doubts: string | null
  /** The secret that signs the seal; `null` for none. */
  secretId: string | null
  /** Of the entry, by the database. */
  digest: string
}

/** A seal as `sealsSql` reads it. */
export interface Seal extends Link, SealedEntry {
  /** `null` for a seal before the last of those that were written at once. */
  mac: string | null
  /** The digest of the entry as it is now; `null` if the entry is gone; and so is `isOld`. */
  found: string | null
  /** `null` if the seal says that the library wrote the entry. */
  content: string | null
  isOld: boolean | null
}

/** An entry that waits for its seal; without content if it is gone or has a seal already. */
type Waiting = { xid: string; eventId: string; digest: string; content: string | null }

/** The entries that wait, and the end of the chain; `isGood` is true if the head is reliable. */
type Page = { head: Head; tail: End['tail']; isGood: boolean; waiting: readonly Waiting[] }

/** How many entries are sealed at a time: so few that other requests of the process do not wait. */
const sealedAtOnce = 200

/** How many entries of other transactions a change seals, so that it does not wait for all of them. */
const maxOthers = 100

/** How many seals are read at a time. */
export const pageSize = 2_000

/** How long a change waits for the lock on the head. After that, the next change seals its entries. */
const lockTimeoutMs = 2_000

/** How long a statement on a page of the trail may take. */
const statementLimitMs = 60_000

/** How long a process that stops may hold the head. Other processes wait for it no longer than this. */
const idleTimeoutMs = 5_000

/**
 * The SQLSTATEs that let a change go on without a seal: the lock took too long, or the statement that waited for it. Or the rows
 * of the chain have values that the library never writes, so that the next seal has no place. Verification reports such rows.
 */
const sealless = /^(55P03|57014|2[123]...)$/

/** The SQLSTATE for a missing right, also if a policy denies it. */
const notAllowed = '42501'

/** The savepoint to which a change goes back if it does not get the head in time. */
const savepoint = 'api_key_sealing'

/** There is a head that the role does not see. A process that sees it seals the entries. */
class HiddenHeadError extends Error {}

/**
 * Seals the entries of a transaction of the library that is about to commit, and some entries that wait. The head stays locked
 * until the transaction ends. If another process keeps the lock, the entries wait for the next change.
 */
export async function seal(trail: Trail, transaction: Transaction): Promise<void> {
  while ((await sealPage(trail, transaction, maxOthers)) >= sealedAtOnce);
}

/** Seals all entries that are committed, in short transactions. */
export async function sealAll(trail: Trail): Promise<void> {
  const sealOnce = (transaction: Transaction) => sealPage(trail, transaction, sealedAtOnce)
  while ((await trail.sequelize.transaction(sealOnce)) >= sealedAtOnce);
}

/** Seals all entries that are committed, and returns the signed end of the chain, to be kept elsewhere. */
export async function exportHead(trail: Trail): Promise<AuditHead> {
  const { sequelize, signer, tables } = trail
  await sealAll(trail)
  const options = { transaction: null }
  const [{ head, tail }] = await selectJson<[End]>(sequelize, endSql(tables), options)
  if (!head || !isReliable(signer, head, tail)) throw new ApiKeysError('audit_trail_not_intact')
  return signExport(signer, head)
}

/** Returns the number of entries that waited; 0 if none of them can be sealed now. */
async function sealPage(trail: Trail, transaction: Transaction, others: number): Promise<number> {
  try {
    return await sealPageInTime(trail, transaction, others)
  } catch (error) {
    if (error instanceof HiddenHeadError) warnOfHiddenHead(trail.tables)
    else if (!sealless.test(sqlStateOf(error))) throw error
    await trail.sequelize.query(`ROLLBACK TO SAVEPOINT ${savepoint}`, { transaction })
    return 0
  }
}

async function sealPageInTime(trail: Trail, transaction: Transaction, others: number) {
  const { sequelize, signer, tables } = trail
  const sql = pageSql(tables, others)
  const read = () => selectJson<[End, ...Waiting[]]>(sequelize, sql, { transaction })
  let [{ head, tail }, ...waiting] = await read()
  if (!head) {
    // The row was removed. The change goes on all the same, because the seals show the removal.
    await putBackHead(trail, transaction)
    ;[{ head, tail }, ...waiting] = await read()
  }
  if (!head) throw new HiddenHeadError()

  const isGood = isReliable(signer, head, tail)
  if (!isGood && checkHead(signer, head) === 'unknown') warnOfUnknownSecret(tables)
  const isDue = isGood && head.mac !== null && head.secretId !== signer.secretId
  if (waiting.length > 0 || isDue) await write(trail, { head, tail, isGood, waiting }, transaction)
  return waiting.length
}

function warnOfHiddenHead({ auditHead }: Tables) {
  warn(
    'API_KEYS_HEAD_HIDDEN',
    `The row of ${auditHead} is hidden from the role that the app runs as, by row level security for example. So new entries ` +
      'of the audit trail are not sealed. Give the role a policy that lets it read and write the row.',
  )
}

/** Two instances write the trail with different secrets, or the old secret was removed too early. */
function warnOfUnknownSecret({ auditHead }: Tables) {
  warn(
    'API_KEYS_TRAIL_SECRET_UNKNOWN',
    `The end of the audit trail (${auditHead}) is signed with a secret that is not among the option secrets, so that the ` +
      'trail cannot be verified. Add that secret behind the others. Instances that share a schema need all secrets of each other.',
  )
}

async function putBackHead({ sequelize, tables }: Trail, transaction: Transaction) {
  const sql = `INSERT INTO ${tables.auditHead} DEFAULT VALUES ON CONFLICT (is_the_one) DO NOTHING`
  await sequelize.query(sql, { transaction }).catch((error: unknown) => {
    throw sqlStateOf(error) === notAllowed ? new HiddenHeadError() : error
  })
}

/** SQL that locks the head. The settings hold for the transaction alone. The settings of the session stay as they are. */
export function lockHeadSql({ auditHead }: Tables): string {
  return `
    SELECT set_config('idle_in_transaction_session_timeout', '${idleTimeoutMs}', true),
           set_config('statement_timeout', '${statementLimitMs}', true);
    SELECT FROM ${auditHead} FOR UPDATE`
}

/**
 * SQL that locks the head, then reads the end of the chain and the entries that wait. It is one text, for one round trip. Each
 * statement sees what was committed when it began, which is after the lock was taken.
 *
 * Each entry that waits is looked up alone. Otherwise the server, which does not know how few there are, would read all seals.
 *
 * The savepoint stays open until the end: a row that is locked within a savepoint and written after it costs a multixact. Then
 * the timeouts are put back, because deferred triggers may wait for locks as long as they could before.
 */
function pageSql(tables: Tables, others: number): string {
  const { events, seals, unsealed, settings } = tables
  const { waiting } = settings
  return `
    SAVEPOINT ${savepoint};
    SELECT set_config('${waiting}', current_setting('lock_timeout') || ' ' || current_setting('statement_timeout'), true);
    SELECT set_config('lock_timeout', '${lockTimeoutMs}', true);
    ${lockHeadSql(tables)};
    SELECT set_config('lock_timeout', split_part(current_setting('${waiting}'), ' ', 1), true),
           set_config('statement_timeout', split_part(current_setting('${waiting}'), ' ', 2), true);
    ${endSql(tables)};
    SELECT json_build_object(
             'xid', waiting.xid::text, 'eventId', event_id::text, 'digest', ${entryDigestSql('event')},
             'content', CASE WHEN event.id IS NOT NULL AND NOT EXISTS (SELECT FROM ${seals} AS seal WHERE seal.event_id = event.id) THEN ${contentSql('event')} END
           )::text AS json
      FROM (
        (SELECT xid, event_id FROM ${unsealed} WHERE xid = pg_current_xact_id() ORDER BY event_id LIMIT ${sealedAtOnce})
         UNION
        (SELECT xid, event_id FROM ${unsealed} ORDER BY xid, event_id LIMIT ${others})
      ) AS waiting LEFT JOIN LATERAL (SELECT * FROM ${events} WHERE id = waiting.event_id OFFSET 0) AS event ON true
     ORDER BY event_id`
}

/** Seals the entries of a page, and writes the head under the app's first secret. */
async function write(trail: Trail, page: Page, transaction: Transaction) {
  const { sequelize, signer, tables } = trail
  const { head, tail, isGood, waiting } = page
  const sealed = sealEntries(trail, page)
  const done = [waiting.map(({ xid }) => xid), waiting.map(({ eventId }) => eventId)]
  const dequeueSql = `
    DELETE FROM ${tables.unsealed} AS waiting USING unnest($1::text[], $2::bigint[]) AS done (xid, event_id)
     WHERE waiting.xid = done.xid::xid8 AND waiting.event_id = done.event_id`
  // An unreliable head is only replaced together with a seal that doubts it.
  if (!isGood && sealed.length === 0) {
    await sequelize.query(dequeueSql, { bind: done, transaction })
    return
  }

  const { position, hash } = sealed.at(-1) ?? head
  const next = { ...(isGood ? head : withoutClaims(head, tail)), position, hash }
  await sequelize.query(
    `WITH done AS (${dequeueSql}), sealed AS (
       INSERT INTO ${tables.seals} SELECT * FROM json_populate_recordset(NULL::${tables.seals}, $3::json)
     )
     ${writeHeadSql(tables, '$4')}`,
    { bind: [...done, JSON.stringify(sealed), toHeadRow(signer, next)], transaction },
  )
}

/** Returns the seals of the entries of a page, as rows of the table. */
function sealEntries({ signer }: Trail, { head, tail, isGood, waiting }: Page) {
  let { position, hash } = endOf(head, tail)
  let doubts = isGood ? null : JSON.stringify(head)
  const sealed = []
  // An entry may wait twice, or may have been removed.
  const entries = new Map(waiting.map((entry) => [entry.eventId, entry]))
  for (const { eventId, digest, content } of entries.values()) {
    if (content === null) continue

    const isGenuine = checkEntry(signer, readContent(content)) === 'valid'
    position++
    const { secretId: secret_id } = signer
    hash = hashOf(hash, { eventId, isGenuine, doubts, secretId: secret_id, digest })
    const row = {
      position,
      event_id: eventId,
      is_genuine: isGenuine,
      doubts,
      digest,
      hash,
      secret_id,
    }
    sealed.push(row)
    doubts = null
  }
  Object.assign(sealed.at(-1) ?? {}, { mac: signer.sign('seal', hash).mac })
  return sealed
}

/** Returns the hash of a seal, which covers the entry and everything before it. */
export function hashOf(previous: string, entry: SealedEntry): string {
  const { eventId, isGenuine, doubts, secretId, digest } = entry
  const members = JSON.stringify([eventId, isGenuine, doubts, secretId])
  return digestOf('sha256', [previous, members, digest].join('\n'))
}

/** SQL for a page of seals after a position, with their entries, as JSON. Entries from before a time are old. */
export function sealsSql(tables: Tables, after: number | string, before = `'infinity'`): string {
  return `
    SELECT json_build_object(
             'position', seal.position, 'hash', seal.hash, 'eventId', seal.event_id::text,
             'isGenuine', seal.is_genuine, 'doubts', seal.doubts, 'mac', seal.mac, 'secretId', seal.secret_id,
             'digest', seal.digest, 'found', CASE WHEN event.id IS NOT NULL THEN ${entryDigestSql('event')} END,
             'isOld', event.created_at < ${before}::timestamptz,
             'content', CASE WHEN event.id IS NOT NULL AND NOT seal.is_genuine THEN ${contentSql('event')} END
           )::text AS json
      FROM ${tables.seals} AS seal LEFT JOIN ${tables.events} AS event ON event.id = seal.event_id
     WHERE seal.position > ${after}
     ORDER BY seal.position LIMIT ${pageSize}`
}
