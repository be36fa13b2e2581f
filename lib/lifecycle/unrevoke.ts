import type { Transaction } from 'sequelize'

import { msSql, type Status } from '../../models/api-key'
import { select } from '../database/query'
import { ApiKeysError } from '../errors'
import type { ApiKeyRecord } from '../keys/record'
import { isUndoable, nextStatus } from '../keys/states'
import type { Circumstances, Parts } from './calls'
import { changeKeyIn } from './change-key'
import type { Decision, ReadKey } from './key-changes'
import { lockOwners } from './owners'
import * as policies from './policies'
import { get } from './store'

/**
 * Undoes the revocation of a key: it gets the status that it had before. The key counts towards the number of its owner's keys again, so
 * the owner is locked first. If the owner is gone, so is the key.
 *
 * A revocation wins every race. The row is locked while this call decides, so each revocation is committed before that or waits for this
 * call. If it was committed after this call had begun, the time of the revocation differs from the time that was read at first, and the
 * call is refused: it undoes only what its caller could know. If it waits, it finds an active key, and revokes it. A caller that repeats
 * its revocation of a revoked key changes nothing, before this call as well as during it.
 *
 * Processes are notified as of every change of a status: they evict the key, and read it anew. The hash of a revoked key is never cached
 * as unknown, and no secret gets more time, because `previousSecret.worksUntil` stays.
 */
export async function unrevoke(
  parts: Parts,
  id: string,
  circumstances: Circumstances,
): Promise<ApiKeyRecord> {
  const before = await get(parts, id, circumstances)

  return changeKeyIn(parts, circumstances, async (transaction) => {
    await lockOwners(parts, [before.owner], transaction)
    async function decide(key: ApiKeyRecord, read: ReadKey): Promise<Decision> {
      const status = nextStatus('unrevoke', key)
      if (key.status !== 'REVOKED') return { action: 'unrevoked', changes: {} }
      if (key.revokedAt?.getTime() !== before.revokedAt?.getTime()) {
        throw new ApiKeysError('api_key_revoked')
      }
      const { now, was } = await readRevocation(parts, id, transaction)
      if (!isUndoable(key, { undoMinutes: parts.undoMinutes, now })) {
        throw new ApiKeysError('api_key_revoked')
      }
      policies.refuseKeyBeyond(parts, read, circumstances.mayGive)
      const own = parts.environments.ofKey(read)
      await policies.refuseTooManyKeys(parts, key.owner, own, transaction)
      return { action: 'unrevoked', changes: { status: was === 'ACTIVE' ? status : 'SUSPENDED' } }
    }
    return { id, circumstances, decide }
  })
}

/**
 * Reads the time of the server, which has set the time of the revocation, and the status that the key had before. The trail has it, and
 * keeps it longer than a revocation can be undone. A key whose entry is missing comes back suspended.
 */
async function readRevocation({ sequelize, tables }: Parts, id: string, transaction: Transaction) {
  const [row] = await select<{ now: string; was: Status | null }>(
    sequelize,
    `SELECT (${msSql('clock_timestamp()')})::text AS now, (
       SELECT event.before ->> 'status'::text FROM ${tables.events} AS event
        WHERE event.api_key_id = $1 AND event.action = 'revoked' ORDER BY event.id DESC LIMIT 1
     ) AS was`,
    { bind: [id], transaction },
  )
  return { now: Number(row?.now ?? NaN), was: row?.was ?? null }
}
