import type { Parts } from './calls'
import type { Decision } from './key-changes'

/** Lets the idleness of a key count anew, from now on. */
export function renew({ idleMs, serverClock }: Parts): Decision['renewal'] {
  const now = Math.round(serverClock.now())
  if (idleMs === Infinity) return undefined
  return { renewedAt: new Date(now), idleExpiresAt: new Date(now + idleMs) }
}
