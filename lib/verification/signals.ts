import { AsyncLocalStorage } from 'node:async_hooks'

import { clearTimeout, type Background } from '../background'
import { ApiKeysError, refusalOf, type InvalidReason } from '../errors'
import type { Digest } from '../keys/secret'
import type { KeyRow } from './cache'
import type { Clock } from './clock'
import { isHalfOpen, isOver, whenOver } from './closable'
import { AcceptedKey, type Bearer } from './verified-api-key'

/** What a key is like, and what it holds of what its row says. */
export interface Holding {
  readonly row: KeyRow
  readonly permissions: readonly string[]
}

/** Reads what a key is like now, whatever is remembered of it. */
type ReadAnew = (digest: Digest) => Promise<Holding | null>

interface SignalsParts {
  background: Pick<Background, 'startTimer'>
  clock: Clock
  readAnew: ReadAnew
  /** Returns what a key holds if its row is what it is like now, as far as changes are told of. */
  recall(row: KeyRow): Holding | undefined
  /** How often it is checked again what the owner of a key may do; `Infinity` without `grantable`. */
  lookAgainMs: number
  /** Has changes told of. */
  wake(): void
  /** Why a key is not good at a moment; `null` if it is. */
  judge(row: KeyRow | null, wall: number, bearer: Bearer): InvalidReason | null
}

interface Watch {
  controller: AbortController
  /** Runs listeners in the async context of the request that asked for the signal. */
  inRequest: Background['run']
  apiKey: AcceptedKey
  /** As it was last read. */
  holding: Holding
  /** Since when it cannot be read, by the monotonic clock. */
  unreadableSince: number | undefined
  timer: NodeJS.Timeout | undefined
  stopListening(): void
}

/** A timer that is set for longer than 2^31 - 1 ms fires at once. */
const longestTimerMs = 2 ** 31 - 1

/** How soon a key is read again that could not be read. */
const retryMs = 250

/** Keeps the signals of keys in use, apart from the cache: a key may be forgotten there while a response goes on. */
export function createSignals(parts: SignalsParts) {
  const { background, clock, readAnew, recall, lookAgainMs, wake, judge } = parts
  const watches = new Map<string, Set<Watch>>()

  function drop(watch: Watch) {
    clearTimeout(watch.timer)
    const { id } = watch.apiKey
    watch.stopListening()
    const group = watches.get(id)
    if (group?.delete(watch) === true && group.size === 0) watches.delete(id)
  }

  function abort(watch: Watch, reason: Error) {
    drop(watch)
    watch.inRequest(() => watch.controller.abort(reason))
  }

  /** Ends what may not go on with the key as it is now, and comes back when it expires. */
  function holdAgainst(holding: Holding | null, watch: Watch) {
    const bearer = AcceptedKey.bearerOf(watch.apiKey)
    const invalidReason = judge(holding?.row ?? null, clock.wall(), bearer)
    if (!holding || invalidReason) return abort(watch, refusalOf(invalidReason ?? 'unknown'))

    const { row, permissions } = holding
    const refusal = bearer.refusalOf(new AcceptedKey(row, permissions, { bearer, makeSignal }))
    if (refusal) return abort(watch, refusal)
    watch.holding = holding

    const endsAtMs = Math.min(row.expiresAtMs ?? Infinity, row.worksUntilMs ?? Infinity)
    const restMs = endsAtMs - clock.wall()
    if (lookAgainMs < restMs) return setTimer(watch, lookAgainMs, () => look(row, watch))
    if (restMs === Infinity) return clearTimeout(watch.timer)
    setTimer(watch, restMs, () => holdAgainst(holding, watch))
  }

  function look(row: KeyRow, watch: Watch) {
    const holding = recall(row)
    if (holding) holdAgainst(holding, watch)
    else void check(watch)
  }

  function setTimer(watch: Watch, delayMs: number, work: () => void) {
    clearTimeout(watch.timer)
    watch.timer = background.startTimer(work, Math.min(Math.max(delayMs, 1), longestTimerMs))
  }

  async function check(watch: Watch) {
    try {
      const holding = await readAnew(AcceptedKey.rowOf(watch.apiKey).digest)
      watch.unreadableSince = undefined
      if (isWatched(watch)) holdAgainst(holding, watch)
    } catch {
      if (!isWatched(watch)) return
      if (isUnreadableTooLong(watch)) return abort(watch, new ApiKeysError('database_unavailable'))
      // Nobody knows what has changed since it was last heard of; but time goes on.
      holdAgainst(watch.holding, watch)
      if (isWatched(watch)) setTimer(watch, retryMs, () => void check(watch))
    }
  }

  /** What is told of an owner may be twice as old as it is before it is asked for again, and no older. */
  function isUnreadableTooLong(watch: Watch): boolean {
    const now = clock.monotonic()
    watch.unreadableSince ??= now
    return now - watch.unreadableSince >= 2 * lookAgainMs
  }

  function isWatched(watch: Watch): boolean {
    return watches.get(watch.apiKey.id)?.has(watch) === true
  }

  function makeSignal(apiKey: AcceptedKey): AbortSignal {
    const controller = new AbortController()
    const { closables = [] } = AcceptedKey.bearerOf(apiKey)
    if (isOver(closables)) return controller.signal

    const row = AcceptedKey.rowOf(apiKey)
    const watch: Watch = {
      controller,
      inRequest: AsyncLocalStorage.snapshot(),
      apiKey,
      holding: { row, permissions: apiKey.permissions },
      unreadableSince: undefined,
      timer: undefined,
      stopListening: whenOver(closables, () => drop(watch)),
    }
    const group = watches.get(apiKey.id) ?? new Set()
    watches.set(apiKey.id, group.add(watch))
    wake()
    // It was good when it was verified, which may be a while ago.
    look(row, watch)
    return controller.signal
  }

  return {
    makeSignal,

    get size() {
      return watches.size
    },

    /** Looks again at keys that may have changed, by their ids. */
    check(ids: Iterable<string>) {
      for (const id of ids) {
        for (const watch of watches.get(id) ?? []) void check(watch)
      }
    },

    /** Looks again at keys whose owners may do something else than before. */
    checkOwners(userIds: readonly (string | number)[]) {
      if (watches.size === 0) return

      const changed = new Set(userIds)
      for (const group of watches.values()) {
        for (const watch of group) if (changed.has(watch.apiKey.userId)) void check(watch)
      }
    },

    /** Looks again at all keys. */
    checkAll() {
      for (const group of watches.values()) {
        for (const watch of group) void check(watch)
      }
    },

    /**
     * Aborts the signals whose clients have stopped sending on a connection that the app leaves open, maybe for ever. Such a
     * connection must not make a process follow changes that has nothing else to do.
     */
    abortHalfOpen() {
      for (const group of watches.values()) {
        for (const watch of group) {
          const { closables = [] } = AcceptedKey.bearerOf(watch.apiKey)
          if (isHalfOpen(closables)) abort(watch, new Error('the client has ended its connection'))
        }
      }
    },

    /** Lets go of all signals. None of them aborts any more. */
    close() {
      for (const group of watches.values()) for (const watch of group) drop(watch)
    },
  }
}
