import { hash as digestOf } from 'node:crypto'

import { msSql } from '../../models/api-key'
import { entryDigestSql, entryRowSql } from '../../models/sealed-entry'
import type { Tables } from '../../models/tables'
import { dayMs } from '../database/clock'
import { contentSql, type Content } from './entry'
import type { Link } from './head'

/*
 * Each entry has a seal, and the seals are a chain:
 *
 *   digest = SHA-256(the whole entry as the database has it)
 *   hash   = SHA-256(hash of the seal before, members of the seal, the digests among them)
 *   mac    = HMAC(secret, hash)
 *
 * The seals that are written at once are a *block*. Only the last of them, which closes the block, has a MAC. It vouches for all entries up
 * to there. It also has a digest of the block:
 *
 *   block digest = SHA-256(hash of the block before, SHA-256(all other seals of the block), SHA-256(rows of all entries of the block))
 *
 * The hash of the last seal covers it. So if a block still has its digest, neither its seals nor its entries have changed since they were
 * written, and verification reads none of them one by one. The entries of such a block are *plain*: the library or a trigger wrote each,
 * shortly before. A block with other entries has no digest.
 *
 * The hash covers the id of the secret. Otherwise a seal could pass for a seal of a secret that is gone.
 *
 * The head has the number of seals and the hash of the last seal, under an HMAC of its own. A hash covers everything before it,
 * so one signature that can be checked vouches for all entries up to there, whatever secrets signed them.
 */

/** An entry as it is sealed. */
export interface SealedEntry {
  eventId: string
  /** True if the library was found to have written the entry when it was sealed. */
  isGenuine: boolean
  /** The head that was found when the entry was sealed, as JSON, if it was not reliable; else `null`. */
  doubts: string | null
  /** The secret that signs the seal; `null` for none. */
  secretId: string | null
  /** When the entry was read to be sealed, in milliseconds since 1970, by the clock of the server. */
  sealedAt: number
  /**
   * The digest of the entry, by the database. It is empty if the entry was *missing*: it waited for its seal, and was
   * gone when it was sealed. Such a seal is not genuine.
   */
  digest: string
  /**
   * The digest of the key of the entry and of all its entries, if they agreed, and this was the last of them. `null` if nothing is known, so
   * that verification compares them.
   */
  stateDigest: string | null
  /** The digest of the block that the seal closes. `null` if it closes none, or if not all entries of the block are plain. */
  blockDigest: string | null
}

/** A seal as `sealsSql` reads it. */
export interface Seal extends Link, SealedEntry {
  /** `null` for all seals but the last of those that were written at once. */
  mac: string | null
  /** The digest of the entry as it is now; `null` if the entry is gone, or was missing when it was sealed. */
  found: string | null
  /** `null` if the seal says that the library wrote the entry. */
  content: Content | null
  isOld: boolean
}

/** How many seals are read at a time. */
export const pageSize = 2_000

/** How long before its seal the library may have signed an entry: longer than transactions are open. */
export const oldestMs = dayMs

/** How long after its seal an entry may claim that it was signed: clocks differ. */
export const newestMs = 300_000

/** When an entry of the library was signed, written and sealed, in milliseconds since 1970. */
interface Times {
  signedAt: number
  createdAt: number
  /** The time that the id is made of. Ids may be ahead of the time. */
  numberedAt: number
  sealedAt: number
}

/** True if an entry was signed at about the time of its seal, and written in between. */
export function isTimely({ signedAt, createdAt, numberedAt, sealedAt }: Times): boolean {
  return (
    signedAt >= sealedAt - oldestMs &&
    signedAt <= sealedAt + newestMs &&
    Math.min(createdAt, numberedAt) >= signedAt - newestMs &&
    createdAt <= sealedAt + newestMs
  )
}

/** Returns the hash of a seal, which covers the entry and everything before it. */
export function hashOf(previous: string, entry: SealedEntry): string {
  const { eventId, isGenuine, doubts, secretId, sealedAt } = entry
  const { digest, stateDigest, blockDigest } = entry
  const members = JSON.stringify([eventId, isGenuine, doubts, secretId, sealedAt])
  const digests = `${digest}\n${stateDigest ?? 'unknown'}\n${blockDigest ?? 'open'}`
  return digestOf('sha256', `${previous}\n${members}\n${digests}`)
}

/** Returns the digest of a block behind another, from the digests of its seals and of its entries. */
export function blockDigestOf(previous: string, seals: string, entries: string): string {
  return digestOf('sha256', `block\n${previous}\n${seals}\n${entries}`)
}

/** Returns the digest of the seals of a block without the last. It says what they do not have in common with the last. */
export function sealsDigestOf(
  seals: readonly (Link & Pick<SealedEntry, 'eventId' | 'isGenuine' | 'digest' | 'stateDigest'>)[],
): string {
  const lines = seals.map(
    ({ position, eventId, isGenuine, digest, stateDigest, hash }) =>
      `${position}:${eventId}:${isGenuine}:${digest}:${stateDigest ?? 'unknown'}:${hash}\n`,
  )
  return digestOf('sha256', lines.join(''))
}

/** SQL for the same, for the seals for which a condition is true, in their order. */
export function sealsDigestSql(seal: string, isMeant: string): string {
  const column = (name: string) => `${seal}.${name}`
  const [position, eventId] = [column('position'), column('event_id')]
  const line = `${position}::text || ':' || ${eventId}::text || ':' || ${column('is_genuine')}::text || ':' || ${column('digest')} || ':'
           || coalesce(${column('state_digest')}, 'unknown') || ':' || ${column('hash')} || E'\\n'`
  const lines = `string_agg(${line}, '') FILTER (WHERE ${isMeant})`
  return `encode(sha256(pg_catalog.convert_to(coalesce(${lines}, ''), 'UTF8')), 'hex')`
}

/** SQL for the digest of the entries of a block. */
export function entriesDigestSql(event: string, order = ''): string {
  return `encode(sha256(string_agg(${entryRowSql(event)}, ''::bytea ${order})), 'hex')`
}

/**
 * SQL for the time before which seals may be pruned. The seals of the last two days stay, so that a copy of an entry that is put back
 * meets the entry itself, or is older than an entry may be when it is sealed.
 */
function keptSql({ seals }: Tables): string {
  return `(SELECT sealed_at - interval '48 hours' FROM ${seals} ORDER BY position DESC LIMIT 1)`
}

/**
 * SQL that is true for a seal that may be pruned, as one from before a time. Nothing vouches for the time of an entry until it is sealed:
 * another role may give an entry any time.
 */
export function isOldSql(tables: Tables, seal: string, before: string): string {
  return `(${seal}.sealed_at < ${before}::timestamptz AND ${seal}.sealed_at < ${keptSql(tables)})`
}

/** SQL for a page of seals after a position, with their entries, as JSON. Entries that were sealed before a time are old. */
export function sealsSql(tables: Tables, after: number | string, before = `'infinity'`): string {
  return `
    SELECT pg_catalog.json_build_object(
             'position', seal.position, 'hash', seal.hash, 'eventId', seal.event_id::text,
             'isGenuine', seal.is_genuine, 'doubts', seal.doubts, 'sealedAt', ${msSql('seal.sealed_at')}, 'mac', seal.mac, 'secretId', seal.secret_id,
             'digest', seal.digest, 'stateDigest', seal.state_digest, 'blockDigest', seal.block_digest, 'found', CASE WHEN event.id IS NOT NULL THEN ${entryDigestSql('event')} END,
             'isOld', ${isOldSql(tables, 'seal', before)},
             'content', CASE WHEN event.id IS NOT NULL AND NOT seal.is_genuine THEN ${contentSql('event')} END
           )::text AS json
      FROM ${tables.seals} AS seal LEFT JOIN ${tables.events} AS event ON event.id = seal.event_id
     WHERE seal.position > ${after}
     ORDER BY seal.position LIMIT ${pageSize}`
}
