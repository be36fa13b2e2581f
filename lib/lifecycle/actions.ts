import type { Transaction } from 'sequelize'

import { runIn } from '../database/query'
import { ApiKeysError } from '../errors'
import type { KeyChanges, NewKey } from '../keys/input'
import { isSame } from '../keys/metadata'
import { isSameOwner, type Owner } from '../keys/owner'
import { resourcesOf, type ApiKeyRecord } from '../keys/record'
import { isExpired, isIdle, nextStatus } from '../keys/states'
import type { Circumstances, Parts } from './calls'
import * as policies from './policies'
import { askFirst, beginAnew, changeKey, changeKeyIn } from './change-key'
import { once } from './idempotency'
import type { Decision, ReadKey } from './key-changes'
import { createKeys, draftKeys, explainUnknownOwner, type NewMember } from './new-keys'
import { renew } from './renewal'
import { get } from './store'

/** Creates a key under the policies of the app. */
export async function create(parts: Parts, key: NewKey, circumstances: Circumstances) {
  const { transaction: given } = circumstances

  return once(parts, 'create', key, circumstances, async (claim) => {
    await policies.refuseNewKey(parts, key, circumstances)
    const { plainTextKey, ...secret } = parts.format.mint(
      parts.environments.ofNewKey(key).keyPrefixes[0],
    )

    const member = { key, secret, circumstances, claim }
    const apiKey = given ? await createWithin(parts, member, given) : await createNow(parts, member)
    parts.verification.added(secret.hash, given)
    return { apiKey, plainTextKey }
  })
}

/** How long the creation of a key whose request is carried out once waits for a lock. Another such request may be in its way. */
const patienceMs = 500

/** Creates a key in a statement with others; in one of its own if its request is carried out once. */
async function createNow(parts: Parts, member: NewMember) {
  const { key, circumstances, claim } = member
  const caller = { ...circumstances, owner: key.owner }
  if (!claim) {
    const { type, id } = key.owner
    const [subject, bytes] = [`${type} ${id}`, JSON.stringify(key).length]
    return parts.submit(parts.creations, member, { ...caller, subject, bytes })
  }

  const sent = await parts.inTurn(caller, () => parts.creations.sendAlone(member, patienceMs))
  await sent.finish()
  const [outcome = 'again'] = sent.outcomes
  if (outcome === 'again') throw new ApiKeysError('database_unavailable')
  if ('error' in outcome) throw outcome.error
  return outcome.result
}

/** Creates a key in a transaction of the caller. */
async function createWithin(parts: Parts, member: NewMember, transaction: Transaction) {
  const { circumstances } = member
  return parts.inTransaction({ transaction }, async () => {
    const run = runIn(parts.sequelize, transaction)
    const { outcomes, xid } = await createKeys(parts, run, draftKeys(parts, [member]), null).catch(
      (error: unknown) => explainUnknownOwner(error, member.key.owner),
    )
    const [change] = outcomes
    if (change instanceof Error || !change) throw change
    parts.noteMade(transaction, [{ change, circumstances }], { xid, isLogged: false })
    return change.after.record
  })
}

/** Changes fields of a key under the policies of the app. The app is asked which resources the owner may bind. */
export async function update(
  parts: Parts,
  id: string,
  changes: KeyChanges,
  circumstances: Circumstances,
): Promise<ApiKeyRecord> {
  const { resources } = changes

  return askFirst(async () => {
    if (!resources) return changeFields(parts, id, changes, circumstances)

    const before = await get(parts, id, circumstances)
    const had = resourcesOf(before)
    const { transaction } = circumstances
    await policies.refuseUnbindable(parts, before.owner, resources, had, transaction)
    return changeFields(parts, id, changes, circumstances, before)
  })
}

/**
 * Changes fields of a key. If the app was asked about the key, it must have the owner and the resources that it had then. A key that no
 * longer expires counts towards its owner's number.
 */
async function changeFields(
  parts: Parts,
  id: string,
  changes: KeyChanges,
  circumstances: Circumstances,
  asked?: ApiKeyRecord,
) {
  const { actor } = circumstances

  function decide(key: ApiKeyRecord, read: ReadKey): Decision {
    if (asked && !isSame(resourcesOf(key), resourcesOf(asked))) beginAnew()
    beginAnewForOthers(key, asked?.owner)
    nextStatus('change', key)
    if (isReach(changes, key)) policies.refuseKeyBeyond(parts, read, circumstances.mayGive)
    const { expiresAt } = changes
    if (expiresAt !== undefined && !isSame(expiresAt, key.expiresAt)) {
      policies.refuseTooLate(parts, expiresAt, key.createdAt.getTime())
    }
    policies.refuseOwnLimits(changes.limits, key.limits, actor)
    const metadata = changes.metadata && policies.withReserved(parts, changes.metadata, key, actor)
    return { action: 'updated', changes: { ...changes, metadata } }
  }

  const member = { id, circumstances, decide }
  const isCounted = Object.values(parts.maxKeysPerOwner).some((most) => most < Infinity)
  if (changes.expiresAt === undefined || !isCounted) {
    return changeKey(parts, member, { bytes: JSON.stringify(changes).length })
  }

  // The key may be expired by the time of the change, so its owner is locked before it.
  return changeKeyIn(parts, circumstances, async (transaction) => {
    const { owner } = await get(parts, id, { ...circumstances, transaction })
    await policies.lockOwner(parts, owner, transaction)
    async function decideAndCount(key: ApiKeyRecord, read: ReadKey) {
      beginAnewForOthers(key, owner)
      const decision = decide(key, read)
      if (isExpired(key, Date.now())) {
        const own = parts.environments.ofKey(read)
        await policies.refuseTooManyKeys(parts, key.owner, own, transaction)
      }
      return decision
    }
    return { ...member, decide: decideAndCount }
  })
}

/** Begins anew if a key is no longer the key of the owner about whom the app was asked, or who is locked. */
function beginAnewForOthers(key: ApiKeyRecord, owner: Owner | undefined) {
  if (owner && !isSameOwner(key.owner, owner)) beginAnew()
}

/** True if a change says until when, from where or for what a key works. */
function isReach({ expiresAt, allowedIps, resources }: KeyChanges, key: ApiKeyRecord): boolean {
  return [
    [expiresAt, key.expiresAt],
    [allowedIps, key.allowedIps],
    [resources, resourcesOf(key)],
  ].some(([after, before]) => after !== undefined && !isSame(after, before))
}

/** Replaces the permissions of a key by permissions that its owner may give. */
export async function setPermissions(
  parts: Parts,
  id: string,
  permissions: readonly string[],
  circumstances: Circumstances,
) {
  const names = parts.permissions.namesOf(permissions)

  return askFirst(async () => {
    const owner = parts.grantable && (await get(parts, id, circumstances)).owner
    if (owner) {
      await policies.refuseUngrantable(parts, owner, permissions, circumstances.transaction)
    }

    function decide(key: ApiKeyRecord, { permissions: before }: ReadKey): Decision {
      beginAnewForOthers(key, owner)
      nextStatus('change', key)
      if (names.some((name) => !before.includes(name))) {
        policies.refuseBeyond(parts, permissions, circumstances.mayGive)
      }
      const isSameSet = isSame(before.toSorted(), names.toSorted())
      return { action: 'permissions_changed', changes: isSameSet ? {} : { permissions: names } }
    }
    return changeKey(parts, { id, circumstances, decide })
  })
}

const statusActions = {
  suspend: 'suspended',
  reactivate: 'reactivated',
  revoke: 'revoked',
} as const

/** Suspends, reactivates or revokes a key. An active key that has expired because it was idle is reactivated, too. */
export async function setStatus(
  parts: Parts,
  action: keyof typeof statusActions,
  id: string,
  circumstances: Circumstances,
) {
  function decide(key: ApiKeyRecord, read: ReadKey): Decision {
    const status = nextStatus(action, key)
    const decision: Decision = { action: statusActions[action], changes: { status } }
    if (action !== 'reactivate') return decision
    if (status === key.status && !isIdle(key, Date.now())) return decision
    policies.refuseKeyBeyond(parts, read, circumstances.mayGive)
    return { ...decision, renewal: renew(parts) }
  }
  return changeKey(parts, { id, circumstances, decide }, { isUrgent: action !== 'reactivate' })
}
