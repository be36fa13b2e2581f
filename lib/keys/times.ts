import v = require('valibot')

import { readBy } from './parse-input'

/** RFC 3339, section 5.6. The day is looked up, because not every month has 31. */
const timestamp =
  /^(\d{4}-\d\d-\d\d)T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)$/

function readMoment(value: unknown): Date | null {
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value
  if (typeof value !== 'string') return null

  // "T" and "Z" may be lower case.
  const time = value.toUpperCase()
  const [, day = ''] = timestamp.exec(time) ?? []
  return isDay(day) ? new Date(time) : null
}

function isDay(day: string): boolean {
  const time = Date.parse(day)
  return !Number.isNaN(time) && new Date(time).toISOString().startsWith(day)
}

const moment = v.pipe(
  v.unknown(),
  readBy(readMoment, 'must be a time as in RFC 3339, such as 2030-01-31T12:00:00Z'),
)

const year10000 = Date.UTC(10_000, 0)

/** A time at which a key can expire. */
export const expiry = v.pipe(
  moment,
  v.check((time) => time.getTime() > Date.now(), 'must be in the future'),
  v.check((time) => time.getTime() < year10000, 'must be before the year 10000'),
)

/** A time that limits a report of usage. */
export const momentOfUse = v.pipe(
  moment,
  v.check(
    (time) => time.getTime() >= 0 && time.getTime() < year10000,
    'must be between the years 1970 and 10000',
  ),
)

/** A time as `toISOString()` writes it. */
export const utcTime = v.custom<string>(
  (value) => typeof value === 'string' && /T.+Z$/.test(value) && readMoment(value) !== null,
  'must be a time',
)
