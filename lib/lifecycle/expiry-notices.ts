import type { Transaction } from 'sequelize'

import { clearTimeout, wait, type Background } from '../database/background'
import { onDatabase } from '../database/failures'
import { ApiKeysError } from '../errors'
import type { Emitter } from '../keys/emitter'
import type { ApiKeyRecord } from '../keys/record'
import type { UncheckedLifecycle } from './commands'
import {
  claimDue,
  claimedForMs,
  leaseEnd,
  leaseMs,
  maxClaims,
  setClaims,
  type Claim,
  type NoticeParts,
} from './notice-claims'

interface ExpiryNoticesParts extends NoticeParts {
  background: Background
  lifecycle: Pick<UncheckedLifecycle, 'get'>
  emitter: Emitter
}

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
      if (!emitter.hasListener('expiring')) return

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
 * Reports the notices that are due, and again the notices of a process that dies meanwhile. Returns how many notices all
 * listeners have taken.
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
  if (!parts.emitter.hasListener('expiring')) return 0

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
    await onDatabase(() => setClaims(parts, held, 'clock_timestamp()'))
  }
}

/** A claimed notice, and the key; `null` if the key was deleted meanwhile. */
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
