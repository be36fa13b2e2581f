import { Option, type Command } from 'commander'

import { setTimeout } from '../database/background'
import type { Owner } from '../keys/owner'
import { CliError, exitCodes, type ExitCode } from './exit-codes'
import { loadInstance, type Loaded } from './instance'
import { formatFields, formatTable, print, toJson } from './terminal'

/** The options of every command. */
export interface CommonOptions {
  config?: string
  json?: boolean
}

/** The work of a command. It returns the exit code, if that is not 0. */
export type Work<Options> = (
  app: Loaded,
  options: Options & CommonOptions,
  ...args: string[]
) => Promise<ExitCode | void>

/** Adds a command to a program. */
export function addCommand<Options>(
  program: Command,
  usage: string,
  description: string,
  work: Work<Options>,
): Command {
  const command = program
    .command(usage)
    .description(description)
    .addOption(
      new Option(
        '-c, --config <file>',
        'the module that exports your instance (default: api-keys.js)',
      ),
    )
    .option('--json', 'print JSON, one value a line')

  return command.action(async (...given: unknown[]) => {
    // Commander passes the arguments, then the options, then the command.
    const args = given.slice(0, -2) as string[]
    const options = command.optsWithGlobals<Options & CommonOptions>()
    const app = await loadInstance(options.config)
    try {
      process.exitCode = (await work(app, options, ...args)) ?? exitCodes.done
    } finally {
      await close(app)
    }
  })
}

/** How long closing may take. A database that is away must not keep a command. */
const closeLimitMs = 5_000

async function close({ apiKeys, parts }: Loaded) {
  const limit = new Promise<void>((resolve) => {
    setTimeout(resolve, closeLimitMs).unref()
  })
  // The work of the command is done, or has failed with its own error.
  const closing = apiKeys.close().then(() => parts.appSequelize.close())
  await Promise.race([closing.catch(() => {}), limit])
}

/** Prints a record: as JSON, or as names and values for people. */
export async function printRecord(
  { json }: CommonOptions,
  value: object,
  fields: Readonly<Record<string, string>>,
) {
  await print(json === true ? toJson(value) : formatFields(fields))
}

/** Prints a list: each value as a line of JSON, or as a table for people. */
export async function printList<Value extends object>(
  { json }: CommonOptions,
  values: readonly Value[],
  heads: readonly string[],
  rowOf: (value: Value) => readonly string[],
) {
  if (json === true) for (const value of values) await print(toJson(value))
  else await print(formatTable(heads, values.map(rowOf)))
}

/** The options that name an owner. */
export interface OwnerOptions {
  user?: string
  organization?: string
  service?: string
}

/** Adds the options that name an owner. */
export function withOwner(command: Command): Command {
  return command
    .addOption(
      new Option('--user <id>', 'the user who owns the keys').conflicts([
        'organization',
        'service',
      ]),
    )
    .addOption(
      new Option('--organization <id>', 'the organization that owns the keys').conflicts('service'),
    )
    .option('--service <name>', 'the service that owns the keys')
}

/** Returns the owner that options name; `undefined` if they name none. */
export function ownerOf(options: OwnerOptions, { parts }: Loaded): Owner | undefined {
  const { user, organization, service } = options
  const { idTypes } = parts
  if (user !== undefined) return { type: 'user', id: idOf(user, idTypes.user) }
  if (organization !== undefined)
    return { type: 'organization', id: idOf(organization, idTypes.organization) }
  return service === undefined ? undefined : { type: 'service', id: service }
}

/** Returns the owner that options name. Throws if they name none. */
export function requireOwner(options: OwnerOptions, app: Loaded): Owner {
  const owner = ownerOf(options, app)
  if (owner) return owner
  throw new CliError(
    exitCodes.usage,
    'Name the owner: --user ID, --organization ID or --service NAME.',
  )
}

function idOf(text: string, type: string | undefined): string | number {
  return type === 'integer' && /^-?\d+$/.test(text) ? Number(text) : text
}

/** Reads a list of names, with commas in between or one option for each. */
export function collect(value: string, before: readonly string[] = []): string[] {
  return [...before, ...value.split(',').map((name) => name.trim())].filter((name) => name !== '')
}

/** Reads a whole number. */
export function wholeNumber(text: string): number {
  if (/^\d{1,12}$/.test(text)) return Number(text)
  throw new CliError(exitCodes.usage, `${JSON.stringify(text)} is not a whole number.`)
}

const unitSeconds: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 }

/** Reads a length of time, such as `30d`, `12h`, `15m` or `90s`, in seconds. */
export function seconds(text: string): number {
  const [, count = '', unit = ''] = /^(\d{1,9})([smhd])$/.exec(text) ?? []
  const length = unitSeconds[unit]
  if (length !== undefined) return Number(count) * length
  throw new CliError(
    exitCodes.usage,
    `${JSON.stringify(text)} is no length of time. Write 30d, 12h, 15m or 90s.`,
  )
}

/** Leaves out what an option did not name. The library would take it for a mistake. */
export function withoutUndefined<Value>(
  values: Readonly<Record<string, Value | undefined>>,
): Record<string, Value> {
  const given: Record<string, Value> = {}
  for (const [name, value] of Object.entries(values)) if (value !== undefined) given[name] = value
  return given
}
