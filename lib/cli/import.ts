import type { FileHandle } from 'node:fs/promises'

import type { Command } from 'commander'

import { show, suggest } from '../../models/option-checks'
import { onDatabase } from '../database/failures'
import type { ImportReport } from '../importing/report'
import {
  addCommand,
  collect,
  ownerOf,
  printRecord,
  withOwner,
  withoutUndefined,
  type CommonOptions,
  type OwnerOptions,
} from './command'
import { CliError, exitCodes } from './exit-codes'
import { faultOfFile, openForLater, writeAndClose } from './files'
import type * as importRows from './import-rows'
import type { Loaded } from './instance'
import { untilInterrupted } from './interruption'
import { formatFields, note, printable, startProgress } from './terminal'

interface ImportWishes extends OwnerOptions, CommonOptions {
  from?: string
  table?: string
  permission?: string[]
  enforce?: string[]
  reason?: string
  dryRun?: boolean
  report?: string
}

/** A row that was not imported, and what names it in the other system: places in a table change. */
type Refused = ImportReport['refused'][number] & { id: string | null }

/** The report of an import, complete or not. */
type Report = ImportReport & {
  source: string
  dryRun: boolean
  /** How many rows were read. */
  rows: number
  isComplete: boolean
}

/** Adds the command that imports keys of other systems. */
export function addImport(program: Command) {
  const command = addCommand<ImportWishes>(
    program,
    'import [file]',
    'import keys of another system, from a file (.csv, .jsonl) or from its table',
    importFrom,
  )
  withOwner(command)
    .option('--from <source>', 'the source in the option imports, such as better-auth')
    .option('--table <name>', 'its table, in the database of the app')
    .option(
      '-p, --permission <names>',
      'the permissions of all keys, in place of their own',
      collect,
    )
    .option(
      '--enforce <names>',
      'maxLifetimeSeconds, maxKeysPerOwner: the rules of the app to obey',
      collect,
    )
    .option('--reason <text>', 'why, for the audit trail')
    .option('--dry-run', 'import nothing, and report what would be done')
    .option(
      '--report <file>',
      'a file for the whole report, as JSON; - for standard output, on one line',
    )
}

async function importFrom(app: Loaded, options: ImportWishes, file?: string) {
  const source = sourceOf(options, app)
  // All other commands need no parser of CSV.
  const { openFile, openTable } = require('./import-rows') as typeof importRows
  const opened =
    file === undefined
      ? await onDatabase(() => openTable(options.table ?? tableOf(source), app))
      : await openFile(file)
  const { permission: permissions, enforce, reason, dryRun = false } = options
  const wish = withoutUndefined<unknown>({
    permissions,
    enforce,
    reason,
    owner: ownerOf(options, app),
  })
  const place = isFile(options.report) ? await openReport(options.report) : null
  const progress = startProgress(dryRun ? 'Trying' : 'Importing')
  let report: Report = { ...nothing, source, dryRun, rows: 0, isComplete: false }

  const ids: (string | null)[] = []
  const isKey = (text: string) => app.parts.imports.some(({ accepts }) => accepts.test(text))
  const work = () =>
    app.apiKeys.importKeys(source, noteIds(opened.rows, ids, isKey), {
      ...wish,
      actor: { type: 'system' },
      dryRun,
      onProgress(soFar) {
        report = { ...report, ...soFar }
        const { value, total } = opened.progress()
        progress.set(value, total)
      },
    })
  try {
    const whole = await untilInterrupted(work)
    // Not before the await: `onProgress` sets the report meanwhile.
    report = { ...report, ...whole, isComplete: true }
  } finally {
    progress.stop()
    // Keys that were imported before a failure stay imported.
    const refused = report.refused.map((each) => ({ ...each, id: ids[each.row] ?? null }))
    await finish({ ...report, refused }, options, place)
  }
  return report.refused.length > 0 ? exitCodes.faulty : exitCodes.done
}

/** Passes rows on, and notes the `id` of each, if it has one. Some tables have the keys themselves as ids. */
async function* noteIds(
  rows: AsyncIterable<unknown>,
  ids: (string | null)[],
  isKey: (text: string) => boolean,
) {
  for await (const row of rows) {
    const { id } = Object(row) as { id?: unknown }
    const isGiven = typeof id === 'number' || typeof id === 'string'
    const name = isGiven ? String(id) : ''
    ids.push(name !== '' && name.length <= longestId && !isKey(name) ? name : null)
    yield row
  }
}

/** A longer text is no id. */
const longestId = 64

const nothing: ImportReport = {
  imported: 0,
  known: 0,
  changed: 0,
  refused: [],
  unmapped: [],
}

function sourceOf({ from }: ImportWishes, { parts }: Loaded): string {
  const names = parts.imports.map(({ name }) => name)
  const [only, second] = names
  if (only === undefined) {
    throw new CliError(
      exitCodes.usage,
      'The app accepts no keys of other systems: name them in its option imports.',
    )
  }
  if (from !== undefined) {
    if (names.includes(from)) return from
    const message = `There is no source ${show(from)} in the option imports.${suggest(from, names)}`
    throw new CliError(exitCodes.usage, message)
  }
  if (second === undefined) return only
  throw new CliError(exitCodes.usage, `Say from where: --from ${names.join(', --from ')}.`)
}

/** The tables in which systems keep their keys, unless they were told another. */
const tables: Readonly<Record<string, string>> = {
  'better-auth': 'apikey',
  adonis: 'auth_access_tokens',
  autogpt: 'APIKey',
  directus: 'directus_users',
  doorkeeper: 'oauth_access_tokens',
  'drf-api-key': 'rest_framework_api_key_apikey',
  gitea: 'access_token',
  gitlab: 'personal_access_tokens',
  keypal: 'apikey',
  knox: 'knox_authtoken',
  medusa: 'api_key',
  n8n: 'user_api_keys',
  sanctum: 'personal_access_tokens',
  strapi: 'strapi_api_tokens',
}

function tableOf(source: string): string {
  const table = tables[source]
  if (table !== undefined) return table
  throw new CliError(exitCodes.usage, `Name the table of ${source} with --table, or name a file.`)
}

/** The name of standard output, in place of that of a file. */
const standardOutput = '-'

/** True if a report goes to a file. */
function isFile(report: string | undefined): report is string {
  return report !== undefined && report !== standardOutput
}

/** Opens the file of a report before keys are imported whose report would have no place. */
async function openReport(report: string) {
  return openForLater(report).catch((error: unknown) => {
    const hint = /^\/(dev|proc)\/(stdout|.*fd\/\d+)$/.test(report)
      ? `; ${standardOutput} is standard output`
      : ''
    const message = `The report cannot be written: ${faultOfFile(report, error)}${hint}. Nothing was imported.`
    throw new CliError(exitCodes.usage, message, { cause: error })
  })
}

/** Prints and writes a report. */
async function finish(
  report: Report & { refused: Refused[] },
  options: ImportWishes,
  place: FileHandle | null,
) {
  if (place !== null) await writeAndClose(place, `${JSON.stringify(report, null, 2)}\n`)
  const { imported, known, changed, refused, isComplete, dryRun } = report
  const fields = {
    [dryRun ? 'would be imported' : 'imported']: String(imported),
    known: String(known),
    changed: String(changed),
    refused: String(refused.length),
  }
  const isPiped = options.report === standardOutput
  await printRecord({ json: options.json === true || isPiped }, report, fields)
  // The reader of the report reads nothing else there.
  if (isPiped && options.json !== true) note(formatFields(fields))
  if (options.json !== true) printDetails(report, options)
  if (!isComplete) {
    note('The import has not come to its end. Begin it again: keys that are there are passed over.')
  }
}

/** The most kinds of faults that are printed. The report file has all rows. */
const maxShown = 20

function printDetails(
  { refused, unmapped }: Pick<Report, 'unmapped'> & { refused: Refused[] },
  options: ImportWishes,
) {
  const byFaults = new Map<string, { first: Refused; rows: number }>()
  for (const each of refused) {
    const faults = each.errors.map(({ pointer, message }) => `${pointer} ${message}`).join('; ')
    const same = byFaults.get(faults)
    if (same) same.rows++
    else byFaults.set(faults, { first: each, rows: 1 })
  }
  for (const [faults, { first, rows }] of [...byFaults].slice(0, maxShown)) {
    const name = `row ${first.row}${first.id === null ? '' : ` (id ${first.id})`}`
    const who = rows === 1 ? `${name} was` : `${rows} rows, ${name} first, were`
    note(printable(`${who} refused: ${faults}`))
  }
  const hasMore = byFaults.size > maxShown || refused.length > byFaults.size
  if (hasMore && options.report === undefined) {
    note('--report FILE has all refused rows.')
  }
  for (const { field, message, rows } of unmapped) {
    const count = rows === 1 ? '1 row' : `${rows} rows`
    note(printable(`${field} of ${count} is not imported: it ${message}`))
  }
}
