import type { Transaction } from 'sequelize'

import { eventActions, type ChangeAction, type EventAction } from '../../models/api-key-event'
import { show, suggest } from '../../models/option-checks'
import type { ApiKeysError, InvalidReason } from '../errors'
import type { AnyApp, App } from './app'
import { deepFreeze } from './metadata'
import type { Owner } from './owner'
import type { Actor, ApiKeyRecord } from './record'

/** A change of a key that this process has made and committed. */
export interface ApiKeyChanged<A extends App = AnyApp> {
  /** The key after the change; a deleted key as it was. */
  apiKey: ApiKeyRecord<A>
  /** The key before the change; `null` for a new key. */
  before: ApiKeyRecord<A> | null
  actor: Actor
  reason: string | null
}

/** A key, and its owner. */
interface KeyReference<O extends Owner> {
  readonly id: string
  readonly owner: O
}

/** A request that a guard or the strategy refused. */
export interface RequestDenied {
  /** The key of the request, which may be revoked or expired; `null` if there is no such key. */
  apiKey: KeyReference<Owner> | null
  /** The refusal that the client got. */
  error: ApiKeysError
  /** Why the key was not accepted. Clients do not get the reason. */
  reason: InvalidReason | null
  /** The address of the client by the rules of Express, in the form of records; `null` if it cannot be read. */
  address: string | null
}

/** A suspension of an owner, or its end. */
export interface OwnerChanged<O extends Owner = Owner> {
  owner: O
  actor: Actor
  reason: string | null
}

/** The events of this process, and their values. No value holds a secret. */
export interface ApiKeyNotices<A extends App = AnyApp> extends Record<
  ChangeAction,
  ApiKeyChanged<A>
> {
  /** This process has suspended an owner, or ended that, and committed it. */
  owner_suspended: OwnerChanged<A['owner']>
  owner_reactivated: OwnerChanged<A['owner']>
  /** A request came with a secret that no longer works; once per key and hour. */
  retired_secret_used: { apiKeyId: string }
  /** An imported key with a salt was used for the first time. Its hash is now one of ours. */
  upgraded: { apiKeyId: string }
  /** A use of a key was accepted: a request that no guard refused has ended, or `verify` has accepted the key. */
  verified: { apiKey: KeyReference<A['owner']>; address: string | null }
  denied: RequestDenied
  /**
   * A key expires soon. It is reported 7 days and 1 day before, to the listeners of one process: at least once, and again until
   * all of them succeed.
   */
  expiring: { apiKey: ApiKeyRecord<A>; daysLeft: 7 | 1 }
  /**
   * Exposed keys were suspended, and not revoked, because all processes together have revoked `maxExposedPerMinute` keys in the last
   * minute. Look into the reports of `source`: a proxy may be set up wrong.
   */
  exposure_limit_reached: { source: string; suspended: number }
  /** Redis could not count a use of a key, which passed or was refused uncounted. */
  limiter_unavailable: { apiKeyId: string; isAllowed: boolean; error: unknown }
  /** The app's `grantable` failed, or did not answer in time. Until it does, keys of this owner may be refused with 503. */
  grantable_unavailable: { owner: A['owner']; error: unknown }
  /** A key could not be verified, because the database did not answer. */
  unavailable: { error: unknown; address: string | null }
  /**
   * A listener of `notice` failed, or changes could not be reported to it. If `notice` begins with `audit_`, the audit trail has a
   * fault, which lib/audit/README.md explains. If it is `owner_names`, the app's `ownerNames` has failed.
   */
  error: { error: unknown; notice: string }
}

export type NoticeName = keyof ApiKeyNotices

export type Listener<Notice> = (notice: Notice) => unknown

export type Emitter = ReturnType<typeof createEmitter>

/** The names of the events that the audit trail does not have. It does not compile if a name is missing. */
const otherNames = {
  verified: true,
  denied: true,
  expiring: true,
  exposure_limit_reached: true,
  limiter_unavailable: true,
  grantable_unavailable: true,
  unavailable: true,
  error: true,
} satisfies Record<Exclude<NoticeName, EventAction>, true>

/** Entries of the audit trail that are about no key or owner of today. */
const notReported = new Set<EventAction>(['truncated', 'owner_erased'])

/** The names of all events. */
export const noticeNames: readonly string[] = [
  ...eventActions.filter((action) => !notReported.has(action)),
  ...Object.keys(otherNames),
]

/** A call that waits for the commit of a transaction. */
interface Waiting {
  /** The event that it emits; `null` for a call of the library's own. */
  name: NoticeName | null
  run(): void
}

/** Returns a copy, because the caller gets the record, too. Listeners share it, so it is frozen. */
function copyOf<Notice>(notice: Notice): Notice {
  return deepFreeze(structuredClone(notice))
}

/** Creates the emitter that reports to the app's listeners. A listener that fails breaks nothing. */
export function createEmitter() {
  const listeners = new Map<string, Set<Listener<never>>>()
  const waiting = new WeakMap<Transaction, Waiting[]>()

  /** Resolves with true if the listener succeeds. A listener of failures that fails is not reported. */
  async function call<Notice>(name: NoticeName, listener: Listener<Notice>, notice: Notice) {
    try {
      await listener(notice)
      return true
    } catch (error) {
      if (name !== 'error') emit('error', { error, notice: name })
      return false
    }
  }

  /** Calls all listeners of an event. */
  function emit<Name extends NoticeName>(name: Name, notice: ApiKeyNotices[Name]) {
    // A copy, because a listener may add or remove listeners.
    for (const listener of new Set(listenersOf(name))) void call(name, listener, notice)
  }

  function listenersOf<Name extends NoticeName>(name: Name) {
    // They were added under this name.
    return listeners.get(name) as Set<Listener<ApiKeyNotices[Name]>> | undefined
  }

  /** Calls a function that reports an event, after a transaction has committed. */
  function callAfter(transaction: Transaction, name: NoticeName | null, run: () => void) {
    const queue = waiting.get(transaction) ?? []
    queue.push({ name, run })
    waiting.set(transaction, queue)
  }

  function takeWaiting(transaction: Transaction): readonly Waiting[] {
    const queue = waiting.get(transaction) ?? []
    waiting.delete(transaction)
    return queue
  }

  return {
    emit,
    callAfter,

    /** The listeners of the events that have any. */
    listeners: listeners as ReadonlyMap<string, unknown>,

    /** Calls all listeners of an event. Resolves after all are done, with true if there is one and all have succeeded. */
    async emitAndWait<Name extends NoticeName>(name: Name, notice: ApiKeyNotices[Name]) {
      const called = [...(listenersOf(name) ?? [])]
      const results = await Promise.all(called.map((listener) => call(name, listener, notice)))
      return results.length > 0 && !results.includes(false)
    },

    /** Emits an event after a transaction has committed. */
    emitAfter<Name extends NoticeName>(
      transaction: Transaction,
      name: Name,
      notice: ApiKeyNotices[Name],
    ) {
      if (!listeners.has(name)) return

      const copy = copyOf(notice)
      callAfter(transaction, name, () => emit(name, copy))
    },

    /** Emits an event with a copy of its notice, because the caller has what is in it. */
    emitCopy<Name extends NoticeName>(name: Name, notice: ApiKeyNotices[Name]) {
      emit(name, copyOf(notice))
    },

    /** True if a listener waits for a transaction. */
    isAwaited(transaction: Transaction): boolean {
      return waiting.get(transaction)?.some(({ name }) => name !== null) ?? false
    },

    /** Makes the calls that wait for a transaction, which has committed. The calls of the library come first. */
    committed(transaction: Transaction) {
      const queue = takeWaiting(transaction)
      for (const { name, run } of queue) if (name === null) run()
      for (const { name, run } of queue) if (name !== null) run()
    },

    /** Drops the calls that wait for a transaction, because it is unknown if it has committed, and reports that. */
    lost(transaction: Transaction, error: unknown) {
      const names = new Set(takeWaiting(transaction).map(({ name }) => name))
      for (const name of names) if (name !== null) emit('error', { error, notice: name })
    },

    /** Adds a listener of an event. Returns a function that removes it. */
    on<Name extends NoticeName>(name: Name, listener: Listener<ApiKeyNotices[Name]>): () => void {
      if (!noticeNames.includes(name)) {
        throw new TypeError(`on: there is no event ${show(name)}.${suggest(name, noticeNames)}`)
      }
      if (typeof listener !== 'function') throw new TypeError('on: needs a function to call')

      // One function may be added twice, and each time be removed by itself.
      const entry: Listener<ApiKeyNotices[Name]> = (notice) => listener(notice)
      const group = listeners.get(name) ?? new Set()
      listeners.set(name, group.add(entry))

      return function off() {
        group.delete(entry)
        if (group.size === 0 && listeners.get(name) === group) listeners.delete(name)
      }
    },
  }
}
