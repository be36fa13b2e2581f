import { createHash } from 'node:crypto'

import type { Sequelize, Transaction } from 'sequelize'

import { timeSql, type AuditTrail } from '../../models/audit-trail'
import type { ActorType, EventAction } from '../../models/api-key-event'
import { literal } from '../../models/names'
import { limitStatements, select as selectRows } from '../../models/statements'
import { warn } from '../../models/warnings'
import { ApiKeysError } from '../errors'
import { entryText, type WrittenEntry } from './trail'
import { sqlStateOf } from '../database/failures'
import type { Pruning } from '../keys/input'
import { isPlainObject } from '../keys/metadata'
import type { Signature, SignatureCheck, Signer } from './signing'

/*
 * Each entry has a seal, and the seals are a chain:
 *
 *   hash = SHA-256(hash of the seal before, what the seal says, the whole entry as the database has it)
 *   mac  = HMAC(secret, hash)
 *
 * The hash covers the id of the secret, too: otherwise a seal could pass for one of a secret that is gone.
 *
 * The head says how many seals there are and what the hash of the last one is, under an HMAC of its own. As a hash speaks for
 * everything before it, one signature that can be checked vouches for all entries up to there, whichever secrets were
 * in use when they were written.
 *
 * Entries are sealed when a transaction of the library's own is about to commit. The head is locked for that, after all
 * else; so it is never held in a transaction of the app's. What those write, and what triggers write, waits for the next.
 * The chain is in the order of the sealing, which need not be that of the ids.
 */

/** The end of the audit trail: how many entries there were, and a hash that speaks for all of them. */
export interface AuditHead {
  position: number
  /** 64 hexadecimal characters; empty before the first entry. */
  hash: string
  /** When it was exported. */
  at: string
  /** Of the secret that signs it; `null` for none. */
  secretId: string | null
  mac: string
}

/** A place in the chain that others are linked to. */
export interface Link {
  position: number
  hash: string
}

interface Checkpoint extends Link, Signature {
  /** The greatest id that was pruned. */
  lastEventId: string
  /** Everything pruned was older. */
  createdBefore: string
  prunedAt: string
}

/** The row of the head. It has no signature until something was sealed. */
export interface HeadRow extends Link {
  mac: string | null
  secretId: string | null
  checkpointPosition: number
  legacyUntil: string
  legacySealed: string
  /** `null` for a time that is infinite, which is never ours. */
  startedAt: string | null
  checkpoint: Checkpoint | null
}

/** An entry as it is sealed. */
export interface SealedEntry {
  eventId: string
  /** Whether it was found to be ours when it was sealed. */
  isGenuine: boolean
  /** The head that was found when it was sealed, as JSON, where that was not to be relied on; else `null`. */
  doubts: string | null
  /** Of the secret that signs the seal; `null` for none. */
  secretId: string | null
  /** The entry, but for its id, as the database has it. */
  content: string
}

interface Head {
  head: HeadRow | null
}

interface Tail {
  tail: LastSeal | null
}

interface LastSeal extends Link {
  /** The greatest id that is sealed. */
  lastEventId: string
}

/** An event that waits to be sealed; without content where there is nothing to seal. */
interface Waiting {
  xid: string
  eventId: string
  content: string | null
}

interface FoundHead {
  head: HeadRow
  tail: LastSeal | null
  isReliable: boolean
}

type PruningTimes = Pick<Checkpoint, 'createdBefore' | 'prunedAt'>

/** A seal; without content, and no age, where the event is gone. */
interface Prunable extends Link, Signature, Omit<SealedEntry, 'content' | 'secretId'> {
  content: string | null
  isOld: boolean | null
}

export type AuditChain = ReturnType<typeof createAuditChain>

interface AuditChainParts {
  sequelize: Sequelize
  trail: AuditTrail
  signer: Signer
}

/** How many entries are pruned or read at a time. */
export const pageSize = 2_000

/** How many entries are sealed at a time: so few that other requests of the process do not wait. */
const sealPageSize = 200

/**
 * The SQLSTATEs that let a change go on without a seal: the lock took too long, or the statement that waited for it, or the rows of the chain hold what ours
 * never do, so that the next seal has no place. Verification reports such rows.
 */
const sealless = /^(55P03|57014|2[123]...)$/

/** For so long a change waits for the head. What it has written is sealed by the next one then. */
const lockTimeoutMs = 2_000

/** How long a statement takes at most that works on a page of the trail. */
const statementLimitMs = 60_000

/** A process that stops while it has the head keeps everybody waiting for no longer. */
const idleTimeoutMs = 5_000

/** How many entries of others a change seals besides its own, so that nobody waits for what is not theirs. */
const maxOthers = 100

/** The savepoint to which a change goes back that did not get the head in time. */
const sealing = 'api_key_sealing'

/** The SQLSTATE of what a role has no right to, by a policy too. */
const notAllowed = '42501'

/** There is a head that the role does not see. What was written is sealed by a process that sees it. */
class HiddenHeadError extends Error {
  constructor(headTable: string, options?: ErrorOptions) {
    super(
      `The row of ${headTable} is hidden from the role that the app runs as, by row level security for example. So new entries ` +
        'of the audit trail are not sealed. Give the role a policy that lets it read and write the row.',
      options,
    )
  }
}

/** How the chain is written: sealed, exported and pruned. */
export function createAuditChain({ sequelize, trail, signer }: AuditChainParts) {
  const { events, seals, unsealed, head: headTable, checkpoints, pruning, waiting } = trail

  /** Settings of the transaction alone, which leave those of the session as they are. */
  const lockSql = `
    SELECT set_config('idle_in_transaction_session_timeout', '${idleTimeoutMs}', true);
    ${limitStatements(statementLimitMs)};
    SELECT FROM ${headTable} FOR UPDATE`

  // The savepoint stays open until the end: a row that is locked in one and written after it costs a multixact. Deferred
  // triggers may wait for as long as they could before.
  const lockInTimeSql = `
    SAVEPOINT ${sealing};
    SELECT set_config(
      '${waiting}', current_setting('lock_timeout') || ' ' || current_setting('statement_timeout'), true
    );
    SELECT set_config('lock_timeout', '${lockTimeoutMs}', true);
    ${lockSql};
    SELECT set_config('lock_timeout', split_part(current_setting('${waiting}'), ' ', 1), true),
           set_config('statement_timeout', split_part(current_setting('${waiting}'), ' ', 2), true)`

  const tailSql = `
    SELECT json_build_object('tail', (
      SELECT json_build_object(
               'position', position, 'hash', hash,
               'lastEventId', (SELECT max(event_id)::text FROM ${seals})
             )
        FROM ${seals} ORDER BY position DESC LIMIT 1
    ))::text AS json`

  const dequeueSql = `
    DELETE FROM ${unsealed} AS waiting
     USING unnest($1::text[], $2::bigint[]) AS done (xid, event_id)
     WHERE waiting.xid = done.xid::xid8 AND waiting.event_id = done.event_id`

  /** Runs statements that return JSON, each in one column of that name. */
  async function select<Shape>(sql: string, transaction: Transaction | null): Promise<Shape> {
    const rows = await selectRows<{ json: string }>(sequelize, sql, { transaction })
    // The callers know the shape of what they ask for.
    return rows.filter(({ json }) => json).map(({ json }): unknown => JSON.parse(json)) as Shape
  }

  /**
   * Seals what the transaction has written, and some of what others have left. For a transaction of ours that is about to
   * commit: the head stays locked until it has. Where somebody else keeps it, what was written waits for the next change.
   */
  async function seal(transaction: Transaction): Promise<void> {
    while ((await sealPage(transaction, maxOthers)) >= sealPageSize);
  }

  /** Seals all that is committed, in short transactions. */
  async function sealAll(): Promise<void> {
    const sealOnce = (transaction: Transaction) => sealPage(transaction, sealPageSize)
    while ((await sequelize.transaction(sealOnce)) >= sealPageSize);
  }

  /** Returns how many entries were waiting; 0 if none of them can be sealed now. */
  async function sealPage(transaction: Transaction, others: number): Promise<number> {
    try {
      return await sealPageInTime(transaction, others)
    } catch (error) {
      if (error instanceof HiddenHeadError) warn('API_KEYS_HEAD_HIDDEN', error.message)
      else if (!sealless.test(sqlStateOf(error))) throw error
      await sequelize.query(`ROLLBACK TO SAVEPOINT ${sealing}`, { transaction })
      return 0
    }
  }

  async function sealPageInTime(transaction: Transaction, others: number): Promise<number> {
    let [{ head }, { tail }, ...waiting] = await readPage(transaction, others)
    if (!head) {
      // Somebody has removed it. A change goes on all the same: the seals tell.
      await putBackHead(transaction)
      ;[{ head }, { tail }, ...waiting] = await readPage(transaction, others)
    }
    if (!head) throw new HiddenHeadError(headTable)

    const found = { head, tail, isReliable: isReliable(head, tail) }
    if (!found.isReliable && checkHead(signer, head) === 'unknown') warnOfUnknownSecret()
    const isDue = head.mac !== null && head.secretId !== signer.secretId && found.isReliable
    if (waiting.length > 0 || isDue) await write(found, waiting, transaction)
    return waiting.length
  }

  /** Either two instances write the trail with different secrets, or the old secret was removed too early. */
  function warnOfUnknownSecret() {
    warn(
      'API_KEYS_TRAIL_SECRET_UNKNOWN',
      `The end of the audit trail (${headTable}) is signed with a secret that is not among the option secrets, so that the ` +
        'trail cannot be verified. Add that secret behind the others. Instances that share a schema need all secrets of each other.',
    )
  }

  async function putBackHead(transaction: Transaction) {
    const sql = `INSERT INTO ${headTable} DEFAULT VALUES ON CONFLICT (is_the_one) DO NOTHING`
    try {
      await sequelize.query(sql, { transaction })
    } catch (error) {
      if (sqlStateOf(error) !== notAllowed) throw error
      throw new HiddenHeadError(headTable, { cause: error })
    }
  }

  /** Locks the head, then reads it, the end of the chain and what waits to be sealed. */
  async function readPage(transaction: Transaction, others: number) {
    // In one text, for one round trip. Each statement sees what was committed when it began: after the lock was got.
    return select<[Head, Tail, ...Waiting[]]>(
      `${lockInTimeSql};
       ${headSql(trail)};
       ${tailSql};
       SELECT json_build_object('xid', xid::text, 'eventId', event_id::text, 'content', (
                -- Looked up one by one: the server does not know how few there are, and would read all seals.
                SELECT ${contentSql('event')} FROM ${events} AS event
                 WHERE event.id = waiting.event_id
                   AND NOT EXISTS (SELECT FROM ${seals} AS seal WHERE seal.event_id = event.id)
              ))::text AS json
         FROM (
           (SELECT xid, event_id FROM ${unsealed} WHERE xid = pg_current_xact_id()
             ORDER BY event_id LIMIT ${sealPageSize})
            UNION
           (SELECT xid, event_id FROM ${unsealed} ORDER BY xid, event_id LIMIT ${others})
         ) AS waiting
        ORDER BY event_id`,
      transaction,
    )
  }

  /** Writes the seals, and the head under the app's first secret. */
  async function write(found: FoundHead, waiting: readonly Waiting[], transaction: Transaction) {
    const { tail } = found
    const head = found.isReliable ? found.head : withoutClaims(found.head, tail)
    let { position, hash } = endOf(head, tail)
    let { legacySealed } = head
    let doubts = found.isReliable ? null : JSON.stringify(found.head)
    const sealed: (SealedEntry & Link & Signature)[] = []

    const seen = new Set<string>()
    for (const { eventId, content } of waiting) {
      // Somebody may have removed it, or had it wait twice.
      if (content === null || seen.has(eventId)) continue
      seen.add(eventId)
      const isLegacy =
        BigInt(eventId) > BigInt(legacySealed) && BigInt(eventId) <= BigInt(head.legacyUntil)
      if (isLegacy) legacySealed = eventId
      const isGenuine = isLegacy || checkEntry(signer, readContent(content)) === 'valid'
      const entry = { eventId, isGenuine, doubts, secretId: signer.secretId, content }
      position++
      hash = hashOf(hash, entry)
      sealed.push({ ...entry, position, hash, ...signer.sign('seal', hash) })
      doubts = null
    }

    const done = [waiting.map(({ xid }) => xid), waiting.map(({ eventId }) => eventId)]
    // A head that is in doubt is replaced together with the seal that says so.
    if (doubts !== null) {
      await sequelize.query(dequeueSql, { bind: done, transaction })
      return
    }
    const next = { ...head, position, hash, legacySealed }
    const signature = signer.sign('head', headText(next))
    await sequelize.query(
      `WITH done AS (${dequeueSql}), sealed AS (
         INSERT INTO ${seals} (position, event_id, is_genuine, doubts, hash, mac, secret_id)
         SELECT * FROM unnest(
           $3::bigint[], $4::bigint[], $5::boolean[], $6::text[], $7::text[], $8::text[], $9::text[]
         )
       )
       UPDATE ${headTable}
          SET position = $10, hash = $11, legacy_until = $12, legacy_sealed = $13, started_at = $14,
              mac = $15, secret_id = $16`,
      {
        bind: [
          ...done,
          sealed.map(({ position }) => position),
          sealed.map(({ eventId }) => eventId),
          sealed.map(({ isGenuine }) => isGenuine),
          sealed.map(({ doubts }) => doubts),
          sealed.map(({ hash }) => hash),
          sealed.map(({ mac }) => mac),
          sealed.map(({ secretId }) => secretId),
          next.position,
          next.hash,
          next.legacyUntil,
          next.legacySealed,
          next.startedAt,
          signature.mac,
          signature.secretId,
        ],
        transaction,
      },
    )
  }

  /** Whether the head is ours, and the chain ends where it says. */
  function isReliable(head: HeadRow, tail: Link | null): boolean {
    const { position, hash } = endOf(head, tail)
    if (head.position !== position || head.hash !== hash) return false

    const isNew = head.mac === null && position === 0 && head.checkpointPosition === 0
    return isNew || checkHead(signer, head) === 'valid'
  }

  /** Returns the end of the chain, for somebody to keep elsewhere. */
  async function exportHead(): Promise<AuditHead> {
    await sealAll()
    // In one statement, for one snapshot: nothing comes between the two.
    const [{ head }, { tail }] = await select<[Head, Tail]>(
      `(${headSql(trail)}) UNION ALL (${tailSql})`,
      null,
    )
    if (!head || !isReliable(head, tail)) throw new ApiKeysError('audit_trail_not_intact')
    return exportOf(signer, head)
  }

  /**
   * Removes entries from the start of the chain up to the first that is younger, a page at a time, each with the checkpoint
   * from which the chain goes on. Returns how many there were.
   */
  async function prune({ olderThanDays, dryRun }: Pruning): Promise<number> {
    const [times] = await select<[PruningTimes]>(
      `SELECT json_build_object(
                'createdBefore', ${timeSql(`(now() - ${olderThanDays} * interval '24 hours')`)},
                'prunedAt', ${timeSql('now()')}
              )::text AS json`,
      null,
    )
    if (dryRun) return countPrunable(times.createdBefore)

    await sealAll()
    let pruned = 0
    let last: { count: number; position: number } | undefined
    do {
      const before = last?.position
      last = await sequelize.transaction((own) => prunePage(times, before, own))
      pruned += last.count
    } while (last.count === pageSize)
    return pruned
  }

  /** Removes the checkpoint of the page before, so that one is left by each call. */
  async function prunePage(
    times: PruningTimes,
    before: number | undefined,
    transaction: Transaction,
  ): Promise<{ count: number; position: number }> {
    const [{ head }, { tail }, ...page] = await select<[Head, Tail, ...Prunable[]]>(
      `${lockSql};
       ${headSql(trail)};
       ${tailSql};
       ${prunableSql(times, `(SELECT checkpoint_position FROM ${headTable})`)}`,
      transaction,
    )
    // What somebody has changed is not covered up.
    if (!head || !isReliable(head, tail)) throw new ApiKeysError('audit_trail_not_intact')

    const firstYoung = page.findIndex(({ isOld }) => isOld === false)
    const old = firstYoung === -1 ? page : page.slice(0, firstYoung)
    const end = old.at(-1)
    if (!end) return { count: 0, position: head.checkpointPosition }

    const isVouchedFor = refuseBroken(old, endOf(head, null))
    if (!isVouchedFor) await refuseUnvouched(times, end, transaction)

    const { position, hash } = end
    const lastEventId = [head.checkpoint?.lastEventId ?? '0', ...old.map(({ eventId }) => eventId)]
      .map(BigInt)
      .reduce((greatest, id) => (id > greatest ? id : greatest))
      .toString()
    const unsigned = { position, hash, lastEventId, ...times }
    const checkpoint = { ...unsigned, ...signer.sign('checkpoint', checkpointText(unsigned)) }
    const next = { ...head, checkpointPosition: position, checkpoint }
    const signature = signer.sign('head', headText(next))
    await sequelize.query(`SELECT set_config($1, pg_current_xact_id()::text, true)`, {
      bind: [pruning],
      transaction,
    })
    await sequelize.query(
      `WITH gone AS (
         DELETE FROM ${events} WHERE id = ANY($1::bigint[])
       ), unchained AS (
         DELETE FROM ${seals} WHERE position <= $2
       ), replaced AS (
         DELETE FROM ${checkpoints} WHERE position = $3
       ), kept AS (
         INSERT INTO ${checkpoints}
           (position, hash, last_event_id, created_before, pruned_at, mac, secret_id)
         VALUES ($2, $4, $5, $6, $7, $8, $9)
       )
       UPDATE ${headTable} SET checkpoint_position = $2, mac = $10, secret_id = $11`,
      {
        bind: [
          old.map(({ eventId }) => eventId),
          position,
          before ?? null,
          hash,
          lastEventId,
          times.createdBefore,
          times.prunedAt,
          checkpoint.mac,
          checkpoint.secretId,
          signature.mac,
          signature.secretId,
        ],
        transaction,
      },
    )
    return { count: old.length, position }
  }

  function prunableSql(times: PruningTimes, after: number | string): string {
    return `
      SELECT json_build_object(
               'position', seal.position, 'hash', seal.hash, 'eventId', seal.event_id::text,
               'isGenuine', seal.is_genuine, 'doubts', seal.doubts,
               'mac', seal.mac, 'secretId', seal.secret_id,
               'isOld', event.created_at < ${literal(times.createdBefore)}::timestamptz,
               'content', CASE WHEN event.id IS NOT NULL THEN ${contentSql('event')} END
             )::text AS json
        FROM ${seals} AS seal LEFT JOIN ${events} AS event ON event.id = seal.event_id
       WHERE seal.position > ${after}
       ORDER BY seal.position LIMIT ${pageSize}`
  }

  /** Walks the chain from a link on. Returns whether a known secret vouches for the last of these seals. */
  function refuseBroken(page: readonly Prunable[], from: Link): boolean {
    let end = from
    let isVouchedFor = false
    for (const seal of page) {
      const { position, hash, content, doubts } = seal
      const check = signer.check('seal', hash, seal)
      const isNext =
        position === end.position + 1 &&
        content !== null &&
        hashOf(end.hash, { ...seal, content }) === hash &&
        check !== 'invalid' &&
        // Else it does not vouch for what was before it.
        (doubts === null || isEndOf(readHead(doubts), end))
      if (!isNext) throw new ApiKeysError('audit_trail_not_intact')

      isVouchedFor = check === 'valid'
      end = { position, hash }
    }
    return isVouchedFor
  }

  /** Whether a head that was doubted is ours after all, and this is where it ends. */
  function isEndOf(head: HeadRow | null, { position, hash }: Link): boolean {
    if (!head || checkHead(signer, head) !== 'valid') return false
    return head.position === position && head.hash === hash
  }

  /** Goes on to a seal that a known secret vouches for, else to the head, which was found to be ours. */
  async function refuseUnvouched(times: PruningTimes, from: Link, transaction: Transaction) {
    let end = from
    let page: Prunable[]
    do {
      page = await select<Prunable[]>(prunableSql(times, end.position), transaction)
      if (refuseBroken(page, end)) return
      end = page.at(-1) ?? end
    } while (page.length === pageSize)
  }

  async function countPrunable(createdBefore: string): Promise<number> {
    const from = `
      ${seals} AS seal JOIN ${events} AS event ON event.id = seal.event_id
       WHERE seal.position > (SELECT checkpoint_position FROM ${headTable})`
    const isYoung = `event.created_at >= ${literal(createdBefore)}::timestamptz`
    const firstYoung = `SELECT seal.position FROM ${from} AND ${isYoung} ORDER BY seal.position LIMIT 1`
    const [{ count }] = await select<[{ count: number }]>(
      `SELECT json_build_object('count', count(*))::text AS json
         FROM ${seals} AS seal
        WHERE seal.position > (SELECT checkpoint_position FROM ${headTable})
          AND seal.position <= (
            SELECT max(seal.position) FROM ${from}
               AND seal.position < coalesce((${firstYoung}), ${Number.MAX_SAFE_INTEGER})
          )`,
      null,
    )
    return count
  }

  return { seal, sealAll, exportHead, prune }
}

/** SQL for the head, with the checkpoint that it names, as JSON. */
export function headSql({ head, checkpoints }: AuditTrail): string {
  return `
    SELECT json_build_object('head', (
      SELECT json_build_object(
               'position', head.position, 'hash', head.hash,
               'mac', head.mac, 'secretId', head.secret_id,
               'checkpointPosition', head.checkpoint_position,
               'legacyUntil', head.legacy_until::text, 'legacySealed', head.legacy_sealed::text,
               'startedAt', ${timeSql('head.started_at')},
               'checkpoint', (
                 SELECT json_build_object(
                          'position', position, 'hash', hash, 'lastEventId', last_event_id::text,
                          'createdBefore', ${timeSql('created_before')},
                          'prunedAt', ${timeSql('pruned_at')}, 'mac', mac, 'secretId', secret_id
                        )
                   FROM ${checkpoints} WHERE position = head.checkpoint_position
               )
             )
        FROM ${head} AS head
    ))::text AS json`
}

/** SQL for all that an event says, but for its id, as one text. */
export function contentSql(event: string): string {
  const columns = [
    'ref::text',
    'api_key_id::text',
    'user_id::text',
    'action',
    'actor_type',
    'actor_id',
    'address',
    'reason',
    'before::text',
    'after::text',
    'entry_mac',
  ].map((column) => `${event}.${column}`)

  return `jsonb_build_array(${[...columns, timeSql(`${event}.created_at`)].join(', ')})::text`
}

/** What `contentSql` holds. */
export interface Content extends WrittenEntry {
  entryMac: string | null
}

export function readContent(text: string): Content {
  // The columns above, in their order.
  const [ref, apiKeyId, userId, action, actorType, actorId, address, reason, before, after, mac] =
    JSON.parse(text) as (string | null)[]

  return {
    ref: ref ?? null,
    apiKeyId: apiKeyId ?? null,
    userId: userId ?? null,
    // Whatever they are: the database holds them against what there is.
    action: action as EventAction,
    actorType: actorType as ActorType,
    actorId: actorId ?? null,
    address: address ?? null,
    reason: reason ?? null,
    before: readJson(before),
    after: readJson(after),
    entryMac: mac ?? null,
  }
}

function readJson(text: string | null | undefined): Record<string, unknown> | null {
  return text === null || text === undefined ? null : JSON.parse(text)
}

/** Whether an entry was written by the library. */
export function checkEntry(signer: Signer, { entryMac, ...entry }: Content): SignatureCheck {
  const [secretId, mac] = (entryMac ?? '').split(':')
  const text = textOf(entry)
  if (mac === undefined || text === null) return 'invalid'
  return signer.check('entry', text, { mac, secretId: secretId || null })
}

/** Returns what is signed of an entry; `null` for one that is nested too deep to be ours. */
function textOf(entry: WrittenEntry): string | null {
  try {
    return entryText(entry)
  } catch {
    return null
  }
}

/** What a seal doubted, or `null` for what was never a head. */
export function readHead(json: string): HeadRow | null {
  try {
    const head: unknown = JSON.parse(json)
    if (!isPlainObject(head)) return null
    // That its members are what they should be, its signature says.
    const row = head as unknown as HeadRow
    headText(row)
    return row
  } catch {
    return null
  }
}

export function checkHead(signer: Signer, head: HeadRow): SignatureCheck {
  const { mac, secretId } = head
  return mac === null ? 'invalid' : signer.check('head', headText(head), { mac, secretId })
}

/** A head that was tampered with, cut back to what the seals prove. */
function withoutClaims(head: HeadRow, tail: LastSeal | null): HeadRow {
  const [claimed, sealed] = [BigInt(head.legacyUntil), BigInt(tail?.lastEventId ?? 0)]
  const legacyUntil = (claimed < sealed ? claimed : sealed).toString()
  const isPast = Date.parse(head.startedAt ?? '') < Date.now()

  return {
    ...head,
    legacyUntil,
    legacySealed: legacyUntil,
    startedAt: isPast ? head.startedAt : new Date().toISOString(),
  }
}

/** The hash of a seal, which speaks for the entry and for everything before it. */
export function hashOf(previous: string, entry: SealedEntry): string {
  const { eventId, isGenuine, doubts, secretId, content } = entry
  return createHash('sha256')
    .update([previous, JSON.stringify([eventId, isGenuine, doubts, secretId]), content].join('\n'))
    .digest('hex')
}

/** The last link, or where the chain begins. */
export function endOf({ checkpoint }: HeadRow, tail: Link | null): Link {
  return tail ?? checkpoint ?? { position: 0, hash: '' }
}

export function headText(head: HeadRow): string {
  const { position, hash, legacyUntil, legacySealed, startedAt, checkpointPosition } = head
  const { checkpoint } = head
  const start = checkpoint && [checkpointText(checkpoint), checkpoint.mac, checkpoint.secretId]
  return JSON.stringify([
    position,
    hash,
    legacyUntil,
    legacySealed,
    startedAt,
    checkpointPosition,
    start,
  ])
}

export function checkpointText(checkpoint: Omit<Checkpoint, keyof Signature>): string {
  const { position, hash, lastEventId, createdBefore, prunedAt } = checkpoint
  return JSON.stringify([position, hash, lastEventId, createdBefore, prunedAt])
}

/** Signs the end of the chain once more, for use elsewhere: what is exported is of no use as the head itself. */
export function exportOf(signer: Signer, { position, hash }: Link): AuditHead {
  const unsigned = { position, hash, at: new Date().toISOString() }
  return { ...unsigned, ...signer.sign('exported head', exportText(unsigned)) }
}

export function exportText({ position, hash, at }: Omit<AuditHead, keyof Signature>): string {
  return JSON.stringify([position, hash, at])
}
