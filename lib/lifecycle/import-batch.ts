import { newKeyColumns } from '../../migrations/create-function'
import { insertEntriesSql, writtenColumns } from '../../models/api-key-event'
import { rowsInOrderSql } from '../../models/rows'
import type { Tables } from '../../models/tables'
import { sqlStateOf } from '../database/failures'
import { run, runIn } from '../database/query'
import type { InputFault } from '../errors'
import type { AcceptedSource } from '../importing/imported-keys'
import { nameOfOwner, type Owner } from '../keys/owner'
import type { Circumstances, OwnCircumstances, Parts } from './calls'
import type { ImportedRow } from './import-keys'
import type { ImportWish } from './import-options'
import { findUnknownOwners, lockOwners, ownersOf, roomOf } from './import-owners'
import { takeOver } from './import-changes'
import { draftBatch, draftImported, type DraftedBatch, type ImportDraft } from './import-drafts'
import { isLiving, type MadeOfRow } from './import-dry-run'
import { findGone, findKnown } from './import-known'
import { foreignKeyViolation, unknownOwner } from './new-keys'

interface BatchResult {
  /** How many keys were there, and have not changed. */
  known: number
  refused: { row: number; errors: InputFault[] }[]
  added: MadeOfRow[]
  changed: MadeOfRow[]
}

/** Thrown at the end of a dry run, so that nothing is kept of it. */
class TakenBack extends Error {
  constructor(readonly result: BatchResult) {
    super('express-api-keys: a dry run is taken back')
  }
}

/** Thrown if a transaction has inserted a key that was imported, revoked and deleted since it was drafted. */
class BroughtBack extends Error {
  constructor() {
    super('importKeys: other processes delete keys while this one imports them')
  }
}

const uniqueViolation = '23505'

/** How often a batch begins anew, because another transaction has imported, rotated or deleted one of its keys. */
const maxAttempts = 5

/** Imports drafted rows in one transaction. */
export async function importBatch(
  parts: Parts,
  accepted: AcceptedSource,
  drafted: DraftedBatch,
  wish: ImportWish,
  circumstances: Circumstances,
) {
  const { dryRun } = wish
  let batch = dryRun?.withoutKept(drafted) ?? drafted
  const again = drafted.rows.length - batch.rows.length
  const refused: BatchResult['refused'] = []
  for (let attempt = 1; ; attempt++) {
    try {
      const result = await importOnce(parts, accepted, batch, wish, circumstances)
      const { added, changed } = result
      const changedAgain = dryRun?.note(drafted.rows, [...added, ...changed]) ?? 0
      if (added.length + changed.length > 0 && !dryRun) {
        for (const { row } of added) {
          const { stored, salted } = row
          const { name: source } = accepted.source
          parts.verification.imported(stored.hash, salted && { source, locator: salted.locator })
        }
        await parts.verification.changed('all', undefined)
      }
      return {
        imported: added.length,
        known: result.known + again - changedAgain,
        changed: changed.length + changedAgain,
        refused: [...refused, ...result.refused],
      }
    } catch (error) {
      const state = sqlStateOf(error)
      let { rows } = batch
      if (state === foreignKeyViolation) {
        rows = await withoutUnknownOwners(parts, batch.rows, refused)
        if (rows.length === batch.rows.length) throw error
      } else {
        const isOvertaken = state === uniqueViolation || error instanceof BroughtBack
        if (!isOvertaken || attempt === maxAttempts) throw error
      }
      batch = await draftBatch(parts, accepted, rows, circumstances)
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
  batch: DraftedBatch,
  wish: ImportWish,
  circumstances: Circumstances,
): Promise<BatchResult> {
  if (batch.rows.length === 0) return { known: 0, refused: [], added: [], changed: [] }
  try {
    return await parts.inTransaction(circumstances, async (transaction) => {
      // A key that another transaction imports meanwhile is known, once that has committed.
      await run(parts.sequelize, 'SET TRANSACTION ISOLATION LEVEL READ COMMITTED', { transaction })
      const result = await importIn(parts, accepted, batch, wish, { ...circumstances, transaction })
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
  { rows, known, drafts }: DraftedBatch,
  wish: ImportWish,
  own: OwnCircumstances,
): Promise<BatchResult> {
  const { added, overtaken, refused } = await insert(parts, accepted, drafts, wish, own)
  const runHere = runIn(parts.sequelize, own.transaction)
  // Only now, no other transaction can insert and delete a key with one of these hashes any more.
  const gone = await findGone(parts.tables, runHere, added.map(rowOf))
  if (gone.size > 0) throw new BroughtBack()
  const knownSince = await findKnown(parts.tables, runHere, overtaken)
  const changed = await takeOver(parts, rows, new Map([...known, ...knownSince]), own)
  const others = rows.length - added.length - refused.length - changed.length
  return { known: others, refused, added, changed }
}

/** The outcome of new keys. */
interface Inserted extends Pick<BatchResult, 'added' | 'refused'> {
  /** The rows whose keys another transaction has imported since they were drafted. */
  overtaken: ImportedRow[]
}

/** Inserts keys that are new, except those beyond the maximum of their owners. */
async function insert(
  parts: Parts,
  accepted: AcceptedSource,
  drafts: readonly ImportDraft[],
  wish: ImportWish,
  own: OwnCircumstances,
): Promise<Inserted> {
  const refused: BatchResult['refused'] = []
  if (drafts.length === 0) return { added: [], overtaken: [], refused }

  const runHere = runIn(parts.sequelize, own.transaction)
  const isCounted = wish.enforce.includes('maxKeysPerOwner')
  const given = ownersOf(drafts.map(({ row }) => row))
  const owners = await lockOwners(parts, runHere, given, isCounted)
  const spelledOwner = (owner: Owner) => owners.get(nameOfOwner(owner)) ?? owner
  const room = isCounted
    ? await roomOf(parts, owners, environmentOf(parts, accepted), own.transaction)
    : null
  // A key that was imported since it was drafted is counted already. Its owner may have no room for it.
  const since = await findKnown(parts.tables, runHere, isCounted ? drafts.map(rowOf) : [])
  const allowed = drafts.filter(({ row: { key, place, state } }) => {
    if (since.has(place)) return false
    const name = nameOfOwner(spelledOwner(key.owner))
    const left = room?.get(name) ?? Infinity
    const isCountedKey = isLiving(state)
    if (isCountedKey && left - (wish.dryRun?.livingOf(name) ?? 0) < 1) {
      refused.push({
        row: place,
        errors: [{ pointer: '#', message: 'is one more than its owner may have' }],
      })
      return false
    }
    if (isCountedKey) room?.set(name, left - 1)
    return true
  })
  // All imports insert hashes in one order, so that none waits for another that waits for it.
  const ordered = allowed.toSorted((a, b) => (a.row.stored.hash < b.row.stored.hash ? -1 : 1))
  const spelled = ordered.map((draft) => {
    const { key } = draft.row
    const owner = spelledOwner(key.owner)
    if (owner.id === key.owner.id) return draft
    return draftImported(parts, accepted, { ...draft.row, key: { ...key, owner } }, own)
  })
  const made = await runHere(importSql(parts.tables), [
    `[${spelled.map(({ columns }) => columns).join(',')}]`,
    `[${spelled.map(({ entry }) => entry).join(',')}]`,
    JSON.stringify(spelled.flatMap(({ salt }) => salt ?? [])),
  ])
  const ids = new Set(made.map(({ id }) => id))
  const isMade = ({ change }: ImportDraft) => ids.has(change.after.record.id)
  const news = spelled.filter(isMade)
  parts.noteMade(
    own.transaction,
    news.map(({ change }) => ({ change, circumstances: own })),
    { xid: made[0]?.xid, isLogged: true },
  )
  const others = drafts.filter(({ row }) => since.has(row.place))
  const overtaken = [...others, ...spelled.filter((draft) => !isMade(draft))].map(rowOf)
  return { added: news, overtaken, refused }
}

function rowOf({ row }: MadeOfRow): ImportedRow {
  return row
}

function environmentOf({ environments }: Parts, { source }: AcceptedSource) {
  return environments.ofNewKey({ environment: source.environment ?? environments.usual })
}

/** The columns of an imported key. */
const importedColumns = [
  ...newKeyColumns,
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
      SELECT * FROM ${rowsInOrderSql(keys, importedColumns, '$1::json')} AS new
    ), entry AS MATERIALIZED (
      SELECT * FROM ${rowsInOrderSql(events, writtenColumns, '$2::json')} AS entry
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
