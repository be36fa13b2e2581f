import { setTimeout as sleep } from 'node:timers/promises'

/**
 * Resolves once a condition holds that no event reports. The condition is tried again and again, with pauses in
 * between.
 */
export async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isSo())) await sleep(5)
}
