import type { Transaction } from 'sequelize'

import { runIn } from '../database/query'
import { ApiKeysError } from '../errors'
import type { ApiKeyRecord } from '../keys/record'
import type { Circumstances, GivenParts, Parts } from './calls'
import {
  isLogged,
  plan,
  readKeys,
  writeChanges,
  type Decision,
  type Planned,
  type ReadKey,
} from './key-changes'
import { identify } from './store'

/** A key to be changed, and the function that decides its change, or throws a refusal. */
export interface ChangeMember<Decided = Decision> {
  id: string
  circumstances: Circumstances
  decide(key: ApiKeyRecord, read: ReadKey): Decided
}

/** Thrown by a decision if the key has changed since the app was asked about it. */
const changedMeanwhile = new Error('express-api-keys: the key has changed meanwhile')

/** Has `askFirst` begin anew, because the key that it read and asked the app about has changed. */
export function beginAnew(): never {
  throw changedMeanwhile
}

/** Reads a key, asks the app about it, and changes it. If the key is another by the time of the change, all of it begins anew. */
export async function askFirst<Result>(change: () => Promise<Result>): Promise<Result> {
  for (;;) {
    try {
      return await change()
    } catch (error) {
      if (error !== changedMeanwhile) throw error
    }
  }
}

/** Changes a key, in one statement with other keys or in the transaction of the caller. This process honours the change afterwards. */
export async function changeKey(
  parts: Parts,
  member: ChangeMember,
  { isUrgent = false, bytes = 0 } = {},
): Promise<ApiKeyRecord> {
  const { id, circumstances } = member
  identify(id, circumstances.owner)
  if (circumstances.transaction) return changeKeyIn(parts, circumstances, () => member)

  const subject = `key ${id.toLowerCase()}`
  return parts.submit(parts.changes, member, { ...circumstances, subject, isUrgent, bytes })
}

/**
 * Changes a key in the transaction of the caller, or else in a transaction of its own. The work that comes before the lock on the row
 * returns the key and the decision, which may need the transaction.
 */
export async function changeKeyIn(
  parts: Parts,
  circumstances: Circumstances,
  prepare: (transaction: Transaction) => Awaitable<ChangeMember<Awaitable<Decision>>>,
): Promise<ApiKeyRecord> {
  const { transaction: given } = circumstances
  const record = await parts.inTransaction(circumstances, async (transaction) => {
    const { record, planned, xid } = await changeLocked(
      parts,
      await prepare(transaction),
      transaction,
    )
    if (planned) parts.noteMade(transaction, [planned], { xid, isLogged: isLogged(planned) })
    return record
  })
  await parts.verification.changed([record.id], given)
  return record
}

type Awaitable<Value> = Value | Promise<Value>

/** A key in its present state; `planned` is the change, if there was one. */
interface Changed {
  record: ApiKeyRecord
  planned: Planned | null
  xid: string | null
}

/** Changes a key under the lock of its row. */
export async function changeLocked(
  parts: GivenParts,
  { id, circumstances, decide }: ChangeMember<Awaitable<Decision>>,
  transaction: Transaction,
): Promise<Changed> {
  const run = runIn(parts.sequelize, transaction)
  const { owner } = circumstances
  const [key] = await readKeys(parts, run, [{ id, owner }], 'FOR NO KEY UPDATE OF key')
  if (!key) throw new ApiKeysError('api_key_not_found')
  const planned = plan(key, await decide(key.record, key), circumstances)
  if (!planned) return { record: key.record, planned, xid: null }

  const { made, xid } = await writeChanges(parts, run, [planned])
  // The row is locked, so only another request with the same idempotency key can be in the way.
  if (made.length === 0 && planned.row.claim) throw new ApiKeysError('already_created')
  return { record: planned.change.after.record, planned, xid }
}
