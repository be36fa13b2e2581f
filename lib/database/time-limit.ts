import { clearTimeout, setImmediate, setTimeout } from './background'
import { ApiKeysError } from '../errors'

/** Returns how long a statement may take: no longer than the bound, and no longer than a caller would wait. */
export function longestLimitMs(maxStalenessMs: number): number {
  return Math.min(maxStalenessMs, 5_000)
}

/** Returns how long opening a connection may take before another opening is tried, because an opening may hang. */
export function openingLimitMs(maxStalenessMs: number): number {
  return Math.min(Math.max(0.7 * maxStalenessMs, 700), 5_000)
}

/** How long an answer is waited for at least. */
export const leastLimitMs = 50

/**
 * Rejects with `database_unavailable` once the time is over, unless the answer has arrived by then. The answer may be unread,
 * because the process was busy. If it is awaited, the process is kept alive for it.
 */
export async function within<Result>(
  { limitMs, isAwaited = false }: { limitMs: number; isAwaited?: boolean },
  work: Promise<Result>,
): Promise<Result> {
  let timer: NodeJS.Timeout | undefined
  const limit = new Promise<never>((_, reject) => {
    // Node reads an answer that has arrived between a timer and an immediate.
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
  return new ApiKeysError('database_unavailable', { cause: noAnswer(limitMs) })
}

/** Returns the error of a statement whose answer did not come in time. */
export function noAnswer(limitMs: number): Error {
  return new Error(`no answer within ${Math.round(limitMs)} ms`)
}
