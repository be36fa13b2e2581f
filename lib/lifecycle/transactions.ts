import type { Transaction } from 'sequelize'

import { wait } from '../database/background'
import { isConflict } from '../database/failures'
import { afterCommit, commitStatusOf } from '../database/query'
import { within } from '../database/time-limit'
import type { Caller } from '../database/turns'
import type { Change } from '../audit/trail'
import type { ApiKeyChanged } from '../keys/emitter'
import type { Actor, ApiKeyRecord } from '../keys/record'
import type { Parts } from './calls'

export type InTransaction = ReturnType<typeof createInTransaction>
export type NoteMade = ReturnType<typeof createNoteMade>

/** How often a transaction of the library runs that meets a deadlock or a conflict with other transactions. */
const maxAttempts = 5

/** How many entries a transaction of the library seals itself. It leaves more than that to the time after its end. */
const maxSealedWithin = 1_000

/** How often the database is asked what became of a transaction of the caller, and how long one answer may take. */
const answerLimitMs = 5_000
const lookAgainMs = 1_000
const maxLooks = 30

/** A change that was made, and the reasons that its event gives. */
export interface Made {
  change: Change
  circumstances: { actor?: Actor | undefined; reason?: string | undefined }
}

/** Returns the event of a change, for listeners. */
export function noticeOf(
  before: ApiKeyRecord | null,
  apiKey: ApiKeyRecord,
  { actor, reason }: Made['circumstances'],
): ApiKeyChanged {
  return { apiKey, before, actor: actor ?? { type: 'system' }, reason: reason ?? null }
}

/** Creates the function that notes changes in a transaction, so that their events follow its commit. */
export function createNoteMade({ audit, emitter }: Pick<Parts, 'audit' | 'emitter'>) {
  return function noteMade(
    transaction: Transaction,
    made: readonly Made[],
    { xid, isLogged }: { xid: string | null | undefined; isLogged: boolean },
  ) {
    if (typeof xid !== 'string') return
    audit.noteWritten(transaction, made.length, xid, isLogged)
    for (const { change, circumstances } of made) {
      const { action, before } = change
      const { record } = change.after ?? change.before
      emitter.emitAfter(
        transaction,
        action,
        noticeOf(before?.record ?? null, record, circumstances),
      )
    }
  }
}

/** Creates the function in which every change of a key is made. */
export function createInTransaction(parts: Omit<Parts, 'inTransaction' | 'noteMade'>) {
  const { sequelize, background, inTurn, audit, emitter } = parts
  const followed = new WeakSet<Transaction>()
  let sealing: Promise<void> | undefined

  /** Seals what a transaction left, unless this process is at it. If it fails, the next change seals more. */
  function sealLater() {
    sealing ??= audit
      .sealAll()
      .catch(() => {})
      .finally(() => {
        sealing = undefined
      })
  }

  function committed(transaction: Transaction) {
    emitter.committed(transaction)
    const { entries = 0 } = audit.writtenIn(transaction) ?? {}
    if (entries > maxSealedWithin) background.run(sealLater)
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

  async function attempt<Result>(work: (own: Transaction) => Promise<Result>): Promise<Result> {
    const [result, own] = await sequelize.transaction(async (own) => {
      const result = await work(own)
      const { entries = 0 } = audit.writtenIn(own) ?? {}
      if (entries > 0 && entries <= maxSealedWithin) await audit.seal(own)
      return [result, own] as const
    })
    committed(own)
    return result
  }

  /**
   * Works in the transaction of the caller, or else in a transaction of the library, and reports the changes after its commit.
   * Entries in a transaction of the caller are sealed later, because the lock on the chain would last as long as it. Only a
   * transaction of the library can run again: `work` reads everything anew.
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
        return await inTurn(caller, () => attempt(work))
      } catch (error) {
        if (attempts === maxAttempts || !isConflict(error)) throw error
        // Two transactions that met would meet again.
        await wait(Math.random() * 20 * attempts)
      }
    }
  }
}
