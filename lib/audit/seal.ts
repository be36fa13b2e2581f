import { msSql } from '../../models/api-key'
import { literal } from '../../models/names'
import { entryDigestSql } from '../../models/sealed-entry'
import type { Tables } from '../../models/tables'
import { warn } from '../../models/warnings'
import type { Connection } from '../database/connection'
import { causeOf, sqlStateOf } from '../database/failures'
import { isFedSql } from '../database/query'
import { inTransaction, writeLimitMs } from '../database/writer'
import type { Emitter } from '../keys/emitter'
import { readAgreeingStates } from './agreeing-states'
import { entriesDigestSql } from './chain'
import { contentSql, readContent, type Content, type StoredEntry } from './entry'
import { checkHead, endOf, endSql, isReliable, isUnused, moveHeadSql, withoutClaims } from './head'
import type { End, Head, SigningParts } from './head'
import { makeSeals, type Waiting } from './make-seals'
import { readKeysWithoutEntries, sumAfter, sumAnew, writeOriginsSql } from './origins'

/*
 * Each entry waits in a queue, which a trigger fills. sealer.ts decides when a process seals. A process reads the end of the chain
 * and a page of the queue in one statement, and writes in another, if the head still has the version that was read. Between the
 * two, it holds no lock. So a process that stops delays no other process. If two processes have read the same head,
 * only one of them writes. The chain is in the order of the sealing, which may differ from the order of the ids.
 */

/** The end of the chain, and entries that wait. */
interface Page extends End {
  /** In milliseconds since 1970, by the clock of the server. */
  readAt: number
  /** True if another process has just sealed. Then `waiting` is empty, even if entries wait. */
  isBusy: boolean
  /** True while a subscription feeds the seals. Seals of this database would keep those of the source out. */
  isFed: boolean
  isAny: boolean
  /** All transactions before this one had ended. */
  xmin: string
  waiting: readonly Waiting[]
  /** The digest of the rows of all of them; `null` if they were not read. */
  entriesDigest: string | null
  /** True if there may be more. */
  isFull: boolean
}

/** A page as the statement returns it. */
type ReadPage = Omit<Page, 'waiting' | 'isFull'> & {
  waiting: readonly (Omit<Waiting, 'entry' | 'createdAt'> & {
    content: Content | null
    createdAt: unknown
  })[]
}

/** The parts that seal. */
export interface SealingParts extends SigningParts {
  connection: Pick<Connection, 'query'>
  emitter: Pick<Emitter, 'emit'>
}

/**
 * The view that a process has of the chain and of the queue. It is only in memory, because it is wrong after a restore.
 */
export interface Look {
  /** True if a call waits for the seals. */
  isForced: boolean
  /** True to leave the entries to another process that has just sealed. */
  isPatient: boolean
  /** The hash of the last seal that this process has written. */
  hash: string
  /**
   * The first transaction whose entries may wait. Before it, the queue may have many dead rows, which are slow to skip.
   */
  from: string
  /** Called with entries that this process has sealed, as it has read them. */
  onSealed(entries: readonly StoredEntry[]): void
}

/** `busy` if another process has just sealed, and entries wait. */
export type Outcome = 'done' | 'more' | 'busy'

/** How many entries are sealed at a time, at one time of sealing. */
export const sealedAtOnce = 500

/** If they cannot be read, fewer are read, and at last one entry without its contents. */
const sizes = [sealedAtOnce, 25, 1, 0] as const

/** The SQLSTATEs of a statement that fails because of the values that it reads, or of their size. */
const isOfRows = /^(2[12]...|54...|53200|XX...)$/

/** How long a process waits for the head. */
export const lockLimitMs = 2_000

/** SQL that makes a commit survive a crash. A crash must not undo seals whose head was exported. */
export const durably = `SELECT set_config('synchronous_commit', 'on', true)
     WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')`

/** How long the other processes leave sealing to a process that has just sealed. */
const busyMs = 250

/**
 * The SQLSTATEs that put sealing off: a lock or the statement took too long, or transactions met. The third group is
 * for rows of the chain with values that the library never writes, so that the next seal has no place. Verification
 * reports such rows.
 */
const sealless = /^(55P03|57014|40001|40P01|2[123]...)$/

/** The SQLSTATE for a missing right, also if a policy denies it. */
export const notAllowed = '42501'

/** There is a head that the role does not see. A process that sees it seals the entries. */
class HiddenHeadError extends Error {}

/** Seals a page of the entries that wait, and notes in the look how far it got. */
export async function sealPage(parts: SealingParts, look: Look): Promise<Outcome> {
  try {
    return await trySealPage(parts, look)
  } catch (error) {
    if (error instanceof HiddenHeadError) warnOfHiddenHead(parts.tables)
    else if (!sealless.test(stateOf(error))) throw error
    return 'done'
  }
}

async function trySealPage(parts: SealingParts, look: Look): Promise<Outcome> {
  const { signer, tables } = parts
  let page = await readPage(parts, look)
  if (page.isFed) return 'done'
  if (!page.head) {
    // The row was removed. Sealing goes on all the same, because the seals show the removal.
    await putBackHead(parts)
    page = await readPage(parts, look)
  }
  const { head, tail, waiting } = page
  if (!head) throw new HiddenHeadError()
  if (page.isBusy) return page.isAny ? 'busy' : 'done'

  const isGood = isReliable(signer, head, tail)
  if (!isGood && checkHead(signer, head) === 'unknown') warnOfUnknownSecret(tables)
  // Instances with different secrets do not take turns to sign a head that stays as it is.
  const isOurs = look.isForced && isGood && head.mac !== null
  const sum = isOurs ? await sumAnew(parts, head) : null
  const isDue = isOurs && (head.secretId !== signer.secretId || sum !== null)
  if (waiting.length > 0 || isDue) {
    const hash = await write(parts, { ...page, head: { ...head, ...sum } }, isGood)
    if (hash === null) return 'more'
    look.hash = hash
    look.onSealed(waiting.flatMap(({ entry, isSealed }) => (entry && !isSealed ? [entry] : [])))
  }
  if (page.isFull) return 'more'
  look.from = page.xmin
  return 'done'
}

function stateOf(error: unknown): string {
  return sqlStateOf(causeOf(error))
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

async function putBackHead({ connection, tables }: SealingParts) {
  const sql = `INSERT INTO ${tables.auditHead} DEFAULT VALUES ON CONFLICT (is_the_one) DO NOTHING`
  await connection.query(sql, writeLimitMs).catch((error: unknown) => {
    throw stateOf(error) === notAllowed ? new HiddenHeadError() : error
  })
}

/**
 * Reads a page, a smaller one if that fails. One entry that cannot be read must not hold up the seals of all other
 * entries.
 */
async function readPage(parts: SealingParts, look: Look): Promise<Page> {
  for (const size of sizes) {
    try {
      return await readPageOf(parts, look, size)
    } catch (error) {
      if (size === 0 || !isOfRows.test(stateOf(error))) throw error
      if (size === 1) parts.emitter.emit('error', { error, notice: 'audit_entry_unreadable' })
    }
  }
  throw new Error('there is a last size')
}

/** SQL for the entries that wait, with the oldest transaction under way as `clock.xmin`. */
export function queueSql({ unsealed }: Tables, { from }: Pick<Look, 'from'>): string {
  // After a restore into another cluster, transactions have smaller numbers.
  return `${unsealed} WHERE xid >= CASE WHEN clock.xmin < '${from}' THEN '0' ELSE '${from}' END::xid8`
}

/**
 * Reads the end of the chain and entries that wait. Each entry that waits is looked up alone. Otherwise the server
 * would read all seals, because it expects many entries. An entry whose content cannot be read has the digest of its
 * row as text.
 */
async function readPageOf({ connection, tables }: SealingParts, look: Look, size: number) {
  const { auditHead, events, seals } = tables
  const textDigest = `encode(sha256(pg_catalog.convert_to(event::text, getdatabaseencoding())), 'hex')`
  const digest = size > 0 ? entryDigestSql('event') : textDigest
  const entries = size > 0 ? entriesDigestSql('event', 'ORDER BY event_id') : 'NULL'
  const limit = Math.max(size, 1)
  const queue = queueSql(tables, look)
  const sql = `
    SELECT (stored.json::jsonb || pg_catalog.jsonb_build_object(
             'readAt', ${msSql('clock.at')}, 'isBusy', is_busy, 'isFed', ${isFedSql(seals)}, 'xmin', xmin::text, 'isAny', EXISTS (
               SELECT FROM (SELECT xid FROM ${queue} ORDER BY xid, event_id LIMIT 1) AS first
             )
           ))::text AS stored, (
      SELECT pg_catalog.json_build_object('entriesDigest', ${entries}, 'waiting', coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
               'xid', waiting.xid::text, 'eventId', event_id::text,
               'isSealed', EXISTS (SELECT FROM ${seals} AS seal WHERE seal.event_id = waiting.event_id),
               'content', CASE WHEN event.id IS NOT NULL AND ${size > 0} THEN ${contentSql('event')} END,
               'createdAt', date_part('epoch', event.created_at) * 1000::float8,
               'digest', CASE WHEN event.id IS NOT NULL THEN ${digest} END
             ) ORDER BY event_id), '[]'))::text
        FROM (SELECT xid, event_id FROM ${queue} AND NOT is_busy ORDER BY xid, event_id LIMIT ${limit}) AS waiting
        LEFT JOIN LATERAL (SELECT * FROM ${events} WHERE id = waiting.event_id OFFSET 0) AS event ON true
    ) AS waiting
      FROM (${endSql(tables)}) AS stored, (
        SELECT clock_timestamp()::timestamptz(3) AS at, pg_snapshot_xmin(pg_current_snapshot()) AS xmin, ${look.isPatient} AND EXISTS (
          SELECT FROM ${auditHead} WHERE hash <> ${literal(look.hash)}
             AND sealed_at BETWEEN clock_timestamp() - interval '${busyMs} milliseconds' AND clock_timestamp()
        ) AS is_busy
      ) AS clock`
  const { rows } = await connection.query(sql, writeLimitMs)
  const [{ stored = null, waiting: list = null } = {}] = rows
  // These are the names in the statement.
  const page = { ...JSON.parse(stored ?? '{}'), ...JSON.parse(list ?? '{}') } as ReadPage
  const waiting = page.waiting.map(({ content, createdAt, ...found }): Waiting => {
    // JSON has an infinite time as text.
    return { ...found, entry: content && readContent(content), createdAt: Number(createdAt) }
  })
  return { ...page, waiting, isFull: waiting.length === limit }
}

/** Seals the entries of a page, and writes the head under the app's first secret. Returns the hash of the new end; `null` if the end had moved. */
async function write(parts: SealingParts, page: Page & { head: Head }, isGood: boolean) {
  const { connection, tables } = parts
  const { head, tail, version, waiting } = page
  const states = isGood ? await readStates(parts, page) : new Map<string, string>()
  const sealed = makeSeals(parts.signer, {
    ...page,
    before: endOf(head, tail),
    states,
    doubted: isGood ? null : head,
  })
  // As two arrays, which the server reads in a fraction of the time of as many rows.
  const [xids, ids] = [waiting.map(({ xid }) => xid), waiting.map(({ eventId }) => eventId)]
  const dequeueSql = `DELETE FROM ${tables.unsealed}
    WHERE (xid, event_id) IN (SELECT * FROM unnest('{${xids.join()}}'::xid8[], '{${ids.join()}}'::bigint[]))`
  // An unreliable head is only replaced together with a seal that doubts it.
  if (!isGood && sealed.length === 0) {
    await connection.query(inTransaction(dequeueSql, lockLimitMs), writeLimitMs)
    return head.hash
  }

  const { position, hash } = sealed.at(-1) ?? head
  const next = { ...(isGood ? head : withoutClaims(head, tail)), position, hash }
  // From the first seal on, each key has an entry.
  const adopted = isUnused(head) && !tail ? await readKeysWithoutEntries(parts) : null
  if (adopted) {
    Object.assign(next, sumAfter(parts, head, adopted), { adopted: String(adopted.length) })
  }
  const { rows } = await connection.query(
    inTransaction(
      `${durably};
       WITH moved AS (${moveHeadSql(parts, version, next)}),
            done AS (${dequeueSql} AND EXISTS (SELECT FROM moved)),
            ${writeOriginsSql(tables, adopted ?? [])},
            sealed AS (
              INSERT INTO ${tables.seals} SELECT * FROM pg_catalog.json_populate_recordset(NULL::${tables.seals}, ${literal(JSON.stringify(sealed))})
               WHERE EXISTS (SELECT FROM moved)
            )
       SELECT count(*)::text AS moved FROM moved`,
      lockLimitMs,
    ),
    writeLimitMs,
  )
  return rows[0]?.moved === '1' ? hash : null
}

/** Keys that cannot be read must not hold up the seals. */
async function readStates(parts: SealingParts, page: Page & { head: Head }) {
  try {
    return await readAgreeingStates(parts, page)
  } catch (error) {
    if (!isOfRows.test(stateOf(error))) throw error
    return new Map<string, string>()
  }
}
