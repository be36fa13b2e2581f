import { QueryTypes, type Sequelize } from 'sequelize'

import type { ApiKeyRow } from '../../models/api-key'
import type { UserIdType } from '../../models/storage-options'
import { onDatabase } from '../keys/database'
import { readArray, readUserId } from '../keys/record'

/** What verification needs of a key. */
export type UsableKey = Pick<
  ApiKeyRow,
  'id' | 'userId' | 'name' | 'permissions' | 'status' | 'expiresAt'
>

/** Finds a key by the hash of its plain text. */
export type Lookup = (hash: string) => Promise<UsableKey | null>

interface LookupParts {
  sequelize: Sequelize
  /** The qualified, quoted name of the table of keys. */
  table: string
  userIdType: UserIdType
}

/** One indexed query, always on the primary, never in an ambient transaction. */
export function createLookup({ sequelize, table, userIdType }: LookupParts): Lookup {
  return async function findByHash(hash) {
    const [key] = await onDatabase(() =>
      sequelize.query<Omit<UsableKey, 'expiresAt'> & { expiresAtMs: number | string | null }>(
        // The time as a number: how a session writes times out as text is a setting, and drivers misread some.
        `SELECT id, user_id AS "userId", name, permissions, status,
                (extract(epoch FROM expires_at) * 1000)::float8 AS "expiresAtMs"
           FROM ${table} WHERE hash = $1`,
        { bind: [hash], type: QueryTypes.SELECT, useMaster: true, transaction: null },
      ),
    )
    if (!key) return null

    const { expiresAtMs, ...rest } = key
    return {
      ...rest,
      userId: readUserId(key.userId, userIdType),
      permissions: readArray(key.permissions),
      expiresAt: expiresAtMs === null ? null : new Date(Number(expiresAtMs)),
    }
  }
}
