import { dayMs } from '../../database/clock'
import { InvalidInputError } from '../../errors'
import { optionsOf } from '../calls'
import type { Owner } from '../../keys/owner'
import { problemFrom, type Problem } from '../faults'
import { reasonIn, valueOf } from '../form'
import { OwnerPage, type OwnerNotice } from '../pages/admin/owner'
import { keyCount, nameOf, ownerAddress } from '../pages/admin/owner-parts'
import { Owners } from '../pages/admin/owners'
import {
  AllRevoked,
  OwnerErased,
  OwnerQuestion,
  type QuestionProps,
} from '../pages/admin/owner-questions'
import { slotsOf } from '../pages/chart'
import type { Call, ConsoleParts, Route, View } from '../router'
import { ownerIn, ownerInQuery, ownerOf } from './owner-input'
import { namesOfKeys } from './trail-view'

/** How many keys and entries the page of an owner shows, and how many keys the page that asks before they are revoked. */
const [fewListed, mostListed] = [10, 100]

const shownDays = 30

/** The statuses of keys that `revokeAll` revokes. */
const revocable = ['ACTIVE', 'SUSPENDED']

const section = 'owners'

/** Creates the view of an owner, or of the owners who are suspended. */
export function createOwnerView(parts: ConsoleParts): Route {
  const { lifecycle, routeCommands } = parts

  async function showOwner(call: Call): Promise<View> {
    const { page, query, userId } = call
    const { owner, suspension } = await find(parts, call)
    const { keys: count } = await lifecycle.countRevocable(owner)
    const { apiKeys } = await lifecycle.list({ owner, status: revocable, limit: fewListed })
    const { usage, totals } = await lifecycle.totalUsage({ owner, by: 'day' })
    const { events } = await lifecycle.events({ owner, limit: fewListed })
    const names = await namesOfKeys(parts, events)
    const content = (
      <OwnerPage
        page={page}
        owner={owner}
        userId={userId}
        suspension={suspension}
        count={count}
        apiKeys={apiKeys}
        slots={slotsOf(usage, shownDays, dayMs, page.now)}
        totals={totals}
        events={events}
        names={names}
        notice={noticeOf(query.get('notice'), suspension !== null)}
      />
    )
    return { title: nameOf(page, owner), content, isWide: true, section }
  }

  return {
    async show(call) {
      const { page, query } = call
      const wish = ownerInQuery(query)
      let problem: Problem | undefined
      if (wish.ownerId !== '') {
        try {
          return await showOwner(call)
        } catch (error) {
          if (!(error instanceof InvalidInputError)) throw error
          problem = problemFrom(error, page.texts, page.texts.admin.fields)
        }
      }
      const suspensions = await routeCommands.suspendedOwners()
      const content = <Owners page={page} wish={wish} problem={problem} suspensions={suspensions} />
      const title = page.texts.admin.sections.owners
      return { title, content, section, ...(problem && { status: problem.status }) }
    },
  }
}

/** Creates the views that suspend, reactivate and erase an owner, and revoke all keys of an owner. */
export function createOwnerChangeViews(parts: ConsoleParts) {
  const { lifecycle } = parts

  /** Makes the view that asks before an owner is changed. Without an owner that can be, the user is asked for another. */
  function question(name: QuestionProps['name']): Route['show'] {
    return async function show(call, refused) {
      const { page, form } = call
      try {
        const { owner } = await find(parts, call)
        const { keys: count } = await lifecycle.countRevocable(owner)
        const filter = { owner, status: revocable, limit: mostListed }
        const { apiKeys } = await lifecycle.list(filter)
        const problem = refused && problemFrom(refused, page.texts, page.texts.admin.fields)
        const reason = valueOf(form, 'reason')
        const wouldBe = name === 'eraseOwner' ? await countErased(call, owner) : undefined
        const props = { page, name, owner, count, apiKeys, wouldBe, problem, reason }
        const content = <OwnerQuestion {...props} />
        return {
          title: page.texts.admin[name].title(nameOf(page, owner)),
          section,
          isWide: true,
          content,
        }
      } catch (error) {
        if (!(error instanceof InvalidInputError)) throw error
        return { location: `${page.to('owner')}?${new URLSearchParams({ ...ownerIn(call) })}` }
      }
    }
  }

  /** Counts what erasing takes away. A count changes nothing, so its reason stands nowhere. */
  function countErased(call: Call, owner: Owner) {
    return lifecycle.eraseOwner(owner, {
      ...optionsOf(call),
      revoke: true,
      dryRun: true,
      reason: 'count',
    })
  }

  function change(name: 'suspendOwner' | 'reactivateOwner', notice: OwnerNotice): Route {
    return {
      show: question(name),

      async act(call) {
        const { owner } = await find(parts, call)
        await lifecycle[name](owner, { ...optionsOf(call), ...reasonIn(call.form) })
        return { location: `${ownerAddress(call.page, owner)}&notice=${notice}` }
      },
    }
  }

  const revokeAll: Route = {
    show: question('revokeAll'),

    /** The answer says how many keys it revoked. Sent again, the form revokes none. */
    async act(call) {
      const { page } = call
      const { owner } = await find(parts, call)
      const options = { ...optionsOf(call), ...reasonIn(call.form) }
      const { keys } = await lifecycle.revokeAll(owner, options)
      const title = page.texts.admin.revokeAll.done(keyCount(page, keys))
      return { title, section, content: <AllRevoked page={page} owner={owner} keys={keys} /> }
    },
  }

  const erase: Route = {
    show: question('eraseOwner'),

    /** Sent again, the form erases what was left meanwhile. */
    async act(call) {
      const { page, form } = call
      const { owner } = await find(parts, call)
      const options = { ...optionsOf(call), revoke: true, reason: valueOf(form, 'reason').trim() }
      const erased = await lifecycle.eraseOwner(owner, options)
      const content = <OwnerErased page={page} erased={erased} />
      return { title: page.texts.admin.eraseOwner.done, section, content }
    },
  }

  return {
    erase,
    suspend: change('suspendOwner', 'owner-suspended'),
    reactivate: change('reactivateOwner', 'owner-reactivated'),
    revokeAll,
  }
}

/** Returns the owner that a request is about, as the database spells it, and the suspension. */
async function find({ routeCommands }: ConsoleParts, call: Call) {
  return routeCommands.suspensionOf(ownerOf(ownerIn(call)))
}

/** Returns the message on what was just done, if it is true of the owner. */
function noticeOf(name: string | null, isSuspended: boolean): OwnerNotice | undefined {
  const notice = isSuspended ? 'owner-suspended' : 'owner-reactivated'
  return name === notice ? notice : undefined
}
