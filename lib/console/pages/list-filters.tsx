import type { Sort } from '../../keys/cursor'
import { Choice, type ChoiceProps } from './fields'
import { keyStates, type KeyState } from '../key-state'
import type { Page } from '../page'

/** The filters that a user has given the list. */
export interface Wish {
  state: KeyState | undefined
  environment: string | undefined
  text: string
  /** The wishes of administrators; empty for none. */
  ownerType: string
  ownerId: string
  createdBy: string
  permission: string
  sort: Sort
  cursor: string | undefined
}

/** Returns the address of the list with some wishes. */
export function listAddress(page: Page, { state, text, sort, ...wish }: Wish): string {
  const wishes = {
    status: state,
    q: text,
    ...wish,
    ownerType: wish.ownerId && wish.ownerType,
    sort: sort === '-createdAt' ? '' : sort,
  }
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(wishes)) if (value) query.set(name, value)
  return query.size > 0 ? `${page.to('')}?${query}` : page.to('')
}

interface FiltersProps {
  page: Page
  wish: Wish
  /** The names of the environments of the app. */
  environments: readonly string[]
}

/** The states of keys that the list can be about. */
export function StateTabs({ page, wish }: Pick<FiltersProps, 'page' | 'wish'>) {
  const { list, states } = page.texts
  return (
    <nav aria-label={list.filters} class="tabs">
      {[undefined, ...keyStates].map((state) => (
        <a
          href={listAddress(page, { ...wish, state, cursor: undefined })}
          aria-current={wish.state === state ? 'page' : undefined}
        >
          {state === undefined ? list.current : states[state]}
        </a>
      ))}
    </nav>
  )
}

/** The field for the words that are searched for, and the button that searches. */
export function SearchField({ page, text }: { page: Page; text: string }) {
  const { list } = page.texts
  return (
    <>
      <input
        type="search"
        name="q"
        value={text}
        aria-label={`${list.search}: ${list.searchHint}`}
        placeholder={list.searchHint}
        autocomplete="off"
        dir="auto"
      />
      <button class="button">{list.search}</button>
    </>
  )
}

interface EnvironmentProps extends Pick<ChoiceProps, 'attributes'> {
  page: Page
  environment: string | undefined
  environments: readonly string[]
}

/** The choice of an environment, or of all. */
export function EnvironmentChoice({
  page,
  environment,
  environments,
  attributes,
}: EnvironmentProps) {
  const options = environments.map((name) => ({ value: name, text: name }))
  return (
    <Choice
      name="environment"
      value={environment ?? ''}
      options={[{ value: '', text: page.texts.list.allEnvironments }, ...options]}
      attributes={attributes}
    />
  )
}

/** The words, the state and the environment that the list is about. */
export function Filters({ page, wish, environments }: FiltersProps) {
  const { form } = page.texts
  return (
    <div class="filters">
      <StateTabs page={page} wish={wish} />
      <form class="search" role="search" method="get" action={page.to('')}>
        {wish.state && <input type="hidden" name="status" value={wish.state} />}
        {environments.length > 1 && (
          <EnvironmentChoice
            page={page}
            environment={wish.environment}
            environments={environments}
            attributes={{ 'aria-label': form.environment }}
          />
        )}
        {wish.sort !== '-createdAt' && <input type="hidden" name="sort" value={wish.sort} />}
        <SearchField page={page} text={wish.text} />
      </form>
    </div>
  )
}
