import type { Sequelize } from 'sequelize'

import { keyPrefixSql } from '../../models/api-key'
import { literal } from '../../models/names'
import type { Tables } from '../../models/tables'
import { onDatabase } from '../database/failures'
import { select } from '../database/query'
import type { ImportedKeys } from '../importing/imported-keys'
import { prefixOfSource } from '../keys/imported-prefix'

/** How many living keys still have a secret of a source: the current one, or the one before in its grace period. */
export interface LivingImports {
  source: string
  keys: number
}

/** Counts the living keys of each source. A source without any may leave the option `imports`. */
export async function countLivingImports(
  sequelize: Sequelize,
  { keys }: Tables,
  imported: ImportedKeys | undefined,
): Promise<LivingImports[]> {
  const names = [...(imported?.byName.keys() ?? [])]
  if (names.length === 0) return []

  const prefixes = names.map((name) => literal(prefixOfSource(name))).join(', ')
  const rows = await onDatabase(() =>
    select<{ prefix: string; keys: string }>(
      sequelize,
      `SELECT ${keyPrefixSql('secret.prefix')} AS prefix, count(*)::text AS keys
         FROM (
           SELECT prefix, status, expires_at FROM ${keys}
            UNION ALL
           SELECT previous_prefix, status, expires_at FROM ${keys} WHERE previous_works_until > now()
         ) AS secret
        WHERE ${keyPrefixSql('secret.prefix')} IN (${prefixes})
          AND secret.status <> 'REVOKED' AND (secret.expires_at IS NULL OR secret.expires_at > now())
        GROUP BY 1`,
      { transaction: null },
    ),
  )
  const counts = new Map(rows.map(({ prefix, keys }) => [prefix, Number(keys)]))
  return names.map((source) => ({ source, keys: counts.get(prefixOfSource(source)) ?? 0 }))
}
