import { nextStatus, type Action } from '../../lib/keys/states'
import { statuses } from '../../models/api-key'

const expiresAt = new Date(1_000)

/** The outcome for an ACTIVE, a SUSPENDED and a REVOKED key. */
const outcomes: Record<Action, [string, string, string]> = {
  suspend: ['SUSPENDED', 'SUSPENDED', 'api_key_revoked'],
  reactivate: ['ACTIVE', 'ACTIVE', 'api_key_revoked'],
  revoke: ['REVOKED', 'REVOKED', 'REVOKED'],
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
