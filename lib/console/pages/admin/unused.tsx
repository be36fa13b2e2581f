import type { ApiKeyRecord } from '../../../keys/record'
import type { OwnerInput } from '../../admin/owner-input'
import type { Problem } from '../../faults'
import type { Page } from '../../page'
import { Field } from '../fields'
import { Banner, Crumbs } from '../layout'
import { EnvironmentChoice } from '../list-filters'
import { ReasonField } from '../question'
import { keyCount, KeysInBrief, OwnerField } from './owner-parts'

interface UnusedProps {
  page: Page
  wish: OwnerInput & { days: string; environment: string }
  /** The names of the environments of the app. */
  environments: readonly string[]
  reason: string
  /** The keys that would be revoked; `undefined` if the wish has a fault. */
  found: { keys: number; apiKeys: readonly ApiKeyRecord[] } | undefined
  problem: Problem | undefined
}

/** The keys that are not in use, and the form that revokes them. */
export function UnusedKeys(props: UnusedProps) {
  const { page, wish, environments, found, problem } = props
  const { admin } = page.texts
  const general = problem?.general
  return (
    <>
      <h1>{admin.sections.unused}</h1>
      <p class="lead">{admin.unused.lead}</p>
      {general !== undefined && <Banner kind="bad">{general}</Banner>}
      <form class="filter-fields card" role="search" method="get" action={page.to('unused')}>
        <Field
          name="unusedForDays"
          label={admin.fields.unusedForDays}
          hint={admin.unused.daysHint}
          problem={problem}
        >
          {(attributes) => (
            <input type="text" inputmode="numeric" name="days" value={wish.days} {...attributes} />
          )}
        </Field>
        <OwnerField
          page={page}
          label={admin.fields.owner}
          hint={admin.unused.ownerHint}
          optional={page.texts.form.optional}
          value={wish}
          problem={problem}
        />
        {environments.length > 1 && (
          <Field name="environment" label={page.texts.form.environment} problem={problem}>
            {(attributes) => (
              <EnvironmentChoice
                page={page}
                environment={wish.environment}
                environments={environments}
                attributes={attributes}
              />
            )}
          </Field>
        )}
        <div class="filter-buttons">
          <button class="button primary">{admin.unused.show}</button>
        </div>
      </form>
      {found?.keys === 0 && (
        <div class="empty-state">
          <h2>{admin.unused.none}</h2>
        </div>
      )}
      {found && found.keys > 0 && <Found {...props} found={found} />}
    </>
  )
}

function Found({
  page,
  wish,
  reason,
  found,
  problem,
}: UnusedProps & { found: NonNullable<UnusedProps['found']> }) {
  const { unused } = page.texts.admin
  const keys = keyCount(page, found.keys)
  return (
    <section class="card" aria-labelledby="unused">
      <h2 id="unused">{unused.title(keys, daysOf(page, wish.days))}</h2>
      <KeysInBrief page={page} apiKeys={found.apiKeys} count={found.keys} hasOwners />
      <form
        class="below"
        method="post"
        action={page.to('unused')}
        autocomplete="off"
        data-once
        novalidate
      >
        <input type="hidden" name="days" value={wish.days} />
        <input type="hidden" name="ownerType" value={wish.ownerType} />
        <input type="hidden" name="ownerId" value={wish.ownerId} />
        <input type="hidden" name="environment" value={wish.environment} />
        <ReasonField page={page} reason={reason} problem={problem} />
        <p class="hint">{unused.warning}</p>
        <div class="actions">
          <button class="button danger">{unused.submit(keys)}</button>
        </div>
      </form>
    </section>
  )
}

interface RevokedProps {
  page: Page
  /** How many keys were revoked. */
  keys: number
  days: string
}

/** The page that says how many keys were revoked. */
export function UnusedRevoked({ page, keys, days }: RevokedProps) {
  const { unused, sections } = page.texts.admin
  return (
    <>
      <Crumbs page={page} root={{ text: sections.unused, href: page.to('unused') }} />
      <h1>{unused.done(keyCount(page, keys))}</h1>
      <Banner kind="good">{unused.doneLead(daysOf(page, days))}</Banner>
      <div class="actions">
        <a class="button primary" href={page.to('unused')}>
          {unused.again}
        </a>
      </div>
    </>
  )
}

function daysOf({ formats }: Page, days: string): string {
  return formats.duration(Number(days) * 86_400)
}
