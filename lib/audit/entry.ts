import { eventColumns, type ApiKeyEventRow } from '../../models/api-key-event'
import { timeSql } from '../../models/audit-trail'
import { canonical } from '../keys/metadata'
import type { SignatureCheck, Signer } from './signing'

/*
 * An entry has two texts. The library signs `signedText` before it writes the entry, so it can only use values that it knows.
 * The seal covers a digest of the whole row as the database has it: its numbers may be longer than those of JavaScript. The database
 * computes the digest, so that verification reads no entry that is as it was sealed.
 */

/** An entry as the library writes it. The database adds an id and a time. */
export interface NewEntry extends Omit<ApiKeyEventRow, 'id' | 'userId' | 'createdAt'> {
  userId: string | number | null
  /** The `event_ref` that the change gave to the row of the key; `null` if a trigger wrote the entry. */
  ref: string | null
}

/** An entry as the database has it, with the signature of the library, if it has one. */
export type StoredEntry = NewEntry & { entryMac: string | null }

/** The columns that the library writes and signs, in the order in which both texts have them. */
const columns = { ref: 'ref', ...eventColumns } as const

// The compiler knows the names, `Object.keys` does not.
const names = Object.keys(columns) as (keyof typeof columns)[]

const storedColumns = [...Object.values(columns), 'entry_mac']

/** SQL that writes the entries of `$1`, a JSON array of what `toRow` returns. The table itself knows the types of its columns. */
export function insertEntriesSql(events: string): string {
  const list = storedColumns.join(', ')
  return `INSERT INTO ${events} (${list}) SELECT ${list} FROM json_populate_recordset(NULL::${events}, $1::json)`
}

/** Returns an entry as a row of the table, with its signature. */
export function toRow(signer: Signer, entry: NewEntry): Record<string, unknown> {
  const row = Object.fromEntries(names.map((name) => [columns[name], entry[name]]))
  return { ...row, entry_mac: signEntry(signer, entry) }
}

/** Signs an entry, so that no other role can write an entry that passes for one of the library. */
export function signEntry(signer: Signer, entry: NewEntry): string {
  const { mac, secretId } = signer.sign('entry', signedText(entry))
  return `${secretId ?? ''}:${mac}`
}

/** Checks if the library wrote an entry. */
export function checkEntry(signer: Signer, entry: StoredEntry): SignatureCheck {
  const [secretId, mac] = (entry.entryMac ?? '').split(':')
  if (mac === undefined) return 'invalid'
  try {
    return signer.check('entry', signedText(entry), { mac, secretId: secretId || null })
  } catch {
    // JavaScript cannot follow values that are nested so deep, so the library did not write them.
    return 'invalid'
  }
}

function signedText(entry: NewEntry): string {
  const owner = entry.userId === null ? null : String(entry.userId)
  return canonical(names.map((name) => (name === 'userId' ? owner : entry[name])))
}

/** SQL for everything that an entry says, except its id, as one text. */
export function contentSql(event: string): string {
  const texts = storedColumns.map((column) => `${event}.${column}::text`)
  return `jsonb_build_array(${[...texts, timeSql(`${event}.created_at`)].join(', ')})::text`
}

/**
 * SQL for the digest of everything that an entry says, except its id, in hexadecimal. `record_send` writes the length of each value
 * before it, so no two entries have one form, and no setting of the session changes it. Text is converted first, because the form
 * of text depends on the encoding of the client.
 */
export function entryDigestSql(event: string): string {
  const values = storedColumns.map((column) => `convert_to(${event}.${column}::text, 'UTF8')`)
  return `encode(sha256(record_send(ROW(${[...values, `${event}.created_at`].join(', ')}))), 'hex')`
}

/** Reads an entry from its content. Its members may be anything: the signature says if the library wrote them. */
export function readContent(content: string): StoredEntry {
  const values = JSON.parse(content) as (string | null)[]
  const entry = Object.fromEntries(
    [...names, 'entryMac' as const].map((name, index) => [name, values[index] ?? null]),
  ) as Record<keyof StoredEntry, string | null>
  return { ...entry, before: readJson(entry.before), after: readJson(entry.after) } as StoredEntry
}

function readJson(text: string | null): unknown {
  return text === null ? null : JSON.parse(text)
}
