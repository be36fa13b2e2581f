import { clearTimeout, type Background } from '../database/background'
import type { Clock } from '../database/clock'
import { causeOf, isOutage, sqlStateOf } from '../database/failures'
import type { QueuedConnection } from '../database/one-by-one'
import { within } from '../database/time-limit'
import { createOwnEntries, lostAfterMs, type OwnEntries, type OwnEntry } from './own-entries'
import { notAllowed, sealPage, type Look, type Outcome, type SealingParts } from './seal'
import { createWatch, lookAnewEveryMs } from './watch'

/** Seals entries in the background. */
export type Sealer = ReturnType<typeof createSealer>

interface SealerParts extends SealingParts {
  background: Background
  clock: Clock
  connection: QueuedConnection
}

/**
 * How long after a change its process looks for entries. The time is random, so that processes do not look together.
 */
const soonMs = () => 50 + 200 * Math.random()
/**
 * How long after a change by another process. By then, that process has sealed its entries, unless it ended or the
 * change was by SQL.
 */
const laterMs = () => 300 + 500 * Math.random()

/** How soon a process looks again after sealing has failed. */
const retryMs = 1_000

/** How long a caller, or a process that ends, waits for the seals. */
const longestMs = 60_000
const farewellMs = 10_000

/**
 * How long entries are left to processes that seal. Nothing signs the time of the last seal, so a role that may write to the head could put
 * off all seals by it, and remove entries meanwhile.
 */
const longestPatienceMs = 1_000

/** How long the connection stays open in a process that verifies no keys. */
const idleMs = 30_000

/**
 * Makes the part that seals entries beside the changes, so that no change waits for the chain. A process that has
 * changed a key looks within a quarter of a second. If another process has just sealed, it leaves the entries to that
 * process, and looks again later.
 */
export function createSealer(parts: SealerParts) {
  const { background, clock, connection } = parts
  const own = createOwnEntries(parts)
  const look = createLook(own)
  let lookedAt = -Infinity
  const patience = createPatience()
  /** True once a failure was reported. After a success, the next failure is reported again. */
  let hasFailed = false
  let turn = Promise.resolve()
  const watch = createWatch(parts, {
    look,
    isBusy: () => alarm.isSet || turns > 0,
    seal: () => sealNext(false, longestMs),
  })
  const alarm = createAlarm(parts, () => void sealNext(false, longestMs).catch(() => {}))
  let idle: NodeJS.Timeout | undefined
  let turns = 0
  let isClosed = false

  async function seal(isForced: boolean, limitMs: number) {
    const endsAt = clock.monotonic() + limitMs
    alarm.clear()
    if (isForced || clock.monotonic() - lookedAt > lookAnewEveryMs) {
      look.from = '0'
      lookedAt = clock.monotonic()
    }
    try {
      for (;;) {
        look.isForced = isForced
        const readAt = clock.monotonic()
        look.isPatient = !isForced && patience.lasts(readAt)
        const outcome = await sealPage(parts, look)
        patience.note(outcome, readAt)
        hasFailed = false
        if (outcome === 'done') return await checkOwn(own, alarm, readAt)
        if (outcome === 'busy' || clock.monotonic() > endsAt) return alarm.set(soonMs())
      }
    } catch (error) {
      look.from = '0'
      // A process whose role may only verify keys leaves the sealing to others.
      const isLeft = isDenied(error) && own.health().waiting === 0
      if (!hasFailed && !isLeft) report(parts, error)
      hasFailed = true
      if (!isClosed && !isLeft) alarm.set(retryMs)
      throw error
    } finally {
      turns--
      clearTimeout(idle)
      idle = watch.isOn ? undefined : background.startTimer(connection.closeIdle, idleMs)
    }
  }

  /** Seals once the sealing under way has ended. */
  function sealNext(isForced: boolean, limitMs: number): Promise<void> {
    turns++
    const next = turn.then(() => background.run(() => seal(isForced, limitMs)))
    turn = next.catch(() => {})
    return next
  }

  /** Seals all entries that are committed. Keeps the process alive until then. */
  function sealAll(limitMs = longestMs): Promise<void> {
    return within({ limitMs, isAwaited: true }, sealNext(true, limitMs))
  }

  return {
    /** Soon seals the entries of a change, and checks that they are sealed as this process has written them. */
    sealSoon(entries: readonly OwnEntry[] = []) {
      isClosed = false
      own.add(entries)
      alarm.set(soonMs())
    },

    /** Soon seals the entries of a change by another process, or by SQL. */
    sealLater: () => alarm.set(laterMs()),

    sealAll,
    health: own.health,

    /** Looks once a second from now on, because this process verifies keys. */
    start: watch.start,
    stop: watch.stop,

    /** Leaves the waiting entries to other processes. The next change starts the sealing again. */
    close() {
      isClosed = true
      alarm.clear()
    },

    /** Seals the entries that this process has to seal. If that fails, another process seals them. */
    async flush() {
      if (alarm.isSet || turns > 0) await sealAll(farewellMs).catch(() => {})
    },
  }
}

function createLook({ noteSealed }: OwnEntries): Look {
  return { isForced: false, isPatient: true, hash: '', from: '0', onSealed: noteSealed }
}

/** Makes the part that says how long entries are left to processes that seal, or seem to. */
function createPatience() {
  let busySince: number | null = null

  return {
    lasts: (now: number) => now - (busySince ?? now) < longestPatienceMs,

    note(outcome: Outcome, now: number) {
      busySince = outcome === 'busy' ? (busySince ?? now) : null
    },
  }
}

/** Looks if the entries of this process are sealed, and again later if some are not. */
async function checkOwn(own: OwnEntries, alarm: ReturnType<typeof createAlarm>, readAt: number) {
  const { waiting, oldestAgeMs } = await own.check(readAt)
  if (waiting > 0) alarm.set((oldestAgeMs ?? 0) > lostAfterMs ? lookAnewEveryMs : retryMs)
}

function isDenied(error: unknown): boolean {
  return sqlStateOf(causeOf(error)) === notAllowed
}

/** Reports why entries are not sealed. An outage shows elsewhere. */
function report({ emitter }: SealerParts, error: unknown) {
  if (!isOutage(error)) emitter.emit('error', { error, notice: 'audit_sealing' })
}

/** Makes a timer that keeps the sooner of two times. */
function createAlarm({ background, clock }: SealerParts, ring: () => void) {
  let timer: NodeJS.Timeout | undefined
  let dueAt = 0

  function clear() {
    clearTimeout(timer)
    timer = undefined
  }

  return {
    clear,

    get isSet() {
      return timer !== undefined
    },

    set(delayMs: number) {
      const at = clock.monotonic() + delayMs
      if (timer && at >= dueAt) return
      clear()
      dueAt = at
      timer = background.startTimer(ring, delayMs)
    },
  }
}
