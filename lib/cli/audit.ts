import { readFile } from 'node:fs/promises'

import type { Command } from 'commander'

import type { AuditHead } from '../audit/head'
import type { ApiKeyEvent } from '../audit/list-entries'
import { messageOf } from '../database/failures'
import type { EventFilter } from '../lifecycle/types'
import {
  addCommand,
  ownerOf,
  printList,
  printRecord,
  wholeNumber,
  withOwner,
  type CommonOptions,
  type OwnerOptions,
} from './command'
import { CliError, exitCodes } from './exit-codes'
import { throwIfInterrupted, untilInterrupted } from './interruption'
import { timeOf } from './key-views'
import { note, paint, print, printable, startProgress, toJson } from './terminal'

/** Adds the commands of the audit trail. */
export function addAuditCommands(program: Command) {
  const audit = program.command('audit').description('verify and export the audit trail')
  addVerify(audit)
  addExport(audit)
  addCommand(
    audit,
    'head',
    'print the signed end of the trail, to be kept elsewhere',
    async ({ apiKeys }) => print(toJson(await apiKeys.auditHead())),
  )
}

function addVerify(audit: Command) {
  addCommand<CommonOptions & { head?: string }>(
    audit,
    'verify',
    'read the whole trail, and find every entry that was altered',
    async ({ apiKeys }, options) => {
      const head = options.head === undefined ? undefined : await readHead(options.head)
      const progress = startProgress('Verifying')
      const verification = await untilInterrupted(() =>
        apiKeys
          .verifyAuditTrail({
            ...(head && { head }),
            onProgress({ verified, total }) {
              throwIfInterrupted()
              progress.set(verified, total)
            },
          })
          .finally(progress.stop),
      )
      const { isIntact, entries, pruned, unsealed, unverifiable, faults, cannotFind } = verification
      await printRecord(options, verification, {
        intact: isIntact ? paint('green', 'yes') : paint('red', 'no'),
        entries: String(entries),
        pruned: String(pruned),
        unsealed: String(unsealed),
        unverifiable: String(unverifiable),
      })
      if (options.json !== true) {
        for (const fault of faults) await print(`${paint('red', 'fault')}  ${toJson(fault)}`)
        for (const sentence of cannotFind) note(`It would not find: ${sentence}`)
      }
      return isIntact ? exitCodes.done : exitCodes.faulty
    },
  ).option('--head <file>', 'a head that was printed before and kept elsewhere')
}

async function readHead(file: string): Promise<AuditHead> {
  try {
    // The verification checks its form.
    return JSON.parse(await readFile(file, 'utf8')) as AuditHead
  } catch (error) {
    throw new CliError(exitCodes.usage, `${file} is no head of a trail: ${messageOf(error)}`, {
      cause: error,
    })
  }
}

interface ExportOptions extends OwnerOptions, CommonOptions {
  key?: string
  action?: string
  limit?: number
}

const pageSize = 100

function addExport(audit: Command) {
  const command = addCommand<ExportOptions>(
    audit,
    'export',
    'print the entries of the trail, the newest first',
    async (app, options) => {
      const { key, action, limit = Infinity } = options
      const owner = ownerOf(options, app)
      const given = {
        ...(owner && { owner }),
        ...(key !== undefined && { apiKeyId: key }),
        ...(action !== undefined && { action }),
      }
      // The call checks the action.
      const filter = given as EventFilter
      let left = limit
      let cursor: string | null | undefined
      while (left > 0 && cursor !== null) {
        const { events, nextCursor } = await app.apiKeys.events({
          ...filter,
          limit: Math.min(left, pageSize),
          ...(cursor !== undefined && { cursor }),
        })
        const isFirst = cursor === undefined
        if (events.length > 0 || isFirst)
          await printList(options, events, isFirst ? heads : [], rowOf)
        left -= events.length
        cursor = nextCursor
      }
    },
  )
  withOwner(command)
    .option('--key <id>', 'the entries of a key')
    .option('--action <name>', 'the entries of an action, such as revoked')
    .option('-n, --limit <number>', 'how many entries at most', wholeNumber)
}

const heads = ['TIME', 'ACTION', 'KEY', 'OWNER', 'ACTOR', 'REASON']

function rowOf(event: ApiKeyEvent): readonly string[] {
  const { createdAt, action, apiKeyId, owner, actorType, actorId, reason } = event
  return [
    timeOf(createdAt),
    action,
    apiKeyId ?? '',
    owner ? printable(`${owner.type} ${owner.id}`) : '',
    printable([actorType, actorId].filter((part) => part !== null).join(' ')),
    printable(reason ?? ''),
  ]
}
