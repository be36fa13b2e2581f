import type { Sequelize, Transaction } from 'sequelize'

import { timeOfParameter } from '../../models/api-key'
import { run } from '../../models/statements'
import { ApiKeysError } from '../errors'
import type { KeyReader } from './reader'

interface UserKeysParts {
  sequelize: Sequelize
  /** The qualified, quoted name of the table of keys. */
  table: string
  reader: Pick<KeyReader, 'count'>
  maxKeysPerUser: number
}

export type UserKeys = ReturnType<typeof createUserKeys>

/** Holds the number of keys that a user has to its limit. */
export function createUserKeys({ sequelize, table, reader, maxKeysPerUser }: UserKeysParts) {
  return {
    isLimited: maxKeysPerUser !== Infinity,

    /**
     * Has everything wait that changes how many keys a user has, until the transaction ends. Taken before any row is
     * locked. It is a lock of our own, as a user's row is the app's to lock. The hash is by the collation of the column: two
     * spellings that it takes for one user have one lock.
     */
    async lock(userId: string | number, transaction: Transaction) {
      await run(
        sequelize,
        `SELECT pg_advisory_xact_lock(hashtextextended(
           $1 || coalesce((SELECT key.user_id::text FROM ${table} AS key WHERE false), $2), 0
         ))`,
        { bind: [`express-api-keys ${table} `, String(userId)], transaction },
      )
    },

    /**
     * Counts the living keys of a user, under the user's lock. Whether a key has expired goes by the clock that verification
     * has.
     */
    async refuseOneTooMany(userId: string | number, transaction: Transaction) {
      if (maxKeysPerUser === Infinity) return

      const living = {
        where: `key.user_id = $1 AND key.status <> 'REVOKED'
                AND (key.expires_at IS NULL OR key.expires_at > ${timeOfParameter(2)})`,
        bind: [userId, Date.now()],
      }
      const count = await reader.count(living, { transaction })
      if (count >= maxKeysPerUser) throw new ApiKeysError('too_many_api_keys')
    },
  }
}
