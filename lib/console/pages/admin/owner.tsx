import type { ApiKeyEvent } from '../../../audit/list-entries'
import type { Owner } from '../../../keys/owner'
import type { ApiKeyRecord } from '../../../keys/record'
import type { Suspension } from '../../../lifecycle/overviews'
import type { UsageCounts } from '../../../usage/report'
import type { Page } from '../../page'
import type { AdminTexts } from '../../texts/admin-en'
import type { Slot } from '../chart'
import { UsageSummary } from '../key-usage'
import { Banner } from '../layout'
import { Ago } from '../parts'
import { Events } from './events'
import { KeysInBrief, nameOf, ownerAddress } from './owner-parts'
import { OwnerCrumbs } from './owner-questions'

/** A message on what was just done with an owner. */
export type OwnerNotice = keyof AdminTexts['notices']

interface OwnerProps {
  page: Page
  owner: Owner
  userId: string | number
  suspension: Suspension | null
  /** How many keys of the owner are not revoked. */
  count: number
  apiKeys: readonly ApiKeyRecord[]
  slots: readonly Slot[]
  totals: UsageCounts
  events: readonly ApiKeyEvent[]
  /** The names of the keys of these entries, by their ids. */
  names: ReadonlyMap<string, string>
  notice: OwnerNotice | undefined
}

/** All about an owner, and what can be done with it. */
export function OwnerPage(props: OwnerProps) {
  const { page, owner, userId, suspension, count, apiKeys, slots, totals, events, names, notice } =
    props
  const { admin } = page.texts
  const { owners } = admin
  return (
    <>
      <OwnerCrumbs page={page} />
      <div class="title">
        <div>
          <h1>
            <bdi>{nameOf(page, owner)}</bdi>{' '}
            {suspension && <span class="state suspended">{page.texts.states.suspended}</span>}
          </h1>
        </div>
        <Actions page={page} owner={owner} isSuspended={suspension !== null} count={count} />
      </div>
      {notice !== undefined && <Banner kind="good">{admin.notices[notice]}</Banner>}
      {suspension && (
        <Banner kind="note">
          {owners.suspendedSince} <Ago page={page} at={suspension.at} />
          {suspension.reason !== null && (
            <>
              : <span dir="auto">{suspension.reason}</span>
            </>
          )}
        </Banner>
      )}
      <section class="card" aria-labelledby="keys">
        <div class="card-head">
          <h2 id="keys">
            {owners.keys} <span class="count">{page.formats.number(count)}</span>
          </h2>
          <a href={ownerAddress(page, owner, '')}>{owners.allKeys}</a>
        </div>
        {count === 0 ? (
          <p class="none">{owners.noKeys}</p>
        ) : (
          <KeysInBrief page={page} apiKeys={apiKeys} count={count} />
        )}
      </section>
      <section class="card" aria-labelledby="usage">
        <h2 id="usage">{owners.usage}</h2>
        <UsageSummary page={page} slots={slots} totals={totals} isHourly={false} />
      </section>
      <section class="card" aria-labelledby="trail">
        <div class="card-head">
          <h2 id="trail">{owners.trail}</h2>
          <a href={ownerAddress(page, owner, 'audit')}>{owners.allTrail}</a>
        </div>
        <Events page={page} events={events} userId={userId} names={names} />
      </section>
    </>
  )
}

interface ActionsProps {
  page: Page
  owner: Owner
  isSuspended: boolean
  count: number
}

function Actions({ page, owner, isSuspended, count }: ActionsProps) {
  const { admin, list } = page.texts
  const change = isSuspended ? 'reactivate' : 'suspend'
  return (
    <div class="toolbar">
      {!isSuspended && (
        <a class="button" href={ownerAddress(page, owner, 'new')}>
          {list.create}
        </a>
      )}
      <a class="button" href={ownerAddress(page, owner, `owner/${change}`)}>
        {admin.owners[change]}
      </a>
      {count > 0 && (
        <a class="button danger-quiet" href={ownerAddress(page, owner, 'owner/revoke-all')}>
          {admin.owners.revokeAll}
        </a>
      )}
      <a class="button danger-quiet" href={ownerAddress(page, owner, 'owner/erase')}>
        {admin.owners.erase}
      </a>
    </div>
  )
}
