import type { Status } from '../../models/api-key'

export type Transition = 'suspend' | 'reactivate' | 'revoke'

/** Where each transition leads from each status; `null` where the status does not allow it. */
const destinations: Record<Transition, Record<Status, Status | null>> = {
  suspend: { ACTIVE: 'SUSPENDED', SUSPENDED: 'SUSPENDED', REVOKED: null },
  reactivate: { ACTIVE: 'ACTIVE', SUSPENDED: 'ACTIVE', REVOKED: null },
  revoke: { ACTIVE: 'REVOKED', SUSPENDED: 'REVOKED', REVOKED: 'REVOKED' },
}

/** Returns the status that follows, the same one where there is nothing to do, `null` where it may not be. */
export function nextStatus(transition: Transition, status: Status): Status | null {
  return destinations[transition][status]
}

/** Whether name, permissions and the like may still change. */
export function isChangeable(status: Status): boolean {
  return status !== 'REVOKED'
}

/**
 * Expired is not a status but a fact about the clock: a key is refused from the millisecond that it
 * names. A time that cannot be read is over.
 */
export function isExpired({ expiresAt }: { expiresAt: Date | null }, now: number): boolean {
  return expiresAt !== null && !(expiresAt.getTime() > now)
}
