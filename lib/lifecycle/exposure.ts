import { hash } from 'node:crypto'

import { literal } from '../../models/names'
import { runIn } from '../database/query'
import type { ApiKeyRecord, Exposure } from '../keys/record'
import { toStoredHash, type Digest } from '../keys/secret'
import { inBatches } from './bulk'
import type { Circumstances, OwnCircumstances, Parts } from './calls'
import { plan, writeChanges, type Decision, type ReadKey } from './key-changes'

/** A secret of a key that was exposed, and its place if that is known. */
export interface Found {
  apiKeyId: string
  /** The hashes that the secret may have. */
  digests: readonly Digest[]
  /** The source of the report, which records show. */
  source: string
  url: string | null
}

/** The values of a report that all its secrets share. */
export interface ExposureReport extends Pick<Circumstances, 'address'> {
  /** Why the keys are refused, for the audit trail. */
  reason: string
  /** The status that the keys get. */
  outcome: 'revoke' | 'suspend'
}

/** The source of keys that were sent over plain HTTP. */
export const plainHttp = 'plain_http'

/** The secrets of a key that a report names, by the digests that the trail has of their hashes. */
type Places = ReadonlyMap<string, Place>

type Place = Omit<Exposure, 'at'>

/**
 * Revokes the keys whose current or pending secrets were exposed, and marks them, so that they are never reactivated. An old secret in its grace
 * period ends. A secret that works no longer changes nothing. If the fleet has revoked many keys in the last minute, further
 * keys are suspended.
 */
export async function expose(
  parts: Parts,
  found: readonly Found[],
  report: ExposureReport,
): Promise<void> {
  if (found.length === 0) return
  const { address, reason } = report
  const byKey = new Map<string, Map<string, Place>>()
  for (const { apiKeyId, digests, source, url } of found) {
    const places = byKey.get(apiKeyId) ?? new Map<string, Place>()
    for (const digest of digests) {
      const hashDigest = hash('sha256', toStoredHash(digest))
      places.set(hashDigest, places.get(hashDigest) ?? { source, url })
    }
    byKey.set(apiKeyId, places)
  }

  const condition = { where: 'key.id = ANY($1::uuid[])', bind: [[...byKey.keys()]] }
  const circumstances: Circumstances = { actor: { type: 'system' }, address, reason }
  await inBatches(parts, condition, circumstances, (keys, own) =>
    exposeLocked(parts, keys, { byKey, report, own }),
  )
}

interface Work {
  byKey: ReadonlyMap<string, Places>
  report: ExposureReport
  own: OwnCircumstances
}

async function exposeLocked(parts: Parts, keys: readonly ReadKey[], work: Work) {
  const { byKey, report, own } = work
  const { emitter, serverClock } = parts
  const at = new Date(Math.round(serverClock.now()))
  const isFree = report.outcome === 'revoke' ? await countDown(parts, own) : () => false
  const suspended: string[] = []

  const planned = keys.flatMap((key) => {
    const places = byKey.get(key.record.id)
    const place = places?.get(key.hashDigest) ?? places?.get(key.pendingHashDigest ?? '')
    if (!place) return planEnd(key, places, own)

    const exposed = key.record.exposed ?? { at, ...place }
    const decision = decide(key.record, exposed, isFree)
    if (decision?.changes.status === 'SUSPENDED' && report.outcome === 'revoke')
      suspended.push(exposed.source)
    return (decision && plan(key, decision, own)) ?? []
  })
  if (planned.length === 0) return
  const { made, xid } = await writeChanges(parts, runIn(parts.sequelize, own.transaction), planned)
  parts.noteMade(own.transaction, made, { xid, isLogged: true })
  const [source] = suspended
  if (source === undefined) return
  const notice = { source, suspended: suspended.length }
  emitter.emitAfter(own.transaction, 'exposure_limit_reached', notice)
}

/** Ends the grace period of an old secret that a report names. */
function planEnd(key: ReadKey, places: Places | undefined, own: OwnCircumstances) {
  const { previousHashDigest, record } = key
  const isNamed = previousHashDigest !== null && places?.has(previousHashDigest) === true
  if (!isNamed || record.status === 'REVOKED') return []
  return plan(key, { action: 'rotation_ended', changes: { previousSecret: null } }, own) ?? []
}

/** Decides about a key whose current secret was exposed; `null` if it stays as it is. */
function decide(
  { status }: ApiKeyRecord,
  exposed: Exposure,
  isFree: () => boolean,
): Decision | null {
  if (exposed.source === plainHttp && status !== 'ACTIVE') {
    // Its reactivation says that plain HTTP was a mistake of the app's proxies, until it is sent so again.
    return status === 'SUSPENDED' ? null : { action: 'exposed', changes: { exposed } }
  }
  if (status !== 'REVOKED' && isFree()) {
    return { action: 'revoked', changes: { status: 'REVOKED', exposed } }
  }
  if (status !== 'ACTIVE') return { action: 'exposed', changes: { exposed } }
  const changes = { status: 'SUSPENDED', ...(exposed.source !== plainHttp && { exposed }) } as const
  return { action: 'suspended', changes }
}

/**
 * Locks the count of exposed keys for the transaction, and returns a function that says for each further key if the fleet may still
 * revoke it in this minute. Keys of other processes that wait for the lock are counted after this transaction.
 */
async function countDown(parts: Parts, { transaction }: OwnCircumstances) {
  const { tables, sequelize, maxExposedPerMinute } = parts
  if (maxExposedPerMinute === Infinity) return () => true
  const run = runIn(sequelize, transaction)
  const lock = literal(`express-api-keys ${tables.keys} exposed`)
  await run(`SELECT pg_advisory_xact_lock(hashtextextended(${lock}, 0))`, [])
  // The lock has to be there before the snapshot of the count.
  const [row] = await run(
    `SELECT count(*)::text AS count FROM ${tables.keys} AS key
      WHERE key.exposed IS NOT NULL AND key.revoked_at > clock_timestamp() - interval '1 minute'`,
    [],
  )
  let left = maxExposedPerMinute - Number(row?.count)
  return () => left-- > 0
}
