import type { Transaction } from 'sequelize'

import { setTimeout } from '../database/background'
import { isConflict } from '../database/failures'
import { afterCommit } from '../database/query'
import type { Caller } from '../database/turns'
import type { Parts } from './parts'

export type InTransaction = ReturnType<typeof createInTransaction>

/** How often a transaction of the library runs that meets a deadlock or a conflict with other transactions. */
const maxAttempts = 5

/** How many entries a transaction of the library seals itself. It leaves more than that to the time after its end. */
const maxSealedWithin = 1_000

/** Creates the function in which every change of a key is made. */
export function createInTransaction(parts: Omit<Parts, 'inTransaction'>) {
  const { sequelize, background, inTurn, audit, emitter } = parts
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
    if (audit.countWritten(transaction) > maxSealedWithin) background.run(sealLater)
  }

  async function attempt<Result>(work: (own: Transaction) => Promise<Result>): Promise<Result> {
    const [result, own] = await sequelize.transaction(async (own) => {
      const result = await work(own)
      const written = audit.countWritten(own)
      if (written > 0 && written <= maxSealedWithin) await audit.seal(own)
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
      afterCommit(transaction, () => committed(transaction))
      return result
    }

    for (let attempts = 1; ; attempts++) {
      try {
        return await inTurn(caller, () => attempt(work))
      } catch (error) {
        if (attempts === maxAttempts || !isConflict(error)) throw error
        // Two transactions that met would meet again.
        await new Promise((resolve) => {
          setTimeout(resolve, Math.random() * 20 * attempts)
        })
      }
    }
  }
}
