import { dayMs, hourMs } from '../database/clock'
import { InvalidInputError } from '../errors'

export const usageUnits = ['hour', 'day'] as const

export type UsageUnit = (typeof usageUnits)[number]

/** A time span, and the hours or days, of UTC, that it is told in. */
export interface UsagePeriod {
  from: Date
  to: Date
  unitMs: number
}

/** How long each is, how many are shown unless somebody asks for others, and how many days they may span. */
const units: Record<UsageUnit, { unitMs: number; shown: number; maxDays: number }> = {
  hour: { unitMs: hourMs, shown: 24, maxDays: 31 },
  day: { unitMs: dayMs, shown: 30, maxDays: 366 },
}

interface UsageQuery {
  from?: Date | undefined
  to?: Date | undefined
  by: UsageUnit
}

/** Applies the defaults, of which the last hour or day is the present one, and refuses what is no period or too long. */
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
