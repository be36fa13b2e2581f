import { clearTimeout, type Background } from '../database/background'
import type { Clock } from '../database/clock'
import type { Connection } from '../database/connection'
import { isOutage } from '../database/failures'
import { within } from '../database/time-limit'
import { sealPage, type SealingParts } from './seal'

/** Seals entries in the background. */
export type Sealer = ReturnType<typeof createSealer>

interface SealerParts extends SealingParts {
  background: Background
  clock: Clock
  connection: Connection
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

/** How often a process that verifies keys looks for entries. It seals the entries of processes that ended. */
const lookEveryMs = 60_000

/** How long a caller, or a process that ends, waits for the seals. */
const longestMs = 60_000
const farewellMs = 10_000

/** How long the connection stays open in a process that verifies no keys. */
const idleMs = 30_000

/**
 * Makes the part that seals entries beside the changes, so that no change waits for the chain. A process that has
 * changed a key looks within a quarter of a second. If another process has just sealed, it leaves the entries to that
 * process, and looks again later.
 */
export function createSealer(parts: SealerParts) {
  const { background, clock, connection, emitter } = parts
  const look = { isForced: false, hash: '', from: '0' }
  let lookedAt = -Infinity
  /** True once a failure was reported. After a success, the next failure is reported again. */
  let hasFailed = false
  let turn = Promise.resolve()
  let timer: NodeJS.Timeout | undefined
  let watch: NodeJS.Timeout | undefined
  let idle: NodeJS.Timeout | undefined
  let turns = 0
  let isClosed = false

  async function seal(isForced: boolean, limitMs: number) {
    const endsAt = clock.monotonic() + limitMs
    clearTimeout(timer)
    timer = undefined
    if (isForced || clock.monotonic() - lookedAt > lookEveryMs) {
      look.from = '0'
      lookedAt = clock.monotonic()
    }
    try {
      for (;;) {
        look.isForced = isForced
        const outcome = await sealPage(parts, look)
        hasFailed = false
        if (outcome === 'done') return
        if (outcome === 'busy' || clock.monotonic() > endsAt) return sealSoon()
      }
    } catch (error) {
      look.from = '0'
      if (!hasFailed && !isOutage(error)) emitter.emit('error', { error, notice: 'audit_sealing' })
      hasFailed = true
      if (!isClosed) sealSoon(retryMs)
      throw error
    } finally {
      turns--
      clearTimeout(idle)
      idle = watch ? undefined : background.startTimer(connection.close, idleMs)
    }
  }

  /** Seals once the sealing under way has ended. */
  function sealNext(isForced: boolean, limitMs: number): Promise<void> {
    turns++
    const next = turn.then(() => background.run(() => seal(isForced, limitMs)))
    turn = next.catch(() => {})
    return next
  }

  /** Soon seals the entries that a change has written. */
  function sealSoon(delayMs = soonMs()) {
    timer ??= background.startTimer(() => void sealNext(false, longestMs).catch(() => {}), delayMs)
  }

  /** Seals all entries that are committed. Keeps the process alive until then. */
  function sealAll(limitMs = longestMs): Promise<void> {
    return within({ limitMs, isAwaited: true }, sealNext(true, limitMs))
  }

  function startWatch(delayMs: number) {
    watch = background.startTimer(() => {
      startWatch(lookEveryMs)
      sealNext(false, longestMs).catch(() => {})
    }, delayMs)
  }

  return {
    sealSoon() {
      isClosed = false
      sealSoon()
    },

    /** Does the same for a change by another process, or by SQL. */
    sealLater: () => sealSoon(laterMs()),

    sealAll,

    /** Looks once a minute from now on, because this process verifies keys. */
    start: () => startWatch(retryMs + soonMs()),

    stop() {
      clearTimeout(watch)
      watch = undefined
    },

    /** Leaves the waiting entries to other processes. The next change starts the sealing again. */
    close() {
      isClosed = true
      clearTimeout(timer)
      timer = undefined
    },

    /** Seals the entries that this process has to seal. If that fails, another process seals them. */
    async flush() {
      if (timer || turns > 0) await sealAll(farewellMs).catch(() => {})
    },
  }
}
