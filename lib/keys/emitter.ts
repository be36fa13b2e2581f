import type { Transaction } from 'sequelize'

import { show, suggest } from '../../models/option-checks'
import type { ApiKeysError, InvalidReason } from '../errors'
import { deepFreeze } from './metadata'
import type { ApiKeyRecord } from './record'
import type { Actor, ChangeAction } from './types'

/** A change of a key that this process has made and committed. */
export interface ApiKeyChanged<Permission extends string = string, UserId = string | number> {
  /** As it is now; one that is deleted, as it was. */
  apiKey: ApiKeyRecord<Permission, UserId>
  /** As it was; `null` for a new one. */
  before: ApiKeyRecord<Permission, UserId> | null
  actor: Actor
  reason: string | null
}

/** Which key it was, and whose. */
interface Holder<UserId> {
  readonly id: string
  readonly userId: UserId
}

/** A request that was refused by a guard or by the strategy. */
export interface RequestDenied {
  /** The key that it came with, also one that is no longer good; `null` if there is no such key. */
  apiKey: Holder<string | number> | null
  /** What the client was told. */
  error: ApiKeysError
  /** Why a key was not accepted, which the client is not told. */
  reason: InvalidReason | null
  /** The address of the client, by Express's rules, as in records; `null` if it cannot be read. */
  address: string | null
}

/** What is told of in this process, and what comes with it. Nothing of it holds a secret. */
export interface ApiKeyNotices<
  Permission extends string = string,
  UserId = string | number,
> extends Record<ChangeAction, ApiKeyChanged<Permission, UserId>> {
  /** Somebody used a secret that worked no more; once per key and hour. */
  retired_secret_used: { apiKeyId: string }
  /** A use of a key was accepted: a request has ended that no guard refused, or `verify` has accepted the key. */
  verified: { apiKey: Holder<UserId>; address: string | null }
  denied: RequestDenied
  /**
   * A key expires soon. Reported 7 days and 1 day before, to the listeners of one process: at least once, and again until all
   * of them succeed.
   */
  expiring: { apiKey: ApiKeyRecord<Permission, UserId>; daysLeft: 7 | 1 }
  /** The Redis that counts the uses of keys was away, and a use passed or was refused without being counted. */
  limiter_unavailable: { apiKeyId: string; isAllowed: boolean; error: unknown }
  /** The app's `grantable` failed, or did not answer in time. Keys of this user may be refused with 503 until it does. */
  grantable_unavailable: { userId: UserId; error: unknown }
  /** A key could not be verified, as the database could not be asked. */
  unavailable: { error: unknown; address: string | null }
  /** A listener failed, or rejected. */
  error: { error: unknown; notice: string }
}

export type NoticeName = keyof ApiKeyNotices

export type Listener<Notice> = (notice: Notice) => unknown

export type Emitter = ReturnType<typeof createEmitter>

const noticeNames = {
  created: true,
  updated: true,
  permissions_changed: true,
  suspended: true,
  reactivated: true,
  revoked: true,
  rotated: true,
  rotation_ended: true,
  deleted: true,
  retired_secret_used: true,
  verified: true,
  denied: true,
  expiring: true,
  limiter_unavailable: true,
  grantable_unavailable: true,
  unavailable: true,
  error: true,
} satisfies Record<NoticeName, true>

/** Tells the app what happens to keys in this process. A listener that fails breaks nothing. */
export function createEmitter() {
  const listeners = new Map<string, Set<Listener<never>>>()
  /** What is told of once a transaction has committed. */
  const untold = new WeakMap<Transaction, (() => void)[]>()

  function fail(error: unknown, notice: NoticeName) {
    // Whoever hears of failures and fails at that is not told of it again.
    if (notice !== 'error') emit('error', { error, notice })
  }

  /** Resolves with true if the listener succeeds. */
  async function tell<Notice>(name: NoticeName, listener: Listener<Notice>, notice: Notice) {
    try {
      await listener(notice)
      return true
    } catch (error) {
      fail(error, name)
      return false
    }
  }

  function emit<Name extends NoticeName>(name: Name, notice: ApiKeyNotices[Name]) {
    // A copy, as a listener may begin or end another one.
    for (const listener of new Set(listenersOf(name))) void tell(name, listener, notice)
  }

  function listenersOf<Name extends NoticeName>(name: Name) {
    // As they were registered for this name.
    return listeners.get(name) as Set<Listener<ApiKeyNotices[Name]>> | undefined
  }

  function isHeard(name: NoticeName): boolean {
    return listeners.has(name)
  }

  /** Has a function called when `committed` is for this transaction. */
  function callAfter(transaction: Transaction, callBack: () => void) {
    const queue = untold.get(transaction) ?? []
    queue.push(callBack)
    untold.set(transaction, queue)
  }

  return {
    isHeard,
    emit,

    /** Resolves once all listeners are done, with true if there was one and all have succeeded. */
    async emitAndWait<Name extends NoticeName>(
      name: Name,
      notice: ApiKeyNotices[Name],
    ): Promise<boolean> {
      const heard = [...(listenersOf(name) ?? [])]
      const results = await Promise.all(heard.map((listener) => tell(name, listener, notice)))
      return results.length > 0 && !results.includes(false)
    },

    /** Calls a function once a transaction has committed, before its changes are told of. */
    whenCommitted(transaction: Transaction, callBack: () => void) {
      untold.set(transaction, [callBack, ...(untold.get(transaction) ?? [])])
    },

    /** Tells of something once a transaction has committed, and not if it is rolled back. */
    emitAfter<Name extends NoticeName>(
      transaction: Transaction,
      name: Name,
      notice: ApiKeyNotices[Name],
    ) {
      if (!isHeard(name)) return

      // A copy, as the record goes on to whoever made the change, and a frozen one, as listeners share it.
      const told = deepFreeze(structuredClone(notice))
      callAfter(transaction, () => emit(name, told))
    },

    callAfter,

    /** Tells of what has waited for a transaction, which has committed. */
    committed(transaction: Transaction) {
      const queue = untold.get(transaction) ?? []
      untold.delete(transaction)
      for (const tellNow of queue) tellNow()
    },

    /** Has a function told of something from now on; returns a function that ends it. */
    on<Name extends NoticeName>(name: Name, listener: Listener<ApiKeyNotices[Name]>): () => void {
      if (!Object.hasOwn(noticeNames, name)) {
        throw new TypeError(
          `on: there is no notice ${show(name)}.${suggest(name, Object.keys(noticeNames))}`,
        )
      }
      if (typeof listener !== 'function') throw new TypeError('on: needs a function to call')

      // One function may be registered twice, and each time be taken off by itself.
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
