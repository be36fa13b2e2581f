import type { Transaction } from 'sequelize'

import type { ChangeAction } from '../../models/api-key-event'
import { personalNames, shownNames } from '../../models/audit-trail'
import type { ServerClock } from '../database/clock'
import type { OwnChanges } from '../database/own-changes'
import type { Emitter } from '../keys/emitter'
import type { Environments } from '../keys/environments'
import type { EventFilter, Pruning } from '../keys/input'
import { isSame } from '../keys/metadata'
import { isSameOwner, type IdTypes, type Owner } from '../keys/owner'
import { resourcesOf, type Actor, type ApiKeyRecord } from '../keys/record'
import type { InTurn } from '../database/turns'
import { newEntry, toRow, type NewEntry } from './entry'
import { exportHead, type Trail } from './head'
import { listEntries } from './list-entries'
import { prune } from './prune'
import { countErasable, eraseEntries } from './erase'
import type { OwnEntry } from './own-entries'
import type { Sealer } from './sealer'
import { verify, type VerificationOptions } from './verify'

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
  pendingHashDigest: string | null
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
      const about = { ...ownersOf(owner), ...byOf(circumstances) }
      const entry = { ...newEntry(), ...about, ref, action }
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
      listEntries(parts, filter, options.transaction),

    async exportHead() {
      await sealer.sealAll()
      return exportHead(parts)
    },

    async verify(options: VerificationOptions) {
      await sealer.sealAll()
      return verify(parts, options)
    },

    /** Erases the personal values of an owner from sealed entries. The notes do not name an owner who erases their own values. */
    async erase(owner: Owner, { actor, address, reason }: Circumstances) {
      const isOwn = actor?.type !== 'system' && String(actor?.id) === String(owner.id)
      return eraseEntries(parts, owner, byOf(isOwn ? { reason } : { actor, address, reason }))
    },

    countErasable: (owner: Owner) => countErasable(parts, owner),

    async prune(options: Pruning) {
      if (!options.dryRun) await sealer.sealAll()
      return prune(parts, options)
    },
  }
}

function toEntry(change: Change, circumstances: Circumstances): NewEntry {
  const { action, before, after, ref } = change
  const { id: apiKeyId, owner } = (after ?? before).record
  const open = action === 'created' ? createdNames : changedAttributes(change, openNames)
  const personal = changedAttributes(change, personalShownNames)
  const isAny = personal.length > 0
  return {
    ...newEntry(),
    ref,
    apiKeyId,
    ...ownersOf(owner, before?.record.owner),
    action,
    ...byOf(circumstances),
    before: before && pick(before, open),
    after: after && pick(after, open),
    personalBefore: isAny && before ? pick(before, personal) : null,
    personalAfter: isAny && after ? pick(after, personal) : null,
  }
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

const isPersonal = (name: string) => personalNames.includes(name)
// In order, as the signature of an entry has them.
const openNames = shownNames.filter((name) => !isPersonal(name)).toSorted()
const personalShownNames = shownNames.filter(isPersonal).toSorted()
/** The database adds the time when it makes the key. */
const createdNames = openNames.filter((name) => name !== 'createdAt')

/** The types of owners, by the attributes that have their ids. */
const typesOfOwners = {
  userId: 'user',
  organizationId: 'organization',
  service: 'service',
} as const

/** The entry of a key that is created or deleted has all attributes, as a trigger would write them. */
function changedAttributes({ before, after }: States, names: readonly Shown[]) {
  if (!before || !after) return names
  return names.filter((name) => !isSame(shownOf(before, name), shownOf(after, name)))
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
  'pendingHashDigest',
] as const

const stated: ReadonlySet<Shown> = new Set(statedNames)

function isStated(name: Shown): name is (typeof statedNames)[number] {
  return stated.has(name)
}
