import { isIdle } from '../../keys/states'
import { stateOf, type KeyState } from '../key-state'
import { Details } from './key-details'
import type { KeyProps } from './key-props'
import { UsageOfKey } from './key-usage'
import { Banner, Crumbs } from './layout'
import { Ago, Exactly, KeyEnds, State } from './parts'
import { Trail } from './trail'

/** All about one key, and what can be done with it. */
export function Key(props: KeyProps) {
  const { page, apiKey, canChange, canUnrevoke, notice, fault } = props
  const { texts } = page
  const state = stateOf(apiKey)
  return (
    <>
      <Crumbs page={page} />
      <div id="about" data-live>
        <div class="title">
          <div>
            <h1>
              <bdi>{apiKey.name}</bdi> <State page={page} apiKey={apiKey} />
            </h1>
            <KeyEnds ends={apiKey} />
          </div>
          {state !== 'revoked' && canChange && <Actions {...props} />}
          {canUnrevoke && <Unrevoke {...props} />}
        </div>
        {apiKey.description !== null && (
          <p class="description" dir="auto">
            {apiKey.description}
          </p>
        )}
        {fault !== undefined && <Banner kind="bad">{fault}</Banner>}
        {notice !== undefined && <Banner kind="good">{texts.notices[notice]}</Banner>}
        {state !== 'active' && notice === undefined && !canUnrevoke && (
          <Banner kind="note">{noteOf(props, state)}</Banner>
        )}
        {apiKey.ownerSuspended && <Banner kind="note">{texts.key.ownerSuspended}</Banner>}
        <OldSecret {...props} />
        <PendingSecret {...props} />
      </div>
      <div id="key" data-live>
        <Details {...props} />
        <UsageOfKey {...props} />
      </div>
      <div id="history" data-live>
        <Trail {...props} />
      </div>
    </>
  )
}

/** Returns why a key does not work, and what can be done about it. */
function noteOf({ page, apiKey }: KeyProps, state: Exclude<KeyState, 'active'>): string {
  const { key, exposure } = page.texts
  if (apiKey.exposed) return exposure.note
  return state === 'expired' && isIdle(apiKey, Date.now()) ? key.idle : key.notes[state]
}

function Actions({ page, apiKey, canRenew }: KeyProps) {
  const { key } = page.texts
  // An idle key is reactivated like a suspended key.
  const isRefused = apiKey.status === 'SUSPENDED' || isIdle(apiKey, Date.now())
  const view = isRefused ? 'reactivate' : 'suspend'
  return (
    <div class="toolbar">
      <a class="button" href={page.to(`${apiKey.id}/edit`)}>
        {key.edit}
      </a>
      {stateOf(apiKey) === 'active' && canRenew && (
        <a class="button" href={page.to(`${apiKey.id}/rotate`)}>
          {key.rotate}
        </a>
      )}
      {page.look.admin && (
        <a class="button" href={page.to(`${apiKey.id}/transfer`)}>
          {page.texts.admin.key.transfer}
        </a>
      )}
      {page.look.admin && !isRefused && (
        <a class="button" href={page.to(`${apiKey.id}/suspend`)}>
          {key.suspend}
        </a>
      )}
      {(isRefused ? canRenew && !apiKey.exposed : !page.look.admin) && (
        <form method="post" action={page.to(`${apiKey.id}/${view}`)} data-once>
          <button class="button">{key[view]}</button>
        </form>
      )}
      <a class="button danger-quiet" href={page.to(`${apiKey.id}/revoke`)}>
        {key.revoke}
      </a>
    </div>
  )
}

function Unrevoke({ page, apiKey }: KeyProps) {
  return (
    <div class="toolbar">
      <form method="post" action={page.to(`${apiKey.id}/unrevoke`)} data-once>
        <button class="button">{page.texts.admin.key.unrevoke}</button>
      </form>
    </div>
  )
}

function PendingSecret({ page, apiKey, canChange }: KeyProps) {
  const { key } = page.texts
  const { pendingRotation: pending } = apiKey
  if (!pending || apiKey.status === 'REVOKED') return null

  const { prefix, postfix, gracePeriodSeconds } = pending
  return (
    <section class="card attention">
      <div>
        <h2>{key.pending}</h2>
        <p>{key.pendingUntil(`${prefix}…${postfix}`, page.formats.duration(gracePeriodSeconds))}</p>
      </div>
      {canChange && (
        <a class="button" href={page.to(`${apiKey.id}/end-rotation`)}>
          {key.endPending}
        </a>
      )}
    </section>
  )
}

function OldSecret({ page, apiKey, canChange }: KeyProps) {
  const { key } = page.texts
  const { previousSecret: old } = apiKey
  if (!old || old.worksUntil <= page.now || apiKey.status === 'REVOKED') return null

  return (
    <section class="card attention">
      <div>
        <h2>{key.oldSecret}</h2>
        <p>
          {key.oldSecretUntil(`${old.prefix}…${old.postfix}`)}{' '}
          <Exactly page={page} at={old.worksUntil} />.{' '}
          {old.lastUsedAt ? (
            <>
              {key.oldSecretUsed} <Ago page={page} at={old.lastUsedAt} />.
            </>
          ) : (
            key.oldSecretUnused
          )}
        </p>
      </div>
      {canChange && (
        <a class="button" href={page.to(`${apiKey.id}/end-rotation`)}>
          {key.endRotation}
        </a>
      )}
    </section>
  )
}
