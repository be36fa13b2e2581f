import { clearTimeout, type Background } from '../database/background'
import { warn } from '../../models/warnings'
import { ApiKeysError } from '../errors'
import { isOutage } from '../database/failures'
import type { ChangeLogReader, LogReading, Position } from './change-log'
import { isWithin, momentOf, type Clock, type Moment } from '../database/clock'
import { longestLimitMs } from '../database/time-limit'

/** Takes the reports of the feed that it needs, in the order in which things happened. */
export interface FeedListener {
  /** Reports keys that were changed. */
  onChanges?(ids: readonly string[]): void
  /** Reports users whose permissions may have changed. */
  onUserChanges?(userIds: readonly (string | number)[]): void
  /** Reports that keys, or hashes of keys, were added. */
  onNew?(): void
  /** Reports the transactions whose entries were read. */
  onEntries?(xids: readonly string[]): void
  /** Reports that anything may have changed: nothing that was read before may be used any longer. */
  onGap?(): void
  /** Reports that the log cannot be relied on at the moment. */
  onDoubt?(): void
  /** Reports that the process begins to follow the log, and that it stops. */
  onStart?(): void
  onStop?(): void
  /** Reports that the database did not answer, or that a standby did. Other connections may be no better. */
  onOutage?(): void
  /** Reports that the database did not answer, and never has. */
  onNeverReached?(error: unknown): void
  /** True if the log has to be followed although no key is verified, for example for a signal that may have to abort. */
  isNeeded?(): boolean
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
  const { background, log, clock, maxStalenessMs, outageGraceMs } = parts
  const intervalMs = maxStalenessMs / 3
  const listeners: FeedListener[] = []

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

  function report(reportTo: (listener: FeedListener) => void) {
    for (const listener of listeners) reportTo(listener)
  }

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
      if (!applied && isOutage(error)) report((listener) => listener.onNeverReached?.(error))
      // What is known to have been good may be used for longer, as nobody can be asked; unless it was left alone meanwhile.
      if (timer && isOutage(error)) {
        leaseMs = maxStalenessMs + outageGraceMs
        report((listener) => listener.onOutage?.())
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
    if (reading.isStandby) report((listener) => listener.onOutage?.())
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
      return report((listener) => listener.onDoubt?.())
    }

    if (!reading.continues || reading.triggers !== triggers || reading.changedIds === null) {
      gaps++
      report((listener) => listener.onGap?.())
    } else {
      const { changedIds, changedUserIds } = reading
      if (changedIds.length > 0) report((listener) => listener.onChanges?.(changedIds))
      if (changedUserIds.length > 0) report((listener) => listener.onUserChanges?.(changedUserIds))
      if (reading.hasNew) report((listener) => listener.onNew?.())
    }
    applied = newest
    triggers = reading.triggers
    leasedAt = sentAt
    report((listener) => listener.onEntries?.(reading.xids))
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
    if (clock.monotonic() - usedAt > idleAfterMs && !isNeeded()) return stop()

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

  function isNeeded(): boolean {
    return listeners.some((listener) => listener.isNeeded?.() === true)
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
    report((listener) => listener.onStop?.())
  }

  /** Goes on following the feed, or takes it up. */
  function wake() {
    usedAt = clock.monotonic()
    if (timer) return

    background.run(() => report((listener) => listener.onStart?.()))
    schedule(intervalMs)
  }

  return {
    /** Lets a part of the process take the reports of the feed, after the parts that listen already. */
    listen(listener: FeedListener) {
      listeners.push(listener)
    },

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
      report((listener) => listener.onGap?.())
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
