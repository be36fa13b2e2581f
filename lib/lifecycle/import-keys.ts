import { InvalidInputError, type InputFault } from '../errors'
import { readStored, type AcceptedSource, type ReadStored } from '../importing/imported-keys'
import { createReport, type ImportReport } from '../importing/report'
import { toText, type ForeignRow } from '../importing/rows'
import type { ImportRow, ReadRow } from '../importing/source'
import { importedPrefix } from '../keys/imported-prefix'
import { parseImportedState } from '../keys/imported-state'
import type { NewKey } from '../keys/input'
import type { Circumstances, Parts } from './calls'
import { importBatch } from './import-batch'
import { draftBatch, type DraftedBatch } from './import-drafts'
import type { ImportWish } from './import-options'
import { nextTurn } from './many-inputs'
import * as policies from './policies'

/** How many keys are imported in one transaction. */
const batchSize = 1_000

/** How many rows are read at once: so few that other requests do not wait. */
const readAtOnce = 100

/** A row that is to be imported. */
export interface ImportedRow extends ReadStored {
  /** Its place among all rows. */
  place: number
  key: NewKey
  state: ImportedState
  prefix: string
  postfix: string
}

/** The fields of an imported key that a new key lacks. */
export interface ImportedState {
  status: 'ACTIVE' | 'SUSPENDED' | 'REVOKED'
  createdAt: Date | null
  expiresAt: Date | null
  lastUsedAt: Date | null
  revokedAt: Date | null
}

/** Rows that are imported in one transaction, and what was noted while they were read. */
interface Batch {
  rows: ImportedRow[]
  refused: ImportReport['refused']
  unmapped: { place: number; fields: ReadRow['unmapped'] }[]
  /** How many rows were read when it was full. */
  read: number
}

/**
 * Imports the keys of a source, a thousand in a transaction. While the database writes them, the next thousand is read. It can be repeated:
 * keys that it knows are passed over, but if a key was suspended, revoked or shortened in the other system since, it is here as well. The
 * report has all rows that were not imported.
 */
export async function importKeys(
  parts: Parts,
  accepted: AcceptedSource,
  rows: Iterable<unknown> | AsyncIterable<unknown>,
  wish: ImportWish,
  circumstances: Circumstances,
): Promise<ImportReport> {
  const { report, refuse, noteUnmapped } = createReport()
  let batch: Batch = { rows: [], refused: [], unmapped: [], read: 0 }
  let place = 0
  let written = Promise.resolve()

  async function write(drafted: DraftedBatch, { refused, unmapped, read }: Batch) {
    const result = await importBatch(parts, accepted, drafted, wish, circumstances)
    report.imported += result.imported
    report.known += result.known
    report.changed += result.changed
    for (const { row, errors } of [...refused, ...result.refused]) refuse(row, errors)
    for (const { place: at, fields } of unmapped) noteUnmapped(at, fields)
    wish.onProgress?.({ ...report, rows: read })
  }

  /** Drafts the batch, and begins to write it once the batch before it is written. */
  async function send() {
    const full = { ...batch, read: place }
    batch = { rows: [], refused: [], unmapped: [], read: 0 }
    const drafted = await draftBatch(parts, accepted, full.rows, circumstances)
    await written
    written = write(drafted, full)
    // An error counts when the next batch has its turn.
    written.catch(() => {})
  }

  try {
    for await (const given of rows) {
      try {
        const foreign = asRow(given)
        const { row, unmapped } = readRow(accepted, foreign)
        batch.rows.push(prepare(parts, accepted, wish, { row, given: foreign, place }))
        if (unmapped.length > 0) batch.unmapped.push({ place, fields: unmapped })
      } catch (error) {
        if (!(error instanceof InvalidInputError)) throw error
        batch.refused.push({ row: place, errors: [...error.errors] })
      }
      place++
      if (batch.rows.length === batchSize) await send()
      else if (place % readAtOnce === 0) await nextTurn()
    }
    if (batch.rows.length > 0 || batch.refused.length > 0 || place === 0) await send()
    await written
  } finally {
    // The caller may close the connections as soon as the call fails.
    await Promise.allSettled([written])
  }
  report.refused.sort((a, b) => a.row - b.row)
  return report
}

function asRow(given: unknown): ForeignRow {
  if (typeof given === 'object' && given !== null && !Array.isArray(given))
    return given as ForeignRow
  throw new InvalidInputError([{ pointer: '#', message: 'must be an object' }])
}

/** Reads a row: ours has `stored`, and a row of the other system's table is read as the source says. */
function readRow({ source }: AcceptedSource, given: ForeignRow): ReadRow {
  // The rules of an `ImportRow` are checked later.
  if ('stored' in given || !source.readRow)
    return { row: given as unknown as ImportRow, unmapped: [] }
  return source.readRow(given)
}

/** A row as it was read, and as it came. */
interface PlacedRow {
  row: ImportRow
  given: ForeignRow
  place: number
}

/** Returns a row as it is to be imported. Throws an `InvalidInputError` with all its faults. */
function prepare(
  parts: Parts,
  accepted: AcceptedSource,
  wish: ImportWish,
  placed: PlacedRow,
): ImportedRow {
  const { row, place } = placed
  const { source } = accepted
  const faults: InputFault[] = []
  const stored = readStored(accepted, row)
  if ('message' in stored) faults.push(stored)
  const state = collect(faults, () => stateOf(row))
  const key = collect(faults, () => parts.parse.newKeyOf(inputOf(parts, source, wish, placed)))
  if (state && wish.enforce.includes('maxLifetimeSeconds')) {
    const from = state.createdAt?.getTime() ?? Date.now()
    collect(faults, () => policies.refuseTooLate(parts, state.expiresAt, from))
  }
  if (faults.length > 0 || !key || !state || 'message' in stored) {
    throw new InvalidInputError(faults)
  }
  const { prefix, postfix } = row.shown ?? {}
  return {
    ...stored,
    place,
    key,
    state,
    prefix: importedPrefix(source.name, toText(prefix) ?? ''),
    postfix: /[!-~]{0,8}$/.exec(toText(postfix) ?? '')?.[0] ?? '',
  }
}

/** Returns what a function returns. Adds the faults that it throws to others. */
function collect<Result>(faults: InputFault[], work: () => Result): Result | undefined {
  try {
    return work()
  } catch (error) {
    if (!(error instanceof InvalidInputError)) throw error
    faults.push(...error.errors)
    return undefined
  }
}

/** Returns the members that have a value. A member that is not known is refused, even if it has none. */
function withValues(members: Readonly<Record<string, unknown>>): object {
  return Object.fromEntries(
    Object.entries(members).filter(([, value]) => value !== undefined && value !== null),
  )
}

function stateOf(row: ImportRow): ImportedState {
  const { status, createdAt, expiresAt, lastUsedAt, revokedAt } = row
  const state = parseImportedState(
    withValues({ status, createdAt, expiresAt, lastUsedAt, revokedAt }),
  )
  const isRevoked = state.status === 'REVOKED' || state.revokedAt !== undefined
  return {
    status: isRevoked ? 'REVOKED' : state.status,
    createdAt: state.createdAt ?? null,
    expiresAt: state.expiresAt ?? null,
    lastUsedAt: state.lastUsedAt ?? null,
    revokedAt: isRevoked ? (state.revokedAt ?? new Date()) : null,
  }
}

/** Returns the input for a new key, by the row and by what the call gives for it. */
function inputOf(
  { environments }: Parts,
  source: AcceptedSource['source'],
  wish: ImportWish,
  { row, given }: PlacedRow,
): object {
  const owner = wish.owner(row, given) ?? row.owner
  const limits = wish.limits(row, given)
  return withValues({
    name: row.name ?? `Key of ${source.name}`,
    description: row.description,
    permissions: wish.permissions(row, given) ?? row.permissions ?? [],
    allowedIps: row.allowedIps,
    metadata: row.metadata,
    limits: limits === undefined ? row.limits : limits,
    resources: row.resources,
    environment: source.environment ?? environments.usual,
    ...(owner ? { owner } : { userId: row.userId }),
  })
}
