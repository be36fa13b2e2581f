import { setTimeout as sleep } from 'node:timers/promises'

/** Resolves once something is so that no event reports. It is asked again and again, with rests for others to work. */
export async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isSo())) await sleep(5)
}
