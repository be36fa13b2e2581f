import type { Sequelize, Transaction } from 'sequelize'

import { eventSql, type ApiKeyEventRow } from '../../models/api-key-event'
import { isOfKeyWithPrefix } from '../../models/audit-trail'
import type { OwnerType } from '../../models/owner'
import type { Tables } from '../../models/tables'
import { selectJson } from '../database/query'
import type { InTurn } from '../database/turns'
import { formatEventCursor } from '../keys/cursor'
import type { Environments } from '../keys/environments'
import type { EventFilter } from '../keys/input'
import { shownPrefix, sourceOfPrefix } from '../keys/imported-prefix'
import { isPlainObject } from '../keys/metadata'
import type { IdTypes, Owner } from '../keys/owner'
import { readOwner, readTime, toOwner } from '../keys/record'

type ReadAsItIs = Omit<
  ApiKeyEventRow,
  | 'ownerType'
  | 'ownerId'
  | 'formerOwnerType'
  | 'formerOwnerId'
  | 'personalBefore'
  | 'personalAfter'
  | 'createdAt'
>

/** An entry of the audit trail. */
export interface ApiKeyEvent<O extends Owner = Owner> extends ReadAsItIs {
  /** The owner of the key after the change; `null` if the entry is not about the keys of one owner, or if the owner was erased. */
  owner: O | null
  /** The owner before a transfer; `null` for other changes. */
  formerOwner: O | null
  createdAt: Date
}

interface ListParts {
  sequelize: Sequelize
  tables: Tables
  inTurn: InTurn
  environments: Pick<Environments, 'keyPrefixes'>
  idTypes: IdTypes
}

/** Lists the entries of the keys of an instance, newest first, a page at a time. */
export async function listEntries(
  parts: ListParts,
  filter: EventFilter,
  transaction?: Transaction,
) {
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
  const { ownerType, ownerId, formerOwnerType, formerOwnerId, ...rest } = row
  const { personalBefore, personalAfter, ...others } = rest
  const ownerOf = (type: OwnerType | null, id: string | null) =>
    type === null || id === null ? null : toOwner(type, id, idTypes)
  const after = shown(whole(row.after, personalAfter), idTypes)
  return {
    ...others,
    owner: ownerOf(ownerType, ownerId),
    formerOwner: ownerOf(formerOwnerType, formerOwnerId),
    before: shown(whole(row.before, personalBefore), idTypes),
    after: row.action === 'owner_erased' ? counted(row.after) : after,
    createdAt: readTime(row.createdAt),
  }
}

/** Returns the number of the entries that a note of an erasing lists. Other roles may have written any JSON. */
function counted(note: ApiKeyEventRow['after']) {
  return { entries: Object.values(Object(note?.erased)).flat().length }
}

/** Returns all attributes of a state, those with personal values among them. Other roles may have written any JSON. */
function whole(open: ApiKeyEventRow['before'], personal: ApiKeyEventRow['before']) {
  return isPlainObject(open) && isPlainObject(personal) ? { ...open, ...personal } : open
}

/** Returns the attributes of a key as callers see them: with its owner in one member, and without the digests of its secrets. */
function shown(state: ApiKeyEventRow['before'], idTypes: IdTypes) {
  if (typeof state !== 'object' || state === null || Array.isArray(state)) return state
  const {
    hashDigest: _hashDigest,
    previousHashDigest: _previousHashDigest,
    pendingHashDigest: _pendingHashDigest,
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
