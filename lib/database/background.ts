import { AsyncLocalStorage } from 'node:async_hooks'
import timers from 'node:timers'

/**
 * The timers of Node, taken when the module loads: an app's fake timers replace the globals and the members of `node:timers`, and
 * would hang a key that is not in the cache.
 */
export const { setTimeout, clearTimeout, setImmediate } = timers

/** Resolves after a time. It keeps the process alive. */
export function wait(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms)
  })
}

/** Runs the work that requests share. */
export type Background = ReturnType<typeof createBackground>

/**
 * Makes the functions that run what requests share: polls, notifications, look-ups, answers of `grantable`, writes of usage, and the
 * opening of connections. That work runs in the async context of the caller of this function, which is `createApiKeys`. Otherwise,
 * the request that happens to start it would lend its trace, its log fields and its tenant to all others, for as long as the
 * process lives.
 */
export function createBackground() {
  const run: <Result>(work: () => Result) => Result = AsyncLocalStorage.snapshot()

  return {
    run,

    /** Sets a timer that keeps no process alive. */
    startTimer: (work: () => void, delayMs: number) => run(() => setTimeout(work, delayMs).unref()),
  }
}
