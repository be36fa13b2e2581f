import { runIn } from '../database/query'
import type { PermissionChange } from '../keys/input'
import { inBatches } from './bulk'
import type { Circumstances, OwnCircumstances, Parts } from './calls'
import { plan, writeChanges, type ReadKey } from './key-changes'
import { count } from './store'

/**
 * Gives keys another name of a permission in the place of `from`, or none if `to` is missing, and returns how many keys these are.
 * A key that has both names keeps one. Revoked keys stay as they are.
 */
export async function replacePermission(
  parts: Parts,
  { from, to, dryRun }: PermissionChange,
  circumstances: Circumstances,
): Promise<number> {
  const condition = {
    where: `key.permissions @> $1::text[] AND key.status <> 'REVOKED'`,
    bind: [[from]],
  }
  if (dryRun) return count(parts, condition)

  async function replaceIn(keys: readonly ReadKey[], own: OwnCircumstances) {
    const planned = keys.flatMap((key) => planReplacement(key, own) ?? [])
    const run = runIn(parts.sequelize, own.transaction)
    const { made, xid } = await writeChanges(parts, run, planned)
    parts.noteMade(own.transaction, made, { xid, isLogged: true })
  }

  function planReplacement(key: ReadKey, own: OwnCircumstances) {
    const names = key.permissions.flatMap((name) => (name === from ? (to ?? []) : name))
    const permissions = [...new Set(names)]
    const planned = plan(key, { action: 'permissions_changed', changes: { permissions } }, own)
    // The row may also have names of before, which records do not show.
    if (planned) planned.change.after.record.permissions = parts.permissions.namesOf(permissions)
    return planned
  }

  return inBatches(parts, condition, circumstances, replaceIn)
}
