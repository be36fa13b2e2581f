import v = require('valibot')

import { dayMs, hourMs } from '../database/clock'
import { InvalidInputError } from '../errors'
import { momentOfUse, oneOf } from './fields'

/** The fields of a question for usage. */
export const usageQuery = v.object({
  from: v.optional(momentOfUse),
  to: v.optional(momentOfUse),
  by: v.optional(oneOf(['hour', 'day']), 'hour'),
})

type UsageQuery = v.InferOutput<typeof usageQuery>

/** A unit in which usage is reported. */
export type UsageUnit = 'hour' | 'day'

/** A time span, and the length of the hours or days of UTC into which usage is divided. */
export interface UsagePeriod {
  from: Date
  to: Date
  unitMs: number
}

/** The units: the length of each, the number that is shown by default, and the most days of a report. */
const units: Record<UsageUnit, { unitMs: number; shown: number; maxDays: number }> = {
  hour: { unitMs: hourMs, shown: 24, maxDays: 31 },
  day: { unitMs: dayMs, shown: 30, maxDays: 366 },
}

/** Applies the defaults, which end with the present hour or day. Refuses a period that is empty or too long. */
export function readUsagePeriod({ from, to = new Date(), by }: UsageQuery): UsagePeriod {
  const { unitMs, shown, maxDays } = units[by]
  const end = Math.ceil(to.getTime() / unitMs) * unitMs
  const start = from ?? new Date(end - shown * unitMs)

  const isTooLong = to.getTime() - start.getTime() > maxDays * dayMs
  if (start < to && !isTooLong) return { from: start, to, unitMs }
  const message = isTooLong
    ? `must be at most ${maxDays} days before "to", by the ${by}`
    : `must be before "to", which is ${to.toISOString()}`
  throw new InvalidInputError([{ pointer: '#/from', message }])
}
