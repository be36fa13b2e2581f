import type { Sequelize, Transaction } from 'sequelize'

import {
  eventSql,
  type ActorType,
  type ApiKeyEventRow,
  type EventAction,
  type NewApiKeyEventRow,
} from '../../models/api-key-event'
import { isOfKeyWithPrefix, toldNames, type AuditTrail } from '../../models/audit-trail'
import { select } from '../../models/statements'
import type { UserIdType } from '../../models/storage-options'
import { formatEventCursor } from '../keys/cursor'
import type { ApiKeyChanged, Emitter } from '../keys/emitter'
import type { EventFilter } from '../keys/input'
import { isPlainObject } from '../keys/metadata'
import type { OwnChanges } from '../database/own-changes'
import { readTime, readUserId, type ApiKeyRecord } from '../keys/record'
import type { Actor, ChangeAction } from '../keys/types'
import type { Signer } from './signing'
import type { InTurn } from '../keys/turns'

/** An entry of the audit trail. `before` and `after` hold what changed, and only that. */
export interface ApiKeyEvent<UserId = string | number> {
  id: string
  /** `null` in the one entry of a TRUNCATE, which deletes all keys; and so is `userId`. */
  apiKeyId: string | null
  userId: UserId | null
  action: EventAction
  /** `database` for changes that were not made through the library: by hand or by a cascade. */
  actorType: ActorType
  /** For `database`, the role that was connected. */
  actorId: string | null
  /** From where it was asked for, as far as that is known. */
  address: string | null
  reason: string | null
  before: Record<string, unknown> | null
  after: Record<string, unknown> | null
  createdAt: Date
}

export type Audit = ReturnType<typeof createAudit>

/** A key before a change and after it. */
type States =
  | { before: ApiKeyRecord | null; after: ApiKeyRecord }
  // The key is gone.
  | { before: ApiKeyRecord; after: null }

type Change = States & {
  action: ChangeAction
  /** What the change has given the row of the key. */
  ref: string
}

interface Circumstances {
  actor?: Actor | undefined
  address?: string | undefined
  reason?: string | undefined
  transaction: Transaction
}

/** An entry as it is written: what is known before the database has given it an id and a time. */
export type WrittenEntry = Omit<NewApiKeyEventRow, 'entryMac'>

interface AuditParts {
  sequelize: Sequelize
  inTurn: InTurn
  trail: Pick<AuditTrail, 'events'>
  /** The qualified, quoted name of the table of keys. */
  table: string
  keyPrefix: string
  userIdType: UserIdType
  signer: Signer
  emitter: Pick<Emitter, 'emitAfter' | 'whenCommitted'>
  /** The setting that holds the number of a transaction whose changes are in the log. */
  logEntry: string
  ownChanges: Pick<OwnChanges, 'begin'>
}

export function createAudit(parts: AuditParts) {
  const { sequelize, inTurn, userIdType, signer, emitter, logEntry, ownChanges } = parts
  const { events } = parts.trail
  const isOwn = isOfKeyWithPrefix('event.api_key_id', { ...parts, events })

  /** Vouches for an entry, so that nobody else can write one that passes for ours. */
  function entryMacOf(entry: WrittenEntry): string {
    const { mac, secretId } = signer.sign('entry', entryText(entry))
    return `${secretId ?? ''}:${mac}`
  }

  const written = new WeakMap<Transaction, number>()

  /** The table itself says of which types its columns are. */
  async function write(entries: readonly NewApiKeyEventRow[], transaction: Transaction) {
    const rows = entries.map(toColumns)
    // Changes of a description, for example, are not in the log. The triggers note in a setting if one is.
    const [numbered] = await select<{ xid: string | null }>(
      sequelize,
      `WITH written AS (
         INSERT INTO ${events} (${columns.join(', ')})
         SELECT ${columns.join(', ')} FROM json_populate_recordset(NULL::${events}, $1::json)
       )
       SELECT this.xid FROM (VALUES (pg_current_xact_id()::text)) AS this (xid)
        WHERE split_part(current_setting('${logEntry}', true), ' ', 1) = this.xid`,
      { bind: [JSON.stringify(rows)], transaction },
    )
    if (numbered?.xid) emitter.whenCommitted(transaction, ownChanges.begin(numbered.xid))
  }

  /** Writes one entry per change, in the transaction that makes the changes. */
  async function recordOnly(changes: readonly Change[], circumstances: Circumstances) {
    const { address, reason, transaction } = circumstances
    const by = actorOf(circumstances)
    const entries = changes.map((change): NewApiKeyEventRow => {
      const { action, before, after, ref } = change
      const { id, userId } = keyOf(change)
      const changed = changedAttributes(before, after)
      const entry: WrittenEntry = {
        apiKeyId: id,
        userId,
        action,
        actorType: by.type,
        actorId: by.type === 'system' ? null : String(by.id),
        address: address ?? null,
        reason: reason ?? null,
        before: before && pick(before, changed),
        after: after && pick(after, changed),
        ref,
      }
      return { ...entry, entryMac: entryMacOf(entry) }
    })

    await write(entries, transaction)
    written.set(transaction, (written.get(transaction) ?? 0) + entries.length)
  }

  return {
    entryMacOf,

    /** How many entries a transaction has, which are to be sealed. */
    countWritten: (transaction: Transaction) => written.get(transaction) ?? 0,

    /** Writes one entry per change, in the transaction that makes the changes, and has them told of when it commits. */
    async record(changes: readonly Change[], circumstances: Circumstances) {
      await recordOnly(changes, circumstances)
      for (const change of changes) {
        emitter.emitAfter(circumstances.transaction, change.action, noticeOf(change, circumstances))
      }
    },

    recordOnly,

    async list(
      filter: EventFilter,
      { transaction }: { transaction?: Transaction | undefined } = {},
    ) {
      const { limit } = filter
      const { where, bind } = conditionsOf(filter)
      const rows = await inTurn({ userId: filter.userId, transaction }, () =>
        select<{ json: string }>(
          sequelize,
          `SELECT ${eventSql('event')} AS json FROM ${events} AS event
            WHERE ${where} AND ${isOwn} ORDER BY event.id DESC LIMIT ${limit + 1}`,
          { bind, transaction: transaction ?? null },
        ),
      )

      const page = rows.slice(0, limit).map(({ json }) => toEvent(JSON.parse(json), userIdType))
      const last = rows.length > limit ? page.at(-1) : undefined
      return { events: page, nextCursor: last ? formatEventCursor(last) : null }
    },
  }
}

/** SQL for which entries of the trail a list is of. */
function conditionsOf({ apiKeyId, userId, action, cursor }: EventFilter) {
  const bind: unknown[] = []
  const all = ['true']
  if (apiKeyId !== undefined) all.push(`event.api_key_id = $${bind.push(apiKeyId)}`)
  if (userId !== undefined) all.push(`event.user_id = $${bind.push(userId)}`)
  if (action !== undefined) all.push(`event.action = $${bind.push(action)}`)
  if (cursor) all.push(`event.id < $${bind.push(cursor.id)}`)
  return { where: all.join(' AND '), bind }
}

const columns = [
  'api_key_id',
  'user_id',
  'action',
  'actor_type',
  'actor_id',
  'address',
  'reason',
  'before',
  'after',
  'ref',
  'entry_mac',
] as const

function toColumns(entry: NewApiKeyEventRow): Record<(typeof columns)[number], unknown> {
  return {
    api_key_id: entry.apiKeyId,
    user_id: entry.userId,
    action: entry.action,
    actor_type: entry.actorType,
    actor_id: entry.actorId,
    address: entry.address,
    reason: entry.reason,
    before: entry.before,
    after: entry.after,
    ref: entry.ref,
    entry_mac: entry.entryMac,
  }
}

/** What is signed of an entry. Values are those that come back out of the database. */
export function entryText(entry: WrittenEntry): string {
  const { ref, apiKeyId, userId, action, actorType, actorId, address, reason, before, after } =
    entry
  const owner = userId === null ? null : String(userId)

  return JSON.stringify([
    [ref, apiKeyId, owner, action, actorType, actorId, address, reason],
    canonical(before),
    canonical(after),
  ])
}

/** The database keeps what JSON means, and not its text: the order of names is its own. */
export function canonical(value: unknown): string {
  return JSON.stringify(value, (_, member: unknown) =>
    isPlainObject(member)
      ? Object.fromEntries(Object.entries(member).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : member,
  )
}

function toEvent(row: ApiKeyEventRow, userIdType: UserIdType): ApiKeyEvent {
  return {
    ...row,
    userId: row.userId === null ? null : readUserId(row.userId, userIdType),
    before: withUserId(row.before, userIdType),
    after: withUserId(row.after, userIdType),
    createdAt: readTime(row.createdAt),
  }
}

/** Triggers tell of owners by text. */
function withUserId(told: ApiKeyEventRow['before'], userIdType: UserIdType) {
  return typeof told?.userId === 'string'
    ? { ...told, userId: readUserId(told.userId, userIdType) }
    : told
}

function actorOf({ actor }: Pick<Circumstances, 'actor'>): Actor {
  return actor ?? { type: 'system' }
}

/** What listeners are given of a change. */
export function noticeOf(
  change: States,
  circumstances: Pick<Circumstances, 'actor' | 'reason'>,
): ApiKeyChanged {
  const { before } = change
  const { reason = null } = circumstances
  return { apiKey: keyOf(change), before, actor: actorOf(circumstances), reason }
}

/** The key as it is now, or was last. */
function keyOf(change: States): ApiKeyRecord {
  return change.after ?? change.before
}

type Told = (typeof toldNames)[number]

/** What is told of a key that is made or gone is all of it, and as a trigger would tell. */
function changedAttributes(
  before: ApiKeyRecord | null,
  after: ApiKeyRecord | null,
): readonly Told[] {
  if (!before || !after) return toldNames
  return toldNames.filter((name) => !isSame(toldOf(before, name), toldOf(after, name)))
}

export function isSame(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b)
}

function pick(record: ApiKeyRecord, names: readonly Told[]) {
  return Object.fromEntries(names.map((name) => [name, toldOf(record, name)]))
}

/** A use is no change, and so no part of the trail. */
function toldOf(record: ApiKeyRecord, name: Told): unknown {
  if (name !== 'previousSecret' || !record.previousSecret) return record[name]

  const { prefix, postfix, worksUntil } = record.previousSecret
  return { prefix, postfix, worksUntil }
}
