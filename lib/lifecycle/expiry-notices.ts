import type { Sequelize, Transaction } from 'sequelize'

import { endSql, idleSinceSql, isOfPrefixes } from '../../models/api-key'
import type { Tables } from '../../models/tables'
import { clearTimeout, wait, type Background } from '../database/background'
import { onDatabase } from '../database/failures'
import { run, select } from '../database/query'
import { ApiKeysError } from '../errors'
import type { Emitter } from '../keys/emitter'
import type { Environments } from '../keys/environments'
import type { ApiKeyRecord } from '../keys/record'
import type { UncheckedLifecycle } from './commands'

interface ExpiryNoticesParts {
  sequelize: Sequelize
  tables: Tables
  environments: Pick<Environments, 'keyPrefixes'>
  /** How long a key may be idle, in milliseconds; `Infinity` for any time. */
  idleMs: number
  background: Background
  lifecycle: Pick<UncheckedLifecycle, 'get'>
  emitter: Emitter
}

/** A notice of expiry that this process has claimed. */
interface Claim {
  id: string
  expiresAtMs: string
  daysLeft: string
}

/** How many notices a process claims at once. */
const maxClaims = 500

/** How long a claim lasts without renewal, after the process that made it has died. */
const leaseMs = 5_000

/** SQL for the end of a claim that is made or renewed now. */
const leaseEnd = `clock_timestamp() + interval '${leaseMs} milliseconds'`

/** A process that starts has more urgent work, and a process that ends soon leaves notices to other processes. */
const firstSweepMs = 10_000
const sweepEveryMs = 300_000

const renewEveryMs = 1_000

/** How long a listener may take. After that it has failed. */
const listenerLimitMs = 60_000

/** How often a caller checks whether the claims of other processes have ended. */
const lookEveryMs = 250

/**
 * Reports keys that are about to expire, 7 days and 1 day before: at least once, and by one process at a time. A claim of a
 * notice is a lease. The process renews it while listeners work, and keeps it for good after all listeners have succeeded.
 */
export function createExpiryNotices(parts: ExpiryNoticesParts) {
  const { background, emitter } = parts
  let timer: NodeJS.Timeout | undefined
  let isStarted = false

  async function sweep() {
    await reportDue(parts)
    return onDatabase(() => claimedForMs(parts))
  }

  function sweepIn(ms: number) {
    if (!isStarted) return
    timer ??= background.startTimer(() => {
      timer = undefined
      if (!emitter.listeners.has('expiring')) return

      sweep().then(
        (claimedMs) => sweepIn(claimedMs > 0 ? leaseMs : sweepEveryMs),
        (error: unknown) => {
          emitter.emit('error', { error, notice: 'expiring' })
          sweepIn(sweepEveryMs)
        },
      )
    }, ms)
  }

  return {
    announceExpiring: () => announceExpiring(parts),

    /** Reports by itself from now on, while there is a listener. */
    start() {
      isStarted = true
      sweepIn(firstSweepMs)
    },

    stop() {
      isStarted = false
      clearTimeout(timer)
      timer = undefined
    },
  }
}

/**
 * Reports the notices that are due, and the notices of processes that have died. Returns how many notices all listeners
 * have taken.
 */
async function announceExpiring(parts: ExpiryNoticesParts): Promise<number> {
  const reported = await reportDue(parts)
  let leftMs = await onDatabase(() => claimedForMs(parts))
  if (leftMs === 0) return reported

  for (let looks = leaseMs / lookEveryMs; looks > 0 && leftMs > 0; looks--) {
    await wait(Math.min(leftMs, lookEveryMs))
    leftMs = await onDatabase(() => claimedForMs(parts))
  }
  return reported + (await reportDue(parts))
}

/** Reports every notice that is due and unclaimed, and returns how many notices all listeners have taken. */
async function reportDue(parts: ExpiryNoticesParts): Promise<number> {
  // Without a listener, a claimed notice would reach no listener.
  if (!parts.emitter.listeners.has('expiring')) return 0

  /** The claims whose listeners have not succeeded. Failed claims stay here, so that this call does not claim them again. */
  const held = new Set<Claim>()
  const taken = new Set<Claim>()
  let total = 0
  let renewing: Promise<unknown> = Promise.resolve()

  async function keepTaken() {
    const done = [...taken]
    await setClaims(parts, done, 'NULL')
    for (const claim of done) if (taken.delete(claim)) total++
  }
  function renewLater(): NodeJS.Timeout {
    return parts.background.startTimer(() => {
      // If that cannot be written, the lease ends, and another process reports the notice again.
      renewing = Promise.allSettled([keepTaken(), setClaims(parts, held, leaseEnd)])
      renewal = renewLater()
    }, renewEveryMs)
  }
  let renewal = renewLater()

  async function reportOne({ claim, apiKey }: Notice) {
    held.add(claim)
    const isTaken = !apiKey || (await report(parts, apiKey, claim.daysLeft === '1' ? 1 : 7))
    if (!isTaken) return
    held.delete(claim)
    if (apiKey) taken.add(claim)
  }

  try {
    for (;;) {
      const notices = await onDatabase(() => claimAll(parts))
      await Promise.all(notices.map(reportOne))
      await onDatabase(keepTaken)
      if (notices.length < maxClaims) return total
    }
  } finally {
    clearTimeout(renewal)
    await renewing
    await onDatabase(() => setClaims(parts, held, "'-infinity'"))
  }
}

/** A claimed notice, and the key; `null` if the key was deleted in between. */
interface Notice {
  claim: Claim
  apiKey: ApiKeyRecord | null
}

/** Claims notices in a transaction, which commits after every record that listeners get has been read. */
async function claimAll(parts: ExpiryNoticesParts): Promise<Notice[]> {
  return parts.sequelize.transaction(async (transaction) => {
    const notices: Notice[] = []
    for (const claim of await claimDue(parts, transaction)) {
      notices.push({ claim, apiKey: await find(parts, claim.id, transaction) })
    }
    return notices
  })
}

async function find({ lifecycle }: ExpiryNoticesParts, id: string, transaction: Transaction) {
  return lifecycle.get(id, { transaction }).catch((error: unknown) => {
    if (error instanceof ApiKeysError && error.code === 'api_key_not_found') return null
    throw error
  })
}

/** Resolves with true after all listeners have succeeded. */
async function report(
  { background, emitter }: ExpiryNoticesParts,
  apiKey: ApiKeyRecord,
  daysLeft: 7 | 1,
): Promise<boolean> {
  let limit: NodeJS.Timeout | undefined
  const tooLate = new Promise<boolean>((resolve) => {
    limit = background.startTimer(() => {
      const error = new Error(`no listener may take longer than ${listenerLimitMs} ms`)
      emitter.emit('error', { error, notice: 'expiring' })
      resolve(false)
    }, listenerLimitMs)
  })
  const reporting = emitter.emitAndWait('expiring', { apiKey, daysLeft })
  return Promise.race([reporting, tooLate]).finally(() => clearTimeout(limit))
}

/**
 * Claims the notices that are due. A key that was created within 7 days of its expiry has no notice for 7 days. A key that is
 * found with less than a day left has the notice for the last day only. A key that expires because it is idle has a notice only if it was
 * idle for as long as is left, so that keys in use have none.
 */
async function claimDue(
  { sequelize, tables, environments, idleMs }: ExpiryNoticesParts,
  transaction: Transaction,
): Promise<Claim[]> {
  const since = idleMs === Infinity ? 'key.created_at' : idleSinceSql('key')
  return select<Claim>(
    sequelize,
    `WITH old AS (
       DELETE FROM ${tables.expiryNotices} WHERE expires_at < now() - interval '1 day'
     )
     INSERT INTO ${tables.expiryNotices} AS notice (api_key_id, expires_at, days_left, claimed_until)
     SELECT key.id, due.ends_at, due.days_left, ${leaseEnd}
       FROM ${tables.keys} AS key
      CROSS JOIN LATERAL (
        SELECT ends_at, CASE WHEN ends_at <= now() + interval '1 day' THEN 1 ELSE 7 END AS days_left
          FROM (SELECT ${endSql('key', idleMs)} AS ends_at) AS expiry
      ) AS due
      WHERE ${isOfPrefixes('key', environments.keyPrefixes)}
        AND due.ends_at > now() AND due.ends_at <= now() + interval '7 days'
        AND due.ends_at IS NOT NULL AND key.status <> 'REVOKED'
        AND CASE WHEN due.ends_at = key.expires_at THEN key.created_at <= due.ends_at - due.days_left * interval '1 day'
                 ELSE ${since} + due.days_left * interval '1 day' <= now() END
        AND NOT EXISTS (
          SELECT FROM ${tables.expiryNotices} AS told
           WHERE (told.api_key_id, told.expires_at, told.days_left)
                 = (key.id, due.ends_at, due.days_left)
             AND (told.claimed_until IS NULL OR told.claimed_until > clock_timestamp())
        )
      ORDER BY due.ends_at, key.id
      LIMIT ${maxClaims}
         ON CONFLICT (api_key_id, expires_at, days_left) DO UPDATE
        SET claimed_until = EXCLUDED.claimed_until
      WHERE notice.claimed_until <= clock_timestamp()
     RETURNING notice.api_key_id AS id, notice.days_left::text AS "daysLeft",
               (extract(epoch FROM notice.expires_at) * 1000)::bigint::text AS "expiresAtMs"`,
    { transaction },
  )
}

/** Sets the end of claims to a time in SQL. `NULL` keeps a claim for good, and such a claim stays as it is. */
async function setClaims(
  { sequelize, tables }: ExpiryNoticesParts,
  claims: Iterable<Claim>,
  end: string,
) {
  const all = [...claims]
  if (all.length === 0) return

  await run(
    sequelize,
    `UPDATE ${tables.expiryNotices} AS notice SET claimed_until = ${end}
       FROM unnest($1::uuid[], $2::bigint[], $3::integer[]) AS claim (id, expires_at_ms, days_left)
      WHERE notice.api_key_id = claim.id AND notice.days_left = claim.days_left
        AND notice.expires_at = 'epoch'::timestamptz + claim.expires_at_ms * interval '1 millisecond'
        AND notice.claimed_until IS NOT NULL`,
    {
      bind: [
        all.map(({ id }) => id),
        all.map(({ expiresAtMs }) => expiresAtMs),
        all.map(({ daysLeft }) => daysLeft),
      ],
      transaction: null,
    },
  )
}

/** Returns how many milliseconds the claims of all processes last at most without renewal; 0 if there are none. */
async function claimedForMs({
  sequelize,
  tables,
  environments,
}: ExpiryNoticesParts): Promise<number> {
  const [row] = await select<{ ms: string | null }>(
    sequelize,
    `SELECT ceil(extract(epoch FROM max(notice.claimed_until) - clock_timestamp()) * 1000)::text AS ms
       FROM ${tables.expiryNotices} AS notice JOIN ${tables.keys} AS key ON key.id = notice.api_key_id
      WHERE notice.claimed_until > clock_timestamp() AND notice.expires_at > now()
        AND ${isOfPrefixes('key', environments.keyPrefixes)}`,
    { transaction: null },
  )
  return Number(row?.ms ?? 0)
}
