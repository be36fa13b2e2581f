import type { Transaction } from 'sequelize'

import { wait } from '../database/background'
import { isConflict } from '../database/failures'
import { afterCommit, commitStatusOf } from '../database/query'
import { within } from '../database/time-limit'
import type { Caller } from '../database/turns'
import type { Audit, Change } from '../audit/trail'
import type { ApiKeyChanged } from '../keys/emitter'
import type { ApiKeyRecord } from '../keys/record'
import type { Circumstances, GivenParts } from './calls'

export type InTransaction = ReturnType<typeof createInTransaction>
export type NoteMade = ReturnType<typeof createNoteMade>
export type ReportMade = ReturnType<typeof createReportMade>

/** How often a transaction of the library runs that meets a deadlock or a conflict with other transactions. */
const maxAttempts = 5

/** How often the database is asked for the outcome of a transaction of the caller, and how long one answer may take. */
const answerLimitMs = 5_000
const lookAgainMs = 1_000
const maxLooks = 30

/** A change that was made, and the reasons that its event gives. */
export interface Made {
  change: Change
  circumstances: Pick<Circumstances, 'actor' | 'reason' | 'context'>
}

/** Returns the event of a change, for listeners. */
export function noticeOf(
  before: ApiKeyRecord | null,
  apiKey: ApiKeyRecord,
  { actor, reason }: Made['circumstances'],
): ApiKeyChanged {
  return { apiKey, before, actor: actor ?? { type: 'system' }, reason: reason ?? null }
}

function noticeOfMade({ change, circumstances }: Made): ApiKeyChanged {
  const { record } = change.after ?? change.before
  return noticeOf(change.before?.record ?? null, record, circumstances)
}

/** True if a change says that a key was exposed, and has another action. */
function isExposure({ action, before, after }: Change): boolean {
  return action !== 'exposed' && !!after?.record.exposed && !before?.record.exposed
}

/** Returns the entries of changes that were made. */
export function entriesOf(audit: Pick<Audit, 'entriesOf'>, made: readonly Made[]) {
  return audit.entriesOf(made.map(({ change }) => change))
}

/** Creates the function that notes changes in a transaction, so that their events follow its commit. */
export function createNoteMade({ audit, emitter }: Pick<GivenParts, 'audit' | 'emitter'>) {
  return function noteMade(
    transaction: Transaction,
    made: readonly Made[],
    { xid, isLogged }: { xid: string | null | undefined; isLogged: boolean },
  ) {
    if (typeof xid !== 'string') return
    audit.noteWritten(transaction, entriesOf(audit, made), xid, isLogged)
    for (const each of made) {
      emitter.emitAfter(transaction, each.change.action, noticeOfMade(each))
      if (isExposure(each.change)) emitter.emitAfter(transaction, 'exposed', noticeOfMade(each))
    }
  }
}

/** Creates the function that reports changes that are committed. */
export function createReportMade({
  audit,
  emitter,
  sealer,
}: Pick<GivenParts, 'audit' | 'emitter' | 'sealer'>) {
  return function reportMade(made: readonly Made[]) {
    if (made.length > 0) sealer.sealSoon(entriesOf(audit, made))
    for (const each of made) {
      const { change, circumstances } = each
      if (!emitter.listeners.has(change.action)) continue
      const emit = () => emitter.emitCopy(change.action, noticeOfMade(each))
      if (circumstances.context) circumstances.context.runInAsyncScope(emit)
      else emit()
    }
  }
}

/** Creates the function in which every change of a key is made. */
export function createInTransaction(parts: GivenParts) {
  const { sequelize, background, inTurn, audit, emitter, sealer } = parts
  const followed = new WeakSet<Transaction>()

  function committed(transaction: Transaction) {
    emitter.committed(transaction)
    const written = audit.writtenIn(transaction)
    if (written) sealer.sealSoon(written.entries)
  }

  /**
   * Reports the changes in a transaction of the caller that has ended, if it has committed. While the database does not say that,
   * it is asked again. Changes that may not be true are not reported, but the failure is.
   */
  async function settle(transaction: Transaction, xid: string, looks = 1): Promise<void> {
    // The library's own calls change nothing if they are made for nothing.
    if (!emitter.isAwaited(transaction)) return committed(transaction)
    try {
      const status = await within({ limitMs: answerLimitMs }, commitStatusOf(sequelize, xid))
      if (status === 'committed') return committed(transaction)
      if (status === 'aborted') return
      throw new Error(`express-api-keys: it is unknown if transaction ${xid} has committed`)
    } catch (error) {
      if (looks === maxLooks) return emitter.lost(transaction, error)
      background.startTimer(() => void settle(transaction, xid, looks + 1), lookAgainMs)
    }
  }

  /** Settles a transaction of the caller after it has ended, once for all changes in it. */
  function settleLater(transaction: Transaction) {
    const xid = audit.writtenIn(transaction)?.xid
    if (xid === undefined || followed.has(transaction)) return
    followed.add(transaction)
    afterCommit(transaction, () => settle(transaction, xid))
  }

  /**
   * Works in the transaction of the caller, or else in a transaction of the library, and reports the changes after its
   * commit. Only a transaction of the library can run again: `work` reads everything again.
   */
  return async function inTransaction<Result>(
    caller: Caller,
    work: (transaction: Transaction) => Promise<Result>,
  ): Promise<Result> {
    const { transaction } = caller
    if (transaction) {
      const result = await work(transaction)
      settleLater(transaction)
      return result
    }

    for (let attempts = 1; ; attempts++) {
      try {
        const attempt = async (own: Transaction) => [await work(own), own] as const
        const [result, own] = await inTurn(caller, () => sequelize.transaction(attempt))
        committed(own)
        return result
      } catch (error) {
        if (attempts === maxAttempts || !isConflict(error)) throw error
        // Two transactions that met would meet again.
        await wait(Math.random() * 20 * attempts)
      }
    }
  }
}
