import type { Sequelize } from 'sequelize'

import { isOfPrefixes } from '../../models/api-key'
import type { Tables } from '../../models/tables'
import { onDatabase } from '../database/failures'
import { select } from '../database/query'
import type { Settings } from '../read-options'

/** A name that living keys have for a permission, and that is in neither `permissions` nor `formerPermissions`. */
export interface UnknownPermission {
  name: string
  keys: number
}

interface UnknownPermissionsParts extends Pick<Settings, 'environments' | 'permissions'> {
  /** The view of the app's Sequelize that runs statements of the library (models/guest.ts). */
  sequelize: Sequelize
  tables: Tables
}

/** The most names that are reported, those of most keys. */
const maxNames = 100

/** Counts the living keys that have names of permissions which the app does not know. The names count for nothing. */
export async function countUnknownPermissions({
  sequelize,
  tables,
  environments,
  permissions,
}: UnknownPermissionsParts): Promise<UnknownPermission[]> {
  const rows = await onDatabase(() =>
    select<{ name: string; keys: string }>(
      sequelize,
      `SELECT given.name, pg_catalog.count(DISTINCT key.id)::text AS keys
         FROM ${tables.keys} AS key CROSS JOIN pg_catalog.unnest(key.permissions) AS given (name)
        WHERE ${isOfPrefixes('key', environments.keyPrefixes)}
          AND key.status <> 'REVOKED' AND (key.expires_at IS NULL OR key.expires_at > now())
          AND NOT key.permissions <@ $1::text[] AND given.name <> ALL ($1::text[])
        GROUP BY given.name ORDER BY pg_catalog.count(DISTINCT key.id) DESC, given.name LIMIT ${maxNames}`,
      { bind: [permissions.known], transaction: null },
    ),
  )
  return rows.map(({ name, keys }) => ({ name, keys: Number(keys) }))
}
