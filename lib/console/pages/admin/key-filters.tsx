import type { Problem } from '../../faults'
import type { Page } from '../../page'
import { Choice, Field } from '../fields'
import { EnvironmentChoice, listAddress, SearchField, StateTabs, type Wish } from '../list-filters'
import { OwnerField } from './owner-parts'

interface KeyFiltersProps {
  page: Page
  wish: Wish
  environments: readonly string[]
  /** The words of the app for all permissions. */
  descriptions: ReadonlyMap<string, string>
  problem: Problem | undefined
}

/** All filters of the list of everyone's keys. Those that are in use are listed, each with a link that removes it. */
export function KeyFilters(props: KeyFiltersProps) {
  const { page, wish, problem } = props
  const { admin } = page.texts
  const used = usedFilters(props)
  return (
    <div class="filters">
      <StateTabs page={page} wish={wish} />
      <form class="admin-filters" role="search" method="get" action={page.to('')}>
        {wish.state && <input type="hidden" name="status" value={wish.state} />}
        <div class="search">
          <SearchField page={page} text={wish.text} />
        </div>
        <details class="more-filters" open={problem !== undefined}>
          <summary>{admin.list.moreFilters}</summary>
          <MoreFilters {...props} />
        </details>
      </form>
      {used.length > 0 && (
        <ul class="chips" aria-label={admin.list.used}>
          {used.map(({ label, value, without }) => (
            <li>
              <span>{label}:</span> <bdi>{value}</bdi>
              <a
                href={listAddress(page, { ...wish, ...without, cursor: undefined })}
                aria-label={admin.list.remove(`${label}: ${value}`)}
              >
                <span aria-hidden="true">×</span>
              </a>
            </li>
          ))}
        </ul>
      )}
    </div>
  )
}

function MoreFilters({ page, wish, environments, descriptions, problem }: KeyFiltersProps) {
  const { admin, form } = page.texts
  return (
    <div class="filter-fields">
      <OwnerField page={page} label={admin.fields.owner} value={wish} problem={problem} />
      <Field name="createdBy" label={admin.fields.createdBy} problem={problem}>
        {(attributes) => (
          <input
            type="text"
            name="createdBy"
            value={wish.createdBy}
            dir="auto"
            spellcheck={false}
            {...attributes}
          />
        )}
      </Field>
      <Field name="permission" label={admin.fields.permission} problem={problem}>
        {(attributes) => (
          <Choice
            name="permission"
            value={wish.permission}
            options={[
              { value: '', text: admin.list.anyPermission },
              ...Array.from(descriptions, ([value, text]) => ({ value, text })),
            ]}
            attributes={attributes}
          />
        )}
      </Field>
      {environments.length > 1 && (
        <Field name="environment" label={form.environment} problem={problem}>
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
      <button class="button primary">{admin.list.apply}</button>
    </div>
  )
}

function usedFilters({ page, wish, descriptions }: KeyFiltersProps) {
  const { admin, list, form } = page.texts
  const { fields, kinds } = admin
  const kind = page.look.ownerTypes.find((type) => type === wish.ownerType) ?? 'user'
  const owner = page.look.ownerTypes.length > 1 ? `${kinds[kind]} ${wish.ownerId}` : wish.ownerId
  const filters = [
    { label: list.search, value: wish.text, without: { text: '' } },
    { label: fields.owner, value: wish.ownerId && owner, without: { ownerType: '', ownerId: '' } },
    { label: fields.createdBy, value: wish.createdBy, without: { createdBy: '' } },
    {
      label: fields.permission,
      value: descriptions.get(wish.permission) ?? wish.permission,
      without: { permission: '' },
    },
    {
      label: form.environment,
      value: wish.environment ?? '',
      without: { environment: undefined },
    },
  ]
  return filters.filter(({ value }) => value !== '')
}
