import { Option, type Command } from 'commander'

import type { UsageCounts } from '../usage/report'
import type { Health } from '../verification/health'
import {
  addCommand,
  collect,
  ownerOf,
  printList,
  printRecord,
  withOwner,
  type CommonOptions,
  type OwnerOptions,
} from './command'
import { CliError, exitCodes } from './exit-codes'
import { timeOf } from './key-views'
import { formatTable, paint, print, printable, readSecret, toJson } from './terminal'

/** Adds the commands that report: `usage`, `health` and `explain`. */
export function addReports(program: Command) {
  addUsage(program)
  addHealth(program)
  addExplain(program)
}

interface UsageOptions extends OwnerOptions, CommonOptions {
  from?: string
  to?: string
  by?: 'hour' | 'day'
}

function addUsage(program: Command) {
  const command = addCommand<UsageOptions>(
    program,
    'usage [id]',
    'show how often a key, or all keys, were used',
    async (app, options, id) => {
      const { from, to, by } = options
      const query = {
        ...(from !== undefined && { from }),
        ...(to !== undefined && { to }),
        ...(by && { by }),
      }
      const owner = ownerOf(options, app)
      const report =
        id === undefined
          ? await app.apiKeys.totalUsage({ ...query, ...(owner && { owner }) })
          : await app.apiKeys.usage(id, query, owner && { owner })
      if (options.json === true) return print(toJson(report))

      const { usage, totals } = report
      const rows = usage.map((entry) => rowOf(timeOf(entry.at), entry))
      await print(
        formatTable(
          ['FROM', 'ACCEPTED', 'DENIED', 'RATE-LIMITED'],
          [...rows, rowOf('total', totals)],
        ),
      )
    },
  )
  withOwner(command)
    .option('--from <time>', 'the earliest hour (RFC 3339)')
    .option('--to <time>', 'the hour at which the report ends (RFC 3339)')
    .addOption(new Option('--by <unit>', 'hours, or days of UTC').choices(['hour', 'day']))
}

function rowOf(name: string, { accepted, denied, rateLimited }: UsageCounts): string[] {
  return [name, String(accepted), String(denied), String(rateLimited)]
}

function addHealth(program: Command) {
  addCommand(
    program,
    'health',
    'ask the database if keys can be verified, and count living keys',
    async ({ apiKeys }, options) => {
      const probed = await apiKeys.health({ probe: true })
      const health = probed.ok ? await apiKeys.health({ livingKeys: true }) : probed
      await printRecord(options, health, fieldsOf(health))
      return health.ok ? exitCodes.done : exitCodes.faulty
    },
  )
}

function fieldsOf(health: Health): Record<string, string> {
  const { livingKeys = [], imports = [], unknownPermissions = [], refusedKeys = [] } = health
  return {
    ok: health.ok ? paint('green', 'yes') : paint('red', 'no'),
    reason: health.reason ?? 'none',
    'keys by secret':
      livingKeys
        .map(({ secret, secretId, keys }) => `${keys} of ${nameOfSecret(secret, secretId)}`)
        .join(', ') || 'none',
    'keys by source':
      imports.map(({ source, keys }) => `${keys} of ${source}`).join(', ') || 'none',
    'unknown permissions':
      unknownPermissions.map(({ name, keys }) => printable(`${name} (${keys})`)).join(', ') ||
      'none',
    'refused keys':
      refusedKeys
        .map(({ keyPrefix, environment, keys }) =>
          printable(`${keyPrefix} ${environment ?? ''} (${keys})`),
        )
        .join(', ') || 'none',
  }
}

function nameOfSecret(secret: number | null, secretId: string | null): string {
  if (secret !== null) return `secrets[${secret}]`
  return secretId === null ? 'no secret' : `an unknown secret ${secretId}`
}

interface ExplainOptions extends CommonOptions {
  permission?: string[]
  ip?: string
  environment?: string[]
  resource?: Record<string, string>
}

function addExplain(program: Command) {
  addCommand<ExplainOptions>(
    program,
    'explain',
    'say for each condition if a key meets it; the key is read from standard input',
    async ({ apiKeys }, options) => {
      const { permission, ip, environment, resource } = options
      const request = Object.fromEntries(
        Object.entries({ permission, ip, environment, resource }).filter(([, value]) => value),
      )
      const explanation = await apiKeys.explain(await readSecret('API key: '), request)
      const { isAccepted, reason, apiKey, conditions } = explanation
      if (options.json === true) {
        await print(toJson(explanation))
      } else {
        const key = apiKey ? `The key ${apiKey.id} "${printable(apiKey.name)}"` : 'The text'
        const answer = isAccepted ? 'would be accepted' : `would be refused: ${reason}`
        await print(`${key} ${paint(isAccepted ? 'green' : 'red', answer)}\n`)
        await printList(options, conditions, ['', '', 'CONDITION', 'BECAUSE'], (one) => [
          String(one.number),
          signOf(one.holds),
          one.condition,
          printable(one.because),
        ])
      }
      return isAccepted ? exitCodes.done : exitCodes.faulty
    },
  )
    .option('-p, --permission <names>', 'the permissions that the route demands', collect)
    .option('--ip <address>', 'the address of the client')
    .option('--environment <names>', 'the environments that the route takes', collect)
    .option('--resource <type=id>', 'the resource that the request is about', readResource)
}

function signOf(holds: boolean | null): string {
  if (holds === null) return '?'
  return holds ? paint('green', 'yes') : paint('red', 'no')
}

function readResource(text: string, before: Record<string, string> = {}) {
  const [, type = '', id = ''] = /^([^=]+)=(.*)$/s.exec(text) ?? []
  if (type !== '') return { ...before, [type]: id }
  throw new CliError(exitCodes.usage, '--resource takes a type and an id, such as graph=7.')
}
