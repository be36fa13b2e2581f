import type { Command } from 'commander'

import {
  addCommand,
  collect,
  requireOwner,
  seconds,
  withOwner,
  withoutUndefined,
  type CommonOptions,
  type OwnerOptions,
} from './command'
import { CliError, exitCodes } from './exit-codes'
import { addKeyViews, describeKey, printKey, printMade } from './key-views'
import type { Loaded } from './instance'
import { printOnce } from './plain-text-key'
import { confirm } from './terminal'

/** The options of every change. */
interface ChangeOptions {
  reason?: string
  yes?: boolean
  everywhere?: boolean
}

/** Adds the commands that create, show and change keys. */
export function addKeyCommands(program: Command) {
  addCreate(program)
  addKeyViews(program)
  addRestrictions(program)
  withReason(
    addCommand<ChangeOptions>(
      program,
      'reactivate <id>',
      'end the suspension of a key',
      async ({ apiKeys }, options, id = '') => {
        await printKey(options, await apiKeys.reactivate(id, circumstancesOf(options)))
      },
    ),
  )
  withReason(
    addCommand<ChangeOptions>(
      program,
      'unrevoke <id>',
      'undo the revocation of a key, within undoMinutes',
      async ({ apiKeys, parts }, options, id = '') => {
        if (parts.undoMinutes === 0) {
          const message = 'The app undoes no revocations: set its option undoMinutes.'
          throw new CliError(exitCodes.usage, message)
        }
        await printKey(options, await apiKeys.unrevoke(id, circumstancesOf(options)))
      },
    ),
  )
  addRotate(program)
  addTransfer(program)
}

interface CreateOptions extends OwnerOptions, CommonOptions {
  name: string
  permission: string[]
  description?: string
  expiresAt?: string
  expiresIn?: number
  allowedIp?: string[]
  environment?: string
  resource?: Record<string, string[]>
  metadata?: string
  reason?: string
  output?: string
}

function addCreate(program: Command) {
  const command = addCommand<CreateOptions>(
    program,
    'create',
    'create a key, and print its plain text once',
    async (app, options) => {
      const { name, permission: permissions, description, allowedIp, environment } = options
      const { resource, metadata, expiresIn } = options
      const expiresAt =
        expiresIn === undefined ? options.expiresAt : new Date(Date.now() + expiresIn * 1_000)
      const input = withoutUndefined({
        owner: requireOwner(options, app),
        name,
        permissions,
        description,
        expiresAt,
        allowedIps: allowedIp,
        environment,
        resources: resource,
        metadata: metadata === undefined ? undefined : readJson(metadata),
      })
      const made = await printOnce(options, () =>
        // The input is parsed by the rules of the app.
        app.apiKeys.create(input as never, circumstancesOf(options)),
      )
      await printMade(options, made)
    },
  )
  withReason(withOwner(command))
    .requiredOption('--name <name>', 'its name')
    .requiredOption('-p, --permission <names>', 'its permissions, with commas in between', collect)
    .option('--description <text>', 'its description')
    .option('--expires-at <time>', 'when it expires (RFC 3339)')
    .option('--expires-in <time>', 'when it expires, from now on: 30d, 12h', seconds)
    .option(
      '--allowed-ip <ranges>',
      'the addresses that may use it, with commas in between',
      collect,
    )
    .option('--environment <name>', 'its environment')
    .option('--resource <type=ids>', 'the resources that it is bound to', collectResources)
    .option('--metadata <json>', 'its metadata')
    .option('-o, --output <file>', 'a new file for the plain-text key, which only you may read')
}

function addRotate(program: Command) {
  withReason(
    addCommand<ChangeOptions & { gracePeriod?: number; onFirstUse?: true; output?: string }>(
      program,
      'rotate <id>',
      'give a key a new secret, and print it once',
      async ({ apiKeys }, options, id = '') => {
        const apiKey = await apiKeys.get(id)
        await confirm(
          `Rotate ${describeKey(apiKey)}? Its secret ends after the grace period.`,
          options,
        )
        const made = await printOnce(options, () =>
          apiKeys.rotate(id, {
            ...circumstancesOf(options),
            gracePeriodSeconds: options.gracePeriod,
            activate: options.onFirstUse ? 'on-first-use' : 'now',
          }),
        )
        await printMade(options, made)
      },
    ),
  )
    .option('--grace-period <time>', 'how long the old secret still works: 1d, 12h, 0s', seconds)
    .option(
      '--on-first-use',
      'let the new secret replace the old one at its first use, and not now',
    )
    .option('-o, --output <file>', 'a new file for the plain-text key, which only you may read')
    .option('-y, --yes', 'do not ask')
}

function addRestrictions(program: Command) {
  for (const [action, description, warning] of [
    ['revoke', 'revoke a key for good', endOfKey],
    ['suspend', 'refuse a key until it is reactivated', () => 'Its programs are refused.'],
  ] as const) {
    withReason(
      addCommand<ChangeOptions>(
        program,
        `${action} <id>`,
        description,
        async ({ apiKeys, parts }, options, id = '') => {
          const question = `${capitalize(action)} ${describeKey(await apiKeys.get(id))}?`
          await confirm(`${question} ${warning(parts)}`, options)
          const { everywhere = false } = options
          const change = { ...circumstancesOf(options), everywhere }
          await printKey(options, await apiKeys[action](id, change))
        },
      ),
    )
      .option('--everywhere', 'answer only when no process accepts the key')
      .option('-y, --yes', 'do not ask')
  }
}

function endOfKey({ undoMinutes }: Loaded['parts']): string {
  return undoMinutes === 0
    ? 'It can never be used again.'
    : `unrevoke can undo this for ${undoMinutes === 1 ? 'a minute' : `${undoMinutes} minutes`}.`
}

function addTransfer(program: Command) {
  const command = addCommand<ChangeOptions & OwnerOptions>(
    program,
    'transfer <id>',
    'give a key another owner',
    async (app, options, id = '') => {
      const owner = requireOwner(options, app)
      const apiKey = await app.apiKeys.get(id)
      const question = `Transfer ${describeKey(apiKey)} to ${owner.type} ${owner.id}?`
      await confirm(`${question} The owner before loses it, and still knows its secret.`, options)
      await printKey(options, await app.apiKeys.transfer(id, owner, circumstancesOf(options)))
    },
  )
  withReason(withOwner(command)).option('-y, --yes', 'do not ask')
}

/** Returns the options of a change: the app makes it, because the command line knows no user. */
function circumstancesOf({ reason }: { reason?: string }) {
  return { actor: { type: 'system' as const }, ...(reason !== undefined && { reason }) }
}

function withReason(command: Command): Command {
  return command.option('--reason <text>', 'why, for the audit trail')
}

function collectResources(text: string, before: Record<string, string[]> = {}) {
  const [, type = '', ids = ''] = /^([^=]+)=(.*)$/s.exec(text) ?? []
  if (type !== '') return { ...before, [type]: [...(before[type] ?? []), ...collect(ids)] }
  throw new CliError(exitCodes.usage, `--resource takes a type and ids, such as graph=7,8.`)
}

function readJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new CliError(exitCodes.usage, `--metadata is no JSON: ${text}`)
  }
}

function capitalize(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
