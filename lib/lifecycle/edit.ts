import { runIn } from '../database/query'
import { ApiKeysError } from '../errors'
import type { KeyChanges } from '../keys/input'
import { isSame } from '../keys/metadata'
import { setPermissions, update } from './actions'
import type { Circumstances, Parts } from './calls'
import { readKeys } from './key-changes'
import * as policies from './policies'
import { get, identify } from './store'

/** The changes of a form. `shown` has the permissions with which it was made; without them, the key gets just those of the form. */
interface Edit {
  permissions: readonly string[]
  shown: readonly string[] | undefined
  changes: KeyChanges
}

/**
 * Changes fields and permissions of a key in one transaction. What the form has added and taken away is added to and taken from the
 * permissions that the key has by then, so that no form undoes a change of another.
 */
export async function edit(
  parts: Parts,
  id: string,
  { permissions, shown, changes }: Edit,
  circumstances: Circumstances,
) {
  const { owner } = circumstances
  return parts.inTransaction(circumstances, async (transaction) => {
    const within = { ...circumstances, transaction }
    // `update` locks the owner of a key whose expiry changes, and owners are locked before keys.
    if (changes.expiresAt !== undefined) {
      await policies.lockOwner(parts, (await get(parts, id, within)).owner, transaction)
    }
    identify(id, owner)
    const run = runIn(parts.sequelize, transaction)
    const [key] = await readKeys(parts, run, [{ id, owner }], 'FOR NO KEY UPDATE OF key')
    if (!key) throw new ApiKeysError('api_key_not_found')
    const { permissions: held } = key.record
    const wanted = shown ? merge(held, shown, permissions) : permissions
    // The key may hold a permission that its owner may no longer give.
    if (!isSame(held.toSorted(), wanted.toSorted())) {
      await setPermissions(parts, id, wanted, within)
    }
    return update(parts, id, changes, within)
  })
}

/** Returns what there is by now, with what a form has added to the names that it showed, and without what it has taken away. */
function merge(
  present: readonly string[],
  shown: readonly string[],
  wanted: readonly string[],
): string[] {
  const kept = present.filter((name) => wanted.includes(name) || !shown.includes(name))
  const added = wanted.filter((name) => !shown.includes(name) && !kept.includes(name))
  return [...kept, ...added]
}
