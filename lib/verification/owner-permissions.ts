import type { Background } from '../database/background'
import { ApiKeysError } from '../errors'
import { readGranted, type Grantable } from '../keys/grantable'
import { createInterner } from '../keys/interner'
import { createAsking } from './ask-grantable'
import type { KeyRow } from './cache'
import type { ChangeFeed } from '../freshness/change-feed'
import { isWithin, momentOf, type Clock, type Moment } from '../database/clock'
import { createEviction } from './eviction'

type UserId = string | number

/** What a user may do, as the app said when it was asked. */
export class Grant {
  /** Nothing, until the app has answered. */
  permissions: PermissionSet = noPermissions
  /** Whether the user was changed since it was asked for. */
  isForgotten = false
  /** Whether it was asked for since room was last made. */
  wasUsed = false
  /** From when on, by the monotonic clock, it may be asked for anew that nobody waits for. */
  refreshFrom = -Infinity

  constructor(
    readonly userId: UserId,
    readonly askedAt: Moment,
    /** How often the feed had lost track of changes by then. */
    readonly gaps: number,
  ) {}
}

/** Permissions that many users have in common. */
interface PermissionSet {
  /** Returns those of a key's permissions that are in the set: the same list where all of them are. */
  narrow(permissions: readonly string[]): readonly string[]
}

/** Of how many sets of a key's permissions it is remembered what is left of them. */
const maxNarrowed = 1_000

function createPermissionSet(names: readonly string[]): PermissionSet {
  const narrowed = new Map<readonly string[], readonly string[]>()

  return {
    // Keys with the same permissions share one list.
    narrow(permissions) {
      const known = narrowed.get(permissions)
      if (known) return known

      const held = permissions.filter((permission) => names.includes(permission))
      const result = held.length === permissions.length ? permissions : Object.freeze(held)
      if (narrowed.size >= maxNarrowed) narrowed.clear()
      narrowed.set(permissions, result)
      return result
    },
  }
}

const noPermissions = createPermissionSet([])

interface Asking {
  grant: Grant
  answer: Promise<Grant>
}

export type Grants = ReturnType<typeof createGrants>

interface GrantsParts {
  background: Pick<Background, 'run'>
  grantable: Grantable
  /** All permissions that the app has. */
  permissions: readonly string[]
  feed: Pick<ChangeFeed, 'lease' | 'isLive'>
  clock: Clock
  maxUsers: number
  maxAgeMs: number
  maxStalenessMs: number
  /** Called where the app fails to say what a user may do. */
  onFailure(userId: UserId, error: unknown): void
}

/** How soon at most the app is asked again that did not answer, where nobody waits for it. */
const longestRestMs = 1_000

/**
 * Remembers what users may do. Younger than `maxAgeMs`, it is used; up to twice as old, it is used and asked for anew
 * meanwhile; after that, whoever needs it waits.
 *
 * Besides, it is held to the bound within which changes are honoured, as the rows of keys are: it is used under a lease, or
 * for no longer than the bound. A change that an answer lacks was committed after the question, so that its entry is newer
 * than all that the feed had read by then. The poll that grants the next lease will tell of it, and has the answer
 * forgotten, even one that is still on its way. Where the feed loses track, all answers are. Unlike a row, an answer does not
 * say which entry it is as new as: that no failover loses a commit is taken for granted here.
 */
export function createGrants(parts: GrantsParts) {
  const { background, grantable, permissions, feed, clock, maxUsers, maxAgeMs, maxStalenessMs } =
    parts
  const askApp = createAsking({ grantable, onFailure: parts.onFailure })
  const listeners: ((userId: UserId) => void)[] = []
  const restMs = Math.min(maxAgeMs / 10, longestRestMs)
  const grants = new Map<UserId, Grant>()
  const findUnused = createEviction(grants)
  /** Under way, the oldest first. */
  const askings = new Map<UserId, Asking[]>()
  const permissionSets = createInterner((json) =>
    // Made below.
    createPermissionSet(JSON.parse(json) as string[]),
  )

  function isTracked({ isForgotten, gaps }: Grant): boolean {
    return !isForgotten && gaps === feed.lease.gaps
  }

  function mayUse(grant: Grant, monotonic: number, wall: number): boolean {
    return (
      (isTracked(grant) && feed.isLive(monotonic, wall)) ||
      isWithin(grant.askedAt, maxStalenessMs, monotonic, wall)
    )
  }

  function start(userId: UserId): Asking {
    const grant = new Grant(userId, momentOf(clock), feed.lease.gaps)
    const asking = { grant, answer: background.run(() => settle(grant)) }
    const group = askings.get(userId) ?? []
    group.push(asking)
    askings.set(userId, group)
    return asking
  }

  async function settle(grant: Grant): Promise<Grant> {
    try {
      const granted = new Set(readGranted(await askApp(grant.userId)))
      const known = permissions.filter((permission) => granted.has(permission))
      grant.permissions = permissionSets.of(JSON.stringify(known))
      if (isTracked(grant)) remember(grant)
      return grant
    } finally {
      finish(grant)
    }
  }

  function finish(grant: Grant) {
    const others = askings.get(grant.userId)?.filter((asking) => asking.grant !== grant) ?? []
    if (others.length > 0) askings.set(grant.userId, others)
    else askings.delete(grant.userId)
  }

  function remember(grant: Grant) {
    const { userId, askedAt } = grant
    const before = grants.get(userId)
    if (before && before.askedAt.monotonic > askedAt.monotonic) return

    if (!before && grants.size >= maxUsers) {
      const unused = findUnused()
      if (unused) grants.delete(unused.userId)
    }
    grants.set(userId, grant)
    if (!before || before.permissions === grant.permissions) return
    for (const listener of listeners) listener(userId)
  }

  function refresh(grant: Grant, monotonic: number) {
    if (monotonic < grant.refreshFrom || askings.has(grant.userId)) return

    grant.refreshFrom = monotonic + restMs
    start(grant.userId).answer.catch(() => {})
  }

  function forgetOne(userId: UserId) {
    const known = grants.get(userId)
    if (known) known.isForgotten = true
    grants.delete(userId)
    for (const { grant } of askings.get(userId) ?? []) grant.isForgotten = true
  }

  /** Returns what is remembered of a user and may be used, at once. */
  function recall(userId: UserId, monotonic: number, wall: number): Grant | undefined {
    const grant = grants.get(userId)
    if (!grant || !mayUse(grant, monotonic, wall)) return undefined

    if (!isWithin(grant.askedAt, maxAgeMs, monotonic, wall)) {
      if (!isWithin(grant.askedAt, 2 * maxAgeMs, monotonic, wall)) return undefined
      refresh(grant, monotonic)
    }
    grant.wasUsed = true
    return grant
  }

  /**
   * Asks the app what a user may do, or joins an asking that is under way for less than `maxAgeMs`. Rejects with
   * `grantable_unavailable` where the app does not answer.
   */
  async function ask(userId: UserId): Promise<Grant> {
    const latest = askings.get(userId)?.at(-1)
    const { monotonic, wall } = momentOf(clock)
    const mayJoin =
      latest && isTracked(latest.grant) && isWithin(latest.grant.askedAt, maxAgeMs, monotonic, wall)
    return mayJoin ? latest.answer : start(userId).answer
  }

  return {
    /** Lets a part of the process know which users may do more or less than before, although no change was reported. */
    listen(listener: (userId: UserId) => void) {
      listeners.push(listener)
    },

    isTracked,

    /** Whether an answer is not older than the bound allows, whatever its age otherwise. */
    mayUse,

    recall,
    ask,

    /** Returns what a key holds, as far as its owner is remembered. */
    recallPermissions({ userId, permissions: held }: KeyRow): readonly string[] | undefined {
      const { monotonic, wall } = momentOf(clock)
      return recall(userId, monotonic, wall)?.permissions.narrow(held)
    },

    /** Returns what a key holds. Rejects if that cannot be known at the moment. */
    async readPermissions({ userId, permissions: held }: KeyRow): Promise<readonly string[]> {
      const { monotonic, wall } = momentOf(clock)
      const grant = recall(userId, monotonic, wall) ?? (await ask(userId))
      // The user may have changed before the app answered.
      if (!isTracked(grant)) throw new ApiKeysError('database_unavailable')
      return grant.permissions.narrow(held)
    },

    /** Forgets what these users may do, and what is being asked. */
    forget(userIds: Iterable<UserId>) {
      for (const userId of userIds) forgetOne(userId)
    },

    forgetAll() {
      grants.clear()
    },
  }
}
