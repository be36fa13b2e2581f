import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { createInterface } from 'node:readline'

import { CsvError, parse } from 'csv-parse'

import { quote } from '../../models/names'
import { messageOf, sqlStateOf } from '../database/failures'
import { poolOf } from '../database/open-client'
import { select } from '../database/query'
import { CliError, exitCodes } from './exit-codes'
import { throwIfInterrupted } from './interruption'
import type { Loaded } from './instance'

/** Rows of another system, and how far they were read. */
export interface RowSource {
  rows: AsyncIterable<unknown>
  /** Rows or bytes, of so many in all. */
  progress(): { value: number; total: number }
}

/** Opens a file of rows: CSV with a line of names, or JSON with a row in each line. */
export async function openFile(file: string): Promise<RowSource> {
  const isCsv = /\.csv$/i.test(file)
  if (!isCsv && !/\.(jsonl|ndjson)$/i.test(file)) {
    throw new CliError(exitCodes.usage, `${file} must be a .csv or a .jsonl file.`)
  }
  const { size } = await stat(file).catch((error: unknown) => {
    throw new CliError(exitCodes.usage, `The file cannot be read: ${messageOf(error)}`, {
      cause: error,
    })
  })
  const stream = createReadStream(file)
  return {
    rows: isCsv ? readCsv(file, stream) : readJsonLines(stream),
    progress: () => ({ value: stream.bytesRead, total: size }),
  }
}

async function* readCsv(file: string, stream: NodeJS.ReadableStream): AsyncGenerator {
  const rows = stream.pipe(parse({ columns: true, bom: true, skip_empty_lines: true, trim: true }))
  // A stream that is piped passes on no error.
  stream.on('error', (error) => rows.destroy(error))
  try {
    for await (const row of rows) {
      throwIfInterrupted()
      yield withLists(row as Record<string, string>)
    }
  } catch (error) {
    if (error instanceof CliError) throw error
    throw new CliError(exitCodes.usage, `${file} is no CSV: ${faultOf(error)}`)
  }
}

/** Names the place of a fault. The message of the parser has the text of the row, which may be a key. */
function faultOf(error: unknown): string {
  if (!(error instanceof CsvError)) return messageOf(error)
  return `line ${String(error.lines)} has a fault (${error.code})`
}

const listColumns = new Set(['permissions', 'allowedIps'])
const jsonColumns = new Set(['metadata', 'limits', 'resources', 'owner', 'shown'])

/** Reads the lists and objects of a row that the library takes as it is. Other rows are read as their source says. */
function withLists(row: Readonly<Record<string, string>>): object {
  if (!('stored' in row)) return row
  const read: Record<string, unknown> = {}
  for (const [name, text] of Object.entries(row)) {
    // An empty cell is a value that the row does not have.
    if (text === '') continue
    if (listColumns.has(name)) read[name] = text.split(/[\s,]+/).filter((part) => part !== '')
    else read[name] = jsonColumns.has(name) ? parseJson(text) : text
  }
  return read
}

async function* readJsonLines(stream: NodeJS.ReadableStream): AsyncGenerator {
  for await (const line of createInterface({ input: stream, crlfDelay: Infinity })) {
    throwIfInterrupted()
    // A line that is no JSON is refused as a row, so that the report names its place.
    if (line.trim() !== '') yield parseJson(line)
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

const fetched = 1_000

/** Opens a table of the app's database. Its rows are read a thousand at a time, in one snapshot. */
export async function openTable(table: string, { parts }: Loaded): Promise<RowSource> {
  const { sequelize } = parts
  if (poolOf(sequelize).max < 2) {
    const message =
      'The rows of a table are read on a connection of their own: give the pool of your Sequelize a max of 2 or more.'
    throw new CliError(exitCodes.usage, message)
  }
  const quoted = table.split('.').map(quote).join('.')
  const total = await countRows(quoted, parts)
  let value = 0

  async function* read(): AsyncGenerator {
    const transaction = await sequelize.transaction()
    const run = (sql: string) => select<Record<string, unknown>>(sequelize, sql, { transaction })
    try {
      await run(`DECLARE api_key_import_rows NO SCROLL CURSOR FOR SELECT * FROM ${quoted}`)
      for (;;) {
        const rows = await run(`FETCH ${fetched} FROM api_key_import_rows`)
        if (rows.length === 0) return
        for (const row of rows) {
          throwIfInterrupted()
          value++
          yield row
        }
      }
    } finally {
      await transaction.rollback()
    }
  }
  return { rows: read(), progress: () => ({ value, total }) }
}

async function countRows(quoted: string, { sequelize }: Loaded['parts']): Promise<number> {
  try {
    const sql = `SELECT count(*)::text AS rows FROM ${quoted}`
    const [count] = await select<{ rows: string }>(sequelize, sql, { transaction: null })
    return Number(count?.rows)
  } catch (error) {
    if (sqlStateOf(error) !== '42P01') throw error
    throw new CliError(
      exitCodes.usage,
      `There is no table ${quoted} in the database of the app. Name it with --table, or name a file.`,
      { cause: error },
    )
  }
}
