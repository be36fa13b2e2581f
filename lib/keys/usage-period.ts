import { dayMs, hourMs } from '../database/clock'
import { InvalidInputError } from '../errors'

/** The units in which usage is reported. */
export const usageUnits = ['hour', 'day'] as const

/** A unit in which usage is reported. */
export type UsageUnit = (typeof usageUnits)[number]

/** A time span, and the length of the hours or days of UTC into which usage is divided. */
export interface UsagePeriod {
  from: Date
  to: Date
  unitMs: number
}

/** For each unit, its length, how many are shown by default, and how many days they can span. */
const units: Record<UsageUnit, { unitMs: number; shown: number; maxDays: number }> = {
  hour: { unitMs: hourMs, shown: 24, maxDays: 31 },
  day: { unitMs: dayMs, shown: 30, maxDays: 366 },
}

interface UsageQuery {
  from?: Date | undefined
  to?: Date | undefined
  by: UsageUnit
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
