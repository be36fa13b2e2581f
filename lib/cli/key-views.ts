import type { Command } from 'commander'

import { messageOf } from '../database/failures'
import { nameOfOwner } from '../keys/owner'
import type { ApiKeyRecord, Exposure } from '../keys/record'
import { isIdle } from '../keys/states'
import type { ApiKeyFilter } from '../lifecycle/types'
import {
  addCommand,
  collect,
  ownerOf,
  printList,
  printRecord,
  wholeNumber,
  withOwner,
  withoutUndefined,
  type CommonOptions,
  type OwnerOptions,
} from './command'
import type { Loaded } from './instance'
import { note, paint, printable, toJson } from './terminal'

/** Adds the commands that show keys. */
export function addKeyViews(program: Command) {
  addList(program)
  addCommand(program, 'show <id>', 'show a key', async (app, options, id = '') => {
    const apiKey = await app.apiKeys.get(id)
    await printKey(options, apiKey, await namesOf(app, options, [apiKey]))
  })
}

interface ListOptions extends OwnerOptions, CommonOptions {
  status?: string[]
  expired?: boolean
  permission?: string
  environment?: string
  text?: string
  limit: number
  all?: boolean
}

const pageSize = 100

function addList(program: Command) {
  const command = addCommand<ListOptions>(program, 'list', 'list keys, the newest first', list)
  withOwner(command)
    .option('--status <names>', 'ACTIVE, SUSPENDED or REVOKED, with commas in between', collect)
    .option('--expired', 'keys that have expired')
    .option('--no-expired', 'keys that have not expired')
    .option('-p, --permission <name>', 'keys that hold a permission')
    .option('--environment <name>', 'keys of an environment')
    .option('--text <text>', 'keys with these starts of words, or this start of a key')
    .option('-n, --limit <number>', 'how many keys at most', wholeNumber, 100)
    .option('--all', 'all keys')
}

async function list(app: Loaded, options: ListOptions) {
  const { expired, permission, environment, text, limit, all } = options
  const status = options.status?.map((name) => name.toUpperCase())
  const owner = ownerOf(options, app)
  const given = { owner, status, isExpired: expired, permission, environment, text }
  const filter = withoutUndefined(given) as ApiKeyFilter
  let left = all === true ? Infinity : limit
  let cursor: string | null | undefined

  // Each page is printed at once, so that a list of any length takes little memory.
  while (left > 0 && cursor !== null) {
    const page = await app.apiKeys.list({
      ...filter,
      limit: Math.min(left, pageSize),
      ...(cursor !== undefined && { cursor }),
    })
    const { apiKeys } = page
    const names = await namesOf(app, options, apiKeys)
    const isFirst = cursor === undefined
    if (apiKeys.length > 0 || isFirst) {
      await printList(options, apiKeys, isFirst ? heads : [], (apiKey) => rowOf(apiKey, names))
    }
    left -= apiKeys.length
    cursor = page.nextCursor
  }
  if (cursor !== null) note('There are more keys: --all, or a greater --limit.')
}

const heads = ['ID', 'NAME', 'OWNER', 'KEY', 'STATUS', 'PERMISSIONS', 'LAST USED', 'EXPIRES']

type Names = ReadonlyMap<string, string>

const noNames: Names = new Map()

/** Returns the names that the app has for the owners of keys. They are for people: JSON has none. */
async function namesOf(
  { apiKeys, parts }: Loaded,
  options: CommonOptions,
  shown: readonly ApiKeyRecord[],
): Promise<Names> {
  if (!parts.namesOfOwners || options.json === true) return noNames
  const off = apiKeys.on('error', ({ error, notice }) => {
    if (notice === 'owner_names')
      note(printable(`Names of owners are missing: ${messageOf(error)}`))
  })
  try {
    return await parts.namesOfOwners(shown.map(({ owner }) => owner))
  } finally {
    off()
  }
}

function rowOf(apiKey: ApiKeyRecord, names: Names): readonly string[] {
  const { id, name, prefix, postfix, permissions, lastUsedAt, expiresAt } = apiKey
  return [
    id,
    printable(name),
    describeOwner(apiKey, names),
    printable(`${prefix}…${postfix}`),
    statusOf(apiKey),
    printable(permissions.join(' ')),
    timeOf(lastUsedAt, 'never'),
    timeOf(expiresAt, 'never'),
  ]
}

/** Prints a key: its record, or its fields for people. */
export async function printKey(options: CommonOptions, apiKey: ApiKeyRecord, names = noNames) {
  const { id, name, description, prefix, postfix, permissions, allowedIps, metadata } = apiKey
  const { environment, resources } = apiKey as { environment?: string; resources?: object | null }
  const { previousSecret, pendingRotation, exposed } = apiKey
  await printRecord(
    options,
    apiKey,
    withoutUndefined({
      id,
      name: printable(name),
      description: description === null ? undefined : printable(description),
      owner: describeOwner(apiKey, names),
      key: printable(`${prefix}…${postfix}`),
      status: statusOf(apiKey),
      source: apiKey.source,
      environment: environment ? printable(environment) : undefined,
      permissions: printable(permissions.join(' ')),
      addresses: allowedIps ? printable(allowedIps.join(' ')) : undefined,
      resources: resources ? toJson(resources) : undefined,
      metadata: Object.keys(metadata).length > 0 ? toJson(metadata) : undefined,
      created: timeOf(apiKey.createdAt),
      'last used': timeOf(apiKey.lastUsedAt, 'never'),
      expires: timeOf(apiKey.expiresAt, 'never'),
      'expires if unused': apiKey.idleExpiresAt && timeOf(apiKey.idleExpiresAt),
      revoked: apiKey.revokedAt ? timeOf(apiKey.revokedAt) : undefined,
      exposed: exposed && placeOf(exposed),
      'new secret': pendingRotation
        ? `${pendingRotation.prefix}…${pendingRotation.postfix} waits for its first use`
        : undefined,
      'old secret': previousSecret ? `works until ${timeOf(previousSecret.worksUntil)}` : undefined,
    }),
  )
}

/** Prints a key that was made. On a terminal, JSON has the plain text as well. */
export async function printMade(
  options: CommonOptions & { output?: string },
  made: { apiKey: ApiKeyRecord; plainTextKey: string },
) {
  const { apiKey } = made
  if (options.json !== true) return printKey(options, apiKey)
  await printRecord(options, options.output === undefined ? made : { apiKey }, {})
}

/** Names a key in a question. */
export function describeKey(apiKey: ApiKeyRecord): string {
  const { name, prefix, postfix } = apiKey
  return `the key "${printable(name)}" of ${describeOwner(apiKey, noNames)} (${printable(`${prefix}…${postfix}`)})`
}

function describeOwner({ owner }: ApiKeyRecord, names: Names): string {
  const name = names.get(nameOfOwner(owner))
  return printable(`${owner.type} ${owner.id}${name === undefined ? '' : ` (${name})`}`)
}

function statusOf(apiKey: ApiKeyRecord): string {
  const { status, isExpired, ownerSuspended } = apiKey
  if (status === 'REVOKED') return paint('red', status)
  const isUnused = isIdle(apiKey, Date.now())
  if (isExpired) return paint('red', `${status} (expired${isUnused ? ', unused' : ''})`)
  if (ownerSuspended) return paint('yellow', `${status} (owner suspended)`)
  return paint(status === 'ACTIVE' ? 'green' : 'yellow', status)
}

/** Says when a key was found in public, by whom, and at which place. */
function placeOf({ at, source, url }: Exposure): string {
  return printable([timeOf(at), source, url ?? []].flat().join(' '))
}

/** Returns a time to the second. */
export function timeOf(time: Date | null, otherwise = ''): string {
  if (time === null || Number.isNaN(time.getTime())) return otherwise
  return `${time.toISOString().slice(0, 19)}Z`
}
