import { AsyncLocalStorage } from 'node:async_hooks'

import { clearTimeout, type Background } from '../database/background'
import { ApiKeysError, refusalOf } from '../errors'
import { isHalfOpen, isOver, whenOver } from '../keys/closable'
import type { Digest } from '../keys/secret'
import type { KeyRow } from './cache'
import type { Memory } from './memory'
import type { Holding, KeyCaller } from './verified-key'
import { endOf, faultOf } from './decide'

interface Watch {
  controller: AbortController
  /** Runs listeners in the async context of the request that asked for the signal. */
  inRequest: Background['run']
  caller: KeyCaller
  /** The last reading. */
  holding: Holding
  /** When reads of the key began to fail, by the monotonic clock. */
  unreadableSince: number | undefined
  timer: NodeJS.Timeout | undefined
  stopListening(): void
}

interface SignalsParts {
  background: Pick<Background, 'startTimer'>
  memory: Memory
  grantableMaxAgeMs: number
}

interface State extends Pick<SignalsParts, 'background' | 'memory'> {
  /** The signals in use, by the ids of their keys. */
  readonly watches: Map<string, Set<Watch>>
  /** How often the permissions of a key's owner are checked again; `Infinity` without `grantable`. */
  readonly checkEveryMs: number
}

/** The shortest time between two checks of the owner's permissions. */
const leastCheckMs = 1_000

/** A timer that is set for longer than 2^31 - 1 ms fires at once. */
const longestTimerMs = 2 ** 31 - 1

/** How long to wait after a failed read before the next one. */
const retryMs = 250

/**
 * Keeps the signals of keys in use, which abort when a key stops being good. They are apart from the cache, which may evict a key
 * while its response goes on.
 */
export function createSignals({ background, memory, grantableMaxAgeMs }: SignalsParts) {
  const watches: State['watches'] = new Map()
  const checkEveryMs = memory.ownerPermissions
    ? Math.max(grantableMaxAgeMs, leastCheckMs)
    : Infinity
  const state: State = { background, memory, watches, checkEveryMs }

  function checkIf(isConcerned: (watch: Watch) => boolean) {
    for (const group of watches.values()) {
      for (const watch of group) if (isConcerned(watch)) void check(watch, state)
    }
  }

  function checkOwners(names: readonly string[]) {
    const changed = new Set(names)
    checkIf(({ holding }) => changed.has(holding.row.owner.name))
  }

  memory.feed.listen({
    onChanges(ids) {
      for (const id of ids) {
        for (const watch of watches.get(id) ?? []) void check(watch, state)
      }
    },
    onOwnerChanges: checkOwners,
    onGap: () => checkIf(() => true),
    onDoubt: () => checkIf(() => true),
    isNeeded() {
      abortHalfOpen(state)
      return watches.size > 0
    },
  })
  memory.ownerPermissions?.listen((name) => checkOwners([name]))

  return {
    makeSignal: (holding: Holding, caller: KeyCaller) => watchKey(holding, caller, state),

    /** Drops all signals. None of them will abort. */
    close() {
      for (const group of watches.values()) for (const watch of group) drop(watch, state)
    },
  }
}

function watchKey(holding: Holding, caller: KeyCaller, state: State): AbortSignal {
  const { memory, watches } = state
  const controller = new AbortController()
  const { closables = [] } = caller
  if (isOver(closables)) return controller.signal

  const { row } = holding
  const watch: Watch = {
    controller,
    inRequest: AsyncLocalStorage.snapshot(),
    caller,
    holding,
    unreadableSince: undefined,
    timer: undefined,
    stopListening: whenOver(closables, () => drop(watch, state)),
  }
  const group = watches.get(row.id) ?? new Set()
  watches.set(row.id, group.add(watch))
  memory.feed.noteUse(memory.clock.monotonic())
  // The key was good when it was verified, which may be a while ago. A later turn gives the caller time to add its listener.
  queueMicrotask(() => {
    if (isWatched(watch, state)) checkByCache(row, watch, state)
  })
  return controller.signal
}

function isWatched(watch: Watch, { watches }: State): boolean {
  return watches.get(watch.holding.row.id)?.has(watch) === true
}

function drop(watch: Watch, { watches }: State) {
  clearTimeout(watch.timer)
  const { id } = watch.holding.row
  watch.stopListening()
  const group = watches.get(id)
  if (group?.delete(watch) === true && group.size === 0) watches.delete(id)
}

function abort(watch: Watch, reason: Error, state: State) {
  drop(watch, state)
  watch.inRequest(() => watch.controller.abort(reason))
}

/**
 * Aborts the signals whose clients have stopped sending on a connection that the app leaves open. Otherwise, such a
 * connection could keep a process following changes for ever.
 */
function abortHalfOpen(state: State) {
  for (const group of state.watches.values()) {
    for (const watch of group) {
      const { closables = [] } = watch.caller
      if (!isHalfOpen(closables)) continue
      abort(watch, new Error('the client has ended its connection'), state)
    }
  }
}

/** Checks a key by the cache if it is up to date, else by the database. */
function checkByCache(row: KeyRow, watch: Watch, state: State) {
  const holding = holdingOf(row, state.memory)
  if (holding) apply(holding, watch, state)
  else void check(watch, state)
}

/** Checks a key by the database, although it may be cached. */
async function check(watch: Watch, state: State) {
  const { memory, checkEveryMs } = state
  try {
    const holding = await read(watch.holding.row.digest, memory)
    watch.unreadableSince = undefined
    if (isWatched(watch, state)) apply(holding, watch, state)
  } catch {
    if (!isWatched(watch, state)) return
    const now = memory.clock.monotonic()
    watch.unreadableSince ??= now
    // While `grantable` fails, its last answer may be used for twice its maximum age.
    if (now - watch.unreadableSince >= 2 * checkEveryMs) {
      return abort(watch, new ApiKeysError('database_unavailable'), state)
    }
    // The key may have changed since its last read. Its expiry is known without a read.
    apply(watch.holding, watch, state)
    if (isWatched(watch, state)) setTimer(watch, retryMs, state, () => void check(watch, state))
  }
}

/** Aborts the signal if the key may no longer be used as it was, and checks again when the key expires. */
function apply(holding: Holding | null, watch: Watch, state: State) {
  const { memory, checkEveryMs } = state
  const { clock } = memory
  const { caller } = watch
  const fault = faultOf(holding?.row ?? null, clock.wall(), caller)
  if (!holding || fault) return abort(watch, refusalOf(fault ?? 'unknown'), state)

  const { row } = holding
  const refusal = caller.refusalOf(holding)
  if (refusal) return abort(watch, refusal, state)
  watch.holding = holding

  const endsAtMs = endOf(row)
  const restMs = endsAtMs - clock.wall()
  if (checkEveryMs < restMs) {
    return setTimer(watch, checkEveryMs, state, () => checkByCache(row, watch, state))
  }
  if (restMs === Infinity) return clearTimeout(watch.timer)
  // A key that seems idle may have been used since, and the database knows that.
  const isIdle = endsAtMs !== row.expiresAtMs && endsAtMs !== row.worksUntilMs
  setTimer(watch, restMs, state, () => {
    if (isIdle) void check(watch, state)
    else apply(holding, watch, state)
  })
}

function setTimer(watch: Watch, delayMs: number, { background }: State, work: () => void) {
  clearTimeout(watch.timer)
  watch.timer = background.startTimer(work, Math.min(Math.max(delayMs, 1), longestTimerMs))
}

/** Returns a key from the cache if the cache is up to date and has this row. */
function holdingOf(row: KeyRow, memory: Memory): Holding | undefined {
  const { cache, feed, ownerPermissions, clock } = memory
  const key = cache.get(row.digest)
  const isFollowed = key === row && key.freshness.isFollowed && !key.owner.isForgotten
  if (!isFollowed || !feed.isLive(clock.monotonic(), clock.wall())) return undefined
  const permissions = ownerPermissions ? ownerPermissions.getHeld(row) : row.permissions
  return permissions && { row, permissions }
}

async function read(digest: Digest, { loader, ownerPermissions }: Memory): Promise<Holding | null> {
  const { key, isOld } = await loader.load(digest)
  // The key may have changed after it was read.
  if (isOld) throw new ApiKeysError('database_unavailable')
  if (!key) return null
  const permissions = ownerPermissions ? await ownerPermissions.readHeld(key) : key.permissions
  return { row: key, permissions }
}
