import type { Sequelize } from 'sequelize'

import { isOfPrefix } from '../../models/api-key'
import type { Tables } from '../../models/tables'
import { warn } from '../../models/warnings'
import type { Background } from '../database/background'
import { select } from '../database/query'
import type { SecretFormat } from '../keys/secret'

interface SecretCheckParts {
  background: Pick<Background, 'run'>
  sequelize: Sequelize
  tables: Tables
  keyPrefix: string
  format: Pick<SecretFormat, 'secretIds'>
}

/**
 * Warns once if the database has living keys of a secret that the app does not have. Such keys are refused as malformed without
 * a look-up, so that nothing else would say why.
 */
export function createSecretCheck(parts: SecretCheckParts) {
  return {
    isDone: false,

    run() {
      this.isDone = true
      // It is a hint, and nothing relies on it.
      parts.background.run(() => warnOfUnknownSecret(parts)).catch(() => {})
    },
  }
}

async function warnOfUnknownSecret({ sequelize, tables, keyPrefix, format }: SecretCheckParts) {
  const [key] = await select<{ secret: 'keyed' | 'unkeyed' }>(
    sequelize,
    `SELECT CASE WHEN secret_id IS NULL THEN 'unkeyed' ELSE 'keyed' END AS secret FROM ${tables.keys} AS key
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
