import type { Sequelize, Transaction } from 'sequelize'

import { hasOtherPrefixes } from '../../models/api-key'
import { isOfKeyWithPrefix } from '../../models/audit-trail'
import type { OwnerType } from '../../models/owner'
import { select as selectRows } from '../database/query'
import type { Tables } from '../../models/tables'
import { hourMs } from '../database/clock'
import type { Writer } from '../database/writer'
import type { Environments } from '../keys/environments'
import { isSameOwner, type IdTypes, type Owner } from '../keys/owner'
import { toOwner } from '../keys/record'
import type { InTurn } from '../database/turns'
import type { UsagePeriod } from '../keys/usage-period'
import type { Tally } from './counts'
import { createUsageErasing, erasedType } from './erase'
import { createUsagePruning } from './prune'
import type { UsageRecorder } from './recorder'

/** The requests and calls that came with a good key. */
export interface UsageCounts {
  /** The key let them pass. */
  accepted: number
  /** The key lacked a permission, came from a foreign address, or its owner was gone or not the user who is signed in. */
  denied: number
  /** A limit was reached. */
  rateLimited: number
}

/** The uses of a key in an hour or a day. */
export interface UsageEntry extends UsageCounts {
  /** When the hour or the day began, in UTC. */
  at: Date
}

/** The uses of a key, hour by hour or day by day, in order. Hours and days without any use are left out. */
export interface Usage {
  usage: UsageEntry[]
  totals: UsageCounts
}

/** The uses of a key, and its owner at that time. */
export interface KeyUsage<O extends Owner = Owner> extends UsageCounts {
  apiKeyId: string
  /** `null` if the owner was erased. */
  owner: O | null
}

/** The uses of all keys, and the keys that were used most. */
export interface TotalUsage<O extends Owner = Owner> extends Usage {
  /** At most 20, the most accepted first. */
  keys: KeyUsage<O>[]
}

interface UsageParts {
  sequelize: Sequelize
  inTurn: InTurn
  tables: Tables
  environments: Pick<Environments, 'keyPrefixes'>
  idTypes: IdTypes
  recorder: Pick<UsageRecorder, 'writerId' | 'batches' | 'countsOf'>
  writer: Pick<Writer, 'flush'>
}

interface UsageFilter extends UsagePeriod {
  apiKeyId?: string | undefined
  owner?: Owner | undefined
}

interface Scope {
  /** The owner whose usage is read, of the time in which the keys were its own. */
  owner?: Owner | undefined
  transaction?: Transaction | undefined
}

/** Counts of the database as text, whatever parsers the app gave its driver. */
interface CountRow {
  /** Since 1970. */
  hour?: string | null
  verified: string
  denied: string
  rateLimited: string
}

/** Reads and prunes usage. */
export type UsageStore = ReturnType<typeof createUsageStore>

/** The number of times that a reading is tried again because a write came in between. */
const maxAttempts = 3

const maxTopKeys = 20

const hoursSince1970 = `extract(epoch FROM hour)::bigint / ${hourMs / 1000}`

const sums = `
  sum(verified)::text AS verified, sum(denied)::text AS denied, sum(rate_limited)::text AS "rateLimited"`

/** Makes the functions that read how often keys were used, and prune the counts. */
export function createUsageStore(parts: UsageParts) {
  const { sequelize, inTurn, tables, idTypes, recorder, writer } = parts
  const { keyPrefixes } = parts.environments

  /** Leaves out the keys of other instances. Most apps have one instance, and need not find each key. */
  const isOfPrefix = isOfKeyWithPrefix('used.api_key_id', tables, keyPrefixes)
  const isOwn = `(NOT ${hasOtherPrefixes(tables.keys, keyPrefixes)} OR ${isOfPrefix})`

  async function select<Row extends object>(sql: string, bind: unknown[], scope: Scope) {
    const { transaction } = scope
    return inTurn(scope, () =>
      selectRows<Row>(sequelize, sql, { bind, transaction: transaction ?? null }),
    )
  }

  /** Returns the counts of keys, and the number of this process's last batch that was in the database by then. */
  async function readCounts(ids: readonly string[], period: UsagePeriod, scope: Scope) {
    const rows = await select<CountRow & { id: string; seen: string }>(
      countsOfKeysSql(tables, period.unitMs / hourMs),
      [recorder.writerId, ids, ...boundsOf(period), ...bindOwner(scope)],
      scope,
    )
    const counts = new Map(ids.map((id): [string, Counts[]] => [id, []]))
    for (const row of rows) counts.get(row.id)?.push(toCounts(row))
    return { counts, seenBatch: Number(rows[0]?.seen) }
  }

  /**
   * Returns the usage of keys, in the order of their ids. It has the uses that this process has not written yet. An owner sees the
   * usage of its own time alone.
   */
  async function ofKeys(
    ids: readonly string[],
    period: UsagePeriod,
    scope: Scope,
  ): Promise<Usage[]> {
    for (let attempt = 1; ; attempt++) {
      const { batches } = recorder
      const { counts, seenBatch } = await readCounts(ids, period, scope)
      // Otherwise, a batch that was written in between may be in neither.
      if (recorder.batches.begun !== batches.begun && attempt < maxAttempts) continue

      return ids.map((id) => {
        const unwritten = recorder
          .countsOf(id, Math.max(seenBatch, batches.written))
          .filter(({ hour }) => hour * hourMs >= +period.from && hour * hourMs < +period.to)
          .filter((tally) => !scope.owner || isSameOwner(tally.owner, scope.owner))
        return toUsage([...(counts.get(id) ?? []), ...unwritten], period)
      })
    }
  }

  return {
    ofKeys,

    /** Returns the usage of all keys, or of the keys that match a filter. */
    async ofAll(filter: UsageFilter, scope: Scope): Promise<TotalUsage> {
      // This process writes its uses first. If it cannot, they are missing.
      await writer.flush().catch(() => {})
      const bind: unknown[] = boundsOf(filter)
      const where = [isWithin(1), isOwn, ...conditionsOf(filter, bind)].join(' AND ')

      const hours = await select<CountRow>(
        `SELECT (${hoursSince1970})::text AS hour, ${sums}
           FROM ${tables.usage} AS used WHERE ${where} GROUP BY hour`,
        bind,
        scope,
      )
      const keys = await select<OwnCountRow>(
        `SELECT api_key_id::text AS "apiKeyId", owner_type AS "ownerType", owner_id AS "ownerId", ${sums}
           FROM ${tables.usage} AS used WHERE ${where} GROUP BY api_key_id, owner_type, owner_id
          ORDER BY sum(verified) - sum(denied) - sum(rate_limited) DESC, api_key_id, owner_type, owner_id
          LIMIT ${maxTopKeys}`,
        bind,
        scope,
      )
      return {
        ...toUsage(hours.map(toCounts), filter),
        keys: keys.map((row) => toKeyUsage(row, idTypes)),
      }
    },

    ...createUsagePruning(parts),
    ...createUsageErasing(parts),
  }
}

/** Returns SQL for what a filter names, and adds its values to the parameters. */
function conditionsOf({ apiKeyId, owner }: UsageFilter, bind: unknown[]): string[] {
  const conditions: string[] = []
  if (apiKeyId !== undefined) conditions.push(`api_key_id = $${bind.push(apiKeyId)}::uuid`)
  if (owner) {
    const [type, id] = [bind.push(owner.type), bind.push(String(owner.id))]
    conditions.push(`(owner_type, owner_id) = ($${type}::text, $${id}::text)`)
  }
  return conditions
}

/** Returns SQL for the counts of keys by units of so many hours, of all owners or of one. */
function countsOfKeysSql({ usage, usageWriters }: Tables, hours: number): string {
  const unit = `(${hoursSince1970} / ${hours})`
  return `SELECT writer.seen::text, used.*
         FROM (
           SELECT coalesce(max(batch), 0) AS seen FROM ${usageWriters} WHERE id = $1::uuid
         ) AS writer
         LEFT JOIN (
           SELECT api_key_id::text AS id, (${unit} * ${hours})::text AS hour, ${sums}
             FROM ${usage}
            WHERE api_key_id = ANY ($2::uuid[]) AND ${isWithin(3)} AND ($5::text IS NULL OR (owner_type, owner_id) = ($5::text, $6::text))
            GROUP BY api_key_id, ${unit}
         ) AS used ON true`
}

function bindOwner({ owner }: Scope): (string | null)[] {
  return owner ? [owner.type, String(owner.id)] : [null, null]
}

/** Returns SQL for the hours that begin within a period, whose bounds are a parameter and the next parameter. */
function isWithin(parameter: number): string {
  const [from, to] = [parameter, parameter + 1].map(
    (number) => `to_timestamp($${number}::float8 / 1000::float8)`,
  )
  return `hour >= ${from} AND hour < ${to}`
}

function boundsOf({ from, to }: UsagePeriod): number[] {
  return [from.getTime(), to.getTime()]
}

/** Counts of an hour, or of several from then on. */
type Counts = Omit<Tally, 'id' | 'owner'>

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
  return {
    usage: inOrder.map(toEntry),
    totals: toShown(counts.reduce(add, none)),
  }
}

function toEntry([at, counts]: [number, Counts]): UsageEntry {
  return { at: new Date(at), ...toShown(counts) }
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

/** The counts of a key, and its owner at that time. */
type OwnCountRow = CountRow & {
  apiKeyId: string
  ownerType: OwnerType | typeof erasedType
  ownerId: string
}

function toKeyUsage(row: OwnCountRow, idTypes: IdTypes): KeyUsage {
  const { apiKeyId, ownerType, ownerId } = row
  const owner = ownerType === erasedType ? null : toOwner(ownerType, ownerId, idTypes)
  return { apiKeyId, owner, ...toShown(toCounts(row)) }
}

function toShown({ verified, denied, rateLimited }: Counts): UsageCounts {
  // If a use was pruned and refused afterwards, the difference is below zero.
  return { accepted: Math.max(verified - denied - rateLimited, 0), denied, rateLimited }
}
