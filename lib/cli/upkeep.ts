import type { Command } from 'commander'

import type * as migrations from '../../migrations'
import { migrating } from '../database/failures'
import type { PruneOptions } from '../lifecycle/types'
import { addCommand, printRecord, wholeNumber, type CommonOptions } from './command'
import { CliError, exitCodes } from './exit-codes'
import type { Loaded } from './instance'
import { confirm, note, print, toJson } from './terminal'

/** Adds the commands that change the tables as a whole. */
export function addUpkeep(program: Command) {
  addMigrate(program)
  addPrune(program)
}

function addMigrate(program: Command) {
  addCommand<CommonOptions & { dryRun?: boolean }>(
    program,
    'migrate',
    'make the tables, or bring them up to this version',
    async ({ apiKeys, parts }, options) => {
      if (options.dryRun !== true) {
        await apiKeys.migrate()
        return printRecord(options, { migrated: true }, { tables: 'up to date' })
      }

      // The help and all other commands need no migrations.
      const { planMigration } = require('../../migrations') as typeof migrations
      let statements: string[] = []
      await migrating(async () => {
        statements = await planMigration(parts.appSequelize, parts.storage)
      })
      if (options.json === true) {
        for (const sql of statements) await print(toJson({ sql }))
      } else {
        for (const sql of statements) await print(`${withSemicolon(sql)}\n`)
        if (statements.length === 0) note('The tables are up to date.')
      }
    },
  ).option('--dry-run', 'print the SQL that would run, and change nothing')
}

function withSemicolon(sql: string): string {
  return sql.endsWith(';') ? sql : `${sql};`
}

interface PruneWishes extends CommonOptions {
  revokedKeys?: number
  usage?: number
  events?: number
  dryRun?: boolean
  yes?: boolean
}

/** How many rows of each kind are old enough. */
interface Counts {
  revokedKeys?: number
  usage?: number
  events?: number
}

function addPrune(program: Command) {
  addCommand<PruneWishes>(
    program,
    'prune',
    'delete what is old: revoked keys, counts of uses, entries of the audit trail',
    async (app, options) => {
      const { revokedKeys, usage, events } = options
      if ((revokedKeys ?? usage ?? events) === undefined) {
        throw new CliError(
          exitCodes.usage,
          'Say how many days old they have to be: --revoked-keys DAYS, --usage DAYS, --events DAYS.',
        )
      }
      const counted = await prune(app, options, true)
      if (options.dryRun === true) return printCounts(options, counted)

      const total = Object.values(counted).reduce((sum: number, count: number) => sum + count, 0)
      if (total > 0) await confirm(`Delete ${describeCounts(counted)}?`, options)
      await printCounts(options, total > 0 ? await prune(app, options, false) : counted)
    },
  )
    .option('--revoked-keys <days>', 'keys that were revoked so long ago', wholeNumber)
    .option('--usage <days>', 'counts of uses that are so old', wholeNumber)
    .option('--events <days>', 'entries of the audit trail that are so old', wholeNumber)
    .option('--dry-run', 'delete nothing, and count what would be deleted')
    .option('-y, --yes', 'do not ask')
}

async function prune({ apiKeys }: Loaded, wishes: PruneWishes, dryRun: boolean): Promise<Counts> {
  const of = (olderThanDays: number): PruneOptions => ({ olderThanDays, dryRun })
  const { revokedKeys, usage, events } = wishes
  const counts: Counts = {}
  if (revokedKeys !== undefined) {
    counts.revokedKeys = (await apiKeys.pruneRevoked(of(revokedKeys))).keys
  }
  if (usage !== undefined) counts.usage = (await apiKeys.pruneUsage(of(usage))).hours
  if (events !== undefined) counts.events = (await apiKeys.pruneAuditTrail(of(events))).events
  return counts
}

const names: Readonly<Record<keyof Counts, string>> = {
  revokedKeys: 'revoked keys',
  usage: 'hours of usage',
  events: 'entries of the audit trail',
}

function describeCounts(counts: Counts): string {
  return rowsOf(counts)
    .map(([name, count]) => `${count} ${name}`)
    .join(', ')
}

function rowsOf(counts: Counts): [name: string, count: number][] {
  return Object.entries(counts).map(([name, count]: [string, number]) => [
    names[name as keyof Counts],
    count,
  ])
}

function printCounts(options: PruneWishes, counts: Counts) {
  const fields = rowsOf(counts).map(([name, count]) => [name, String(count)])
  return printRecord(options, counts, Object.fromEntries(fields))
}
