import { hash, randomUUID } from 'node:crypto'

import { createFunctionName, newKeyAttributes } from '../../migrations/create-function'
import { keyColumns } from '../../models/api-key'
import type { Tables } from '../../models/tables'
import type { Change, KeyState } from '../audit/trail'
import { sqlStateOf } from '../database/failures'
import type { TextRow } from '../database/connection'
import type { Run } from '../database/query'
import { ApiKeysError, InvalidInputError, type ErrorCode, type InputFault } from '../errors'
import type { NewKey } from '../keys/input'
import { nameOfOwner, ownerRow, type Owner } from '../keys/owner'
import {
  bindingMembers,
  ownerMembers,
  readTime,
  toOwner,
  withIdleExpiry,
  type ApiKeyRecord,
} from '../keys/record'
import type { MintedSecret } from '../keys/secret'
import { newId } from '../keys/new-id'
import { isExpired } from '../keys/states'
import type { Circumstances, GivenParts } from './calls'
import type { Claim } from './idempotency'

/** A key to be created, and the circumstances that its entry of the audit trail notes. */
export interface NewMember {
  key: NewKey
  secret: Omit<MintedSecret, 'plainTextKey'>
  circumstances: Circumstances
  /** The request that is carried out once. */
  claim?: Claim | undefined
}

/** A new key as the statement takes it: its row, and its entry, as JSON. */
export interface Draft {
  member: NewMember
  change: NewChange
  row: string
  entry: string
}

/** The change that makes a key. */
export type NewChange = Change & { before: null; after: KeyState }

/** The outcome of each new key: the change that made it, or the refusal. */
export interface Created {
  outcomes: (NewChange | ApiKeysError)[]
  /** The transaction that made keys; `null` if it made none. */
  xid: string | null
}

/** Drafts new keys, and signs their entries. Many keys are drafted a part at a time, so that other requests do not wait. */
export function draftKeys(parts: GivenParts, members: readonly NewMember[]): Draft[] {
  return members.map((member) => {
    const { change, row } = draftOf(parts, member)
    const entry = parts.audit.toRow(change, member.circumstances)
    return { member, change, row: JSON.stringify(row), entry: JSON.stringify(entry) }
  })
}

/**
 * Creates keys and their entries of the audit trail, each key or none. Returns the outcomes in the order of the drafts. It waits for
 * locks no longer than `patienceMs`; `null` leaves that to the transaction of a caller.
 */
export async function createKeys(
  parts: GivenParts,
  run: Run,
  drafts: readonly Draft[],
  patienceMs: number | null,
): Promise<Created> {
  const { outcomes, xid, respelled } = await createSpelledKeys(parts, run, drafts, patienceMs)
  if (respelled.size === 0) return { outcomes, xid }

  const again = await createKeys(parts, run, draftKeys(parts, [...respelled.values()]), patienceMs)
  for (const [index, at] of [...respelled.keys()].entries()) {
    const outcome = again.outcomes[index]
    if (outcome) outcomes[at] = outcome
  }
  return { outcomes, xid: xid ?? again.xid }
}

/**
 * Does the same in one statement. Keys whose owner the database spells in another way are not created. They are returned in that
 * spelling, by their places.
 */
export async function createSpelledKeys(
  parts: GivenParts,
  run: Run,
  drafts: readonly Draft[],
  patienceMs: number | null,
): Promise<Created & { respelled: Map<number, NewMember> }> {
  const owners = new Map(
    drafts.map(({ member: { key } }) => [nameOfOwner(key.owner), ownerRow(key.owner)]),
  )
  const rows = await run(createSql(parts.tables), [
    `[${drafts.map(({ row }) => row).join(',')}]`,
    `[${drafts.map(({ entry }) => entry).join(',')}]`,
    JSON.stringify([...owners.values()]),
    // JSON has `null` for Infinity.
    JSON.stringify(parts.maxKeysPerOwner),
    JSON.stringify(prefixArrays(parts)),
    Date.now(),
    patienceMs === null ? null : `${patienceMs}ms`,
    drafts.some(({ member }) => member.claim)
      ? JSON.stringify(drafts.map(({ member: { claim = {} } }) => claim))
      : null,
  ])

  const outcomes: Created['outcomes'] = []
  const respelled = new Map<number, NewMember>()
  for (const row of rows) {
    const { place, owner, created_ms: createdMs } = row
    const at = Number(place) - 1
    const draft = drafts[at]
    if (!draft) continue
    const { member } = draft
    if (typeof owner === 'string') {
      const spelled = toOwner(member.key.owner.type, owner, parts.idTypes)
      respelled.set(at, { ...member, key: { ...member.key, owner: spelled } })
    } else if (typeof createdMs === 'string') {
      const { record } = draft.change.after
      record.createdAt = readTime(createdMs)
      record.updatedAt = readTime(createdMs)
      // The trail knows the entry of a change by the object of the change.
      Object.assign(record, withIdleExpiry(record, null, parts))
      outcomes[at] = draft.change
    } else {
      outcomes[at] = new ApiKeysError(refusalOf(row))
    }
  }
  return { outcomes, xid: rows[0]?.xid ?? null, respelled }
}

/** Returns all prefixes of each environment by the prefix of its new keys, as arrays of Postgres. Without quotes, `null` would be no text. */
function prefixArrays({ environments }: GivenParts): Record<string, string> {
  const entries = Object.entries(environments.byNewPrefix)
  return Object.fromEntries(
    entries.map(([name, prefixes]) => [name, `{"${prefixes.join('","')}"}`]),
  )
}

/** Returns why a key was not made. */
function refusalOf({ is_repeated: isRepeated, is_suspended: isSuspended }: TextRow): ErrorCode {
  if (isSuspended === 'true') return 'owner_suspended'
  return isRepeated === 'true' ? 'already_created' : 'too_many_api_keys'
}

function createSql(tables: Tables): string {
  return `
    SELECT made.place::text, made.owner, made.created_ms, made.is_repeated, made.is_suspended, pg_current_xact_id_if_assigned()::text AS xid
      FROM ${createFunctionName(tables)}($1::json, $2::json, $3::json, $4::json, $5::json, $6::float8, $7, $8::json) AS made`
}

/** The SQLSTATE for a key whose owner is not in the app's table. */
export const foreignKeyViolation = '23503'

/** Throws an error of the database; a refusal if the owner of a new key does not exist. */
export function explainUnknownOwner(error: unknown, owner: Owner): never {
  if (sqlStateOf(error) !== foreignKeyViolation) throw error
  throw new InvalidInputError([unknownOwner(owner)], { cause: error })
}

/** Returns the fault of a new key whose owner does not exist. */
export function unknownOwner({ type }: Owner): InputFault {
  return { pointer: '#/owner', message: `is not ${type === 'organization' ? 'an' : 'a'} ${type}` }
}

/** Returns the future key. The database sets the time of its creation. */
export function draftOf(
  { idTypes, permissions: { namesOf }, resources }: GivenParts,
  { key, secret, circumstances: { actor } }: NewMember,
): { change: NewChange; row: object } {
  const { hash: stored, secretId, prefix, postfix } = secret
  const { name, description = null, metadata = {}, limits = null, expiresAt = null } = key
  const id = newId()
  const ref = randomUUID()
  const permissions = namesOf(key.permissions)
  const allowedIps = key.allowedIps ? [...key.allowedIps] : null
  const boundTo = key.resources ?? null
  const environment = key.environment ?? null
  const createdBy = actor && actor.type !== 'system' ? String(actor.id) : null
  const values = {
    id,
    createdBy,
    environment,
    resources: boundTo,
    name,
    description,
    prefix,
    postfix,
    hash: stored,
    secretId,
    permissions,
    allowedIps,
    metadata,
    limits,
    expiresAt,
    eventRef: ref,
  }
  const row: Record<string, unknown> = ownerRow(key.owner)
  for (const attribute of drafted) {
    if (values[attribute] !== null) row[keyColumns[attribute].name] = values[attribute]
  }
  const record: ApiKeyRecord = {
    id,
    name,
    description,
    prefix,
    postfix,
    status: 'ACTIVE',
    permissions,
    allowedIps,
    metadata,
    limits,
    ...ownerMembers(key.owner, idTypes),
    createdAt: notYet,
    updatedAt: notYet,
    lastUsedAt: null,
    lastUsedFrom: null,
    expiresAt,
    isExpired: isExpired({ expiresAt }, Date.now()),
    revokedAt: null,
    previousSecret: null,
    pendingRotation: null,
    ownerSuspended: false,
    createdBy,
    ...bindingMembers(boundTo, resources),
    ...(key.environment !== undefined && { environment: key.environment }),
  }
  const hashDigest = hash('sha256', stored)
  const after = {
    record,
    environment,
    permissions,
    prefix,
    previousPrefix: null,
    hashDigest,
    previousHashDigest: null,
    pendingHashDigest: null,
  }
  return { change: { action: 'created', before: null, after, ref }, row }
}

/** The columns of owners get their values from the owner. */
const ownerAttributes = ['userId', 'organizationId', 'service'] as const

type OwnerAttribute = (typeof ownerAttributes)[number]

const drafted = newKeyAttributes.filter(
  (name): name is Exclude<typeof name, OwnerAttribute> =>
    !(ownerAttributes as readonly string[]).includes(name),
)

const notYet = new Date(0)
