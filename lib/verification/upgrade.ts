import { randomUUID, hash } from 'node:crypto'

import { insertEntriesSql } from '../../models/api-key-event'
import { literal } from '../../models/names'
import type { Tables } from '../../models/tables'
import { newEntry, toRow } from '../audit/entry'
import type { Sealer } from '../audit/sealer'
import type { Signer } from '../audit/signing'
import type { Background } from '../database/background'
import type { ServerClock } from '../database/clock'
import type { Connection } from '../database/connection'
import { writeLimitMs } from '../database/writer'
import type { AcceptedSource } from '../importing/imported-keys'
import type { Emitter } from '../keys/emitter'
import { toStoredHash, type Digest } from '../keys/secret'
import type { CachedKey } from './cache'
import type { Memory } from './memory'

interface UpgradeParts {
  tables: Tables
  background: Pick<Background, 'run'>
  connection: Pick<Connection, 'query'>
  signer: Signer
  sealer: Pick<Sealer, 'sealSoon'>
  serverClock: ServerClock
  emitter: Pick<Emitter, 'emit'>
  memory: Memory
}

/** The new hash of a key, and the secret that keyed it. */
export interface NewHash {
  digest: Digest
  secretId: string | null
}

/**
 * Makes the function that gives a salted key the hash that a digest of the whole key has, beside the request that used the key. Later uses
 * take no longer than those of any key. If it fails, the next use tries again. Two processes that do so at once write the same hash.
 */
export function createUpgrade(parts: UpgradeParts) {
  const { background, emitter } = parts
  const underWay = new Set<string>()

  return function upgradeSoon(key: CachedKey, next: NewHash, address: string | null) {
    // In the grace period of a rotation, the key has another hash already.
    if (key.worksUntilMs !== null || underWay.has(key.id)) return
    underWay.add(key.id)
    background
      .run(() => upgrade(parts, key, next, address))
      .catch((error: unknown) => emitter.emit('error', { error, notice: 'upgraded' }))
      .finally(() => underWay.delete(key.id))
  }
}

async function upgrade(
  { tables, connection, signer, sealer, serverClock, emitter, memory }: UpgradeParts,
  { id: apiKeyId, owner: { shown: owner }, digest }: CachedKey,
  next: NewHash,
  address: string | null,
) {
  const [before, after] = [toStoredHash(digest), toStoredHash(next.digest)]
  const ref = randomUUID()
  const entry = {
    ...newEntry(),
    ref,
    apiKeyId,
    ownerType: owner.type,
    ownerId: String(owner.id),
    action: 'upgraded',
    address,
    before: { hashDigest: hash('sha256', before) },
    after: { hashDigest: hash('sha256', after) },
  } as const
  const row = toRow(signer, entry, serverClock.now())
  const change = { id: apiKeyId, before, after, secretId: next.secretId, ref }
  const { rows } = await connection.query(upgradeSql(tables, change, row), writeLimitMs)
  // Another process was faster, or the key has changed hands.
  if (rows.length === 0) return

  const subject = `key ${apiKeyId}`
  sealer.sealSoon([{ apiKeyId, subject, ref, mac: row.entry_mac }])
  memory.cache.evict(apiKeyId)
  memory.cache.evictUnknown(next.digest)
  memory.knownImports?.add(after, null)
  emitter.emit('upgraded', { apiKeyId })
}

/** Returns all hashes that a salted key may have by now. Another process may have given it one, which is not reported. */
export function newHashesOf({ hashersOf }: AcceptedSource, text: string): NewHash[] {
  return hashersOf(text.length).map((hasher) => ({
    digest: hasher.digest(text),
    secretId: hasher.secretId,
  }))
}

interface HashChange {
  id: string
  before: string
  after: string
  secretId: string | null
  ref: string
}

/**
 * SQL that replaces the hash of a key if it is still there and its owner is the owner in the entry. The hash of before stays as a retired
 * one, so that a repeated import knows the key. The salt goes.
 */
function upgradeSql(tables: Tables, change: HashChange, row: object): string {
  const { keys, retiredSecrets, salts, events } = tables
  const { id, before, after, secretId, ref } = change
  const secret = secretId === null ? 'NULL' : literal(secretId)
  return `
      START TRANSACTION ISOLATION LEVEL READ COMMITTED;
      SET LOCAL statement_timeout = ${writeLimitMs};
      WITH entry AS MATERIALIZED (
        SELECT * FROM json_populate_recordset(NULL::${events}, ${literal(JSON.stringify([row]))}::json)
      ), mine AS MATERIALIZED (
        SELECT key.id FROM ${keys} AS key JOIN entry ON entry.owner_id = coalesce(key.user_id::text, key.organization_id::text, key.service)
         WHERE key.id = ${literal(id)} AND key.hash = ${literal(before)} FOR NO KEY UPDATE OF key
      ), retired AS (
        INSERT INTO ${retiredSecrets} (hash, api_key_id) SELECT ${literal(before)}, mine.id FROM mine
      ), gone AS (
        DELETE FROM ${salts} AS salted USING mine WHERE salted.api_key_id = mine.id
      ), done AS (
        UPDATE ${keys} AS key SET hash = ${literal(after)}, secret_id = ${secret}, event_ref = ${literal(ref)}, updated_at = clock_timestamp()
          FROM mine WHERE key.id = mine.id RETURNING key.event_ref
      ), told AS (
        ${insertEntriesSql(tables, 'FROM entry JOIN done ON done.event_ref = entry.ref')}
        RETURNING id
      )
      SELECT id::text AS event_id FROM told;
      COMMIT`
}
