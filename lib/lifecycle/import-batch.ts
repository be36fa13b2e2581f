import { newKeyAttributes } from '../../migrations/create-function'
import { keyColumns } from '../../models/api-key'
import { insertEntriesSql } from '../../models/api-key-event'
import type { Tables } from '../../models/tables'
import { sqlStateOf } from '../database/failures'
import { run, runIn } from '../database/query'
import type { InputFault } from '../errors'
import type { AcceptedSource } from '../importing/imported-keys'
import { shownPrefix } from '../keys/imported-prefix'
import { nameOfOwner } from '../keys/owner'
import { withIdleExpiry } from '../keys/record'
import { isExpired } from '../keys/states'
import type { Circumstances, OwnCircumstances, Parts } from './calls'
import type { ImportedRow } from './import-keys'
import type { ImportWish } from './import-options'
import { findUnknownOwners, ownersOf, roomOf, shareOwners } from './import-owners'
import { takeOver, worseOf } from './import-changes'
import { findGone, findKnown, hashesOf } from './import-known'
import { draftOf, foreignKeyViolation, unknownOwner, type NewChange } from './new-keys'

interface BatchResult {
  imported: number
  known: number
  changed: number
  refused: { row: number; errors: InputFault[] }[]
  /** The hashes of the new keys, and the salted keys among them. */
  added: ImportedRow[]
}

/** Thrown at the end of a dry run, so that nothing is kept of it. */
class TakenBack extends Error {
  constructor(readonly result: BatchResult) {
    super('express-api-keys: a dry run is taken back')
  }
}

const uniqueViolation = '23505'

/** How often a batch begins anew, because another transaction has imported or rotated one of its keys. */
const maxAttempts = 5

/** Imports rows in one transaction. */
export async function importBatch(
  parts: Parts,
  accepted: AcceptedSource,
  rows: readonly ImportedRow[],
  wish: ImportWish,
  circumstances: Circumstances,
): Promise<BatchResult> {
  let wanted = rows
  const refused: BatchResult['refused'] = []
  for (let attempt = 1; ; attempt++) {
    try {
      const result = await importOnce(parts, accepted, wanted, wish, circumstances)
      if (result.imported + result.changed > 0 && !wish.dryRun) {
        for (const { stored, salted } of result.added) {
          const { name: source } = accepted.source
          parts.verification.imported(stored.hash, salted && { source, locator: salted.locator })
        }
        await parts.verification.changed('all', undefined)
      }
      return { ...result, refused: [...refused, ...result.refused] }
    } catch (error) {
      const state = sqlStateOf(error)
      if (state === foreignKeyViolation) {
        const kept = await withoutUnknownOwners(parts, wanted, refused)
        if (kept.length === wanted.length) throw error
        wanted = kept
      } else if (state !== uniqueViolation || attempt === maxAttempts) throw error
    }
  }
}

/** Returns the rows whose owners exist, and refuses the other rows. */
async function withoutUnknownOwners(
  parts: Parts,
  rows: readonly ImportedRow[],
  refused: BatchResult['refused'],
) {
  const unknown = await parts.inTransaction({}, (transaction) =>
    findUnknownOwners(parts, runIn(parts.sequelize, transaction), ownersOf(rows)),
  )
  return rows.filter(({ key: { owner }, place }) => {
    const isUnknown = unknown.has(nameOfOwner(owner))
    if (isUnknown) refused.push({ row: place, errors: [unknownOwner(owner)] })
    return !isUnknown
  })
}

async function importOnce(
  parts: Parts,
  accepted: AcceptedSource,
  rows: readonly ImportedRow[],
  wish: ImportWish,
  circumstances: Circumstances,
): Promise<BatchResult> {
  if (rows.length === 0) return { imported: 0, known: 0, changed: 0, refused: [], added: [] }
  try {
    return await parts.inTransaction(circumstances, async (transaction) => {
      // A key that another transaction imports meanwhile is known, once that has committed.
      await run(parts.sequelize, 'SET TRANSACTION ISOLATION LEVEL READ COMMITTED', { transaction })
      const result = await importIn(parts, accepted, rows, wish, { ...circumstances, transaction })
      if (wish.dryRun) throw new TakenBack(result)
      return result
    })
  } catch (error) {
    if (error instanceof TakenBack) return error.result
    throw error
  }
}

async function importIn(
  parts: Parts,
  accepted: AcceptedSource,
  rows: readonly ImportedRow[],
  wish: ImportWish,
  own: OwnCircumstances,
): Promise<BatchResult> {
  const runHere = runIn(parts.sequelize, own.transaction)
  const known = await findKnown(parts.tables, runHere, rows)
  const gone = await findGone(parts.tables, runHere, rows)
  const news = new Map<string, ImportedRow>()
  for (const row of rows) {
    const isOver = hashesOf(row).some((each) => gone.has(each))
    const name = row.stored.hash
    // If several rows have one key, the row counts that lets the key do the least.
    if (!known.has(row.place) && !isOver) news.set(name, worseOf(news.get(name) ?? row, row))
  }
  const { added, refused } = await insert(parts, accepted, [...news.values()], wish, own)
  const changed = await takeOver(parts, rows, known, own)
  const others = rows.length - added.length - refused.length - changed
  return { imported: added.length, known: others, changed, refused, added }
}

/** Inserts keys that are new. Returns the rows of which it made keys, and the rows beyond the maximum of their owners. */
async function insert(
  parts: Parts,
  accepted: AcceptedSource,
  rows: readonly ImportedRow[],
  wish: ImportWish,
  own: OwnCircumstances,
): Promise<Pick<BatchResult, 'added' | 'refused'>> {
  const refused: BatchResult['refused'] = []
  if (rows.length === 0) return { added: [], refused }

  const runHere = runIn(parts.sequelize, own.transaction)
  const owners = await shareOwners(parts, runHere, ownersOf(rows))
  const room = wish.enforce.includes('maxKeysPerOwner')
    ? await roomOf(parts, owners, environmentOf(parts, accepted), own.transaction)
    : null
  const allowed = rows.filter(({ key, place, state }) => {
    const name = nameOfOwner(key.owner)
    const left = room?.get(name) ?? Infinity
    const isCounted = state.status !== 'REVOKED' && !isExpired(state, Date.now())
    if (isCounted && left < 1) {
      refused.push({
        row: place,
        errors: [{ pointer: '#', message: 'is one more than its owner may have' }],
      })
      return false
    }
    if (isCounted) room?.set(name, left - 1)
    return true
  })
  // All imports insert hashes in one order, so that none waits for another that waits for it.
  const ordered = allowed.toSorted((a, b) => (a.stored.hash < b.stored.hash ? -1 : 1))
  const drafts = ordered.map((row) => {
    const owner = owners.get(nameOfOwner(row.key.owner)) ?? row.key.owner
    return draftImported(parts, accepted, { ...row, key: { ...row.key, owner } }, own)
  })
  const made = await runHere(importSql(parts.tables), [
    `[${drafts.map(({ row }) => row).join(',')}]`,
    `[${drafts.map(({ entry }) => entry).join(',')}]`,
    JSON.stringify(drafts.flatMap(({ salt }) => salt ?? [])),
  ])
  const ids = new Set(made.map(({ id }) => id))
  const isMade = drafts.map(({ change }) => ids.has(change.after.record.id))
  parts.noteMade(
    own.transaction,
    drafts.flatMap(({ change }, at) =>
      isMade[at] === true ? [{ change, circumstances: own }] : [],
    ),
    { xid: made[0]?.xid, isLogged: true },
  )
  return { added: ordered.filter((_, at) => isMade[at]), refused }
}

function environmentOf({ environments }: Parts, { source }: AcceptedSource) {
  return environments.ofNewKey({ environment: source.environment ?? environments.usual })
}

/** Drafts an imported key: its row and its signed entry, as JSON. */
function draftImported(
  parts: Parts,
  { source }: AcceptedSource,
  { key, stored, salted, state, prefix, postfix }: ImportedRow,
  circumstances: Circumstances,
) {
  const { hash, secretId } = stored
  const secret = { hash, secretId, prefix, postfix }
  const { change, row } = draftOf(parts, { key, secret, circumstances })
  const { record } = change.after
  const createdAt = state.createdAt ?? new Date()
  // The other system may not know the last use, so the idleness of a key counts from its import.
  const renewedAt = parts.idleMs === Infinity ? null : new Date()
  const times = { ...state, createdAt, updatedAt: createdAt }
  const made = { ...record, ...times, prefix: shownPrefix(prefix), source: source.name }
  change.after.record = withIdleExpiry(made, renewedAt, parts)
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
  const imported: NewChange = { ...change, action: 'imported' }
  const salt = salted && { ...salted, source: source.name, api_key_id: record.id }
  return {
    change: imported,
    row: JSON.stringify(columns),
    entry: JSON.stringify(parts.audit.toRow(imported, circumstances)),
    salt,
  }
}

/** The columns of an imported key. */
const importedColumns = [
  ...newKeyAttributes.map((name) => keyColumns[name].name),
  'source',
  'status',
  'created_at',
  'updated_at',
  'last_used_at',
  'revoked_at',
  'renewed_at',
]

/** SQL that writes keys, their entries and their salts. A key that another transaction has imported meanwhile is passed over. */
function importSql(tables: Tables): string {
  const { keys, events, salts } = tables
  return `
    WITH new AS MATERIALIZED (
      SELECT * FROM pg_catalog.json_populate_recordset(NULL::${keys}, $1::json) WITH ORDINALITY
    ), entry AS MATERIALIZED (
      SELECT * FROM pg_catalog.json_populate_recordset(NULL::${events}, $2::json) WITH ORDINALITY
    ), made AS (
      INSERT INTO ${keys} (${importedColumns.join(', ')}) SELECT ${importedColumns.join(', ')} FROM new ORDER BY new.ordinality
          ON CONFLICT (hash) DO NOTHING
      RETURNING id, event_ref
    ), salted AS (
      INSERT INTO ${salts} (source, locator, api_key_id, recipe, salt)
      SELECT given.source, given.locator, given.api_key_id, given.recipe, given.salt
        FROM pg_catalog.json_populate_recordset(NULL::${salts}, $3::json) AS given JOIN made ON made.id = given.api_key_id
    ), told AS (
      ${insertEntriesSql(tables, 'FROM made JOIN entry ON entry.ref = made.event_ref ORDER BY entry.ordinality')}
    )
    SELECT made.id::text AS id, pg_current_xact_id()::text AS xid FROM made`
}
