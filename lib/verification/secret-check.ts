import type { Sequelize } from 'sequelize'

import { isOfPrefix } from '../../models/api-key'
import { select } from '../database/query'
import { warn } from '../../models/warnings'
import type { SecretFormat } from '../keys/secret'

interface SecretCheckParts {
  sequelize: Sequelize
  /** The qualified, quoted name of the table of keys. */
  table: string
  keyPrefix: string
  format: Pick<SecretFormat, 'secretIds'>
}

/**
 * Makes the function that warns if the database has living keys of a secret that the app does not have. All of them are refused
 * as malformed, without any work of the database, so that nothing else would say why.
 */
export function createSecretCheck({ sequelize, table, keyPrefix, format }: SecretCheckParts) {
  return async function warnOfUnknownSecret(): Promise<void> {
    const [key] = await select<{ secret: 'keyed' | 'unkeyed' }>(
      sequelize,
      `SELECT CASE WHEN secret_id IS NULL THEN 'unkeyed' ELSE 'keyed' END AS secret FROM ${table} AS key
        WHERE ${isOfPrefix('key', keyPrefix)}
          AND status <> 'REVOKED' AND (expires_at IS NULL OR expires_at > now())
          AND coalesce(secret_id, '') <> ALL ($1::text[])
        LIMIT 1`,
      { bind: [format.secretIds.map((id) => id ?? '')], transaction: null },
    )
    if (!key) return

    warn(
      'API_KEYS_SECRET_UNKNOWN',
      key.secret === 'keyed'
        ? 'The database has keys that were made with a secret that is not among your secrets, and they are refused as ' +
            'malformed. Put the old secret behind the new one: secrets: [new, old]. health({ livingKeys: true }) counts them.'
        : 'The database has keys that were made without a secret, and they are refused as malformed. To accept them, set ' +
            'acceptUnkeyed: true. health({ livingKeys: true }) counts them.',
    )
  }
}
