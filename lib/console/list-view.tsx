import { dayMs } from '../database/clock'
import { InvalidInputError } from '../errors'
import { explainOwner } from '../http/member'
import { sorts } from '../keys/cursor'
import { describe } from './calls'
import { problemFrom } from './faults'
import { filterOf, keyStates } from './key-state'
import { slotsOf } from './pages/chart'
import { KeyList } from './pages/list'
import type { Wish } from './pages/list-filters'
import type { Call, ConsoleParts, Route } from './router'

/** How many days the small chart in a row shows. */
const shownDays = 30

/** Creates the view of the list of keys. */
export function createListView({ lifecycle, routeCommands, settings }: ConsoleParts): Route {
  const environments = settings.environments.names
  const descriptions = describe(settings.permissions.described)

  async function find(
    { member: { owner } }: Call,
    { state, environment, text, sort, cursor }: Wish,
  ) {
    const filter = {
      owner,
      ...filterOf(state),
      sort,
      ...(environment !== undefined && { environment }),
      ...(text && { text }),
      ...(cursor && { cursor }),
    }
    const { apiKeys, nextCursor } = await lifecycle.list(filter)
    if (apiKeys.length === 0) return { keys: [], nextCursor }

    const usages = await routeCommands.usageOf(apiKeys, { by: 'day' }, { owner })
    return {
      nextCursor,
      keys: apiKeys.map((apiKey, index) => ({
        apiKey,
        slots: slotsOf(usages[index]?.usage ?? [], shownDays, dayMs, new Date()),
      })),
    }
  }

  return {
    async show(call) {
      const { page } = call
      const wish = wishOf(call, environments)
      const props = { page, wish, descriptions, member: call.member, environments }
      const shared = { title: page.texts.apiKeys, isWide: true }
      try {
        const found = await find(call, wish)
        return { ...shared, content: <KeyList {...props} {...found} fault={undefined} /> }
      } catch (error) {
        if (!(error instanceof InvalidInputError) || explainOwner(error) !== error) throw error
        const { fields, general } = problemFrom(error, page.texts, { text: page.texts.list.search })
        const fault = fields.get('text') ?? general
        const content = <KeyList {...props} keys={[]} nextCursor={null} fault={fault} />
        return { ...shared, status: error.status, content }
      }
    },
  }
}

/** Reads what a user asks the list for. What is not known has no effect. */
function wishOf({ query }: Call, environments: readonly string[]): Wish {
  return {
    state: keyStates.find((state) => state === query.get('status')),
    environment: environments.find((name) => name === query.get('environment')),
    text: query.get('q')?.trim() ?? '',
    sort: sorts.find((sort) => sort === query.get('sort')) ?? '-createdAt',
    cursor: query.get('cursor') ?? undefined,
  }
}
