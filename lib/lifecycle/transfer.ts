import type { Transaction } from 'sequelize'

import { ApiKeysError } from '../errors'
import { isSame } from '../keys/metadata'
import { isSameOwner, type Owner } from '../keys/owner'
import { ownerMembers, resourcesOf, type ApiKeyRecord } from '../keys/record'
import { isExpired, nextStatus } from '../keys/states'
import type { Circumstances, Parts } from './calls'
import { askFirst, beginAnew, changeKeyIn } from './change-key'
import type { Decision, ReadKey } from './key-changes'
import { explainUnknownOwner } from './new-keys'
import { isSuspended, lockOwners } from './owners'
import * as policies from './policies'
import { get } from './store'

/**
 * Gives a key another owner, who may hold its permissions and its resources. Both owners are locked, and then the row. If the key has
 * changed by then, the transfer begins anew.
 */
export async function transfer(
  parts: Parts,
  id: string,
  to: Owner,
  circumstances: Circumstances,
): Promise<ApiKeyRecord> {
  const { transaction: given } = circumstances

  return askFirst(async () => {
    const before = await get(parts, id, circumstances)
    nextStatus('change', before)
    await policies.refuseUngrantable(parts, to, before.permissions, given)
    await policies.refuseUnbindable(parts, to, resourcesOf(before), null, given)

    return changeKeyIn(parts, circumstances, async (transaction) => {
      const [, owner = to] = await lockOwners(parts, [before.owner, to], transaction)
      const decide = async (key: ApiKeyRecord, read: ReadKey) => {
        if (!isAsBefore(key, before)) beginAnew()
        return decideTransfer(parts, read, owner, transaction)
      }
      return { id, circumstances, decide }
    })
  }).catch((error: unknown) => explainUnknownOwner(error, to))
}

function isAsBefore(key: ApiKeyRecord, before: ApiKeyRecord): boolean {
  return (
    isSameOwner(key.owner, before.owner) &&
    isSame(key.permissions, before.permissions) &&
    isSame(resourcesOf(key), resourcesOf(before))
  )
}

/** A key that has expired does not count towards the number of keys of its new owner. */
async function decideTransfer(
  parts: Parts,
  read: ReadKey,
  owner: Owner,
  transaction: Transaction,
): Promise<Decision> {
  const { record: key } = read
  nextStatus('change', key)
  if (isSameOwner(key.owner, owner)) return { action: 'transferred', changes: {} }

  if (await isSuspended(parts, owner, transaction)) throw new ApiKeysError('owner_suspended')
  if (!isExpired(key, Date.now())) {
    const own = parts.environments.ofKey(read)
    await policies.refuseTooManyKeys(parts, owner, own, transaction)
  }
  // The address of a client of the former owner is not for the new owner to see.
  const changes = {
    ...ownerMembers(owner, parts.idTypes),
    ownerSuspended: false,
    lastUsedFrom: null,
  }
  return { action: 'transferred', changes }
}
