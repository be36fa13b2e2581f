import type { Sequelize, Transaction } from 'sequelize'

import type { Audit } from './audit'
import type { AuditChain } from './audit-chain'
import { afterCommit } from './database'
import type { Emitter } from './emitter'

interface TransactionParts {
  sequelize: Sequelize
  audit: Pick<Audit, 'hasWritten'>
  chain: Pick<AuditChain, 'seal'>
  emitter: Pick<Emitter, 'committed'>
}

export type InTransaction = ReturnType<typeof createInTransaction>

/** Makes the function in which every change of a key is made. */
export function createInTransaction({ sequelize, audit, chain, emitter }: TransactionParts) {
  /**
   * Works in the transaction of the caller or else in one of our own, and has what happened told of when it commits. What is
   * written in the caller's is sealed later: others would wait for it to end.
   */
  return async function inTransaction<Result>(
    transaction: Transaction | undefined,
    work: (transaction: Transaction) => Promise<Result>,
  ): Promise<Result> {
    if (transaction) {
      const result = await work(transaction)
      afterCommit(transaction, () => emitter.committed(transaction))
      return result
    }

    const [result, own] = await sequelize.transaction(async (own) => {
      const result = await work(own)
      if (audit.hasWritten(own)) await chain.seal(own)
      return [result, own] as const
    })
    emitter.committed(own)
    return result
  }
}
