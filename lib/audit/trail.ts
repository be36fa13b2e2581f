import type { Transaction } from 'sequelize'

import { eventSql, type ApiKeyEventRow, type ChangeAction } from '../../models/api-key-event'
import { isOfKeyWithPrefix, shownNames } from '../../models/audit-trail'
import type { OwnerType } from '../../models/owner'
import { selectJson } from '../database/query'
import type { ServerClock } from '../database/clock'
import type { OwnChanges } from '../database/own-changes'
import { formatEventCursor } from '../keys/cursor'
import type { Emitter } from '../keys/emitter'
import type { Environments } from '../keys/environments'
import type { EventFilter, Pruning } from '../keys/input'
import { shownPrefix, sourceOfPrefix } from '../keys/imported-prefix'
import { isSame } from '../keys/metadata'
import { isSameOwner, type IdTypes, type Owner } from '../keys/owner'
import {
  readOwner,
  readTime,
  resourcesOf,
  toOwner,
  type Actor,
  type ApiKeyRecord,
} from '../keys/record'
import type { InTurn } from '../database/turns'
import { toRow, type NewEntry } from './entry'
import { exportHead, type Trail } from './head'
import { prune } from './prune'
import type { OwnEntry } from './own-entries'
import type { Sealer } from './sealer'
import { verify, type VerificationOptions } from './verify'

type ReadAsItIs = Omit<
  ApiKeyEventRow,
  'ownerType' | 'ownerId' | 'formerOwnerType' | 'formerOwnerId' | 'createdAt'
>

/** An entry of the audit trail. */
export interface ApiKeyEvent<O extends Owner = Owner> extends ReadAsItIs {
  /** The owner of the key after the change; `null` if the entry is not about the keys of one owner. */
  owner: O | null
  /** The owner before a transfer; `null` for other changes. */
  formerOwner: O | null
  createdAt: Date
}

/** The audit trail of an instance: writes, lists, seals, exports, verifies and prunes entries. */
export type Audit = ReturnType<typeof createAudit>

/** A key, and what the trail has of it besides its record. No caller gets the digests. */
export interface KeyState {
  record: ApiKeyRecord
  /** As the row has them. The record has names of today. */
  permissions: readonly string[]
  /** The environment in the row of the key. The record of a key from before there were any has an environment by its prefix. */
  environment: string | null
  /** As the row has them. The record has them as people know them. */
  prefix: string
  previousPrefix: string | null
  hashDigest: string
  previousHashDigest: string | null
}

/** A key before a change and after it; `after` is `null` if the key is deleted. */
type States = { before: KeyState | null; after: KeyState } | { before: KeyState; after: null }

/** A change of a key, and the `event_ref` that it gives to the row of the key. */
export type Change = States & { action: ChangeAction; ref: string }

/** A suspension of an owner, or its end, and the `event_ref` of its row. */
interface OwnerChange {
  action: 'owner_suspended' | 'owner_reactivated'
  owner: Owner
  ref: string
}

interface Circumstances {
  actor?: Actor | undefined
  address?: string | undefined
  reason?: string | undefined
}

interface AuditParts extends Trail {
  sealer: Sealer
  inTurn: InTurn
  environments: Pick<Environments, 'keyPrefixes'>
  idTypes: IdTypes
  emitter: Emitter
  ownChanges: OwnChanges
  serverClock: ServerClock
}

/** Creates the audit trail of an instance. */
export function createAudit(parts: AuditParts) {
  const { sealer, signer, serverClock, emitter, ownChanges } = parts
  const written = new WeakMap<Transaction, { entries: OwnEntry[]; xid: string }>()
  const signed = new WeakMap<Change, OwnEntry>()

  return {
    /** Returns the signed entry of a change as a row of the table, for the statement that makes the change. */
    toRow(change: Change, circumstances: Circumstances) {
      const entry = toEntry(change, circumstances)
      const row = toRow(signer, entry, serverClock.now())
      const { apiKeyId } = entry
      const subject = `key ${apiKeyId}`
      signed.set(change, { apiKeyId, subject, ref: change.ref, mac: row.entry_mac })
      return row
    },

    /** Returns the signed entry of a suspension of an owner, or of its end: as a row of the table, and as the process keeps it. */
    toOwnerRow({ action, owner, ref }: OwnerChange, circumstances: Circumstances) {
      const none = { apiKeyId: null, before: null, after: null }
      const entry = { ...none, ...ownersOf(owner), ...byOf(circumstances), ref, action }
      const row = toRow(signer, entry, serverClock.now())
      const own: OwnEntry = {
        apiKeyId: null,
        subject: `${owner.type} ${owner.id}`,
        ref,
        mac: row.entry_mac,
      }
      return { row, own }
    },

    /** Returns the entries of changes, as the process keeps them until it finds them sealed. */
    entriesOf: (changes: readonly Change[]) =>
      changes.flatMap((change) => signed.get(change) ?? []),

    /** Notes the entries that a transaction has written, so that they are sealed and their changes are found in the log. */
    noteWritten(transaction: Transaction, entries: OwnEntry[], xid: string, isLogged: boolean) {
      const before = written.get(transaction)?.entries ?? []
      before.push(...entries)
      written.set(transaction, { entries: before, xid })
      if (!isLogged) return
      const committed = ownChanges.begin()
      emitter.callAfter(transaction, null, () => committed(xid))
    },

    /** Returns the entries that a transaction has written, and its number; `undefined` if it has written none. */
    writtenIn: (transaction: Transaction) => written.get(transaction),

    /** Lists the entries of the keys of this instance, newest first. */
    list: (filter: EventFilter, options: { transaction?: Transaction | undefined } = {}) =>
      list(parts, filter, options.transaction),

    async exportHead() {
      await sealer.sealAll()
      return exportHead(parts)
    },

    async verify(options: VerificationOptions) {
      await sealer.sealAll()
      return verify(parts, options)
    },

    async prune(options: Pruning) {
      if (!options.dryRun) await sealer.sealAll()
      return prune(parts, options)
    },
  }
}

async function list(parts: AuditParts, filter: EventFilter, transaction?: Transaction) {
  const { sequelize, tables, environments, idTypes, inTurn } = parts
  const { apiKeyId, owner, action, cursor, limit } = filter
  const conditions = [isOfKeyWithPrefix('event.api_key_id', tables, environments.keyPrefixes)]
  const bind: unknown[] = []
  if (apiKeyId !== undefined) conditions.push(`event.api_key_id = $${bind.push(apiKeyId)}`)
  if (owner) conditions.push(isOfOwner(owner.type, `$${bind.push(String(owner.id))}`))
  if (action !== undefined) conditions.push(`event.action = $${bind.push(action)}`)
  if (cursor) conditions.push(`event.id < $${bind.push(cursor.id)}`)
  const sql = `
    SELECT ${eventSql('event')} AS json FROM ${tables.events} AS event
     WHERE ${conditions.join(' AND ')} ORDER BY event.id DESC LIMIT ${limit + 1}`
  const options = { bind, transaction: transaction ?? null }
  const rows = await inTurn({ owner, transaction }, () =>
    selectJson<ApiKeyEventRow[]>(sequelize, sql, options),
  )

  const page = rows.slice(0, limit).map((row) => toEvent(row, idTypes))
  const last = rows.length > limit ? page.at(-1) : undefined
  return { events: page, nextCursor: last ? formatEventCursor(last) : null }
}

/** SQL that is true for the entries of an owner, and for the transfers from it. */
function isOfOwner(type: OwnerType, id: string): string {
  return `((event.owner_type, event.owner_id) = ('${type}', ${id}) OR (event.former_owner_type, event.former_owner_id) = ('${type}', ${id}))`
}

function toEvent(row: ApiKeyEventRow, idTypes: IdTypes): ApiKeyEvent {
  const { ownerType, ownerId, formerOwnerType, formerOwnerId, ...others } = row
  const ownerOf = (type: OwnerType | null, id: string | null) =>
    type === null ? null : toOwner(type, id ?? '', idTypes)
  return {
    ...others,
    owner: ownerOf(ownerType, ownerId),
    formerOwner: ownerOf(formerOwnerType, formerOwnerId),
    before: shown(row.before, idTypes),
    after: shown(row.after, idTypes),
    createdAt: readTime(row.createdAt),
  }
}

/** Returns the attributes of a key as callers see them: with its owner in one member, and without the digests of its secrets. */
function shown(state: ApiKeyEventRow['before'], idTypes: IdTypes) {
  if (typeof state !== 'object' || state === null || Array.isArray(state)) return state
  const {
    hashDigest: _hashDigest,
    previousHashDigest: _previousHashDigest,
    userId = null,
    organizationId = null,
    service = null,
    ...attributes
  } = state
  showPrefix(attributes)
  showPrefix(attributes.previousSecret)
  if (userId === null && organizationId === null && service === null) return attributes
  const row = {
    userId: toText(userId),
    organizationId: toText(organizationId),
    service: toText(service),
  }
  return { ...attributes, owner: readOwner(row, idTypes) }
}

/** Gives callers the start of an imported key as records have it, and the source of the key. Other roles may have written any JSON. */
function showPrefix(state: unknown) {
  if (typeof state !== 'object' || state === null || !('prefix' in state)) return
  const { prefix } = state
  const source = typeof prefix === 'string' ? sourceOfPrefix(prefix) : null
  if (source !== null) Object.assign(state, { prefix: shownPrefix(String(prefix)), source })
}

/** Returns an id as text. Other roles may have written any JSON. */
function toText(id: unknown): string | null {
  return typeof id === 'string' || typeof id === 'number' ? String(id) : null
}

function toEntry(change: Change, circumstances: Circumstances): NewEntry {
  const { action, before, after, ref } = change
  const { id: apiKeyId, owner } = (after ?? before).record
  const changed = changedAttributes(change)
  const states = { before: before && pick(before, changed), after: after && pick(after, changed) }
  const owners = ownersOf(owner, before?.record.owner)
  return { ref, apiKeyId, ...owners, action, ...byOf(circumstances), ...states }
}

/** Returns the columns of an entry that name the owner, and the owner before if the key has changed hands. */
function ownersOf(owner: Owner, before = owner) {
  const former = isSameOwner(owner, before) ? null : before
  return {
    ownerType: owner.type,
    ownerId: String(owner.id),
    formerOwnerType: former && former.type,
    formerOwnerId: former && String(former.id),
  }
}

/** Returns the columns of an entry that say who made the change, and why. */
function byOf({ actor, address, reason }: Circumstances) {
  return {
    actorType: actor?.type ?? 'system',
    actorId: actor && actor.type !== 'system' ? String(actor.id) : null,
    address: address ?? null,
    reason: reason ?? null,
  }
}

type Shown = (typeof shownNames)[number]

/** The types of owners, by the attributes that have their ids. */
const typesOfOwners = {
  userId: 'user',
  organizationId: 'organization',
  service: 'service',
} as const

/** The entry of a key that is created or deleted has all attributes, as a trigger would write them. */
function changedAttributes({ before, after }: States): readonly Shown[] {
  if (!before || !after) return shownNames
  return shownNames.filter((name) => !isSame(shownOf(before, name), shownOf(after, name)))
}

function pick(state: KeyState, names: readonly Shown[]) {
  const shown: Record<string, unknown> = {}
  for (const name of names) shown[name] = shownOf(state, name)
  return shown
}

/** The trail has no uses of keys, because a use is no change. */
function shownOf(state: KeyState, name: Shown): unknown {
  if (isStated(name)) return state[name]
  const { record } = state
  if (name === 'userId' || name === 'organizationId' || name === 'service') {
    const { type, id } = record.owner
    return type === typesOfOwners[name] ? id : null
  }
  if (name === 'resources') return resourcesOf(record)
  // The records of most keys have no such member.
  if (name === 'exposed') return record.exposed ?? null
  if (name !== 'previousSecret' || !record.previousSecret) return record[name]

  const { postfix, worksUntil } = record.previousSecret
  return { prefix: state.previousPrefix, postfix, worksUntil }
}

/** The attributes that the trail does not take from the record. */
const statedNames = [
  'permissions',
  'environment',
  'prefix',
  'hashDigest',
  'previousHashDigest',
] as const

const stated: ReadonlySet<Shown> = new Set(statedNames)

function isStated(name: Shown): name is (typeof statedNames)[number] {
  return stated.has(name)
}
