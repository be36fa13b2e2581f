import { Op, type Transaction, type WhereOptions } from 'sequelize'

import type {
  ActorType,
  ApiKeyEventModel,
  ApiKeyEventRow,
  EventAction,
  NewApiKeyEventRow,
} from '../../models/api-key-event'
import type { UserIdType } from '../../models/storage-options'
import { formatEventCursor } from './cursor'
import type { Emitter } from './emitter'
import { readUserId, type ApiKeyRecord } from './record'

/** Who does something: a signed-in user, an administrator, or the app itself. */
export type Actor =
  { type: Exclude<ActorType, 'system'>; id: string | number | bigint } | { type: 'system' }

/** An entry of the audit trail. `before` and `after` hold what changed, and only that. */
export interface ApiKeyEvent<UserId = string | number> {
  id: string
  apiKeyId: string
  userId: UserId
  action: EventAction
  actorType: ActorType
  actorId: string | null
  reason: string | null
  before: Record<string, unknown> | null
  after: Record<string, unknown> | null
  createdAt: Date
}

interface EventFilter {
  apiKeyId?: string | undefined
  userId?: string | number | undefined
  action?: EventAction | undefined
  cursor?: { id: string } | undefined
  limit: number
}

export type Audit = ReturnType<typeof createAudit>

interface Change {
  action: ChangeAction
  before: ApiKeyRecord | null
  after: ApiKeyRecord
}

/** What somebody does to a key. */
export type ChangeAction = Exclude<EventAction, 'retired_secret_used'>

interface Circumstances {
  actor?: Actor | undefined
  reason?: string | undefined
  transaction: Transaction
}

interface AuditParts {
  Event: ApiKeyEventModel
  userIdType: UserIdType
  emitter: Pick<Emitter, 'emitAfter'>
}

export function createAudit({ Event, userIdType, emitter }: AuditParts) {
  return {
    /** Writes one entry per change, in the transaction that makes the changes, and has them told of when it commits. */
    async record(changes: readonly Change[], { actor, reason, transaction }: Circumstances) {
      const by: Actor = actor ?? { type: 'system' }
      const entries = changes.map(({ action, before, after }): NewApiKeyEventRow => {
        const changed = changedAttributes(before, after)
        return {
          apiKeyId: after.id,
          userId: after.userId,
          action,
          actorType: by.type,
          actorId: by.type === 'system' ? null : String(by.id),
          reason: reason ?? null,
          before: before && pick(before, changed),
          after: pick(after, changed),
        }
      })

      await Event.bulkCreate(entries, { transaction, returning: false })
      for (const { action, before, after } of changes) {
        const notice = { apiKey: after, before, actor: by, reason: reason ?? null }
        emitter.emitAfter(transaction, action, notice)
      }
    },

    async list(
      filter: EventFilter,
      { transaction }: { transaction?: Transaction | undefined } = {},
    ) {
      const { apiKeyId, userId, action, cursor, limit } = filter
      const where: WhereOptions<ApiKeyEventRow> = {
        ...(apiKeyId !== undefined && { apiKeyId }),
        ...(userId !== undefined && { userId }),
        ...(action !== undefined && { action }),
        ...(cursor && { id: { [Op.lt]: cursor.id } }),
      }
      const rows = await Event.findAll({
        where,
        order: [['id', 'DESC']],
        limit: limit + 1,
        transaction: transaction ?? null,
        useMaster: true,
      })

      const events = rows
        .slice(0, limit)
        .map((row) => toEvent(row.get({ plain: true }), userIdType))
      const last = rows.length > limit ? events.at(-1) : undefined
      return { events, nextCursor: last ? formatEventCursor(last) : null }
    },
  }
}

function toEvent(row: ApiKeyEventRow, userIdType: UserIdType): ApiKeyEvent {
  return {
    ...row,
    id: String(row.id),
    userId: readUserId(row.userId, userIdType),
    createdAt: new Date(row.createdAt),
  }
}

/** What an entry speaks of. The rest of a record never changes, or says when and how it changed. */
const audited = [
  'name',
  'description',
  'permissions',
  'status',
  'expiresAt',
  'allowedIps',
  'metadata',
  'limits',
] as const

/** What only a rotation changes. */
const auditedRotation = ['prefix', 'postfix', 'previousSecret'] as const

type Audited = (typeof audited)[number] | (typeof auditedRotation)[number]

function changedAttributes(before: ApiKeyRecord | null, after: ApiKeyRecord): readonly Audited[] {
  if (!before) return audited
  return [...audited, ...auditedRotation].filter((name) => !isSame(before[name], after[name]))
}

export function isSame(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b)
}

function pick(record: ApiKeyRecord, names: readonly Audited[]) {
  return Object.fromEntries(names.map((name) => [name, record[name]]))
}
