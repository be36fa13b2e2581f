import { randomUUID } from 'node:crypto'

import { literal } from '../../models/names'
import { ownerIdSql, ownerTypeSql } from '../../models/owner'
import type { ServerClock } from '../database/clock'
import type { Owner } from '../keys/owner'
import type { Writer } from '../database/writer'
import { newEntry, signEntry, type NewEntry } from './entry'
import type { SigningParts } from './head'
import type { Sealer } from './sealer'

/** The use of a secret that no longer works: the owner of its key, and the address that used it. */
type RetiredUse = Pick<NewEntry, 'ownerType' | 'ownerId' | 'address'>

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
    note({ id, owner }: { id: string; owner: Owner }, address: string | null) {
      if (waiting.size >= maxKeys) return
      waiting.set(id, { ownerType: owner.type, ownerId: String(owner.id), address })
      writer.writeLater()
    },
  }
}

/**
 * SQL that writes one entry per key and hour, for all processes together. If the key has another owner by now, the next use is
 * entered instead. Several statements in one text take no parameters. Ids, addresses and signatures have safe forms. Ids of owners may
 * be any text, so they are written in hexadecimal.
 */
function retiredUsesSql(parts: RetiredUsesParts, uses: ReadonlyMap<string, RetiredUse>) {
  const { tables, signer, serverClock } = parts
  const rows = [...uses].map(([apiKeyId, use]) => {
    const ref = randomUUID()
    const { ownerType, ownerId, address } = use
    const entry = { ...newEntry(), ...use, ref, apiKeyId, action: 'retired_secret_used' } as const
    const mac = signEntry(signer, entry, serverClock.now())
    const from = address === null ? 'NULL' : literal(address)
    const owner = `'${ownerType}', '${Buffer.from(String(ownerId)).toString('hex')}'`
    return `('${apiKeyId}'::uuid, ${owner}, ${from}, '${ref}'::uuid, '${mac}', '${entry.salt}')`
  })

  return `
       INSERT INTO ${tables.events} (api_key_id, owner_type, owner_id, action, actor_type, address, ref, entry_mac, salt)
       SELECT key.id, used.owner_type, ${ownerIdSql('key')}, 'retired_secret_used', 'system', used.address, used.ref, used.entry_mac, decode(used.salt, 'hex')
         FROM (VALUES ${rows.join(', ')}) AS used (id, owner_type, owner_id, address, ref, entry_mac, salt)
         JOIN ${tables.keys} AS key ON key.id = used.id AND ${ownerTypeSql('key')} = used.owner_type
          AND encode(convert_to(${ownerIdSql('key')}, 'UTF8'), 'hex') = used.owner_id
        ORDER BY key.id ON CONFLICT DO NOTHING`
}
