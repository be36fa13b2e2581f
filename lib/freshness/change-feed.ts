import { warn } from '../../models/warnings'
import { clearTimeout, type Background } from '../database/background'
import { momentOf, type Clock, type Moment } from '../database/clock'
import { isOutage, messageOf } from '../database/failures'
import type { Observed } from '../database/observed'
import { leastLimitMs, longestLimitMs } from '../database/time-limit'
import { ApiKeysError } from '../errors'
import type { ChangeLogReader } from './change-log'
import {
  applyReading,
  beginAnew,
  createLease,
  endLease,
  healthOf,
  isLive,
  noteFailure,
  type FeedListener,
  type Lease,
} from './lease'
import type { Settings } from '../read-options'

/** Follows the log of changes. */
export type ChangeFeed = ReturnType<typeof createChangeFeed>

interface ChangeFeedParts extends Pick<Settings, 'maxStalenessMs' | 'outageGraceMs'> {
  background: Background
  observed: Observed
  log: Pick<ChangeLogReader, 'read' | 'register' | 'prune'>
  clock: Clock
  /** How long the first answer is waited for. */
  firstAnswerLimitMs: number
}

/** How long the log is followed after the last verification. */
const idleAfterMs = 30_000

/** How soon the next poll follows a poll that failed; and how soon if the lease is about to end. */
const retryMs = 250
const hurriedRetryMs = 20
const aboutToEndMs = 1_000

/** How far apart notifications are answered, because keys may change all the time. */
const notificationEveryMs = 5

const pruneEveryMs = 60_000

/**
 * Follows the log of changes with a poll every third of `maxStalenessMs`, as long as keys are verified. An answer
 * grants a lease: until `maxStalenessMs` after the poll was sent, the cache may be used.
 */
export function createChangeFeed(parts: ChangeFeedParts) {
  const { background, log, clock, maxStalenessMs } = parts
  const intervalMs = maxStalenessMs / 3
  const listeners: FeedListener[] = []
  const lease = createLease({ clock, maxStalenessMs, outageGraceMs: parts.outageGraceMs, report })
  const { patienceMs, poll, pollAnew } = createPolls(parts, lease)
  const prune = createPruning(log, clock)
  const answerNotification = createThrottle(parts, () => pollAnew().catch(() => {}))
  let timer: NodeJS.Timeout | undefined
  let usedAt = -Infinity
  let stops = 0

  function report(reportTo: (listener: FeedListener) => void) {
    for (const listener of listeners) reportTo(listener)
  }

  function schedule(delayMs: number) {
    clearTimeout(timer)
    timer = background.startTimer(tick, delayMs)
  }

  function tick() {
    const startedAt = clock.monotonic()
    const isIdle = startedAt - usedAt > idleAfterMs
    if (isIdle && !listeners.some((listener) => listener.isNeeded?.() === true)) return stop()

    poll().then(
      () => {
        if (lease.isActive) schedule(Math.max(intervalMs - (clock.monotonic() - startedAt), 0))
        if (lease.state === 'following') prune()
      },
      () => {
        if (lease.isActive)
          schedule(isAboutToEnd() ? hurriedRetryMs : Math.min(intervalMs, retryMs))
      },
    )
  }

  function isAboutToEnd(): boolean {
    const { monotonic, wall } = momentOf(clock)
    return isLive(lease, monotonic, wall) && !isLive(lease, monotonic + aboutToEndMs, wall)
  }

  /** Stops following the log. The next verification begins again. */
  function stop() {
    clearTimeout(timer)
    endLease(lease)
    stops++
    report((listener) => listener.onStop?.())
  }

  /** Follows the log from now on. */
  function start() {
    lease.isActive = true
    background.run(() => report((listener) => listener.onStart?.()))
    schedule(intervalMs)
  }

  return {
    /** The state of the process and the log. */
    lease: lease as Readonly<Lease>,
    patienceMs,
    poll,
    pollAnew,
    stop,
    maxStalenessMs,

    /** Lets a part of the process take the reports of the feed, after the parts that listen already. */
    listen(listener: FeedListener) {
      listeners.push(listener)
    },

    isLive: (monotonic: number, wall: number) => isLive(lease, monotonic, wall),

    /** Polls in the background, because the log has a new entry. */
    catchUp() {
      if (lease.isActive) answerNotification()
    },

    /** Notes that a key is verified. From then on, the log is followed. */
    noteUse(monotonic: number) {
      usedAt = monotonic
      if (!lease.isActive) start()
    },

    /** How many times the process stopped following the log. */
    get stops() {
      return stops
    },

    /** Notes a change that the log did not report. A reading under way may be from before it. */
    noteGap() {
      lease.gaps++
    },

    /** Relies on nothing before the log was read again. */
    beginAnew: () => beginAnew(lease),

    health: (now: Moment) => healthOf(lease, now),
  }
}

/** Makes the functions that ask the log for changes and apply the answer. One poll is under way at a time. */
function createPolls(parts: ChangeFeedParts, lease: Lease) {
  const { background, observed, log, clock, maxStalenessMs, firstAnswerLimitMs } = parts
  let polling: Promise<void> | undefined
  let nextPoll: Promise<void> | undefined

  /**
   * How long a statement may take if there is no lease. The first statement waits as long as the app's pool would. A
   * serverless database that slept takes seconds to wake, and the app's own queries wait for it.
   */
  function patienceMs(): number {
    return lease.isAnswered ? longestLimitMs(maxStalenessMs) : firstAnswerLimitMs
  }

  async function pollOnce() {
    // A lease leaves time for another try, on another connection.
    const limitMs = isLive(lease, clock.monotonic(), clock.wall())
      ? Math.min(Math.max(maxStalenessMs / 3, leastLimitMs), patienceMs())
      : patienceMs()
    try {
      let reading = await log.read(lease.applied, limitMs)
      if (!reading.isStandby && !reading.isSubscriber && !reading.isRegistered) {
        await log.register(limitMs)
        reading = await log.read(lease.applied, limitMs)
      }
      applyReading(lease, reading)
    } catch (error) {
      noteFailure(lease, error)
      throw error
    }
  }

  /** Asks for changes, or joins the poll that is under way. */
  async function poll(): Promise<void> {
    // The connection was closed when the process stopped, and another connection would stay open.
    if (!lease.isActive) throw new ApiKeysError('database_unavailable')

    polling ??= background
      .run(() => observed.run('poll', pollOnce))
      .finally(() => {
        polling = undefined
      })
    return polling
  }

  return {
    patienceMs,
    poll,

    /** Asks for changes from now on. A poll that is under way may have been sent too early, so it is not joined. */
    pollAnew(): Promise<void> {
      if (!polling) return poll()

      nextPoll ??= polling
        .catch(() => {})
        .then(() => {
          nextPoll = undefined
          return poll()
        })
      return nextPoll
    },
  }
}

/** Makes the function that starts work, but not again within a few milliseconds: then it starts the work after them. */
function createThrottle({ background, clock }: ChangeFeedParts, work: () => unknown) {
  let timer: NodeJS.Timeout | undefined
  let startedAt = -Infinity

  function start() {
    timer = undefined
    startedAt = clock.monotonic()
    work()
  }

  return function throttle() {
    if (timer) return
    const restMs = startedAt + notificationEveryMs - clock.monotonic()
    if (restMs <= 0) return start()
    timer = background.startTimer(start, restMs)
  }
}

/** Makes the function that removes old entries of the log, once a minute. */
function createPruning(log: ChangeFeedParts['log'], clock: Clock) {
  // Not at once, and not by all processes together.
  let prunedAt = clock.monotonic() - Math.random() * pruneEveryMs

  return function prune() {
    if (clock.monotonic() - prunedAt < pruneEveryMs) return

    prunedAt = clock.monotonic()
    log.prune().catch((error: unknown) => {
      // After an outage, there is a next time, and other processes prune as well.
      if (isOutage(error)) return
      warn(
        'API_KEYS_LOG_NOT_PRUNED',
        `The log of changes grows, because its old entries cannot be removed: ${messageOf(error)}`,
      )
    })
  }
}
