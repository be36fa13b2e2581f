import { clearTimeout, type Background } from '../database/background'
import { warn } from '../../models/warnings'
import { ApiKeysError } from '../errors'
import { isOutage } from '../database/failures'
import type { ChangeLogReader, LogReading, Position } from './change-log'
import { isWithin, momentOf, type Clock, type Moment } from '../database/clock'
import { longestLimitMs } from '../database/time-limit'

/** What the feed makes known, in the order in which it happened. */
interface FeedListener {
  /** These keys were changed. */
  onChanges(ids: readonly string[]): void
  /** These users may do more than before, or less. */
  onUserChanges(userIds: readonly (string | number)[]): void
  /** Keys, or hashes of keys, were added. */
  onNew(): void
  /** The entries of these transactions were read. */
  onEntries(xids: readonly string[]): void
  /** Nobody knows what has changed meanwhile: nothing that is remembered may be used any more. */
  onGap(): void
  /** The log cannot be relied on at the moment. */
  onDoubt(): void
}

/** How the feed is doing. */
export type FeedState =
  /** Nobody verifies anything. */
  | 'idle'
  /** The first answer is under way. */
  | 'starting'
  /** Changes arrive; what is remembered may be used. */
  | 'following'
  /** The database is away, or does not answer in time. */
  | 'unreachable'
  /** The server is a standby. Nothing that it says is relied on. */
  | 'standby'
  /** Logical replication feeds the table of keys, and may lag behind. Nothing that the server says is relied on. */
  | 'subscriber'
  /** A trigger that logs changes is missing, disabled or altered. What was read is used for as long as the bound, and read again. */
  | 'untrusted'

export type ChangeFeed = ReturnType<typeof createChangeFeed>

interface ChangeFeedParts {
  background: Background
  log: Pick<ChangeLogReader, 'read' | 'register' | 'prune'>
  clock: Clock
  maxStalenessMs: number
  outageGraceMs: number
  /** How long the first answer is waited for. */
  firstAnswerLimitMs: number
  listener: FeedListener
  /** Whether anything depends on the feed although nobody verifies: a signal that may have to fire. */
  isNeeded(): boolean
  /** Called when the feed is taken up and when it is left alone. */
  onStart(): void
  onStop(): void
  /** Called when the database did not answer, or what answered is a standby: other connections may be no better. */
  onOutage(): void
  /** Called when the database did not answer, and never has. */
  onNeverReached(error: unknown): void
}

/** For how long the feed is followed after the last verification. */
const idleAfterMs = 30_000

/** How soon the database is asked again that did not answer; and how soon where a lease is about to end. */
const retryMs = 250
const hurriedRetryMs = 20
const aboutToEndMs = 1_000

/** How long an answer is waited for at least. */
const leastLimitMs = 50

/** How far apart the bell is answered: where keys change all the time, it rings all the time. */
const bellEveryMs = 5

const pruneEveryMs = 60_000

/**
 * Follows the log of changes by asking for what is new, again and again. An answer grants a lease: until
 * `maxStalenessMs` after it was asked for, what is remembered may be used.
 */
export function createChangeFeed(parts: ChangeFeedParts) {
  const { background, log, clock, maxStalenessMs, outageGraceMs, listener } = parts
  const intervalMs = maxStalenessMs / 3

  /** The newest entry of which all that it says is done. */
  let applied: Position | null = null
  let triggers: string | null = null
  /** When the poll was sent that granted the lease. */
  let leasedAt: Moment | null = null
  /** How long the lease lasts. */
  let leaseMs = maxStalenessMs
  let state: FeedState = 'starting'
  /** True once the database has answered since the feed was taken up. */
  let isAnswered = false
  /** Why the last poll failed; `null` if it succeeded. */
  let failure: unknown = null
  let clockOffsetMs: number | null = null

  /** How often it was not known what had changed meanwhile. */
  let gaps = 0

  let polling: Promise<void> | undefined
  let nextPoll: Promise<void> | undefined
  let timer: NodeJS.Timeout | undefined
  let bellTimer: NodeJS.Timeout | undefined
  let bellAt = -Infinity
  let usedAt = -Infinity
  /** How often it was left alone. */
  let stops = 0
  // Not at once, and not by all processes together.
  let prunedAt = clock.monotonic() - Math.random() * pruneEveryMs

  function isLive(monotonic: number, wall: number): boolean {
    return leasedAt !== null && isWithin(leasedAt, leaseMs, monotonic, wall)
  }

  /**
   * How long a statement may take if there is no lease. The first one waits as long as the app's pool would: a database that
   * slept, as serverless ones do, wakes for seconds, and the app's own queries wait for it.
   */
  function patienceMs(): number {
    return isAnswered ? longestLimitMs(maxStalenessMs) : parts.firstAnswerLimitMs
  }

  async function pollOnce() {
    // As long as there is a lease there is time for another try, on another connection.
    const { monotonic, wall } = momentOf(clock)
    const longestMs = patienceMs()
    const limitMs = isLive(monotonic, wall)
      ? Math.min(Math.max(intervalMs, leastLimitMs), longestMs)
      : longestMs
    try {
      let reading = await log.read(applied, limitMs)
      if (!reading.isStandby && !reading.isSubscriber && !reading.isRegistered) {
        await log.register(limitMs)
        reading = await log.read(applied, limitMs)
      }
      apply(reading)
    } catch (error) {
      state = 'unreachable'
      failure = error
      if (!applied && isOutage(error)) parts.onNeverReached(error)
      // What is known to have been good may be used for longer, as nobody can be asked; unless it was left alone meanwhile.
      if (timer && isOutage(error)) {
        leaseMs = maxStalenessMs + outageGraceMs
        parts.onOutage()
      }
      throw error
    }
  }

  function apply(reading: LogReading) {
    const { newest, sentAt } = reading
    isAnswered = true
    failure = null
    clockOffsetMs = reading.serverMs - clock.wall()
    state = stateOf(reading)
    // A lease that is there goes on, without grace: it rests on what was so when it was granted.
    leaseMs = maxStalenessMs
    // Another connection may lead to the primary.
    if (reading.isStandby) parts.onOutage()
    if (state !== 'following' || !newest) {
      // What replication has brought meanwhile is not in the log.
      if (reading.isSubscriber) {
        triggers = null
        warn(
          'API_KEYS_SUBSCRIBER',
          'Logical replication feeds the table of keys and may lag behind, so that no key is accepted. Drop the subscription ' +
            'when the app moves to this database.',
        )
      }
      return listener.onDoubt()
    }

    if (!reading.continues || reading.triggers !== triggers || reading.changedIds === null) {
      gaps++
      listener.onGap()
    } else {
      if (reading.changedIds.length > 0) listener.onChanges(reading.changedIds)
      if (reading.changedUserIds.length > 0) listener.onUserChanges(reading.changedUserIds)
      if (reading.hasNew) listener.onNew()
    }
    applied = newest
    triggers = reading.triggers
    leasedAt = sentAt
    listener.onEntries(reading.xids)
  }

  /** Asks for what is new, or joins the asking that is under way. */
  async function poll(): Promise<void> {
    // Whoever left it alone has closed the connection, and nobody would close another one.
    if (!timer) throw new ApiKeysError('database_unavailable')

    polling ??= background.run(pollOnce).finally(() => {
      polling = undefined
    })
    return polling
  }

  /** Asks for what is new from now on: an asking that is under way may have come too early. */
  function pollAnew(): Promise<void> {
    if (!polling) return poll()

    nextPoll ??= polling
      .catch(() => {})
      .then(() => {
        nextPoll = undefined
        return poll()
      })
    return nextPoll
  }

  function answerBell() {
    bellTimer = undefined
    bellAt = clock.monotonic()
    pollAnew().catch(() => {})
  }

  function schedule(delayMs: number) {
    clearTimeout(timer)
    timer = background.startTimer(tick, delayMs)
  }

  function tick() {
    if (clock.monotonic() - usedAt > idleAfterMs && !parts.isNeeded()) return stop()

    const startedAt = clock.monotonic()
    poll().then(
      () => {
        if (timer) schedule(Math.max(intervalMs - (clock.monotonic() - startedAt), 0))
        prune()
      },
      () => {
        if (timer) schedule(isAboutToEnd() ? hurriedRetryMs : Math.min(intervalMs, retryMs))
      },
    )
  }

  function isAboutToEnd(): boolean {
    const { monotonic, wall } = momentOf(clock)
    return isLive(monotonic, wall) && !isLive(monotonic + aboutToEndMs, wall)
  }

  function prune() {
    if (state !== 'following' || clock.monotonic() - prunedAt < pruneEveryMs) return

    prunedAt = clock.monotonic()
    // During an outage, there is a next time, and other processes.
    log.prune().catch((error: unknown) => {
      if (!isOutage(error)) {
        warn(
          'API_KEYS_LOG_NOT_PRUNED',
          `The log of changes grows, because its old entries cannot be removed: ${error instanceof Error ? error.message : ''}`,
        )
      }
    })
  }

  function stop() {
    clearTimeout(timer)
    clearTimeout(bellTimer)
    timer = undefined
    bellTimer = undefined
    leasedAt = null
    state = 'starting'
    isAnswered = false
    failure = null
    stops++
    parts.onStop()
  }

  /** Goes on following the feed, or takes it up. */
  function wake() {
    usedAt = clock.monotonic()
    if (timer) return

    background.run(parts.onStart)
    schedule(intervalMs)
  }

  return {
    isLive,
    patienceMs,
    poll,
    pollAnew,

    /** Asks for what is new although nobody waits for it: there is something. */
    catchUp() {
      if (bellTimer || !timer) return

      const restMs = bellAt + bellEveryMs - clock.monotonic()
      if (restMs <= 0) return answerBell()
      bellTimer = background.startTimer(answerBell, restMs)
    },

    wake,

    /** Notes that somebody verifies. */
    noteUse(monotonic: number) {
      usedAt = monotonic
      if (timer === undefined) wake()
    },

    get stops() {
      return stops
    },

    /** Lets go of everything; a next verification takes it up again. */
    stop,

    /** The newest entry that was applied; `null` before the first. */
    get applied() {
      return applied
    },

    /** What the triggers were like when it was. */
    get triggers() {
      return triggers
    },

    get gaps() {
      return gaps
    },

    /** Notes that something has changed of which the log did not tell: what is being read may be from before. */
    noteGap() {
      gaps++
    },

    /** Begins anew: everything that is remembered is forgotten, and nothing is relied on before the log was read again. */
    beginAnew() {
      applied = null
      leasedAt = null
      gaps++
      listener.onGap()
    },

    /** When the poll was sent that granted the lease, by the monotonic clock. */
    get readAt() {
      return leasedAt?.monotonic ?? -Infinity
    },

    /** Whether the last answer could be relied on. */
    get isTrusted() {
      return state === 'following'
    },

    get isActive() {
      return timer !== undefined
    },

    health(now: Moment) {
      const isLeased = isLive(now.monotonic, now.wall)
      const age = leasedAt && now.monotonic - leasedAt.monotonic
      return {
        lease: {
          isLive: isLeased,
          remainingMs: isLeased && age !== null ? leaseMs - age : 0,
        },
        feed: timer ? state : 'idle',
        revision: applied?.revision ?? null,
        lagMs: age,
        failure,
        clockOffsetMs,
      }
    },
  }
}

function stateOf(reading: LogReading): FeedState {
  const { isStandby, isSubscriber, triggers, isRegistered, newest } = reading
  if (isStandby) return 'standby'
  if (isSubscriber) return 'subscriber'
  return triggers !== null && isRegistered && newest ? 'following' : 'untrusted'
}
