import { AsyncLocalStorage } from 'node:async_hooks'

import { clearTimeout, type Background } from '../database/background'
import { ApiKeysError, refusalOf } from '../errors'
import type { Digest } from '../keys/secret'
import type { KeyRow } from './cache'
import { isHalfOpen, isOver, whenOver } from '../keys/closable'
import type { Memory } from './memory'
import { AcceptedKey } from './verified-key'
import { judge } from './verify'

/** A key as it was read, and the permissions that it and its owner hold. */
export interface Holding {
  readonly row: KeyRow
  readonly permissions: readonly string[]
}

interface SignalsParts {
  background: Pick<Background, 'startTimer'>
  memory: Memory
  /** How often the permissions of a key's owner are checked again; `Infinity` without `grantable`. */
  lookAgainMs: number
}

interface Watch {
  controller: AbortController
  /** Runs listeners in the async context of the request that asked for the signal. */
  inRequest: Background['run']
  apiKey: AcceptedKey
  /** As it was last read. */
  holding: Holding
  /** When reads of the key began to fail, by the monotonic clock. */
  unreadableSince: number | undefined
  timer: NodeJS.Timeout | undefined
  stopListening(): void
}

/** A timer that is set for longer than 2^31 - 1 ms fires at once. */
const longestTimerMs = 2 ** 31 - 1

/** How long to wait after a failed read before the next one. */
const retryMs = 250

/** Keeps the signals of keys in use. They are apart from the cache, which may evict a key while its response goes on. */
export function createSignals(parts: SignalsParts) {
  const { background, memory, lookAgainMs } = parts
  const { clock, feed } = memory
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

  /** Aborts the signal if the key may no longer be used as it was, and checks again when the key expires. */
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
    const holding = recall(row, memory)
    if (holding) holdAgainst(holding, watch)
    else void check(watch)
  }

  function setTimer(watch: Watch, delayMs: number, work: () => void) {
    clearTimeout(watch.timer)
    watch.timer = background.startTimer(work, Math.min(Math.max(delayMs, 1), longestTimerMs))
  }

  async function check(watch: Watch) {
    try {
      const holding = await readAnew(AcceptedKey.rowOf(watch.apiKey).digest, memory)
      watch.unreadableSince = undefined
      if (isWatched(watch)) holdAgainst(holding, watch)
    } catch {
      if (!isWatched(watch)) return
      if (isUnreadableTooLong(watch)) return abort(watch, new ApiKeysError('database_unavailable'))
      // The key may have changed since its last read. Whether it has expired is known without a read.
      holdAgainst(watch.holding, watch)
      if (isWatched(watch)) setTimer(watch, retryMs, () => void check(watch))
    }
  }

  /** An answer of `grantable` may be used for twice its maximum age while it cannot be refreshed. */
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
    feed.wake()
    // The key was good when it was verified, which may be a while ago. A later turn gives the caller time to add its listener.
    queueMicrotask(() => {
      if (isWatched(watch)) look(row, watch)
    })
    return controller.signal
  }

  /** Checks keys that may have changed, by their ids. */
  function checkKeys(ids: Iterable<string>) {
    for (const id of ids) {
      for (const watch of watches.get(id) ?? []) void check(watch)
    }
  }

  /** Checks keys whose owners' permissions may have changed. */
  function checkOwners(userIds: readonly (string | number)[]) {
    if (watches.size === 0) return

    const changed = new Set(userIds)
    for (const group of watches.values()) {
      for (const watch of group) if (changed.has(watch.apiKey.userId)) void check(watch)
    }
  }

  function checkAll() {
    for (const group of watches.values()) {
      for (const watch of group) void check(watch)
    }
  }

  /**
   * Aborts the signals whose clients have stopped sending on a connection that the app leaves open, maybe for ever. Such a
   * connection must not make a process follow changes that has nothing else to do.
   */
  function abortHalfOpen() {
    for (const group of watches.values()) {
      for (const watch of group) {
        const { closables = [] } = AcceptedKey.bearerOf(watch.apiKey)
        if (isHalfOpen(closables)) abort(watch, new Error('the client has ended its connection'))
      }
    }
  }

  feed.listen({
    onChanges: checkKeys,
    onUserChanges: checkOwners,
    onGap: checkAll,
    onDoubt: checkAll,
    isNeeded() {
      abortHalfOpen()
      return watches.size > 0
    },
  })
  memory.owners?.listen((userId) => checkOwners([userId]))

  return {
    makeSignal,

    /** Drops all signals. None of them will abort. */
    close() {
      for (const group of watches.values()) for (const watch of group) drop(watch)
    },
  }
}

/** Returns a key from the cache if the cache is up to date and has this row. */
function recall(row: KeyRow, { cache, feed, owners, clock }: Memory): Holding | undefined {
  const key = cache.get(row.digest)
  const isFollowed = key === row && key.freshness.isFollowed
  if (!isFollowed || !feed.isLive(clock.monotonic(), clock.wall())) return undefined
  const permissions = owners ? owners.recallPermissions(row) : row.permissions
  return permissions && { row, permissions }
}

/** Reads a key from the database, whatever is in the cache. */
async function readAnew(digest: Digest, { loader, owners }: Memory): Promise<Holding | null> {
  const { key, isOld } = await loader.fill(digest)
  // The key may have changed after it was read.
  if (isOld) throw new ApiKeysError('database_unavailable')
  if (!key) return null
  const permissions = owners ? await owners.readPermissions(key) : key.permissions
  return { row: key, permissions }
}
