import type { Sequelize, Transaction } from 'sequelize'

import { literal } from '../../models/names'
import type { Tables } from '../../models/tables'
import { setImmediate } from '../database/background'
import { sqlStateOf } from '../database/failures'
import { limitStatements, select, systemNamesOnly } from '../database/query'
import { createFindings } from './faults'
import type { AuditHead } from './head'
import type { Beside } from './read-beside'

/** Reads rows of the trail, all from one snapshot. */
export type Reader = ReturnType<typeof createReader>

/** The parts that the checks of a verification work with. */
export interface Verification {
  reader: Reader
  /** The ids of keys that seals do not vouch for. */
  suspects: Pick<Beside, 'answer'>
  tables: Tables
  /** A head that was exported before and kept elsewhere. */
  anchor: AuditHead | undefined
  /** Called after some rows were checked. */
  onRows: (count: number) => void
}

/** The values of a row as text; empty for NULL. */
export type Row = readonly string[]

/** How many rows a statement reads. */
export const pageSize = 4_000

/** How many rows are worked on before other work of the process has its turn. */
export const partSize = 500

/** Separate rows and values. JSON has no such characters, not even between its values. */
const [endOfRow, endOfValue] = ['\u001e', '\u001f']

/** The savepoint to which a reader goes back after a statement that failed. */
export const savepoint = 'api_key_reading'

/** The SQLSTATEs of statements that fail because of the values or the number of rows that they meet. */
const isOfValues = /^(2[12]...|54...)$/

/** How long a statement may take. It reads a page. */
export const statementLimitMs = 300_000

/** The cursor that reads through a table in one order, however large it is. */
const cursor = 'api_key_entries'

/** How much memory a sort or a hash of the server may have, unless the session allows more. Sorts on disk take longer. */
const workMem = '16MB'

/** SQL that begins to read a snapshot; a new one, or the snapshot of a transaction that has exported it. */
export function readSnapshotSql(snapshot?: string): string {
  const exported = snapshot === undefined ? '' : `SET TRANSACTION SNAPSHOT ${literal(snapshot)};`
  // The time limits of the session are the app's, for its requests. Times are read with all of their digits. Each worker of a parallel plan
  // would join and sort all entries.
  return `
    SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;
    ${exported}
    ${systemNamesOnly};
    ${limitStatements(statementLimitMs)};
    SELECT set_config(name, '0', true) FROM pg_catalog.pg_settings
     WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout');
    SELECT set_config('work_mem', '${workMem}', true) WHERE pg_size_bytes(current_setting('work_mem')) < pg_size_bytes('${workMem}');
    SET LOCAL max_parallel_workers_per_gather = 0;
    SET LOCAL jit = off;
    SET LOCAL extra_float_digits = 1`
}

/**
 * SQL that makes the cursor for a query, and the savepoint. The server plans the query for all of its rows: it sorts them, unless an index
 * is cheaper.
 */
export function beginReadingSql(query: string): string {
  return `
    SET LOCAL cursor_tuple_fraction = 1;
    DECLARE ${cursor} NO SCROLL CURSOR FOR ${query};
    SAVEPOINT ${savepoint}`
}

/**
 * Creates the functions that read the trail. Their statements go to the database one after the other, however many are asked for
 * at once. If the database cannot read a part, that is a fault, and the part ends there.
 */
export function createReader(sequelize: Sequelize, transaction: Transaction) {
  const findings = createFindings()
  let turn: Promise<unknown> = Promise.resolve()

  async function readNow(part: string, sql: string): Promise<string[]> {
    try {
      const rows = await select<{ json: string | null }>(sequelize, sql, { transaction })
      return rows.flatMap(({ json }) => json ?? [])
    } catch (error) {
      const state = sqlStateOf(error)
      if (!isOfValues.test(state)) throw error

      await sequelize.query(`ROLLBACK TO SAVEPOINT ${savepoint}`, { transaction })
      findings.report('unreadable', {}, `The database cannot read ${part} (SQLSTATE ${state}).`)
      return []
    }
  }

  async function read(part: string, sql: string): Promise<string[]> {
    const result = turn.then(() => readNow(part, sql))
    turn = result.catch(() => {})
    return result
  }

  return {
    read,
    /** The parts that could not be read. */
    findings,

    /** Yields the rows of a table, a page at a time. The SQL of a page follows from the last row of the page before. */
    rowsOf: (part: string, pageSqlAfter: (last: Row | null) => string) =>
      pagesOf(async (last) => {
        const [text] = await read(part, pageSqlAfter(last))
        return text?.split(endOfRow) ?? []
      }),

    /** Yields the rows of the cursor. */
    rowsOfCursor: (part: string) => pagesOf(() => read(part, `FETCH ${pageSize} FROM ${cursor}`)),
  }
}

/** Yields the rows of pages, some at a time. The database reads the next page while the process works on this one. */
async function* pagesOf(load: (last: Row | null) => Promise<string[]>) {
  for (let next = load(null); ;) {
    const lines = await next
    const isLast = lines.length < pageSize
    if (!isLast) {
      next = load(valuesOf(lines[pageSize - 1] ?? ''))
      // An error counts when the page is awaited.
      next.catch(() => {})
    }
    for await (const part of inParts(lines)) yield part.map(valuesOf)
    if (isLast) return
  }
}

/** Yields items some at a time. Before each part, other work of the process has its turn. */
export async function* inParts<Item>(items: readonly Item[]) {
  for (let start = 0; start < items.length; start += partSize) {
    await new Promise((resolve) => void setImmediate(resolve))
    yield items.slice(start, start + partSize)
  }
}

/** SQL for the values of a row in one text. Free text must be JSON among them, or have no separator. */
export function lineSql(values: readonly string[]): string {
  return `pg_catalog.concat(${values.join(`, E'\\x1f', `)})`
}

/** SQL for text that stays one value in a line. The library writes no separators into it, so the text of the library does not change. */
export function oneValueSql(text: string): string {
  return `translate(${text}, E'\\x1e\\x1f', '??')`
}

/** SQL for rows in one text. */
export function linesSql(values: readonly string[], clauses: string): string {
  return `
    SELECT pg_catalog.string_agg(line, E'\\x1e') AS json
      FROM (SELECT ${lineSql(values)} AS line ${clauses}) AS page`
}

/** SQL for a page of rows in one text. */
export function pageSql(values: readonly string[], clauses: string): string {
  return linesSql(values, `${clauses} LIMIT ${pageSize}`)
}

/** Returns the rows in a text. */
export function readLines(text: string | null): Row[] {
  return text === null ? [] : text.split(endOfRow).map(valuesOf)
}

function valuesOf(line: string): Row {
  return line.split(endOfValue)
}
