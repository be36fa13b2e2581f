import { AsyncLocalStorage } from 'node:async_hooks'
import timers from 'node:timers'

/**
 * The timers of Node, taken when the module loads. An app's fake timers replace the globals and the members of
 * `node:timers`. They would hang the look-up of a key.
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
 * Makes the functions that run work that requests share: polls, notifications, look-ups, answers of `grantable`, writes
 * of usage, and the opening of connections. That work runs in the async context of the caller of this function, which
 * is `createApiKeys`. Otherwise, the first request would lend its trace, its log fields and its tenant to all later
 * requests.
 */
export function createBackground() {
  const run: <Result>(work: () => Result) => Result = AsyncLocalStorage.snapshot()

  return {
    run,

    /** Sets a timer that keeps no process alive. */
    startTimer: (work: () => void, delayMs: number) => run(() => setTimeout(work, delayMs).unref()),
  }
}
