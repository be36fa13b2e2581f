import { randomUUID } from 'node:crypto'

import type { Tables } from '../../models/tables'
import type { Writer } from '../database/writer'
import type { Audit } from './trail'

interface RetiredUsesParts {
  writer: Pick<Writer, 'add' | 'writeLater'>
  tables: Tables
  /** Signs an entry of the audit trail. */
  entryMacOf: Audit['entryMacOf']
}

/** The use of a secret that no longer works: the owner of its key, and the address that used it. */
interface RetiredUse {
  userId: string | number
  address: string | null
}

export type RetiredUses = ReturnType<typeof createRetiredUses>

/** How many keys may wait. */
const maxKeys = 5_000

/** Gathers uses of secrets that no longer work, and has the writer enter them in the audit trail. */
export function createRetiredUses({ writer, tables, entryMacOf }: RetiredUsesParts) {
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
      return [{ sql: retiredUsesSql(tables, uses, entryMacOf), onFailure }]
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
 * Writes one entry per key and hour, for all processes together. If the key has another owner by now, the next use is reported
 * instead. Several statements in one text take no parameters. Ids, addresses and signatures have safe forms, and user ids, which
 * may be any text, are written in hexadecimal.
 */
function retiredUsesSql(
  tables: Tables,
  uses: ReadonlyMap<string, RetiredUse>,
  entryMacOf: Audit['entryMacOf'],
): string {
  const entries = [...uses].map(([apiKeyId, { userId, address }]) => {
    const ref = randomUUID()
    const entryMac = entryMacOf({
      apiKeyId,
      userId,
      action: 'retired_secret_used',
      actorType: 'system',
      actorId: null,
      address,
      reason: null,
      before: null,
      after: null,
      ref,
    })
    const owner = Buffer.from(String(userId)).toString('hex')
    return { apiKeyId, owner, address: address ?? '""', ref, entryMac }
  })
  const column = (name: keyof (typeof entries)[number]) =>
    `'{${entries.map((entry) => entry[name]).join()}}'`

  return `
       INSERT INTO ${tables.events} (api_key_id, user_id, action, actor_type, address, ref, entry_mac)
       SELECT key.id, key.user_id, 'retired_secret_used', 'system', nullif(used.address, ''),
              used.ref, used.entry_mac
         FROM unnest(
                ${column('apiKeyId')}::uuid[], ${column('owner')}::text[], ${column('address')}::text[],
                ${column('ref')}::uuid[], ${column('entryMac')}::text[]
              ) AS used (id, owner, address, ref, entry_mac)
         JOIN ${tables.keys} AS key
           ON key.id = used.id AND encode(convert_to(key.user_id::text, 'UTF8'), 'hex') = used.owner
        ORDER BY key.id
           ON CONFLICT DO NOTHING`
}
