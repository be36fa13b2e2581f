import type { Background } from '../database/background'
import { isWithin, momentOf, type Clock } from '../database/clock'
import { causeOf } from '../database/failures'
import { within } from '../database/time-limit'
import { ApiKeysError } from '../errors'
import type { ChangeFeed } from '../freshness/change-feed'
import type { Emitter } from '../keys/emitter'
import { readGranted, type Grantable, type GrantableContext } from '../keys/grantable'
import type { Owner } from '../keys/owner'
import { PermissionSet, type Permissions } from '../keys/permissions'
import { createEviction, freshnessOf, mayUse, type Freshness, type KeyRow } from './cache'
import type { CachedOwner } from './owners'

const nothing = new PermissionSet([])

/** The permissions of an owner, from an answer of the app's `grantable`. */
export class HeldPermissions {
  /** Empty until the app has answered. */
  permissions: PermissionSet = nothing
  /** True if a request has used it since room was last made. */
  wasUsed = false
  /** The app may be asked again beside the requests from this time on, by the monotonic clock. */
  refreshFrom = -Infinity

  constructor(
    readonly owner: CachedOwner,
    /** It is followed until the owner changes or the feed loses track. */
    readonly freshness: Freshness,
  ) {}
}

/** A question that the app has not answered. */
interface Question {
  held: HeldPermissions
  answer: Promise<HeldPermissions>
}

export type OwnerPermissions = ReturnType<typeof createOwnerPermissions>

interface OwnerPermissionsParts {
  background: Pick<Background, 'run'>
  grantable: Grantable
  permissions: Permissions
  feed: Pick<ChangeFeed, 'lease' | 'maxStalenessMs'>
  clock: Clock
  maxOwners: number
  maxAgeMs: number
  emitter: Pick<Emitter, 'emit'>
}

interface State extends OwnerPermissionsParts {
  askApp: ReturnType<typeof createAskGrantable>
  /** By the names of owners. */
  readonly cached: Map<string, HeldPermissions>
  findUnused(): HeldPermissions | undefined
  /** Likewise, the oldest first. */
  readonly questions: Map<string, Question[]>
  readonly listeners: ((name: string) => void)[]
}

/** How soon at most the app is asked again after it failed, if no request waits for it. */
const longestRestMs = 1_000

/**
 * Caches what owners may do. An answer younger than `maxAgeMs` is used. Up to twice as old, it is used, and refreshed
 * beside the requests. After that, requests wait for a new answer.
 *
 * Like rows of keys, answers also keep the bound within which changes are honoured. If an answer lacks a change, the
 * change was committed after the question, so that the log's entry is newer than all that the feed had read by then. The poll that
 * grants the next lease reports it and evicts the answer, even an answer that is still on its way. If the feed loses track, it
 * evicts all answers. Unlike a row, an answer does not say which entry of the log it is as new as, so that this relies on failovers
 * that lose no commit.
 */
export function createOwnerPermissions(parts: OwnerPermissionsParts) {
  const { feed, clock, maxAgeMs } = parts
  const { inBoth } = parts.permissions
  const cached = new Map<string, HeldPermissions>()
  const state: State = {
    ...parts,
    askApp: createAskGrantable(parts),
    cached,
    findUnused: createEviction(cached),
    questions: new Map(),
    listeners: [],
  }

  /** Returns the permissions of an owner, if they are cached and may be used. */
  function get(
    { name }: CachedOwner,
    monotonic: number,
    wall: number,
  ): HeldPermissions | undefined {
    const held = cached.get(name)
    if (!held || !mayUse(held.freshness, feed, monotonic, wall)) return undefined

    if (!isWithin(held.freshness, maxAgeMs, monotonic, wall)) {
      if (!isWithin(held.freshness, 2 * maxAgeMs, monotonic, wall)) return undefined
      refresh(held, monotonic, state)
    }
    held.wasUsed = true
    return held
  }

  /**
   * Asks the app for the permissions of an owner, or joins a question that is younger than `maxAgeMs`. Rejects with
   * `grantable_unavailable` if the app does not answer.
   */
  async function ask(owner: CachedOwner): Promise<HeldPermissions> {
    const latest = state.questions.get(owner.name)?.at(-1)
    const { monotonic, wall } = momentOf(clock)
    const mayJoin =
      latest?.held.freshness.isFollowed === true &&
      isWithin(latest.held.freshness, maxAgeMs, monotonic, wall)
    return mayJoin ? latest.answer : start(owner, state).answer
  }

  return {
    get,
    ask,
    inBoth,

    /** Returns the permissions of a key that its owner has as well, if the owner's permissions are cached. */
    getHeld({ owner, permissions }: KeyRow): PermissionSet | undefined {
      const held = get(owner, clock.monotonic(), clock.wall())
      return held && inBoth(permissions, held.permissions)
    },

    /** Returns the permissions of a key that its owner has as well. Rejects if that cannot be known at the moment. */
    async readHeld({ owner, permissions }: KeyRow): Promise<PermissionSet> {
      const held = get(owner, clock.monotonic(), clock.wall()) ?? (await ask(owner))
      // The owner may have changed before the app answered.
      if (!held.freshness.isFollowed) throw new ApiKeysError('database_unavailable')
      return inBoth(permissions, held.permissions)
    },

    /** Evicts what an owner may do. Answers that are on their way are not cached. */
    evict(name: string) {
      evict(name, state)
    },

    evictAll() {
      for (const name of state.questions.keys()) evict(name, state)
      for (const { freshness } of cached.values()) freshness.isFollowed = false
      cached.clear()
    },

    /** Lets a part of the process know which owners may do more or less than before, although no change was reported. */
    listen(listener: (name: string) => void) {
      state.listeners.push(listener)
    },
  }
}

function start(owner: CachedOwner, state: State): Question {
  const held = new HeldPermissions(owner, freshnessOf(momentOf(state.clock), true))
  const question = { held, answer: state.background.run(() => readAnswer(held, state)) }
  const earlier = state.questions.get(owner.name) ?? []
  state.questions.set(owner.name, [...earlier, question])
  return question
}

async function readAnswer(held: HeldPermissions, state: State): Promise<HeldPermissions> {
  const { owner, freshness } = held
  const { name } = owner
  try {
    held.permissions = state.permissions.heldBy(readGranted(await state.askApp(owner.shown)))
    if (freshness.isFollowed) keep(held, state)
    return held
  } finally {
    const others = state.questions.get(name)?.filter((question) => question.held !== held) ?? []
    if (others.length > 0) state.questions.set(name, others)
    else state.questions.delete(name)
  }
}

/** Caches the permissions of an owner, unless a later question was answered before. */
function keep(held: HeldPermissions, { cached, maxOwners, findUnused, listeners }: State) {
  const { name } = held.owner
  const before = cached.get(name)
  if (before && before.freshness.monotonic > held.freshness.monotonic) return

  if (!before && cached.size >= maxOwners) {
    const unused = findUnused()
    if (unused) cached.delete(unused.owner.name)
  }
  cached.set(name, held)
  if (!before || before.permissions === held.permissions) return
  for (const listener of listeners) listener(name)
}

/** Asks the app again beside the requests, one question per owner at a time. */
function refresh(held: HeldPermissions, monotonic: number, state: State) {
  if (monotonic < held.refreshFrom || state.questions.has(held.owner.name)) return

  held.refreshFrom = monotonic + Math.min(state.maxAgeMs / 10, longestRestMs)
  start(held.owner, state).answer.catch(() => {})
}

function evict(name: string, { cached, questions }: State) {
  const known = cached.get(name)
  if (known) known.freshness.isFollowed = false
  cached.delete(name)
  for (const { held } of questions.get(name) ?? []) held.freshness.isFollowed = false
}

/** How long the app is given for an answer. */
export const answerLimitMs = 5_000

interface AskGrantableParts {
  grantable: Grantable
  /** Reports that the app fails to answer, or does not answer in time. */
  emitter: Pick<Emitter, 'emit'>
  /** True if the process is kept alive for the answer. */
  isAwaited?: boolean
}

/** Makes the one way to ask `grantable`: an app that fails or hangs becomes the refusal `grantable_unavailable`. */
export function createAskGrantable({ grantable, emitter, isAwaited = false }: AskGrantableParts) {
  return async function askGrantable(
    owner: Owner,
    context: GrantableContext = {},
  ): Promise<readonly string[]> {
    try {
      // In a later turn, so that the question is noted before the app is called. A function that throws is treated like
      // a function that rejects.
      const answer = Promise.resolve(owner).then((asked) => grantable(asked, context))
      return await within({ limitMs: answerLimitMs, isAwaited }, answer)
    } catch (failure) {
      const cause = causeOf(failure)
      emitter.emit('grantable_unavailable', { owner, error: cause })
      throw new ApiKeysError('grantable_unavailable', { cause })
    }
  }
}
