import { msSql, type Time } from '../../models/api-key'
import { ownerIdSql, ownerTypeSql, type OwnerType } from '../../models/owner'
import { onDatabase } from '../database/failures'
import { selectJson } from '../database/query'
import type { Owner } from '../keys/owner'
import { readTime, toOwner } from '../keys/record'
import { lastUseSql, unused } from './bulk'
import type { Parts } from './calls'
import { count, isOf, readAll } from './store'

/** The suspension of an owner. */
export interface Suspension {
  owner: Owner
  at: Date
  reason: string | null
}

/** How many keys and owners an overview lists. Its counts have all. */
const mostListed = 100

/** Creates the functions that read what pages for administrators show besides lists. */
export function createOverviews(parts: Parts) {
  const { parse, tables, idTypes, inTurn, sequelize } = parts

  /** Returns suspensions, the newest first. */
  async function suspensions(where: string, bind: unknown[]): Promise<Suspension[]> {
    const sql = `
      SELECT pg_catalog.json_build_object(
               'type', ${ownerTypeSql('key')}, 'id', ${ownerIdSql('key')},
               'at', ${msSql('key.suspended_at')}, 'reason', key.reason
             )::text AS json
        FROM ${tables.suspendedOwners} AS key WHERE ${where} ORDER BY key.id DESC LIMIT ${mostListed}`
    const rows = await inTurn({}, () =>
      selectJson<SuspensionRow[]>(sequelize, sql, { bind, transaction: null }),
    )
    return rows.map(({ type, id, at, reason }) => ({
      owner: toOwner(type, id, idTypes),
      at: readTime(at),
      reason,
    }))
  }

  return {
    /** Returns how many keys `revokeUnused` would revoke, and the first 100 of them, the longest unused first. */
    async unusedKeys(criteria: unknown) {
      return onDatabase(async () => {
        const condition = unused(parts, parse.unusedKeys(criteria))
        const order = `ORDER BY ${lastUseSql}, key.id LIMIT ${mostListed}`
        const apiKeys = await readAll(parts, condition, {}, order)
        return { keys: await count(parts, condition), apiKeys }
      })
    },

    /** Returns the suspension of an owner; `null` for none. The owner comes as the database spells its id. */
    async suspensionOf(given: unknown) {
      return onDatabase(async () => {
        const { owner } = parse.owner({ owner: given })
        const [suspension = null] = await suspensions(isOf(owner, 1), [owner.id])
        return { owner, suspension }
      })
    },

    /** Returns the owners who are suspended, the latest first, 100 at most. */
    async suspendedOwners() {
      return onDatabase(() => suspensions('true', []))
    },

    /** Returns the records of keys by their ids. Keys that are deleted are left out. */
    async recordsOf(ids: readonly string[]) {
      const condition = { where: 'key.id = ANY($1::uuid[])', bind: [ids] }
      return ids.length === 0 ? [] : onDatabase(() => readAll(parts, condition))
    },
  }
}

interface SuspensionRow {
  type: OwnerType
  id: string
  at: Time
  reason: string | null
}
