import type { KeyChanges, NewKey } from '../keys/input'
import { isSame } from '../keys/metadata'
import { isExpired, nextStatus } from '../keys/states'
import type { Circumstances } from './call-options'
import type { Parts } from './parts'
import * as policies from './policies'
import { changeKey, changeKeyIn, get, insert } from './store'

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
