import { randomUUID } from 'node:crypto'

import { run } from '../database/query'
import type { KeyChanges, NewKey } from '../keys/input'
import { isSame } from '../keys/metadata'
import { isExpired, nextStatus } from '../keys/states'
import type { Circumstances, Parts } from './calls'
import * as policies from './policies'
import { changeKey, changeKeyIn, get, insert, lock } from './store'

/** Creates a key under the policies of the app. */
export async function create(parts: Parts, key: NewKey, circumstances: Circumstances) {
  const { userId, permissions, metadata = {}, limits = null, expiresAt = null } = key
  const { actor, transaction: given } = circumstances
  policies.refuseReserved(parts, metadata, actor)
  policies.refuseOwnLimits(limits, null, actor)
  policies.refuseTooLate(parts, expiresAt, Date.now())
  await policies.refuseUngrantable(parts, userId, permissions, given)
  const { plainTextKey, ...secret } = parts.format.mint()

  const apiKey = await parts.inTransaction({ ...circumstances, userId }, async (transaction) => {
    await policies.lockUser(parts, userId, transaction)
    await policies.refuseTooManyKeys(parts, userId, transaction)
    const values = { ...key, metadata, ...secret }
    return insert(parts, values, { ...circumstances, transaction })
  })
  return { apiKey, plainTextKey }
}

/** Changes fields of a key under the policies of the app. A key that no longer expires counts towards its owner's number. */
export async function update(
  parts: Parts,
  id: string,
  changes: KeyChanges,
  circumstances: Circumstances,
) {
  const mayRevive = changes.expiresAt !== undefined && parts.maxKeysPerUser !== Infinity

  return parts.inTransaction(circumstances, async (transaction) => {
    const own = { ...circumstances, transaction }
    if (mayRevive) {
      const { userId } = await get(parts, id, own)
      await policies.lockUser(parts, userId, transaction)
    }

    return changeKeyIn(parts, id, own, async (key) => {
      nextStatus('change', key)
      const { expiresAt } = changes
      if (expiresAt !== undefined && !isSame(expiresAt, key.expiresAt)) {
        policies.refuseTooLate(parts, expiresAt, key.createdAt.getTime())
      }
      if (mayRevive && isExpired(key, Date.now())) {
        await policies.refuseTooManyKeys(parts, key.userId, transaction)
      }

      policies.refuseOwnLimits(changes.limits, key.limits, circumstances.actor)
      const metadata =
        changes.metadata && policies.withReserved(parts, changes.metadata, key, circumstances.actor)
      return { action: 'updated', values: { ...changes, metadata } }
    })
  })
}

/** Replaces the permissions of a key by permissions that its owner may give. */
export async function setPermissions(
  parts: Parts,
  id: string,
  permissions: readonly string[],
  circumstances: Circumstances,
) {
  if (parts.grantable) {
    const { userId } = await get(parts, id, circumstances)
    await policies.refuseUngrantable(parts, userId, permissions, circumstances.transaction)
  }

  return changeKey(parts, id, circumstances, (key) => {
    nextStatus('change', key)
    const isSameSet = isSame(key.permissions.toSorted(), permissions.toSorted())
    return { action: 'permissions_changed', values: isSameSet ? {} : { permissions } }
  })
}

const statusActions = {
  suspend: 'suspended',
  reactivate: 'reactivated',
  revoke: 'revoked',
} as const

/** Suspends, reactivates or revokes a key. */
export async function setStatus(
  parts: Parts,
  action: keyof typeof statusActions,
  id: string,
  circumstances: Circumstances,
) {
  return changeKey(parts, id, circumstances, (key) => ({
    action: statusActions[action],
    values: { status: nextStatus(action, key) },
  }))
}

/** Gives a key a new secret. The secret before works on for the grace period; the one before that stops working. */
export async function rotate(
  parts: Parts,
  id: string,
  gracePeriodSeconds: number,
  circumstances: Circumstances,
) {
  const { sequelize, tables, audit } = parts
  const { plainTextKey, hash, secretId, prefix, postfix } = parts.format.mint()

  const apiKey = await parts.inTransaction(circumstances, async (transaction) => {
    const own = { ...circumstances, transaction }
    const before = await lock(parts, id, own)
    nextStatus('rotate', before)
    const ref = randomUUID()
    // In one statement, because a hash may not be both current and retired.
    await run(
      sequelize,
      `WITH retired AS (
         INSERT INTO ${tables.retiredSecrets} (hash, api_key_id)
         SELECT hash, id FROM ${tables.keys} WHERE id = $1
       )
       UPDATE ${tables.keys} AS key
          SET hash = $2, secret_id = $3, prefix = $4, postfix = $5, event_ref = $7, updated_at = clock_timestamp(),
              (previous_hash, previous_secret_id, previous_prefix, previous_postfix, previous_works_until,
               previous_last_used_at) = (
                SELECT key.hash, key.secret_id, key.prefix, key.postfix,
                       clock_timestamp() + $6::float8 * interval '1 second', key.last_used_at
                 WHERE $6::float8 > 0
              )
        WHERE key.id = $1`,
      { bind: [id, hash, secretId, prefix, postfix, gracePeriodSeconds, ref], transaction },
    )
    const after = await get(parts, id, { transaction })
    await audit.record([{ action: 'rotated', before, after, ref }], own)
    return after
  })
  return { apiKey, plainTextKey }
}

const noPreviousSecret = {
  previousHash: null,
  previousSecretId: null,
  previousPrefix: null,
  previousPostfix: null,
  previousWorksUntil: null,
  previousLastUsedAt: null,
}

/** Ends the grace period of a key's previous secret. */
export async function endRotation(parts: Parts, id: string, circumstances: Circumstances) {
  return changeKey(parts, id, circumstances, (key) => {
    nextStatus('change', key)
    return { action: 'rotation_ended', values: key.previousSecret ? noPreviousSecret : {} }
  })
}
