import { eventColumns, writtenColumns, type ApiKeyEventRow } from '../../models/api-key-event'
import { timeSql } from '../../models/audit-trail'
import { saltLength } from '../../models/sealed-entry'
import { canonical } from '../keys/metadata'
import { createRandomPool } from '../keys/random-pool'
import type { SignatureCheck, Signer } from './signing'

/*
 * An entry has two texts. The library signs `signedText` before it writes the entry, so it can only use values that it
 * knows. The seal covers a digest of the whole row in the database, whose numbers may be longer than those of
 * JavaScript; models/sealed-entry.ts says how. The database computes the digest, so that verification need not read an entry that has not changed since
 * it was sealed.
 *
 * The column `entry_mac` holds three parts, with colons between them: the id of the secret, or nothing; the time of signing, in
 * milliseconds since 1970; and the MAC. The time is the time of the server, which the process measures by its polls. The MAC covers
 *
 *   JSON of [time, ref, salt, apiKeyId, ownerType, ownerId, formerOwnerType, formerOwnerId, action, actorType, actorId, address, reason, before, after, personalBefore, personalAfter]
 *
 * with the names of objects in order, and without `createdAt` of `after`: the database sets that time when it makes
 * the key, so the process cannot know it. The seal covers it. Because the MAC covers the salt, nobody can guess values that were erased,
 * not even with the secret. A MAC is not checked again after the entry is sealed, and only sealed entries are erased.
 *
 * `before` and `after` of entries that make, rotate or delete a key have `hashDigest`, SHA-256 of the hash of its secret, and
 * `previousHashDigest`, the same of the secret before it, and `pendingHashDigest`, of a secret that waits for its first use. Entries of triggers have them whenever a hash changes.
 */

/** An entry as the library writes it. The database adds an id and a time. */
export interface NewEntry extends Omit<ApiKeyEventRow, 'id' | 'createdAt' | 'isErased'> {
  /** The `event_ref` that the change gave to the row of the key; `null` if a trigger wrote the entry. */
  ref: string | null
  /** In hexadecimal. */
  salt: string
}

/** An entry as the database has it, with the signature of the library, if it has one. */
export type StoredEntry = NewEntry & { entryMac: string | null }

/** The columns that the library writes and signs, in the order in which both texts have them. */
const columns = { ref: 'ref', salt: 'salt', ...eventColumns } as const

// The compiler knows the names, `Object.keys` does not.
const names = Object.keys(columns) as (keyof typeof columns)[]

/** Returns an entry as a row of the table, without columns that are NULL, signed at a time of the server, in milliseconds since 1970. */
export function toRow(signer: Signer, entry: NewEntry, at: number) {
  const row: { entry_mac: string; [column: string]: unknown } = {
    entry_mac: signEntry(signer, entry, at),
  }
  for (const name of names) {
    if (entry[name] !== null) row[columns[name]] = entry[name]
  }
  row.salt = `\\x${entry.salt}`
  return row
}

/** Returns the members of a new entry that says nothing yet, with a salt of its own. */
export function newEntry() {
  return { ...nothing, salt: drawSalt().toString('hex') }
}

const drawSalt = createRandomPool(saltLength)

const nothing = {
  apiKeyId: null,
  ownerType: null,
  ownerId: null,
  formerOwnerType: null,
  formerOwnerId: null,
  actorType: 'system',
  actorId: null,
  address: null,
  reason: null,
  before: null,
  after: null,
  personalBefore: null,
  personalAfter: null,
} as const

/** Signs an entry, so that no other role can write an entry that passes for one of the library. */
export function signEntry(signer: Signer, entry: NewEntry, at: number): string {
  // A clock may be set before 1970.
  const time = String(Math.max(0, Math.round(at)))
  const { mac, secretId } = signer.sign('entry', signedText(entry, time))
  return `${secretId ?? ''}:${time}:${mac}`
}

/** Returns when the library signed an entry, in milliseconds since 1970; `null` for an entry without a signature. */
export function signedAt({ entryMac }: Pick<StoredEntry, 'entryMac'>): number | null {
  const [, time] = (entryMac ?? '').split(':')
  return time === undefined ? null : Number(time)
}

/** Checks if the library wrote an entry. */
export function checkEntry(signer: Signer, entry: StoredEntry): SignatureCheck {
  const [secretId, time, mac] = (entry.entryMac ?? '').split(':')
  if (time === undefined || mac === undefined) return 'invalid'
  try {
    const text = signedText(entry, time)
    return signer.check('entry', text, { mac, secretId: secretId || null })
  } catch {
    // JavaScript cannot follow values that are nested so deep, so the library did not write them.
    return 'invalid'
  }
}

function signedText(entry: NewEntry, time: string): string {
  const values = names.map((name) =>
    name === 'after' ? withoutCreation(entry.after) : entry[name],
  )
  return canonical([time, ...values])
}

function withoutCreation(after: NewEntry['after']): unknown {
  // Other roles may have written any JSON.
  if (typeof after !== 'object' || after === null || !('createdAt' in after)) return after
  const { createdAt: _, ...known } = after
  return known
}

/** Everything that an entry says, except its id. */
export type Content = readonly (string | null)[]

/** SQL for the content of an entry, as a JSON array of texts. */
export function contentSql(event: string): string {
  const texts = writtenColumns.map((column) =>
    column === 'salt' ? `encode(${event}.salt, 'hex')` : `${event}.${column}::text`,
  )
  return `pg_catalog.json_build_array(${[...texts, timeSql(`${event}.created_at`)].join(', ')})`
}

/** Reads an entry from its content. Its members may be anything: the signature says if the library wrote them. */
export function readContent(values: Content): StoredEntry {
  const entry = Object.fromEntries(
    [...names, 'entryMac' as const].map((name, index) => [name, values[index] ?? null]),
  ) as Record<keyof StoredEntry, string | null>
  const [before, after, personalBefore, personalAfter] = [
    entry.before,
    entry.after,
    entry.personalBefore,
    entry.personalAfter,
  ].map(readJson)
  return { ...entry, before, after, personalBefore, personalAfter } as StoredEntry
}

function readJson(text: string | null): unknown {
  return text === null ? null : JSON.parse(text)
}
