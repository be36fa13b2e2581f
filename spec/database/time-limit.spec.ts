import { longestLimitMs, openingLimitMs } from '../../lib/database/time-limit'

describe('the time limits under a bound', () => {
  it.each([
    { bound: 100, statement: 100, opening: 700 },
    { bound: 1_000, statement: 1_000, opening: 700 },
    { bound: 2_000, statement: 2_000, opening: 1_400 },
    { bound: 60_000, statement: 5_000, opening: 5_000 },
  ])('of $bound ms are $statement ms for a statement and $opening ms for an opening', (limits) => {
    expect(longestLimitMs(limits.bound)).toBe(limits.statement)
    expect(openingLimitMs(limits.bound)).toBe(limits.opening)
  })
})
