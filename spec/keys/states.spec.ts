import { isUndoable, nextStatus, type Action } from '../../lib/keys/states'
import { statuses } from '../../models/api-key'

const expiresAt = new Date(1_000)

/** The outcome for an ACTIVE, a SUSPENDED and a REVOKED key. */
const outcomes: Record<Action, [string, string, string]> = {
  suspend: ['SUSPENDED', 'SUSPENDED', 'api_key_revoked'],
  reactivate: ['ACTIVE', 'ACTIVE', 'api_key_revoked'],
  revoke: ['REVOKED', 'REVOKED', 'REVOKED'],
  unrevoke: ['ACTIVE', 'SUSPENDED', 'ACTIVE'],
  change: ['ACTIVE', 'SUSPENDED', 'api_key_revoked'],
  rotate: ['ACTIVE', 'api_key_suspended', 'api_key_revoked'],
}

const cases = Object.entries(outcomes).flatMap(([action, row]) =>
  statuses.map((status, index) => [action as Action, status, row[index]] as const),
)

function outcomeOf(action: Action, key: Parameters<typeof nextStatus>[1], now?: number) {
  try {
    return nextStatus(action, key, now)
  } catch (error) {
    return (error as { code: string }).code
  }
}

describe('nextStatus', () => {
  it.each(cases)('answers %s of a key that is %s with %s', (action, status, outcome) => {
    expect(outcomeOf(action, { status, expiresAt: null })).toBe(outcome)
  })

  it.each([
    ['suspend', 'SUSPENDED'],
    ['reactivate', 'ACTIVE'],
    ['revoke', 'REVOKED'],
    ['unrevoke', 'ACTIVE'],
    ['change', 'ACTIVE'],
    ['rotate', 'api_key_expired'],
  ] as const)('answers %s of an expired key with %s', (action, outcome) => {
    expect(outcomeOf(action, { status: 'ACTIVE', expiresAt }, 1_000)).toBe(outcome)
  })

  it('lets a key be rotated until the millisecond in which it expires', () => {
    expect(outcomeOf('rotate', { status: 'ACTIVE', expiresAt }, 999)).toBe('ACTIVE')
  })

  it('names the status before the expiry, because it has to be mended first', () => {
    expect(outcomeOf('rotate', { status: 'SUSPENDED', expiresAt }, 1_000)).toBe('api_key_suspended')
  })
})

describe('isUndoable', () => {
  const revokedAt = new Date(1_000_000)
  const revoked = { status: 'REVOKED', revokedAt, expiresAt: null } as const

  it.each([
    ['a revoked key', revoked, 10, 1_000_000, true],
    ['a revoked key until the millisecond before the end', revoked, 10, 1_599_999, true],
    ['a revoked key at the end', revoked, 10, 1_600_000, false],
    ['a revoked key by a clock that was set back a little', revoked, 10, 999_000, true],
    ['a revocation of the future', revoked, 10, 400_000, false],
    ['a revoked key without the option', revoked, 0, 1_000_000, false],
    ['an active key', { ...revoked, status: 'ACTIVE', revokedAt: null }, 10, 1_000_000, false],
    ['a time that cannot be read', { ...revoked, revokedAt: new Date(NaN) }, 10, 1_000_000, false],
    ['an exposed key', { ...revoked, exposed: {} }, 10, 1_000_000, false],
    ['an expired key', { ...revoked, expiresAt: revokedAt }, 10, 1_000_000, false],
    ['a key that expires', { ...revoked, expiresAt: revokedAt }, 10, 999_999, true],
  ] as const)('of %s', (_, key, undoMinutes, now, isIt) => {
    expect(isUndoable(key, { undoMinutes, now })).toBe(isIt)
  })
})
