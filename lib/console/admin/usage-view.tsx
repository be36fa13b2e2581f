import { dayMs, hourMs } from '../../database/clock'
import { InvalidInputError } from '../../errors'
import { nameOf } from '../pages/admin/owner-parts'
import { TotalUsagePage } from '../pages/admin/usage'
import { slotsOf } from '../pages/chart'
import type { Call, ConsoleParts, Route } from '../router'
import { ownerInQuery, ownerOf } from './owner-input'

/** The parts of the chart: hours of a day, or days of a month. */
const periods = {
  hour: { count: 24, unitMs: hourMs },
  day: { count: 30, unitMs: dayMs },
} as const

/** Creates the view of the usage of all keys together, and of the busiest keys. */
export function createUsageView({ lifecycle, routeCommands }: ConsoleParts): Route {
  /** Returns the owner whose usage is wished for; `undefined` for all owners, and for an id that no owner can have. */
  async function find({ query }: Call) {
    const wish = ownerOf(ownerInQuery(query))
    if (!wish) return undefined
    try {
      return (await routeCommands.suspensionOf(wish)).owner
    } catch (error) {
      if (error instanceof InvalidInputError) return undefined
      throw error
    }
  }

  return {
    async show(call) {
      const { page, query } = call
      const period = query.get('by') === 'hour' ? 'hour' : 'day'
      const { count, unitMs } = periods[period]
      const owner = await find(call)
      const filter = { by: period, ...(owner && { owner }) }
      const { usage, totals, keys } = await lifecycle.totalUsage(filter)
      const records = await routeCommands.recordsOf(keys.map(({ apiKeyId }) => apiKeyId))
      const content = (
        <TotalUsagePage
          page={page}
          owner={owner}
          period={period}
          slots={slotsOf(usage, count, unitMs, page.now)}
          totals={totals}
          keys={keys}
          records={new Map(records.map((record) => [record.id, record]))}
        />
      )
      const { title } = page.texts.admin.usage
      const name = owner && nameOf(page, owner)
      return { title: name ? `${title}: ${name}` : title, content, isWide: true, section: 'usage' }
    },
  }
}
