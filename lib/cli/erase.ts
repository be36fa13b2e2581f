import type { Command } from 'commander'

import type { Owner } from '../keys/owner'
import type { Erased } from '../lifecycle/erase-owner'
import { addCommand, printRecord, requireOwner, withOwner, type OwnerOptions } from './command'
import { confirm } from './terminal'

interface EraseWishes extends OwnerOptions {
  reason: string
  revoke?: boolean
  dryRun?: boolean
  yes?: boolean
}

/** Adds the command that erases an owner. */
export function addErase(program: Command) {
  const command = addCommand<EraseWishes>(
    program,
    'erase',
    'erase an owner: delete the keys, and remove personal data from the trail and from usage',
    async (app, options) => {
      const { reason, revoke = false } = options
      const owner = requireOwner(options, app)
      const erasing = { reason, revoke, actor: { type: 'system' as const } }
      const counted = await app.apiKeys.eraseOwner(owner, { ...erasing, dryRun: true })
      if (options.dryRun === true) return printRecord(options, counted, fieldsOf(counted))

      if (Object.values(counted).some((count) => count > 0)) {
        await confirm(describe(owner, counted), options)
      }
      // A suspension of the owner is in no count.
      const erased = await app.apiKeys.eraseOwner(owner, erasing)
      await printRecord(options, erased, fieldsOf(erased))
    },
  )
  withOwner(command)
    .requiredOption(
      '--reason <text>',
      'why, for the audit trail, where it stays: do not name the person',
    )
    .option('--revoke', 'revoke the keys that are not revoked yet')
    .option('--dry-run', 'erase nothing, and count what would be erased')
    .option('-y, --yes', 'do not ask')
}

function describe({ type, id }: Owner, counts: Erased): string {
  const parts = Object.entries(fieldsOf(counts)).map(([name, count]) => `${count} ${name}`)
  return `Erase ${type} ${id}? ${parts.join(', ')}. Nothing of it can be brought back.`
}

function fieldsOf({ keys, createdKeys, events, hours }: Erased) {
  return {
    keys: String(keys),
    'keys of others that name the owner': String(createdKeys),
    'entries of the audit trail': String(events),
    'hours of usage': String(hours),
  }
}
