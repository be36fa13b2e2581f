import type { Sequelize } from 'sequelize'

import { endSql, isOfPrefixes, keyPrefixSql, otherPrefixesSql } from '../../models/api-key'
import { literal } from '../../models/names'
import type { Tables } from '../../models/tables'
import { warn } from '../../models/warnings'
import { clearTimeout, type Background } from '../database/background'
import type { Connections } from '../database/connections'
import { onDatabase } from '../database/failures'
import { select } from '../database/query'
import { writeLimitMs } from '../database/writer'
import type { Settings } from '../read-options'

/**
 * Keys that are neither revoked nor expired, also not by `maxIdleDays`, and are refused all the same: no instance of this process accepts their prefix, or
 * their row names another environment than their prefix. In the grace period of a rotation, both secrets of a key count.
 */
export interface RefusedKeys {
  keyPrefix: string
  /** The environment for which they were created; `null` for keys from before there were any. */
  environment: string | null
  keys: number
}

interface RefusedKeysParts extends Pick<Settings, 'environments' | 'idleMs'> {
  background: Pick<Background, 'startTimer'>
  /** Its connection of usage serves what no request waits for, and gives way if there are too few connections. */
  connections: Pick<Connections, 'usage'>
  /** The app's own, which says which database it is. */
  appSequelize: Pick<Sequelize, 'config'>
  /** The view of it that runs statements of the library (models/guest.ts). */
  sequelize: Sequelize
  tables: Tables
}

/** The prefixes that the instances of this process accept, by the tables that they share. */
const accepted = new Map<string, Map<object, readonly string[]>>()

/** Makes the part that finds keys which are refused because of their prefix. It knows the prefixes of all instances of this process. */
export function createRefusedKeys(parts: RefusedKeysParts) {
  const { background, appSequelize, environments, tables } = parts
  const { host, port, database } = appSequelize.config
  const place = JSON.stringify([host, port, database, tables.keys])
  const instances = accepted.get(place) ?? new Map<object, readonly string[]>()
  accepted.set(place, instances.set(parts, environments.keyPrefixes))
  const acceptedPrefixes = () => [...new Set([...instances.values()].flat())]
  let timer: NodeJS.Timeout | undefined

  return {
    /** Warns once if the database has living keys with prefixes that no instance of this process accepts. */
    check() {
      timer ??= background.startTimer(() => {
        // It is a hint, and nothing relies on it.
        warnOfPrefixes(parts, acceptedPrefixes()).catch(() => {})
      }, checkAfterMs)
    },

    count: () => countRefused(parts, acceptedPrefixes()),

    close() {
      instances.delete(parts)
      clearTimeout(timer)
    },
  }
}

/** SQL that is true for a key that is neither revoked nor expired, and was not idle for too long. */
function isLiving(endsAt: string): string {
  return `key.status IN ('ACTIVE', 'SUSPENDED') AND (${endsAt} IS NULL OR ${endsAt} > now())`
}

/** How long after the first verification the prefixes are checked. By then, the connections that requests wait for are open. */
const checkAfterMs = 1_000

/** The most prefixes that a warning names. */
const maxShown = 5

async function warnOfPrefixes(
  { connections, tables, idleMs }: RefusedKeysParts,
  prefixes: readonly string[],
) {
  const { rows } = await connections.usage.query(
    `SELECT other.key_prefix FROM (${otherPrefixesSql(tables.keys, prefixes)}) AS other
      WHERE EXISTS (
        SELECT FROM ${tables.keys} AS key WHERE ${keyPrefixSql('key.prefix')} = other.key_prefix AND ${isLiving(endSql('key', idleMs))}
      ) LIMIT ${maxShown}`,
    writeLimitMs,
  )
  if (rows.length === 0) return

  const shown = rows.map((row) => row.key_prefix).join(', ')
  warn(
    'API_KEYS_PREFIX_UNKNOWN',
    `The database has keys with a prefix that no instance of this process accepts: ${shown}. They are refused, and not masked. Name the prefix in formerPrefixes, and the source of @name in imports, unless another app accepts such keys. health({ livingKeys: true }) counts them.`,
  )
}

async function countRefused(
  { sequelize, tables, environments, idleMs }: RefusedKeysParts,
  prefixes: readonly string[],
): Promise<RefusedKeys[]> {
  const end = endSql('key', idleMs)
  const rows = await onDatabase(() =>
    select<{ keyPrefix: string; environment: string | null; keys: string }>(
      sequelize,
      `SELECT ${keyPrefixSql('key.prefix')} AS "keyPrefix", key.environment, count(*)::text AS keys
         FROM (
           SELECT prefix, environment, status, ${end} AS ends_at FROM ${tables.keys} AS key
            UNION ALL
           SELECT previous_prefix, environment, status, ${end} FROM ${tables.keys} AS key WHERE previous_works_until > now()
         ) AS key
        WHERE ${isLiving('key.ends_at')} AND (NOT ${isOfPrefixes('key', prefixes)} OR ${isMisplaced(environments)})
        GROUP BY 1, 2 ORDER BY 1, 2`,
      { transaction: null },
    ),
  )
  return rows.map(({ keyPrefix, environment, keys }) => ({
    keyPrefix,
    environment,
    keys: Number(keys),
  }))
}

/** SQL that is true for a key of the instance whose row names another environment than its prefix. */
function isMisplaced({ all, names }: Settings['environments']): string {
  if (names.length === 0) return 'false'
  const byPrefix = all.map(
    ({ name, keyPrefixes }) =>
      `WHEN ${isOfPrefixes('key', keyPrefixes)} THEN ${literal(String(name))}`,
  )
  return `key.environment <> CASE ${byPrefix.join(' ')} END`
}
