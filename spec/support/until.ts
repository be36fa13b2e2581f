import { setTimeout as sleep } from 'node:timers/promises'

/** Below the time limit of a spec. Without an end, the tries of a spec that has failed would keep the whole run alive. */
const limitMs = 150_000

/**
 * Resolves once a condition holds that no event reports. The condition is tried again and again, with pauses in
 * between.
 */
export async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  const endsAt = performance.now() + limitMs
  while (!(await isSo())) {
    if (performance.now() > endsAt) throw new Error(`not so within ${limitMs} ms: ${String(isSo)}`)
    await sleep(5)
  }
}
