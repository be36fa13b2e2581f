import type { Background } from '../database/background'
import { isWithin, momentOf, type Clock } from '../database/clock'
import { causeOf } from '../database/failures'
import { within } from '../database/time-limit'
import { ApiKeysError } from '../errors'
import type { ChangeFeed } from '../freshness/change-feed'
import type { Emitter } from '../keys/emitter'
import { readGranted, type Grantable, type GrantableContext } from '../keys/grantable'
import { PermissionSet, type Permissions } from '../keys/permissions'
import { createEviction, freshnessOf, mayUse, type Freshness, type KeyRow } from './cache'

type UserId = string | number

const nothing = new PermissionSet([])

/** The permissions of a user, from an answer of the app's `grantable`. */
export class UserPermissions {
  /** Empty until the app has answered. */
  permissions: PermissionSet = nothing
  /** True if a request has used it since room was last made. */
  wasUsed = false
  /** The app may be asked again beside the requests from this time on, by the monotonic clock. */
  refreshFrom = -Infinity

  constructor(
    readonly userId: UserId,
    /** It is followed until the user changes or the feed loses track. */
    readonly freshness: Freshness,
  ) {}
}

/** A question that the app has not answered. */
interface Question {
  user: UserPermissions
  answer: Promise<UserPermissions>
}

export type OwnerPermissions = ReturnType<typeof createOwnerPermissions>

interface OwnerPermissionsParts {
  background: Pick<Background, 'run'>
  grantable: Grantable
  permissions: Permissions
  feed: Pick<ChangeFeed, 'lease' | 'maxStalenessMs'>
  clock: Clock
  maxUsers: number
  maxAgeMs: number
  emitter: Pick<Emitter, 'emit'>
}

interface State extends OwnerPermissionsParts {
  askApp: ReturnType<typeof createAskGrantable>
  readonly users: Map<UserId, UserPermissions>
  findUnused(): UserPermissions | undefined
  /** The oldest first. */
  readonly questions: Map<UserId, Question[]>
  readonly listeners: ((userId: UserId) => void)[]
}

/** How soon at most the app is asked again after it failed, if no request waits for it. */
const longestRestMs = 1_000

/**
 * Caches what users may do. An answer younger than `maxAgeMs` is used. Up to twice as old, it is used, and refreshed
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
  const users = new Map<UserId, UserPermissions>()
  const state: State = {
    ...parts,
    askApp: createAskGrantable(parts),
    users,
    findUnused: createEviction(users),
    questions: new Map(),
    listeners: [],
  }

  /** Returns the permissions of a user, if they are cached and may be used. */
  function get(userId: UserId, monotonic: number, wall: number): UserPermissions | undefined {
    const user = users.get(userId)
    if (!user || !mayUse(user.freshness, feed, monotonic, wall)) return undefined

    if (!isWithin(user.freshness, maxAgeMs, monotonic, wall)) {
      if (!isWithin(user.freshness, 2 * maxAgeMs, monotonic, wall)) return undefined
      refresh(user, monotonic, state)
    }
    user.wasUsed = true
    return user
  }

  /**
   * Asks the app for the permissions of a user, or joins a question that is younger than `maxAgeMs`. Rejects with
   * `grantable_unavailable` if the app does not answer.
   */
  async function ask(userId: UserId): Promise<UserPermissions> {
    const latest = state.questions.get(userId)?.at(-1)
    const { monotonic, wall } = momentOf(clock)
    const mayJoin =
      latest?.user.freshness.isFollowed === true &&
      isWithin(latest.user.freshness, maxAgeMs, monotonic, wall)
    return mayJoin ? latest.answer : start(userId, state).answer
  }

  return {
    get,
    ask,
    inBoth,

    /** Returns the permissions of a key that its owner has as well, if the owner's permissions are cached. */
    getHeld({ userId, permissions }: KeyRow): PermissionSet | undefined {
      const user = get(userId, clock.monotonic(), clock.wall())
      return user && inBoth(permissions, user.permissions)
    },

    /** Returns the permissions of a key that its owner has as well. Rejects if that cannot be known at the moment. */
    async readHeld({ userId, permissions }: KeyRow): Promise<PermissionSet> {
      const user = get(userId, clock.monotonic(), clock.wall()) ?? (await ask(userId))
      // The user may have changed before the app answered.
      if (!user.freshness.isFollowed) throw new ApiKeysError('database_unavailable')
      return inBoth(permissions, user.permissions)
    },

    /** Evicts what these users may do. Answers that are on their way are not cached. */
    evict(userIds: Iterable<UserId>) {
      for (const userId of userIds) evict(userId, state)
    },

    evictAll() {
      for (const userId of state.questions.keys()) evict(userId, state)
      for (const { freshness } of users.values()) freshness.isFollowed = false
      users.clear()
    },

    /** Lets a part of the process know which users may do more or less than before, although no change was reported. */
    listen(listener: (userId: UserId) => void) {
      state.listeners.push(listener)
    },
  }
}

function start(userId: UserId, state: State): Question {
  const user = new UserPermissions(userId, freshnessOf(momentOf(state.clock), true))
  const question = { user, answer: state.background.run(() => readAnswer(user, state)) }
  const earlier = state.questions.get(userId) ?? []
  state.questions.set(userId, [...earlier, question])
  return question
}

async function readAnswer(user: UserPermissions, state: State): Promise<UserPermissions> {
  const { userId, freshness } = user
  try {
    user.permissions = state.permissions.heldBy(readGranted(await state.askApp(userId)))
    if (freshness.isFollowed) keep(user, state)
    return user
  } finally {
    const others = state.questions.get(userId)?.filter((question) => question.user !== user) ?? []
    if (others.length > 0) state.questions.set(userId, others)
    else state.questions.delete(userId)
  }
}

/** Caches the permissions of a user, unless a later question was answered before. */
function keep(user: UserPermissions, { users, maxUsers, findUnused, listeners }: State) {
  const before = users.get(user.userId)
  if (before && before.freshness.monotonic > user.freshness.monotonic) return

  if (!before && users.size >= maxUsers) {
    const unused = findUnused()
    if (unused) users.delete(unused.userId)
  }
  users.set(user.userId, user)
  if (!before || before.permissions === user.permissions) return
  for (const listener of listeners) listener(user.userId)
}

/** Asks the app again beside the requests, one question per user at a time. */
function refresh(user: UserPermissions, monotonic: number, state: State) {
  if (monotonic < user.refreshFrom || state.questions.has(user.userId)) return

  user.refreshFrom = monotonic + Math.min(state.maxAgeMs / 10, longestRestMs)
  start(user.userId, state).answer.catch(() => {})
}

function evict(userId: UserId, { users, questions }: State) {
  const user = users.get(userId)
  if (user) user.freshness.isFollowed = false
  users.delete(userId)
  for (const { user } of questions.get(userId) ?? []) user.freshness.isFollowed = false
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
    userId: string | number,
    context: GrantableContext = {},
  ): Promise<readonly string[]> {
    try {
      // In a later turn, so that the question is noted before the app is called. A function that throws is treated like
      // a function that rejects.
      const answer = Promise.resolve(userId).then((id) => grantable(id, context))
      return await within({ limitMs: answerLimitMs, isAwaited }, answer)
    } catch (failure) {
      const cause = causeOf(failure)
      emitter.emit('grantable_unavailable', { userId, error: cause })
      throw new ApiKeysError('grantable_unavailable', { cause })
    }
  }
}
