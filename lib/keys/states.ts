import type { Status } from '../../models/api-key'
import { ApiKeysError } from '../errors'

/** An action on a key: `change` changes its name, permissions and the like. */
export type Action = 'suspend' | 'reactivate' | 'revoke' | 'unrevoke' | 'change' | 'rotate'

type Refusal = 'api_key_suspended' | 'api_key_revoked'

/** The status that each action gives to a key in each status, or the refusal. The same status means that nothing changes it. */
const outcomes: Record<Action, Record<Status, Status | Refusal>> = {
  suspend: { ACTIVE: 'SUSPENDED', SUSPENDED: 'SUSPENDED', REVOKED: 'api_key_revoked' },
  reactivate: { ACTIVE: 'ACTIVE', SUSPENDED: 'ACTIVE', REVOKED: 'api_key_revoked' },
  revoke: { ACTIVE: 'REVOKED', SUSPENDED: 'REVOKED', REVOKED: 'REVOKED' },
  // A key that was suspended before its revocation is suspended again.
  unrevoke: { ACTIVE: 'ACTIVE', SUSPENDED: 'SUSPENDED', REVOKED: 'ACTIVE' },
  change: { ACTIVE: 'ACTIVE', SUSPENDED: 'SUSPENDED', REVOKED: 'api_key_revoked' },
  rotate: { ACTIVE: 'ACTIVE', SUSPENDED: 'api_key_suspended', REVOKED: 'api_key_revoked' },
}

/**
 * Returns the status that a key has after an action. Throws the refusal if the key does not allow the action. A new secret for
 * an expired key is refused, because it would not work, and an old secret that was forgotten would work again. An exposed key is never active again.
 */
export function nextStatus(
  action: Action,
  key: Expiring & { status: Status; exposed?: object | undefined },
  now = Date.now(),
): Status {
  const outcome = outcomes[action][key.status]
  if (isRefusal(outcome)) throw new ApiKeysError(outcome)
  const isRevival = action === 'reactivate' || action === 'unrevoke'
  if (isRevival && key.exposed) throw new ApiKeysError('api_key_exposed')
  if (action === 'rotate' && (isExpired(key, now) || isIdle(key, now)))
    throw new ApiKeysError('api_key_expired')
  return outcome
}

/**
 * True if the revocation of a key can still be undone: within `undoMinutes`, and before the key expires. It would be refused as an
 * expired key, and no revoked key gets a later expiry. A time that cannot be read is over.
 */
export function isUndoable(
  key: Expiring & { status: Status; revokedAt: Date | null; exposed?: object | undefined },
  { undoMinutes, now }: { undoMinutes: number; now: number },
): boolean {
  const { status, revokedAt, exposed } = key
  if (status !== 'REVOKED' || revokedAt === null || exposed) return false
  if (isExpired(key, now) || isIdle(key, now)) return false
  // A clock that was set back makes no window longer.
  return Math.abs(now - revokedAt.getTime()) < undoMinutes * 60_000
}

function isRefusal(outcome: Status | Refusal): outcome is Refusal {
  return outcome.startsWith('api_key_')
}

/** The times at which a key expires. */
export interface Expiring {
  expiresAt: Date | null
  /** The time if it is not used until then. */
  idleExpiresAt?: Date
}

/**
 * True from the millisecond on that `expiresAt` names. Expired is not a status, because the clock decides it. A time that
 * cannot be read is over.
 */
export function isExpired({ expiresAt }: Expiring, now: number): boolean {
  return expiresAt !== null && !(expiresAt.getTime() > now)
}

/** The same for `idleExpiresAt`. An idle key counts as a key of its owner still, because it can be reactivated. */
export function isIdle({ idleExpiresAt }: Expiring, now: number): boolean {
  return idleExpiresAt !== undefined && !(idleExpiresAt.getTime() > now)
}
