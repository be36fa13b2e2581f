import type { ApiKeyEvent } from '../../../audit/list-entries'
import type { OwnerInput } from '../../admin/owner-input'
import type { Problem } from '../../faults'
import type { Page } from '../../page'
import { Choice, Field } from '../fields'
import { Banner } from '../layout'
import { Events } from './events'
import { OwnerField } from './owner-parts'

/** The entries that an administrator asks for; empty texts for all. */
export interface TrailWish extends OwnerInput {
  apiKeyId: string
  action: string
  cursor: string
}

interface TrailProps {
  page: Page
  wish: TrailWish
  userId: string | number
  events: readonly ApiKeyEvent[]
  /** The names of keys, by their ids. */
  names: ReadonlyMap<string, string>
  nextCursor: string | null
  problem: Problem | undefined
}

/** Returns the address of the trail with some wishes. */
function trailAddress(page: Page, wish: Partial<TrailWish>): string {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(wish)) if (value) query.set(name, value)
  return query.size > 0 ? `${page.to('audit')}?${query}` : page.to('audit')
}

/** The audit trail, with filters and pages, and the way to its verification. */
export function AuditTrail(props: TrailProps) {
  const { page, wish, userId, events, names, nextCursor, problem } = props
  const { admin, list, trail } = page.texts
  const general = problem?.general
  const { cursor, ...filters } = wish
  return (
    <>
      <div class="title">
        <div>
          <h1>{admin.sections.trail}</h1>
          <p class="lead">{admin.trail.lead}</p>
        </div>
        <a class="button" href={page.to('audit/verification')}>
          {admin.trail.verify}
        </a>
      </div>
      {general !== undefined && <Banner kind="bad">{general}</Banner>}
      <TrailFilters {...props} />
      {events.length > 0 ? (
        <section class="card" aria-label={admin.sections.trail}>
          <Events page={page} events={events} userId={userId} names={names} />
        </section>
      ) : (
        <div class="empty-state">
          {!problem && <h2>{admin.trail.nothing}</h2>}
          {!problem && <p>{admin.trail.nothingLead}</p>}
          <a class="button" href={page.to('audit')}>
            {admin.trail.clear}
          </a>
        </div>
      )}
      {(nextCursor !== null || cursor !== '') && (
        <nav class="pages" aria-label={list.pages}>
          {cursor !== '' && (
            <a class="button" href={trailAddress(page, filters)}>
              {trail.newest}
            </a>
          )}
          {nextCursor !== null && (
            <a
              class="button"
              rel="next"
              href={trailAddress(page, { ...filters, cursor: nextCursor })}
            >
              {trail.older}
            </a>
          )}
        </nav>
      )}
    </>
  )
}

function TrailFilters({ page, wish, problem }: TrailProps) {
  const { admin, trail } = page.texts
  const { fields } = admin
  const isUsed = Object.values(wish).some((value) => value !== '')
  const actions = Object.entries(trail.actions).map(([value, text]) => ({ value, text }))
  return (
    <form class="filter-fields card" role="search" method="get" action={page.to('audit')}>
      <Field name="action" label={fields.action} problem={problem}>
        {(attributes) => (
          <Choice
            name="action"
            value={wish.action}
            options={[{ value: '', text: admin.trail.anyAction }, ...actions]}
            attributes={attributes}
          />
        )}
      </Field>
      <OwnerField page={page} label={fields.owner} value={wish} problem={problem} />
      <Field name="apiKeyId" label={fields.apiKeyId} problem={problem}>
        {(attributes) => (
          <input
            type="text"
            name="apiKeyId"
            value={wish.apiKeyId}
            spellcheck={false}
            {...attributes}
          />
        )}
      </Field>
      <div class="filter-buttons">
        <button class="button primary">{admin.trail.show}</button>
        {isUsed && (
          <a class="button plain" href={page.to('audit')}>
            {admin.trail.clear}
          </a>
        )}
      </div>
    </form>
  )
}
