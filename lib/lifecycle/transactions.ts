import type { Sequelize, Transaction } from 'sequelize'

import { setTimeout, type Background } from '../database/background'
import type { Audit } from '../audit/trail'
import { afterCommit, isConflict } from '../database/failures'
import type { Emitter } from '../keys/emitter'
import type { Caller, InTurn } from '../keys/turns'

interface TransactionParts {
  sequelize: Sequelize
  background: Pick<Background, 'run'>
  inTurn: InTurn
  audit: Audit
  emitter: Pick<Emitter, 'committed'>
}

export type InTransaction = ReturnType<typeof createInTransaction>

/** How often a transaction of our own is tried that deadlocks, or conflicts, with others. */
const maxAttempts = 5

/** How many entries a transaction of our own seals itself. More are sealed after it, so that nobody waits for all of them. */
const maxSealedWithin = 1_000

/** Makes the function in which every change of a key is made. */
export function createInTransaction(parts: TransactionParts) {
  const { sequelize, background, inTurn, audit, emitter } = parts
  let sealing: Promise<void> | undefined

  /** Seals what a transaction left, unless this process is doing so. If it fails, the next change goes on with it. */
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

  async function attempt<Result>(
    work: (transaction: Transaction) => Promise<Result>,
  ): Promise<Result> {
    const [result, own] = await sequelize.transaction(async (own) => {
      const result = await work(own)
      const count = audit.countWritten(own)
      if (count > 0 && count <= maxSealedWithin) await audit.seal(own)
      return [result, own] as const
    })
    committed(own)
    return result
  }

  /**
   * Works in the transaction of the caller or else in one of our own, and has what happened told of when it commits. What is
   * written in the caller's is sealed later: others would wait for it to end. Only one of our own can be tried again, from its
   * beginning: `work` reads everything anew.
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
        // Two that met would meet again.
        await new Promise((resolve) => {
          setTimeout(resolve, Math.random() * 20 * attempts)
        })
      }
    }
  }
}
