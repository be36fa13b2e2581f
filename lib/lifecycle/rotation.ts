import { randomUUID } from 'node:crypto'

import { run } from '../database/query'
import { nextStatus } from '../keys/states'
import type { Circumstances } from './call-options'
import type { Parts } from './parts'
import { changeKey, get, lock } from './store'

/** Gives a key a new secret. The secret before works on for the grace period; the one before that stops working. */
export async function rotate(
  parts: Parts,
  id: string,
  gracePeriodSeconds: number,
  circumstances: Circumstances,
) {
  const { sequelize, tables, audit } = parts
  const { plainTextKey, hash, secretId, prefix, postfix } = parts.format.mint()

  const apiKey = await parts.inTransaction(circumstances, async (transaction) => {
    const own = { ...circumstances, transaction }
    const before = await lock(parts, id, own)
    nextStatus('rotate', before)
    const ref = randomUUID()
    // In one statement, because a hash may not be both current and retired.
    await run(
      sequelize,
      `WITH retired AS (
         INSERT INTO ${tables.retiredSecrets} (hash, api_key_id)
         SELECT hash, id FROM ${tables.keys} WHERE id = $1
       )
       UPDATE ${tables.keys} AS key
          SET hash = $2, secret_id = $3, prefix = $4, postfix = $5, event_ref = $7, updated_at = clock_timestamp(),
              (previous_hash, previous_secret_id, previous_prefix, previous_postfix, previous_works_until,
               previous_last_used_at) = (
                SELECT key.hash, key.secret_id, key.prefix, key.postfix,
                       clock_timestamp() + $6::float8 * interval '1 second', key.last_used_at
                 WHERE $6::float8 > 0
              )
        WHERE key.id = $1`,
      { bind: [id, hash, secretId, prefix, postfix, gracePeriodSeconds, ref], transaction },
    )
    const after = await get(parts, id, { transaction })
    await audit.record([{ action: 'rotated', before, after, ref }], own)
    return after
  })
  return { apiKey, plainTextKey }
}

const noPreviousSecret = {
  previousHash: null,
  previousSecretId: null,
  previousPrefix: null,
  previousPostfix: null,
  previousWorksUntil: null,
  previousLastUsedAt: null,
}

/** Ends the grace period of a key's previous secret. */
export async function endRotation(parts: Parts, id: string, circumstances: Circumstances) {
  return changeKey(parts, id, circumstances, (key) => {
    nextStatus('change', key)
    return { action: 'rotation_ended', values: key.previousSecret ? noPreviousSecret : {} }
  })
}
