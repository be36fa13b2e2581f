import { ApiKeysError } from '../errors'
import type { Background } from '../database/background'
import { leastLimitMs, longestLimitMs } from '../database/time-limit'
import type { ChangeLogReader } from './change-log'
import { applyReading, isLiveNow, noteFailure, type Lease } from './lease'

interface PollsParts {
  background: Pick<Background, 'run'>
  log: Pick<ChangeLogReader, 'read' | 'register'>
  /** How long the first answer is waited for. */
  firstAnswerLimitMs: number
  lease: Lease
}

/** Makes the functions that ask the log for changes and apply the answer. One poll is under way at a time. */
export function createPolls({ background, log, firstAnswerLimitMs, lease }: PollsParts) {
  const { maxStalenessMs } = lease
  let polling: Promise<void> | undefined
  let nextPoll: Promise<void> | undefined

  /**
   * How long a statement may take if there is no lease. The first statement waits as long as the app's pool would: a database
   * that slept, as serverless databases do, wakes for seconds, and the app's own queries wait for it.
   */
  function patienceMs(): number {
    return lease.isAnswered ? longestLimitMs(maxStalenessMs) : firstAnswerLimitMs
  }

  async function pollOnce() {
    // A lease leaves time for another try, on another connection.
    const limitMs = isLiveNow(lease)
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

    polling ??= background.run(pollOnce).finally(() => {
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
