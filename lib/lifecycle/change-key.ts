import { runIn } from '../database/query'
import { ApiKeysError } from '../errors'
import type { ApiKeyRecord } from '../keys/record'
import type { Circumstances, OwnCircumstances, Parts } from './calls'
import { isLogged, plan, readKeys, writeChanges, type Decision, type ReadKey } from './key-changes'
import { identify } from './store'

/** Decides what becomes of a key, or throws a refusal. */
type Decide = (key: ApiKeyRecord, read: ReadKey) => Decision | Promise<Decision>

/** Reads a key, decides what becomes of it, and writes that to its row and to the audit trail. */
export async function changeKey(
  parts: Parts,
  id: string,
  circumstances: Circumstances,
  decide: Decide,
): Promise<ApiKeyRecord> {
  return parts.inTransaction(circumstances, async (transaction) =>
    changeKeyIn(parts, id, { ...circumstances, transaction }, decide),
  )
}

/** Does the same within a transaction that is open, under the lock of the row. */
export async function changeKeyIn(
  parts: Parts,
  id: string,
  circumstances: OwnCircumstances,
  decide: Decide,
): Promise<ApiKeyRecord> {
  const { transaction, userId } = circumstances
  identify(id, userId)
  const run = runIn(parts.sequelize, transaction)
  const [key] = await readKeys(parts, run, [{ id, userId }], 'FOR NO KEY UPDATE OF key')
  if (!key) throw new ApiKeysError('api_key_not_found')
  const planned = plan(key, await decide(key.record, key), circumstances)
  if (!planned) return key.record

  const { xid } = await writeChanges(parts, run, [planned])
  parts.noteMade(transaction, [planned], { xid, isLogged: isLogged(planned) })
  return planned.change.after.record
}
