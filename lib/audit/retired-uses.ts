import { randomUUID } from 'node:crypto'

import { literal } from '../../models/names'
import type { ServerClock } from '../database/clock'
import type { Writer } from '../database/writer'
import { signEntry, type NewEntry } from './entry'
import type { SigningParts } from './head'
import type { Sealer } from './sealer'

/** The use of a secret that no longer works: the owner of its key, and the address that used it. */
type RetiredUse = Pick<NewEntry, 'userId' | 'address'>

/** Notes the uses of secrets that no longer work. */
export type RetiredUses = ReturnType<typeof createRetiredUses>

interface RetiredUsesParts extends SigningParts {
  serverClock: ServerClock
  sealer: Pick<Sealer, 'sealSoon'>
}

/** How many keys may wait. */
const maxKeys = 5_000

/**
 * Gathers uses of secrets that no longer work. The writer enters them in the audit trail, once an hour per key. Within a process,
 * verification/refuse.ts sees to that; between processes, a unique index of migrations/0004 does.
 */
export function createRetiredUses(writer: Writer, parts: RetiredUsesParts) {
  /** By the ids of the keys. */
  let waiting = new Map<string, RetiredUse>()

  writer.add({
    get size() {
      return waiting.size
    },
    get rounds() {
      return Math.sign(waiting.size)
    },
    isUrgent: false,
    take() {
      if (waiting.size === 0) return []

      const uses = waiting
      waiting = new Map()
      const onFailure = () => {
        waiting = new Map([...waiting, ...uses].slice(0, maxKeys))
      }
      const sql = retiredUsesSql(parts, uses)
      return [{ sql, onWritten: () => parts.sealer.sealSoon(), onFailure }]
    },
  })

  return {
    /** Notes the use of a secret that no longer works, and its address. */
    note(key: { id: string; userId: string | number }, address: string | null) {
      if (waiting.size >= maxKeys) return
      waiting.set(key.id, { userId: key.userId, address })
      writer.writeLater()
    },
  }
}

/**
 * SQL that writes one entry per key and hour, for all processes together. If the key has another owner by now, the next use is
 * entered instead. Several statements in one text take no parameters. Ids, addresses and signatures have safe forms. User ids may
 * be any text, so they are written in hexadecimal.
 */
function retiredUsesSql(parts: RetiredUsesParts, uses: ReadonlyMap<string, RetiredUse>) {
  const { tables, signer, serverClock } = parts
  const rows = [...uses].map(([apiKeyId, { userId, address }]) => {
    const ref = randomUUID()
    const none = { actorId: null, reason: null, before: null, after: null }
    const entry = { ...none, ref, apiKeyId, userId, address, actorType: 'system' } as const
    const mac = signEntry(signer, { ...entry, action: 'retired_secret_used' }, serverClock.now())
    const from = address === null ? 'NULL' : literal(address)
    return `('${apiKeyId}'::uuid, '${Buffer.from(String(userId)).toString('hex')}', ${from}, '${ref}'::uuid, '${mac}')`
  })

  return `
       INSERT INTO ${tables.events} (api_key_id, user_id, action, actor_type, address, ref, entry_mac)
       SELECT key.id, key.user_id, 'retired_secret_used', 'system', used.address, used.ref, used.entry_mac
         FROM (VALUES ${rows.join(', ')}) AS used (id, owner, address, ref, entry_mac)
         JOIN ${tables.keys} AS key ON key.id = used.id AND encode(convert_to(key.user_id::text, 'UTF8'), 'hex') = used.owner
        ORDER BY key.id ON CONFLICT DO NOTHING`
}
