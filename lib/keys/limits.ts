import type { LimitState } from '../errors'

/** How often a key may be used: so many times in each window of so many seconds. A window begins with its first use. */
export interface Limit {
  /** From 1 to 1,000,000,000,000. */
  readonly limit: number
  /** From 1 to 31,622,400 (366 days). */
  readonly windowSeconds: number
}

/** Limits that hold at once, by their names, such as `burst` and `monthly`. */
export type Limits = Readonly<Record<string, Limit>>

/** Limits of one key, which stand over the app's of the same names: `null` for no limit of that name. */
export type LimitOverrides = Readonly<Record<string, Limit | null>>

/** A limit as it holds for a key. */
export interface NamedLimit extends Limit {
  readonly name: string
}

export const maxLimits = 10
export const mostUses = 1_000_000_000_000
export const longestWindowSeconds = 366 * 86_400

export const limitNameRule = 'must be a letter, and at most 31 more letters, digits, "_" and "-"'

export function isLimitName(name: string): boolean {
  return /^[A-Za-z][\w-]{0,31}$/.test(name)
}

/** Returns the limits that hold for a key, the shortest window first. */
export function limitsOf(limits: Limits, overrides: LimitOverrides | null): readonly NamedLimit[] {
  return Object.entries({ ...limits, ...overrides })
    .flatMap(([name, limit]) => (limit === null ? [] : [{ name, ...limit }]))
    .toSorted((a, b) => a.windowSeconds - b.windowSeconds)
}

/** Returns where a key stands with a limit, for a number of uses in a window that ends in so many milliseconds. */
export function limitStateOf(limit: NamedLimit, used: number, resetMs: number): LimitState {
  const { name, windowSeconds } = limit
  const remaining = Math.max(limit.limit - used, 0)
  return { name, limit: limit.limit, windowSeconds, remaining, resetMs }
}
