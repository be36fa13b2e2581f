import type { ApiKeyRecord } from '../keys/record'

/** The states of a key that the pages show. Expired is among them, because its key does not work. */
export const keyStates = ['active', 'suspended', 'expired', 'revoked'] as const

/** A state of a key that the pages show. */
export type KeyState = (typeof keyStates)[number]

/** Returns the state of a key. If two are true, it is the state that lasts longer. */
export function stateOf({ status, isExpired }: ApiKeyRecord): KeyState {
  if (status === 'REVOKED') return 'revoked'
  if (isExpired) return 'expired'
  return status === 'SUSPENDED' ? 'suspended' : 'active'
}

/** The filters of `list` by which keys in a state are found; without a state, keys that are not revoked. */
export function filterOf(state: KeyState | undefined) {
  if (state === 'revoked') return { status: ['REVOKED'] }
  if (state === 'expired') return { status: ['ACTIVE', 'SUSPENDED'], isExpired: true }
  if (state === undefined) return { status: ['ACTIVE', 'SUSPENDED'] }
  return { status: [state === 'active' ? 'ACTIVE' : 'SUSPENDED'], isExpired: false }
}
