import type { Sequelize, Transaction } from 'sequelize'

import { hasOtherPrefixes } from '../../models/api-key'
import { isOfKeyWithPrefix, type AuditTrail } from '../../models/audit-trail'
import { limitStatements, select as selectRows } from '../../models/statements'
import type { UserIdType } from '../../models/storage-options'
import { readUserId } from '../keys/record'
import type { InTurn } from '../keys/turns'
import type { UsagePeriod } from '../keys/usage-period'

/** What became of requests, and of calls, that came with a good key. */
export interface UsageCounts {
  /** They passed, as far as the key was concerned. */
  accepted: number
  /** The key lacked a permission, came from an address that is not its own, or its owner was gone or somebody else. */
  denied: number
  /** A limit was reached. */
  rateLimited: number
}

/** What a key was used for in an hour or a day. */
export interface UsageEntry extends UsageCounts {
  /** When the hour or the day began, in UTC. */
  at: Date
}

/** What a key was used for, hour by hour or day by day, in order. Those without any use are left out. */
export interface Usage {
  usage: UsageEntry[]
  totals: UsageCounts
}

export interface KeyUsage<UserId = string | number> extends UsageCounts {
  apiKeyId: string
  userId: UserId
}

/** What all keys were used for, and the keys that were used most. */
export interface TotalUsage<UserId = string | number> extends Usage {
  /** At most 20, by how often they were accepted. */
  keys: KeyUsage<UserId>[]
}

/** Uses of a key within an hour. Each counts as verified, and once more if it was refused afterwards. */
export interface Tally {
  readonly id: string
  readonly userId: string | number
  /** Since 1970, UTC. */
  readonly hour: number
  readonly verified: number
  readonly denied: number
  readonly rateLimited: number
}

/** What counts uses, as far as those need it who read what it wrote. */
interface Recorder {
  /** Names this process among those that write. */
  readonly writerId: string
  /** How many times it began to write, and how many of these writes are known to have been made. */
  readonly batches: { begun: number; written: number }
  /** What it counted for a key that somebody lacks who sees what was written first, up to one of these times. */
  countsOf(id: string, seenBatch: number): Tally[]
  /** Has everything written. */
  flush(): Promise<void>
}

interface UsageParts {
  sequelize: Sequelize
  inTurn: InTurn
  /** The qualified, quoted names of the tables of usage and of the processes that write it. */
  usageTable: string
  writerTable: string
  /** Those of the tables of keys and of the audit trail. */
  table: string
  trail: Pick<AuditTrail, 'events'>
  keyPrefix: string
  userIdType: UserIdType
  recorder: Recorder
}

interface UsageFilter extends UsagePeriod {
  apiKeyId?: string | undefined
  userId?: string | number | undefined
}

interface Scope {
  transaction?: Transaction | undefined
}

/** Counts as the database gives them: text, whatever parsers the app gave its driver. */
interface CountRow {
  /** Since 1970. */
  hour?: string | null
  verified: string
  denied: string
  rateLimited: string
}

export type UsageStore = ReturnType<typeof createUsageStore>

/** How often it is tried to read without a write in between. */
const maxAttempts = 3

const maxTopKeys = 20

/** How many rows are deleted in one statement. */
const pruneBatchSize = 10_000

/** How long a statement takes at most that deletes so many. */
const statementLimitMs = 60_000

const [hourMs, dayMs] = [3_600_000, 86_400_000]

const hoursSince1970 = `extract(epoch FROM hour)::bigint / ${hourMs / 1000}`

const sums = `
  sum(verified)::text AS verified, sum(denied)::text AS denied, sum(rate_limited)::text AS "rateLimited"`

/** Reads and prunes what is written of the uses of keys. */
export function createUsageStore(parts: UsageParts) {
  const { sequelize, inTurn, usageTable, writerTable, userIdType, recorder } = parts

  /** Another instance's keys are left out. Only if there are any, each key is looked for: most apps have one instance. */
  const isOfPrefix = isOfKeyWithPrefix('used.api_key_id', { ...parts, ...parts.trail })
  const isOwn = `(NOT ${hasOtherPrefixes(parts.table, parts.keyPrefix)} OR ${isOfPrefix})`

  async function select<Row extends object>(
    sql: string,
    bind: readonly unknown[],
    { transaction }: Scope = {},
  ): Promise<Row[]> {
    return inTurn({ transaction }, () =>
      selectRows<Row>(sequelize, sql, { bind, transaction: transaction ?? null }),
    )
  }

  /** The usage of one key, with what this process has not written yet. */
  async function ofKey(id: string, period: UsagePeriod, scope: Scope): Promise<Usage> {
    for (let attempt = 1; ; attempt++) {
      const { batches } = recorder
      const { counts, seenBatch } = await readCounts(id, period, scope)
      // Else what was written meanwhile may be in neither.
      if (recorder.batches.begun !== batches.begun && attempt < maxAttempts) continue

      const unwritten = recorder
        .countsOf(id, Math.max(seenBatch, batches.written))
        .filter(({ hour }) => hour * hourMs >= +period.from && hour * hourMs < +period.to)
      return toUsage([...counts, ...unwritten], period)
    }
  }

  /** Also returns up to which of its batches the database had by then what this process wrote. */
  async function readCounts(id: string, { from, to }: UsagePeriod, scope: Scope) {
    const rows = await select<CountRow & { seen: string }>(
      `SELECT writer.seen::text, used.hour::text, used.verified::text, used.denied::text,
              used.rate_limited::text AS "rateLimited"
         FROM (
           SELECT coalesce(max(batch), 0) AS seen FROM ${writerTable} WHERE id = $1::uuid
         ) AS writer
         LEFT JOIN (
           SELECT ${hoursSince1970} AS hour, verified, denied, rate_limited
             FROM ${usageTable}
            WHERE api_key_id = $2::uuid AND ${isWithin(3)}
         ) AS used ON true`,
      [recorder.writerId, id, ...boundsOf({ from, to })],
      scope,
    )
    const counts = rows.filter(({ hour }) => hour !== null).map(toCounts)
    return { counts, seenBatch: Number(rows[0]?.seen) }
  }

  /** The usage of all keys, or of some. */
  async function ofAll(
    { apiKeyId, userId, ...period }: UsageFilter,
    scope: Scope,
  ): Promise<TotalUsage> {
    // What this process has not written by now. If it cannot, it goes without.
    await recorder.flush().catch(() => {})
    const bind = boundsOf(period)
    const conditions = [isWithin(1), isOwn]
    if (apiKeyId !== undefined) conditions.push(`api_key_id = $${bind.push(apiKeyId)}::uuid`)
    if (userId !== undefined) conditions.push(`user_id = $${bind.push(userId)}::text`)
    const where = conditions.join(' AND ')

    const hours = await select<CountRow>(
      `SELECT (${hoursSince1970})::text AS hour, ${sums}
         FROM ${usageTable} AS used WHERE ${where} GROUP BY hour`,
      bind,
      scope,
    )
    const keys = await select<CountRow & { apiKeyId: string; userId: unknown }>(
      `SELECT api_key_id::text AS "apiKeyId", user_id AS "userId", ${sums}
         FROM ${usageTable} AS used WHERE ${where} GROUP BY api_key_id, user_id
        ORDER BY sum(verified) - sum(denied) - sum(rate_limited) DESC, api_key_id, user_id
        LIMIT ${maxTopKeys}`,
      bind,
      scope,
    )
    return {
      ...toUsage(hours.map(toCounts), period),
      keys: keys.map((row) => toKeyUsage(row, readUserId(row.userId, userIdType))),
    }
  }

  /** Deletes the counts of hours that began so long ago, a part at a time, and returns how many there were. */
  async function prune(olderThanDays: number): Promise<number> {
    const before = startOf(olderThanDays)
    // A process writes again by itself: what has not written for long is gone.
    await select(`DELETE FROM ${writerTable} WHERE written_at < $1::timestamptz`, [before])
    for (let deleted = 0; ;) {
      const count = await sequelize.transaction((own) => pruneBatch(before, own))
      deleted += count
      if (count < pruneBatchSize) return deleted
    }
  }

  async function pruneBatch(before: string, transaction: Transaction): Promise<number> {
    await select(limitStatements(statementLimitMs), [], { transaction })
    const [row] = await select<{ count: string }>(
      `WITH deleted AS (
         DELETE FROM ${usageTable} WHERE ctid = ANY (ARRAY(
           SELECT ctid FROM ${usageTable} WHERE hour < $1::timestamptz
            ORDER BY hour LIMIT ${pruneBatchSize} FOR UPDATE SKIP LOCKED
         ))
         RETURNING 1
       )
       SELECT count(*)::text AS count FROM deleted`,
      [before],
      { transaction },
    )
    return Number(row?.count)
  }

  /** How many there are to delete. */
  async function countOld(olderThanDays: number): Promise<number> {
    const [row] = await select<{ count: string }>(
      `SELECT count(*)::text AS count FROM ${usageTable} WHERE hour < $1::timestamptz`,
      [startOf(olderThanDays)],
    )
    return Number(row?.count)
  }

  return { ofKey, ofAll, prune, countOld }
}

/** SQL for the hours that begin within a period, whose bounds are the parameters from this one on. */
function isWithin(parameter: number): string {
  const [from, to] = [parameter, parameter + 1].map(
    (number) => `to_timestamp($${number}::float8 / 1000)`,
  )
  return `hour >= ${from} AND hour < ${to}`
}

function boundsOf({ from, to }: Pick<UsagePeriod, 'from' | 'to'>): unknown[] {
  return [from.getTime(), to.getTime()]
}

function startOf(olderThanDays: number): string {
  return new Date(Date.now() - olderThanDays * dayMs).toISOString()
}

/** Counts of an hour, or of several from then on. */
type Counts = Omit<Tally, 'id' | 'userId'>

function toCounts({ hour, verified, denied, rateLimited }: CountRow): Counts {
  return {
    hour: Number(hour),
    verified: Number(verified),
    denied: Number(denied),
    rateLimited: Number(rateLimited),
  }
}

function toUsage(counts: readonly Counts[], { unitMs }: UsagePeriod): Usage {
  const byTime = new Map<number, Counts>()
  for (const count of counts) {
    const at = Math.floor((count.hour * hourMs) / unitMs) * unitMs
    byTime.set(at, add(byTime.get(at) ?? none, count))
  }
  const inOrder = [...byTime].toSorted(([one], [other]) => one - other)

  return { usage: inOrder.map(toEntry), totals: toShown([...byTime.values()].reduce(add, none)) }
}

const none: Counts = { hour: 0, verified: 0, denied: 0, rateLimited: 0 }

function add(one: Counts, other: Counts): Counts {
  return {
    hour: other.hour,
    verified: one.verified + other.verified,
    denied: one.denied + other.denied,
    rateLimited: one.rateLimited + other.rateLimited,
  }
}

function toEntry([at, counts]: [number, Counts]): UsageEntry {
  return { at: new Date(at), ...toShown(counts) }
}

function toKeyUsage(row: CountRow & { apiKeyId: string }, userId: string | number): KeyUsage {
  return { apiKeyId: row.apiKeyId, userId, ...toShown(toCounts(row)) }
}

function toShown({ verified, denied, rateLimited }: Counts): UsageCounts {
  // Where a use was pruned that was refused later, the difference would be below.
  return { accepted: Math.max(verified - denied - rateLimited, 0), denied, rateLimited }
}
