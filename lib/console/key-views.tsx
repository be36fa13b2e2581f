import { dayMs, hourMs } from '../database/clock'
import type { ApiKeyEvent } from '../audit/list-entries'
import { ApiKeysError } from '../errors'
import { shownToOwner } from '../http/key-routes'
import { limitsOf, type NamedLimit } from '../keys/limits'
import type { ApiKeyRecord } from '../keys/record'
import { isUndoable } from '../keys/states'
import { appFieldsOf } from './app-fields'
import { optionsOf, describe, exceeds } from './calls'
import { sentenceOf } from './faults'
import { slotsOf } from './pages/chart'
import { Key } from './pages/key'
import type { Notice } from './pages/key-props'
import type { Call, ConsoleParts, Route, View } from './router'

/** The parts of the chart of a key: hours of a day, or days of a month. */
const periods = {
  hour: { count: 24, unitMs: hourMs },
  day: { count: 30, unitMs: dayMs },
} as const

/** Creates the view of a key, and the buttons on it that need no questions. */
export function createKeyViews(parts: ConsoleParts) {
  const { lifecycle, routeCommands, settings } = parts
  const { rateLimiter } = parts.verification
  const { undoMinutes } = settings
  const descriptions = describe(settings.permissions.described)

  function ofEnvironment(apiKey: ApiKeyRecord) {
    const { environment } = appFieldsOf(apiKey)
    return settings.environments.ofKey({ environment, prefix: apiKey.prefix })?.limits ?? null
  }

  /** Returns how much is left of the limits of a key; `null` if Redis does not say. */
  async function statesOf(id: string, limits: readonly NamedLimit[]) {
    if (limits.length === 0) return []
    const states = await rateLimiter.read({ key: { id }, limits }).catch(ignoreOutage)
    return states.length === 0 ? null : states
  }

  async function show(call: Call, refused?: ApiKeysError): Promise<View> {
    const { page, query, userId } = call
    const [id, options] = [call.keyId, optionsOf(call)]
    const by = query.get('by') === 'hour' ? 'hour' : 'day'
    const { count, unitMs } = periods[by]
    const apiKey = await lifecycle.get(id, options)
    const usage = await lifecycle.usage(id, { by }, options)
    const cursor = query.get('trail')
    const entries = await routeCommands.eventsOf(id, cursor === null ? {} : { cursor }, options)
    const { events } = entries

    const limits = limitsOf(settings.limits, ofEnvironment(apiKey), apiKey.limits)
    const content = (
      <Key
        page={page}
        apiKey={apiKey}
        userId={userId}
        canChange={!call.member.isReadOnly}
        canRenew={!exceeds(apiKey, call.member, parts)}
        canUnrevoke={page.look.admin && isUndoable(apiKey, { undoMinutes, now: Date.now() })}
        descriptions={descriptions}
        limits={limits}
        limitStates={await statesOf(id, limits)}
        isCountShared={settings.redis !== undefined}
        slots={slotsOf(usage.usage, count, unitMs, page.now)}
        totals={usage.totals}
        period={by}
        events={page.look.admin ? events : events.map((event) => shownToOwner(userId, event))}
        olderEvents={entries.nextCursor}
        isNewest={cursor === null}
        notice={refused ? undefined : noticeOf(query.get('notice'), apiKey, events)}
        fault={refused && sentenceOf(refused, page.texts)}
      />
    )
    return { title: apiKey.name, content, isWide: true }
  }

  function button(name: 'suspend' | 'reactivate' | 'unrevoke', notice: Notice): Route {
    return {
      show,
      async act(call) {
        const { id } = await lifecycle[name](call.keyId, optionsOf(call))
        return { location: call.page.to(`${id}?notice=${notice}`) }
      },
    }
  }

  return {
    show: { show },
    suspend: button('suspend', 'suspended'),
    reactivate: button('reactivate', 'reactivated'),
    unrevoke: button('unrevoke', 'unrevoked'),
  }
}

/** The rest of the page does not need Redis. */
function ignoreOutage(error: unknown): [] {
  if (error instanceof ApiKeysError && error.code === 'limiter_unavailable') return []
  throw error
}

/** Returns the message on what was just done, if it is true of the key. A link of another site must not claim what is not. */
function noticeOf(
  name: string | null,
  { status, previousSecret, pendingRotation }: ApiKeyRecord,
  [newest]: readonly ApiKeyEvent[],
): Notice | undefined {
  const isTrue: Readonly<Record<Notice, boolean>> = {
    saved: status !== 'REVOKED',
    suspended: status === 'SUSPENDED',
    reactivated: status === 'ACTIVE',
    revoked: status === 'REVOKED',
    unrevoked: status !== 'REVOKED' && newest?.action === 'unrevoked',
    'rotation-ended': previousSecret === null && pendingRotation === null,
    transferred: newest?.action === 'transferred',
  }
  return (Object.keys(isTrue) as Notice[]).find((notice) => notice === name && isTrue[notice])
}
