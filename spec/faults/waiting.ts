import { setTimeout as sleep } from 'node:timers/promises'

/** The time in milliseconds on the clock that all processes of a machine share (CLOCK_MONOTONIC, on Linux). */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6
}

/** Resolves once the condition holds. Rejects after a limit, with the name of the condition. */
export async function waitUntil(
  what: string,
  condition: () => boolean | Promise<boolean>,
  limitMs = 60_000,
): Promise<void> {
  const begunAt = monotonicMs()
  while (!(await condition())) {
    if (monotonicMs() - begunAt > limitMs) throw new Error(`not within ${limitMs} ms: ${what}`)
    await sleep(10)
  }
}

/** Rejects if the promise takes longer than the limit. */
export async function within<Result>(
  limitMs: number,
  what: string,
  promise: Promise<Result>,
): Promise<Result> {
  const limit = new AbortController()
  const late = sleep(limitMs, undefined, { signal: limit.signal }).then(
    () => {
      throw new Error(`not within ${limitMs} ms: ${what}`)
    },
    () => new Promise<never>(() => {}),
  )
  try {
    return await Promise.race([promise, late])
  } finally {
    limit.abort()
  }
}

/** Runs the deferred functions, the last first. If a function fails, the remaining functions still run. */
export function createCleanup() {
  const deferred: (() => unknown)[] = []

  return {
    defer(work: () => unknown) {
      deferred.push(work)
    },
    async run() {
      const failures: unknown[] = []
      for (let work = deferred.pop(); work; work = deferred.pop()) {
        await Promise.resolve()
          .then(work)
          .catch((error: unknown) => failures.push(error))
      }
      if (failures.length > 0)
        throw new AggregateError(failures, 'what was started is not all gone')
    },
  }
}
