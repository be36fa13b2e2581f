import { runIn } from '../database/query'
import type { AcceptedSource } from '../importing/imported-keys'
import { shownPrefix } from '../keys/imported-prefix'
import { withIdleExpiry } from '../keys/record'
import type { Circumstances, Parts } from './calls'
import { worseOf } from './import-changes'
import type { ImportedRow } from './import-keys'
import { findGone, findKnown, hashesOf } from './import-known'
import { nextTurn } from './many-inputs'
import { draftOf, type NewChange } from './new-keys'

/** A key to be imported as the statement takes it: its columns and its signed entry, as JSON. */
export interface ImportDraft {
  row: ImportedRow
  change: NewChange
  columns: string
  entry: string
  /** The row of the table of salts. */
  salt: object | null
}

/** Rows, with what the database knew of them before their transaction. */
export interface DraftedBatch {
  rows: readonly ImportedRow[]
  /** The ids of keys that were imported before, by the places of their rows. */
  known: ReadonlyMap<number, string>
  /** The other keys, in the order of their rows. */
  drafts: readonly ImportDraft[]
}

/** How many keys are drafted at once: so few that other requests do not wait. */
const draftedAtOnce = 50

/** Drafts the keys of rows that the database does not know. It may do so while the batch before is written. */
export async function draftBatch(
  parts: Parts,
  accepted: AcceptedSource,
  rows: readonly ImportedRow[],
  circumstances: Circumstances,
): Promise<DraftedBatch> {
  if (rows.length === 0) return { rows, known: new Map(), drafts: [] }

  const runAlone = runIn(parts.sequelize, null)
  const [known, gone] = await parts.inTurn(circumstances, async () => [
    await findKnown(parts.tables, runAlone, rows),
    await findGone(parts.tables, runAlone, rows),
  ])
  const news = new Map<string, ImportedRow>()
  for (const row of rows) {
    const isOver = gone.size > 0 && hashesOf(row).some((each) => gone.has(each))
    const name = row.stored.hash
    // If several rows have one key, the row counts that lets the key do the least.
    if (!known.has(row.place) && !isOver) news.set(name, worseOf(news.get(name) ?? row, row))
  }
  const drafts: ImportDraft[] = []
  for (const row of news.values()) {
    drafts.push(draftImported(parts, accepted, row, circumstances))
    if (drafts.length % draftedAtOnce === 0) await nextTurn()
  }
  return { rows, known, drafts }
}

/** Drafts an imported key. */
export function draftImported(
  parts: Parts,
  { source }: AcceptedSource,
  imported: ImportedRow,
  circumstances: Circumstances,
): ImportDraft {
  const { key, stored, salted, state, prefix, postfix } = imported
  const { hash, secretId } = stored
  const secret = { hash, secretId, prefix, postfix }
  const { change: created, row } = draftOf(parts, { key, secret, circumstances })
  const { record } = created.after
  const createdAt = state.createdAt ?? new Date()
  // The other system may not know the last use, so the idleness of a key counts from its import.
  const renewedAt = parts.idleMs === Infinity ? null : new Date()
  const times = { ...state, createdAt, updatedAt: createdAt }
  const made = { ...record, ...times, prefix: shownPrefix(prefix), source: source.name }
  created.after.record = withIdleExpiry(made, renewedAt, parts)
  const columns = Object.assign(row, {
    source: source.name,
    status: state.status,
    created_at: createdAt,
    updated_at: createdAt,
    last_used_at: state.lastUsedAt,
    expires_at: state.expiresAt,
    revoked_at: state.revokedAt,
    renewed_at: renewedAt,
  })
  const change: NewChange = { ...created, action: 'imported' }
  const salt = salted && { ...salted, source: source.name, api_key_id: record.id }
  return {
    row: imported,
    change,
    columns: JSON.stringify(columns),
    entry: JSON.stringify(parts.audit.toRow(change, circumstances)),
    salt,
  }
}
