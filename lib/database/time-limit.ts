import { clearTimeout, setImmediate, setTimeout } from './background'
import { ApiKeysError } from '../errors'

/** How long a statement may take: no longer than the bound, and no longer than anybody would wait. */
export function longestLimitMs(maxStalenessMs: number): number {
  return Math.min(maxStalenessMs, 5_000)
}

/** How long opening a connection may take before another one is tried: one that hangs must not take up all the time. */
export function openingLimitMs(maxStalenessMs: number): number {
  return Math.min(Math.max(0.7 * maxStalenessMs, 700), 5_000)
}

interface TimeLimit {
  limitMs: number
  /**
   * Whether the process is kept alive for the answer.
   *
   * @default false
   */
  isAwaited?: boolean
}

/**
 * Rejects with `database_unavailable` once the time is over, unless the answer is there by then: also where it lies unread
 * because this process was busy.
 */
export async function within<Result>(
  { limitMs, isAwaited = false }: TimeLimit,
  work: Promise<Result>,
): Promise<Result> {
  let timer: NodeJS.Timeout | undefined
  const limit = new Promise<never>((_, reject) => {
    // What has arrived is read between a timer and an immediate.
    timer = setTimeout(() => setImmediate(() => reject(tooLate(limitMs))), limitMs)
    if (!isAwaited) timer.unref()
  })
  try {
    return await Promise.race([work, limit])
  } finally {
    clearTimeout(timer)
  }
}

/** Returns the refusal for an answer that did not come in time. */
export function tooLate(limitMs: number): ApiKeysError {
  const cause = new Error(`no answer within ${Math.round(limitMs)} ms`)
  return new ApiKeysError('database_unavailable', { cause })
}
