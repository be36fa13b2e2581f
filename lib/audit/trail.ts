import type { Transaction } from 'sequelize'

import { eventSql, type ApiKeyEventRow, type ChangeAction } from '../../models/api-key-event'
import { isOfKeyWithPrefix, shownNames } from '../../models/audit-trail'
import { select, selectJson } from '../database/query'
import type { UserIdType } from '../../models/storage-options'
import type { OwnChanges } from '../database/own-changes'
import { formatEventCursor } from '../keys/cursor'
import type { ApiKeyChanged, Emitter } from '../keys/emitter'
import type { EventFilter } from '../keys/input'
import { isSame } from '../keys/metadata'
import { readTime, readUserId, type Actor, type ApiKeyRecord } from '../keys/record'
import type { InTurn } from '../database/turns'
import { insertEntriesSql, toRow, type NewEntry } from './entry'
import type { AuditHead, Trail } from './head'
import { prune } from './prune'
import { exportHead, seal, sealAll } from './seal'
import { verify } from './verify'

type ReadAsItIs = Omit<ApiKeyEventRow, 'userId' | 'createdAt'>

/** An entry of the audit trail. */
export interface ApiKeyEvent<UserId = string | number> extends ReadAsItIs {
  userId: UserId | null
  createdAt: Date
}

/** The audit trail of an instance: writes, lists, seals, exports, verifies and prunes entries. */
export type Audit = ReturnType<typeof createAudit>

/** A key before a change and after it; `after` is `null` if the key is deleted. */
type States =
  { before: ApiKeyRecord | null; after: ApiKeyRecord } | { before: ApiKeyRecord; after: null }

/** A change of a key, and the `event_ref` that it has given to the row of the key. */
type Change = States & { action: ChangeAction; ref: string }

interface Circumstances {
  actor?: Actor | undefined
  address?: string | undefined
  reason?: string | undefined
  transaction: Transaction
}

type Reasons = Pick<Circumstances, 'actor' | 'reason'>

interface AuditParts extends Trail {
  inTurn: InTurn
  keyPrefix: string
  userIdType: UserIdType
  emitter: Emitter
  ownChanges: OwnChanges
}

/** Creates the audit trail of an instance. */
export function createAudit(parts: AuditParts) {
  const written = new WeakMap<Transaction, { entries: number; xid: string }>()

  /** Writes one entry per change, in the transaction that makes the changes. */
  async function recordOnly(changes: readonly Change[], circumstances: Circumstances) {
    const { transaction } = circumstances
    const entries = changes.map((change) => toEntry(change, circumstances))
    const xid = await insert(parts, entries, transaction)
    const before = written.get(transaction)?.entries ?? 0
    written.set(transaction, { entries: before + entries.length, xid })
  }

  return {
    recordOnly,

    /** Does the same as `recordOnly`, and emits the events of the changes after the transaction has committed. */
    async record(changes: readonly Change[], circumstances: Circumstances) {
      await recordOnly(changes, circumstances)
      for (const change of changes) {
        const notice = noticeOf(change, circumstances)
        parts.emitter.emitAfter(circumstances.transaction, change.action, notice)
      }
    },

    /** Returns how many entries a transaction has written, and its number; `undefined` if it has written none. */
    writtenIn: (transaction: Transaction) => written.get(transaction),

    /** Lists the entries of the keys of this instance, newest first. */
    list: (filter: EventFilter, options: { transaction?: Transaction | undefined } = {}) =>
      list(parts, filter, options.transaction),

    seal: (transaction: Transaction) => seal(parts, transaction),
    sealAll: () => sealAll(parts),
    exportHead: () => exportHead(parts),
    verify: (anchor?: AuditHead) => verify(parts, anchor),
    prune: (options: Parameters<typeof prune>[1]) => prune(parts, options),
  }
}

/** Writes entries, and returns the number of the transaction. */
async function insert(parts: AuditParts, entries: readonly NewEntry[], transaction: Transaction) {
  const { sequelize, tables, signer, emitter, ownChanges } = parts
  const rows = entries.map((entry) => toRow(signer, entry))
  // Triggers note in a setting if the transaction is in the change log. A new description, for example, is not.
  const [own] = await select<{ xid: string; logged: string | null }>(
    sequelize,
    `WITH written AS (${insertEntriesSql(tables.events)})
     SELECT pg_current_xact_id()::text AS xid,
            split_part(current_setting('${tables.settings.entry}', true), ' ', 1) AS logged`,
    { bind: [JSON.stringify(rows)], transaction },
  )
  const xid = own?.xid ?? ''
  if (own?.logged === xid) emitter.callAfter(transaction, null, ownChanges.begin(xid))
  return xid
}

async function list(parts: AuditParts, filter: EventFilter, transaction?: Transaction) {
  const { sequelize, tables, keyPrefix, userIdType, inTurn } = parts
  const { apiKeyId, userId, action, cursor, limit } = filter
  const conditions = [isOfKeyWithPrefix('event.api_key_id', tables, keyPrefix)]
  const bind: unknown[] = []
  if (apiKeyId !== undefined) conditions.push(`event.api_key_id = $${bind.push(apiKeyId)}`)
  if (userId !== undefined) conditions.push(`event.user_id = $${bind.push(userId)}`)
  if (action !== undefined) conditions.push(`event.action = $${bind.push(action)}`)
  if (cursor) conditions.push(`event.id < $${bind.push(cursor.id)}`)
  const sql = `
    SELECT ${eventSql('event')} AS json FROM ${tables.events} AS event
     WHERE ${conditions.join(' AND ')} ORDER BY event.id DESC LIMIT ${limit + 1}`
  const options = { bind, transaction: transaction ?? null }
  const rows = await inTurn({ userId, transaction }, () =>
    selectJson<ApiKeyEventRow[]>(sequelize, sql, options),
  )

  const page = rows.slice(0, limit).map((row) => toEvent(row, userIdType))
  const last = rows.length > limit ? page.at(-1) : undefined
  return { events: page, nextCursor: last ? formatEventCursor(last) : null }
}

function toEvent(row: ApiKeyEventRow, userIdType: UserIdType): ApiKeyEvent {
  const read = (userId: string | null) => userId && readUserId(userId, userIdType)
  // Triggers write the ids of owners as text.
  const withOwner = (state: ApiKeyEventRow['before']) =>
    typeof state?.userId === 'string' ? { ...state, userId: read(state.userId) } : state
  const [before, after] = [withOwner(row.before), withOwner(row.after)]
  return { ...row, userId: read(row.userId), before, after, createdAt: readTime(row.createdAt) }
}

function toEntry(change: Change, { actor, address, reason }: Circumstances): NewEntry {
  const { action, before, after, ref } = change
  const { id: apiKeyId, userId } = after ?? before
  const changed = changedAttributes(change)
  const actorId = actor && actor.type !== 'system' ? String(actor.id) : null
  const by = { actorType: actor?.type ?? 'system', actorId, address: address ?? null } as const
  const states = { before: before && pick(before, changed), after: after && pick(after, changed) }
  return { ref, apiKeyId, userId, action, ...by, reason: reason ?? null, ...states }
}

/** Returns the event of a change, for listeners. */
export function noticeOf({ before, after }: States, by: Reasons): ApiKeyChanged {
  const { actor = { type: 'system' }, reason = null } = by
  return { apiKey: after ?? before, before, actor, reason }
}

type Shown = (typeof shownNames)[number]

/** The entry of a key that is created or deleted has all attributes, as a trigger would write them. */
function changedAttributes({ before, after }: States): readonly Shown[] {
  if (!before || !after) return shownNames
  return shownNames.filter((name) => !isSame(shownOf(before, name), shownOf(after, name)))
}

function pick(record: ApiKeyRecord, names: readonly Shown[]) {
  return Object.fromEntries(names.map((name) => [name, shownOf(record, name)]))
}

/** The trail has no uses of keys, because a use is no change. */
function shownOf(record: ApiKeyRecord, name: Shown): unknown {
  if (name !== 'previousSecret' || !record.previousSecret) return record[name]

  const { prefix, postfix, worksUntil } = record.previousSecret
  return { prefix, postfix, worksUntil }
}
