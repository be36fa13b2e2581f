import { ownerIdSql } from '../../models/owner'
import { runIn, select } from '../database/query'
import { ApiKeysError } from '../errors'
import type { Parsers } from '../keys/input'
import { ownerRow, type Owner } from '../keys/owner'
import { toOwner } from '../keys/record'
import * as bulk from './bulk'
import type { Circumstances, OwnCircumstances, Parts } from './calls'
import { isLogged, plan, writeChanges, type ReadKey } from './key-changes'
import { reactivateOwner } from './owners'
import { count, type Condition } from './store'

/** The result of an erasing, or of its dry run. */
export interface Erased {
  /** The keys of the owner that were deleted. */
  keys: number
  /** The keys of other owners that no longer name the owner as their maker. */
  createdKeys: number
  /** The entries of the audit trail that lost personal values. */
  events: number
  /** The hours of usage that no longer name the owner. */
  hours: number
}

/**
 * Erases an owner: deletes the keys, and removes the personal values from the trail and from usage. All keys must be revoked, because a
 * deleted key is refused as well, but not for the reason that the app may expect. Deletions leave entries with personal values, so the
 * trail comes later. Usage comes last, because processes see by the trail that they must not name the owner of late uses. Each step works in transactions of its own, and finds nothing to do if it is repeated.
 */
export async function eraseOwner(
  parts: Parts,
  { owner: given, revoke, dryRun }: ReturnType<Parsers['erasing']>,
  circumstances: Circumstances,
): Promise<Erased> {
  const { audit, usage } = parts
  const owner = await spell(parts, given)
  const own = bulk.revoked(owner)
  const living = await bulk.countRevocable(parts, owner, {})
  if (living > 0 && !revoke) throw new ApiKeysError('owner_has_api_keys')

  if (dryRun) {
    return {
      keys: living + (await count(parts, own)),
      createdKeys: await count(parts, madeBy(owner)),
      events: await audit.countErasable(owner),
      hours: await usage.countOf(owner),
    }
  }

  if (living > 0) await bulk.revokeAll(parts, owner, circumstances)
  const keys = await bulk.deleteAll(parts, own, circumstances)
  const createdKeys = await bulk.inBatches(parts, madeBy(owner), circumstances, (made, own) =>
    removeMaker(parts, made, own),
  )
  await reactivateOwner(parts, owner, circumstances)
  const events = await audit.erase(owner, circumstances)
  const hours = await usage.erase(owner)
  // The owner has created a key meanwhile.
  if ((await bulk.countRevocable(parts, owner, {})) > 0) {
    throw new ApiKeysError('owner_has_api_keys')
  }
  return { keys, createdKeys, events, hours }
}

/** Takes the maker from keys whose rows are locked. */
async function removeMaker(parts: Parts, keys: readonly ReadKey[], own: OwnCircumstances) {
  const changes = { createdBy: null }
  const planned = keys.flatMap((key) => plan(key, { action: 'updated', changes }, own) ?? [])
  const { made, xid } = await writeChanges(parts, runIn(parts.sequelize, own.transaction), planned)
  parts.noteMade(own.transaction, made, { xid, isLogged: made.some(isLogged) })
}

/** Returns an owner as the database spells the id. */
async function spell({ sequelize, tables, idTypes }: Parts, owner: Owner): Promise<Owner> {
  const sql = `SELECT ${ownerIdSql('key')} AS id FROM pg_catalog.json_populate_record(NULL::${tables.keys}, $1::json) AS key`
  const bind = [JSON.stringify(ownerRow(owner))]
  const [row] = await select<{ id: string }>(sequelize, sql, { bind, transaction: null })
  return toOwner(owner.type, row?.id ?? '', idTypes)
}

/** Returns the condition for the keys of other owners that a user has made. */
function madeBy({ type, id }: Owner): Condition {
  const where = `$1::text = 'user' AND key.created_by = $2::text AND key.user_id::text IS DISTINCT FROM $2`
  return { where, bind: [type, String(id)] }
}
