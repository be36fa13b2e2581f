import type { Clock } from '../database/clock'
import { writeLimitMs } from '../database/writer'
import type { StoredEntry } from './entry'
import type { SealingParts } from './seal'

/** An entry that this process has written. */
export interface OwnEntry {
  /** `null` for an entry about an owner. */
  apiKeyId: string | null
  /** The key or the owner, for a message. */
  subject: string
  ref: string
  mac: string
}

/** How the entries of this process are doing. */
export interface AuditHealth {
  /** The number of entries that this process has written and has not found sealed yet. */
  waiting: number
  /** How long ago the oldest of them was written; `null` if there is none. */
  oldestAgeMs: number | null
  /** The number of entries that this process has written and that are gone, or not as it wrote them. */
  lost: number
}

export type OwnEntries = ReturnType<typeof createOwnEntries>

/** How long after its commit an entry may be without a seal. */
export const lostAfterMs = 5_000

/** How many entries are kept, and looked up at a time. */
const maxKept = 10_000
const lookedUpAtOnce = 1_000

/**
 * Keeps in memory which entries this process has written, until it finds them sealed as it wrote them. Nothing else shows that an
 * entry was removed, with its change, before it had a seal. A failover that loses commits shows here, too.
 */
export function createOwnEntries(parts: SealingParts & { clock: Clock }) {
  const { clock, connection, emitter, tables } = parts
  const { events, seals, unsealed } = tables
  const kept = new Map<string, OwnEntry & { since: number }>()
  let lost = 0

  /** Returns which of some entries are sealed, or wait for their seals, as they were written. */
  async function find(entries: readonly OwnEntry[]) {
    const rows = entries.map(({ apiKeyId, ref, mac }) => {
      const id = apiKeyId === null ? 'NULL' : `'${apiKeyId}'`
      return `(${id}::uuid, '${ref}'::uuid, '${mac}')`
    })
    // The index on the key finds both kinds of entries, but not in one join.
    const isAnyOfOwner = entries.some(({ apiKeyId }) => apiKeyId === null)
    const joins = [
      'event.api_key_id = own.api_key_id',
      ...(isAnyOfOwner ? ['event.api_key_id IS NULL AND own.api_key_id IS NULL'] : []),
    ]
    const written = joins.map(
      (join) => `
        SELECT event.id, event.ref, event.xid FROM own JOIN ${events} AS event ON ${join} AND event.ref = own.ref AND event.entry_mac = own.mac`,
    )
    // The limit is that of the call, whatever limit the app has set for its sessions.
    const sql = `
      START TRANSACTION ISOLATION LEVEL READ COMMITTED;
      SET LOCAL statement_timeout = ${writeLimitMs};
      WITH own (api_key_id, ref, mac) AS (VALUES ${rows.join(', ')})
      SELECT event.ref::text, (seal.event_id IS NOT NULL)::text AS sealed
        FROM (${written.join(' UNION ALL ')}) AS event
        LEFT JOIN ${seals} AS seal ON seal.event_id = event.id
       WHERE seal.event_id IS NOT NULL OR EXISTS (
         SELECT FROM ${unsealed} AS waiting WHERE waiting.xid = event.xid AND waiting.event_id = event.id
       );
      COMMIT`
    const found = await connection.query(sql, writeLimitMs)
    return new Map(found.rows.map(({ ref, sealed }) => [ref, sealed === 'true']))
  }

  function health(): AuditHealth {
    const [oldest] = kept.values()
    const oldestAgeMs = oldest ? Math.round(clock.monotonic() - oldest.since) : null
    return { waiting: kept.size, oldestAgeMs, lost }
  }

  return {
    /** Keeps entries whose transaction has committed. */
    add(entries: readonly OwnEntry[]) {
      const since = clock.monotonic()
      for (const entry of entries.slice(0, maxKept - kept.size))
        kept.set(entry.ref, { ...entry, since })
    },

    /** Drops the entries that this process has sealed as it wrote them. */
    noteSealed(entries: readonly StoredEntry[]) {
      for (const { apiKeyId, ref, entryMac } of entries) {
        const own = kept.get(ref ?? '')
        if (own && own.apiKeyId === apiKeyId && own.mac === entryMac) kept.delete(own.ref)
      }
    },

    /**
     * Looks for the entries from before the queue was read last. Drops those that another process has sealed, and reports those that
     * are lost. Returns how the rest is doing.
     */
    async check(readAt: number): Promise<AuditHealth> {
      const now = clock.monotonic()
      const entries = [...kept.values()].filter(({ since }) => since <= readAt)
      for (let first = 0; first < entries.length; first += lookedUpAtOnce) {
        const page = entries.slice(first, first + lookedUpAtOnce)
        const isSealed = await find(page)
        for (const { subject, ref, since } of page) {
          const isLost = !isSealed.has(ref) && now - since >= lostAfterMs
          if (isLost || isSealed.get(ref) === true) kept.delete(ref)
          if (!isLost) continue
          lost++
          const error = new Error(
            `express-api-keys: an entry of the audit trail for the ${subject} is gone, or not as it was written`,
          )
          emitter.emit('error', { error, notice: 'audit_entry_lost' })
        }
      }
      return health()
    },

    /** Says how the entries of this process are doing. */
    health,
  }
}
