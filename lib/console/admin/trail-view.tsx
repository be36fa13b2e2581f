import type { ApiKeyEvent } from '../../audit/list-entries'
import { InvalidInputError } from '../../errors'
import { problemFrom } from '../faults'
import { AuditTrail, type TrailWish } from '../pages/admin/trail'
import type { Call, ConsoleParts, Route } from '../router'
import { ownerInQuery, ownerOf } from './owner-input'

/** Creates the view of the audit trail of all keys. */
export function createTrailView(parts: ConsoleParts): Route {
  async function find(wish: TrailWish) {
    const { apiKeyId, action, cursor } = wish
    const owner = ownerOf(wish)
    const { events, nextCursor } = await parts.lifecycle.events({
      ...(owner && { owner }),
      ...(apiKeyId && { apiKeyId }),
      ...(action && { action }),
      ...(cursor && { cursor }),
    })
    return { events, nextCursor, names: await namesOfKeys(parts, events) }
  }

  return {
    async show(call) {
      const { page, userId } = call
      const wish = wishOf(call)
      const shared = {
        title: page.texts.admin.sections.trail,
        isWide: true,
        section: 'trail',
      } as const
      const props = { page, wish, userId }
      try {
        const found = await find(wish)
        return { ...shared, content: <AuditTrail {...props} {...found} problem={undefined} /> }
      } catch (error) {
        if (!(error instanceof InvalidInputError)) throw error
        const problem = problemFrom(error, page.texts, page.texts.admin.fields)
        const none = { events: [], nextCursor: null, names: new Map() }
        const content = <AuditTrail {...props} {...none} problem={problem} />
        return { ...shared, status: error.status, content }
      }
    },
  }
}

/** Returns the names of the keys of some entries, by their ids. A deleted key has none. */
export async function namesOfKeys(
  { routeCommands }: ConsoleParts,
  events: readonly ApiKeyEvent[],
): Promise<ReadonlyMap<string, string>> {
  const ids = new Set(events.flatMap((event) => event.apiKeyId ?? []))
  const records = await routeCommands.recordsOf([...ids])
  return new Map(records.map(({ id, name }) => [id, name]))
}

function wishOf({ query }: Call): TrailWish {
  const [apiKeyId = '', action = '', cursor = ''] = ['apiKeyId', 'action', 'cursor'].map(
    (name) => query.get(name)?.trim() ?? '',
  )
  return { ...ownerInQuery(query), apiKeyId, action, cursor }
}
