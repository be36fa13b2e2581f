import { dayMs } from '../database/clock'
import { InvalidInputError } from '../errors'
import { explainOwner } from '../http/member'
import { sorts } from '../keys/cursor'
import { describe } from './calls'
import { problemFrom } from './faults'
import { filterOf, keyStates } from './key-state'
import { ownerOf } from './admin/owner-input'
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

  async function find({ member }: Call, wish: Wish) {
    const { state, environment, text, createdBy, permission, sort, cursor } = wish
    const owner = member.owner ?? ownerOf(wish)
    const { apiKeys, nextCursor } = await lifecycle.list({
      ...filterOf(state),
      sort,
      ...(owner && { owner }),
      ...(environment !== undefined && { environment }),
      ...(text && { text }),
      ...(createdBy && { createdBy }),
      ...(permission && { permission }),
      ...(cursor && { cursor }),
    })
    if (apiKeys.length === 0) return { keys: [], nextCursor }

    // An administrator sees the usage of a key in the time of its owners before, too.
    const ofOwner = member.owner ? { owner: member.owner } : {}
    const usages = await routeCommands.usageOf(apiKeys, { by: 'day' }, ofOwner)
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
        return { ...shared, content: <KeyList {...props} {...found} problem={undefined} /> }
      } catch (error) {
        const isForeign = !call.member.owner || explainOwner(error) === error
        if (!(error instanceof InvalidInputError) || !isForeign) throw error
        const { list, admin } = page.texts
        const labels = { text: list.search, ...admin.fields }
        const problem = problemFrom(error, page.texts, labels)
        const content = <KeyList {...props} keys={[]} nextCursor={null} problem={problem} />
        return { ...shared, status: error.status, content }
      }
    },
  }
}

/** Reads what a user asks the list for. What is not known has no effect. */
function wishOf({ query, member }: Call, environments: readonly string[]): Wish {
  /** Returns a wish that only administrators have. */
  const ofAdmin = (name: string) => (member.owner ? '' : (query.get(name)?.trim() ?? ''))
  const ownerId = ofAdmin('ownerId')
  const sort = sorts.find((sort) => sort === query.get('sort'))
  const canSort = member.owner !== undefined || ownerId !== '' || sort?.endsWith('createdAt')
  return {
    state: keyStates.find((state) => state === query.get('status')),
    environment: environments.find((name) => name === query.get('environment')),
    text: query.get('q')?.trim() ?? '',
    ownerType: ofAdmin('ownerType'),
    ownerId,
    createdBy: ofAdmin('createdBy'),
    permission: ofAdmin('permission'),
    sort: (canSort && sort) || '-createdAt',
    cursor: query.get('cursor') ?? undefined,
  }
}
