import v = require('valibot')

import type { LimitState } from '../errors'
import { wholeNumber } from './fields'
import { isPlainObject } from './metadata'
import { documentedAs, documentedLike, isObject, strict, withAll } from './parse-input'

/** How often a key may be used in each window of time. A window begins with its first use. */
export interface Limit {
  /** A number from 1 to 1,000,000,000,000. */
  readonly limit: number
  /** A number from 1 to 31,622,400 (366 days). */
  readonly windowSeconds: number
}

/** Limits that hold together, by their names, for example `burst` and `monthly`. */
export type Limits = Readonly<Record<string, Limit>>

/** Limits of one key. They replace the app's limits of the same names; `null` removes a limit. */
export type LimitOverrides = Readonly<Record<string, Limit | null>>

/** A limit that holds for a key. */
export interface NamedLimit extends Limit {
  readonly name: string
}

/** The message for a wrong name of a limit. */
const limitNameRule = 'must be a letter, and at most 31 more letters, digits, "_" and "-"'

/** The fields of a limit, of the app or of a key. */
export const limitFields = {
  limit: wholeNumber(1, 1_000_000_000_000),
  windowSeconds: wholeNumber(1, 366 * 86_400),
}

const maxLimits = 10

/** Makes the schema of limits by their names. `nameRule` is the message for a wrong name. */
function limitsByName<Limit>(
  limits: v.GenericSchema<unknown, object>,
  nameRule: string,
  limit: v.GenericSchema<unknown, Limit>,
) {
  return v.pipe(
    limits,
    v.check(
      (value) => !Object.hasOwn(value, '__proto__'),
      'must not have a limit called __proto__',
    ),
    v.check(
      (value) => Object.keys(value).length <= maxLimits,
      `must have at most ${maxLimits} limits`,
    ),
    // Valibot's `record` passes over names such as `constructor`.
    v.transform((value) => new Map<string, unknown>(Object.entries(value))),
    v.map(
      v.custom<string>((name) => /^[A-Za-z][\w-]{0,31}$/.test(String(name)), nameRule),
      limit,
    ),
    v.transform((value) => Object.fromEntries(value)),
  )
}

const limitsByNames = v.custom<object>(
  (value) => isObject(value) && !Array.isArray(value),
  'must be an object of limits, by their names',
)

const limitOption = v.pipe(
  v.custom<object>(isObject, 'must be { limit, windowSeconds }'),
  withAll(limitFields),
  v.object(limitFields),
)

/** The limits of the app. */
export const limitsOption = limitsByName(limitsByNames, limitNameRule, limitOption)

/** The limits of an environment. */
export const environmentLimits = v.optional(
  limitsByName(limitsByNames, limitNameRule, v.nullable(limitOption)),
  {},
)

/** Limits of a key. Their names are sorted, so that equal limits look equal. */
export const limitOverrides = v.pipe(
  limitsByName(
    v.custom<object>(isPlainObject, 'must be a JSON object of limits, by their names'),
    `its name ${limitNameRule}`,
    v.nullable(strict(v.object(limitFields))),
  ),
  v.transform((value) =>
    Object.fromEntries(Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1))),
  ),
  documentedLike(v.record(v.string(), v.nullable(v.object(limitFields)))),
  documentedAs({ maxProperties: maxLimits }),
)

/** Returns the limits that hold for a key, the shortest window first. Later limits replace earlier limits of the same names. */
export function limitsOf(...given: readonly (LimitOverrides | null)[]): readonly NamedLimit[] {
  return Object.entries<Limit | null>(Object.assign({}, ...given))
    .flatMap(([name, limit]) => (limit === null ? [] : [{ name, ...limit }]))
    .toSorted((a, b) => a.windowSeconds - b.windowSeconds)
}

/** Returns the state of a limit after a number of uses, in a window with the milliseconds until its end. */
export function limitStateOf(limit: NamedLimit, used: number, resetMs: number): LimitState {
  const { name, windowSeconds } = limit
  const remaining = Math.max(limit.limit - used, 0)
  return { name, limit: limit.limit, windowSeconds, remaining, resetMs }
}
