import type { Sequelize, Transaction } from 'sequelize'

import { isOfPrefix } from '../../models/api-key'
import { run, select } from '../../models/statements'
import { clearTimeout, setTimeout, type Background } from '../database/background'
import { ApiKeysError } from '../errors'
import { onDatabase } from '../database/failures'
import type { Emitter } from '../keys/emitter'
import type { ApiKeyRecord } from '../keys/record'
import type { Store } from './store'

interface ExpiryNoticesParts {
  background: Pick<Background, 'startTimer'>
  sequelize: Sequelize
  /** The qualified, quoted names of the tables of keys and of notices. */
  table: string
  noticeTable: string
  keyPrefix: string
  store: Pick<Store, 'get'>
  emitter: Pick<Emitter, 'emit' | 'emitAndWait' | 'isHeard'>
}

/** A notice that this process has claimed. */
interface Claim {
  id: string
  expiresAtMs: string
  daysLeft: string
}

/** How many keys are looked for at once. */
const maxKeys = 500

/** A process that starts has more urgent work, and one that ends soon leaves notices to others. */
const firstSweepMs = 10_000
const sweepEveryMs = 300_000

/** How long a claim lasts that is not renewed: that of a process that has died. */
const leaseMs = 5_000
const renewEveryMs = 1_000

/** A listener that takes longer has failed. */
const listenerLimitMs = 60_000

/** How often a caller looks for the end of claims of other processes. */
const lookEveryMs = 250

/**
 * Announces keys that are about to expire, 7 days and 1 day before: at least once, and by one process at a time. A claim of a
 * notice is a lease. The process renews it while listeners work, and keeps it for good once all of them have succeeded.
 */
export function createExpiryNotices(parts: ExpiryNoticesParts) {
  const { background, sequelize, table, noticeTable, store, emitter } = parts
  const isOwn = isOfPrefix('key', parts.keyPrefix)
  let timer: NodeJS.Timeout | undefined
  let isStarted = false

  const leaseEnd = `clock_timestamp() + interval '${leaseMs} milliseconds'`

  /**
   * Claims the notices that are due. A key that was made within 7 days of its end has none for the 7 days, and one that is
   * found with less than a day left has only the one for the last day.
   */
  async function claim(transaction: Transaction): Promise<Claim[]> {
    return select<Claim>(
      sequelize,
      `WITH old AS (
         DELETE FROM ${noticeTable} WHERE expires_at < now() - interval '1 day'
       )
       INSERT INTO ${noticeTable} AS notice (api_key_id, expires_at, days_left, claimed_until)
       SELECT key.id, key.expires_at, due.days_left, ${leaseEnd}
         FROM ${table} AS key
        CROSS JOIN LATERAL (
          SELECT CASE WHEN key.expires_at <= now() + interval '1 day' THEN 1 ELSE 7 END AS days_left
        ) AS due
        WHERE ${isOwn}
          AND key.expires_at > now() AND key.expires_at <= now() + interval '7 days'
          AND key.expires_at IS NOT NULL AND key.status <> 'REVOKED'
          AND key.created_at <= key.expires_at - due.days_left * interval '1 day'
          AND NOT EXISTS (
            SELECT FROM ${noticeTable} AS told
             WHERE (told.api_key_id, told.expires_at, told.days_left)
                   = (key.id, key.expires_at, due.days_left)
               AND (told.claimed_until IS NULL OR told.claimed_until > clock_timestamp())
          )
        ORDER BY key.expires_at, key.id
        LIMIT ${maxKeys}
           ON CONFLICT (api_key_id, expires_at, days_left) DO UPDATE
          SET claimed_until = EXCLUDED.claimed_until
        WHERE notice.claimed_until <= clock_timestamp()
       RETURNING notice.api_key_id AS id, notice.days_left::text AS "daysLeft",
                 (extract(epoch FROM notice.expires_at) * 1000)::bigint::text AS "expiresAtMs"`,
      { transaction },
    )
  }

  /** Sets the end of claims, unless a process has told all listeners meanwhile. */
  async function setClaims(claims: Iterable<Claim>, end: string) {
    const all = [...claims]
    if (all.length === 0) return

    await run(
      sequelize,
      `UPDATE ${noticeTable} AS notice SET claimed_until = ${end}
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

  /** Returns for how many milliseconds claims may last that are not renewed; 0 if there are none. */
  async function claimedForMs(): Promise<number> {
    const [row] = await select<{ ms: string | null }>(
      sequelize,
      `SELECT ceil(extract(epoch FROM max(claimed_until) - clock_timestamp()) * 1000)::text AS ms
         FROM ${noticeTable} AS notice JOIN ${table} AS key ON key.id = notice.api_key_id
        WHERE claimed_until > clock_timestamp() AND notice.expires_at > now() AND ${isOwn}`,
      { transaction: null },
    )
    return Number(row?.ms ?? 0)
  }

  /** The key may have been deleted just now. */
  async function find(id: string, transaction: Transaction): Promise<ApiKeyRecord | null> {
    return store.get(id, { transaction }).catch((error: unknown) => {
      if (error instanceof ApiKeysError && error.code === 'api_key_not_found') return null
      throw error
    })
  }

  /** Nothing is claimed until every record that listeners get has been read. */
  function claimAll() {
    return sequelize.transaction(async (transaction) => {
      const notices: { claim: Claim; apiKey: ApiKeyRecord | null }[] = []
      for (const claimed of await claim(transaction)) {
        notices.push({ claim: claimed, apiKey: await find(claimed.id, transaction) })
      }
      return notices
    })
  }

  /** Resolves with true once all listeners have succeeded. */
  async function tell(apiKey: ApiKeyRecord, daysLeft: 7 | 1): Promise<boolean> {
    let limit: NodeJS.Timeout | undefined
    const tooLate = new Promise<boolean>((resolve) => {
      limit = background.startTimer(() => {
        const error = new Error(`no listener may take longer than ${listenerLimitMs} ms`)
        emitter.emit('error', { error, notice: 'expiring' })
        resolve(false)
      }, listenerLimitMs)
    })
    const telling = emitter.emitAndWait('expiring', { apiKey, daysLeft })
    return Promise.race([telling, tooLate]).finally(() => clearTimeout(limit))
  }

  /** Tells listeners of every notice that is due and unclaimed, and returns how many they have taken. */
  async function tellDue(): Promise<number> {
    // Otherwise a notice would be claimed that no listener gets.
    if (!emitter.isHeard('expiring')) return 0

    /** What is claimed here, and not told to the end. Failed claims are kept, so that this call does not claim them again. */
    const held = new Set<Claim>()
    const taken = new Set<Claim>()
    let total = 0
    let renewing: Promise<unknown> = Promise.resolve()

    async function keepTaken() {
      const done = [...taken]
      await setClaims(done, 'NULL')
      for (const claim of done) if (taken.delete(claim)) total++
    }
    function renewLater(): NodeJS.Timeout {
      return background.startTimer(() => {
        // If that cannot be written, the lease ends, and another process reports the notice again.
        renewing = Promise.allSettled([keepTaken(), setClaims(held, leaseEnd)])
        renewal = renewLater()
      }, renewEveryMs)
    }
    let renewal = renewLater()

    try {
      for (;;) {
        const claimed = await onDatabase(claimAll)
        const telling = claimed.map(async ({ claim, apiKey }) => {
          held.add(claim)
          const isTaken = !apiKey || (await tell(apiKey, claim.daysLeft === '1' ? 1 : 7))
          if (!isTaken) return
          held.delete(claim)
          if (apiKey) taken.add(claim)
        })
        await Promise.all(telling)
        await onDatabase(keepTaken)
        if (claimed.length < maxKeys) return total
      }
    } finally {
      clearTimeout(renewal)
      await renewing
      await onDatabase(() => setClaims(held, 'clock_timestamp()'))
    }
  }

  /**
   * Tells listeners at once, and again of notices whose process dies meanwhile. Returns how many notices all listeners have
   * taken.
   */
  async function announceExpiring(): Promise<number> {
    const told = await tellDue()
    let leftMs = await onDatabase(claimedForMs)
    if (leftMs === 0) return told

    for (let looks = leaseMs / lookEveryMs; looks > 0 && leftMs > 0; looks--) {
      await wait(Math.min(leftMs, lookEveryMs))
      leftMs = await onDatabase(claimedForMs)
    }
    return told + (await tellDue())
  }

  async function sweep() {
    await tellDue()
    return onDatabase(claimedForMs)
  }

  function sweepIn(ms: number) {
    if (!isStarted) return
    timer ??= background.startTimer(() => {
      timer = undefined
      if (!emitter.isHeard('expiring')) return

      sweep().then(
        (claimedForMs) => sweepIn(claimedForMs > 0 ? leaseMs : sweepEveryMs),
        (error: unknown) => {
          emitter.emit('error', { error, notice: 'expiring' })
          sweepIn(sweepEveryMs)
        },
      )
    }, ms)
  }

  return {
    announceExpiring,

    /** Announces by itself from now on, as long as there is a listener. */
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

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms)
  })
}
