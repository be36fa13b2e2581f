import type { Member } from '../../http/member'
import type { Sort, SortName } from '../../keys/cursor'
import type { ApiKeyRecord } from '../../keys/record'
import { appFieldsOf } from '../app-fields'
import type { Page } from '../page'
import { Sparkline, type Slot } from './chart'
import { Banner } from './layout'
import { Filters, listAddress, type Wish } from './list-filters'
import { Ago, Day, ExactTimes, KeyEnds, State, wordsFor } from './parts'

interface ListProps {
  page: Page
  member: Member
  wish: Wish
  keys: readonly { apiKey: ApiKeyRecord; slots: readonly Slot[] }[]
  nextCursor: string | null
  /** The names of the environments of the app. */
  environments: readonly string[]
  descriptions: ReadonlyMap<string, string>
  fault: string | undefined
}

/** The list of keys, with search, filters and pages. */
export function KeyList({
  page,
  member,
  wish,
  keys,
  nextCursor,
  descriptions,
  environments,
  fault,
}: ListProps) {
  const { list } = page.texts
  const isOfUser = member.owner.type === 'user'
  const isFiltered =
    wish.state !== undefined ||
    wish.environment !== undefined ||
    wish.text !== '' ||
    wish.cursor !== undefined
  const isBare = keys.length === 0 && !isFiltered && fault === undefined
  return (
    <>
      <div class="title">
        <div>
          <h1>{page.texts.apiKeys}</h1>
          <p class="lead">{isOfUser ? list.lead : list.leadOfOrganization}</p>
        </div>
        {!isBare && !member.isReadOnly && (
          <a class="button primary" href={page.to('new')}>
            {list.create}
          </a>
        )}
      </div>
      {fault !== undefined && <Banner kind="bad">{fault}</Banner>}
      <Filters page={page} wish={wish} environments={environments} />
      <div id="keys" data-live>
        {keys.length > 0 && (
          <Keys page={page} wish={wish} keys={keys} descriptions={descriptions} />
        )}
        {isBare && (
          <div class="empty-state">
            <h2>{list.empty}</h2>
            {!member.isReadOnly && (
              <>
                <p>{isOfUser ? list.emptyLead : list.emptyLeadOfOrganization}</p>
                <a class="button primary" href={page.to('new')}>
                  {list.create}
                </a>
              </>
            )}
          </div>
        )}
        {keys.length === 0 && !isBare && (
          <div class="empty-state">
            {fault === undefined && <h2>{list.nothing}</h2>}
            {fault === undefined && <p>{list.nothingLead}</p>}
            <a class="button" href={page.to('')}>
              {list.clear}
            </a>
          </div>
        )}
        <Pages page={page} wish={wish} nextCursor={nextCursor} />
      </div>
      {keys.length > 0 && (
        <div class="foot">
          <ExactTimes page={page} />
        </div>
      )}
    </>
  )
}

function Pages({ page, wish, nextCursor }: Pick<ListProps, 'page' | 'wish' | 'nextCursor'>) {
  const { list } = page.texts
  if (nextCursor === null && wish.cursor === undefined) return null
  return (
    <nav class="pages" aria-label={page.texts.apiKeys}>
      {wish.cursor !== undefined && (
        <a class="button" href={listAddress(page, { ...wish, cursor: undefined })}>
          {list.first}
        </a>
      )}
      {nextCursor !== null && (
        <a class="button" rel="next" href={listAddress(page, { ...wish, cursor: nextCursor })}>
          {list.next}
        </a>
      )}
    </nav>
  )
}

type Column = 'name' | 'permissions' | 'status' | 'lastUsed' | 'usage' | 'created' | 'expires'

/** The columns, and the order by which each sorts at the first click. */
const columns: readonly [Column, Sort | null][] = [
  ['name', 'name'],
  ['permissions', null],
  ['status', null],
  ['lastUsed', '-lastUsedAt'],
  ['usage', null],
  ['created', '-createdAt'],
  ['expires', 'expiresAt'],
]

function Keys({
  page,
  wish,
  keys,
  descriptions,
}: Pick<ListProps, 'page' | 'wish' | 'keys' | 'descriptions'>) {
  return (
    <table class="keys" role="table">
      <thead role="rowgroup">
        <tr role="row">
          {columns.map(([column, sort]) => (
            <Heading page={page} wish={wish} column={column} sort={sort} />
          ))}
        </tr>
      </thead>
      <tbody role="rowgroup">
        {keys.map(({ apiKey, slots }) => (
          <Row page={page} apiKey={apiKey} slots={slots} descriptions={descriptions} />
        ))}
      </tbody>
    </table>
  )
}

interface HeadingProps {
  page: Page
  wish: Wish
  column: Column
  sort: Sort | null
}

function Heading({ page, wish, column, sort }: HeadingProps) {
  const { list } = page.texts
  const text = list.columns[column]
  if (sort === null) {
    return (
      <th scope="col" role="columnheader" class={column}>
        {text}
      </th>
    )
  }

  const isSorted = nameOf(wish.sort) === nameOf(sort)
  const isDescending = wish.sort.startsWith('-')
  const next = isSorted ? opposite(wish.sort) : sort
  return (
    <th
      scope="col"
      role="columnheader"
      class={column}
      aria-sort={isSorted ? (isDescending ? 'descending' : 'ascending') : undefined}
    >
      <a
        href={listAddress(page, { ...wish, sort: next, cursor: undefined })}
        title={list.sortBy(text)}
      >
        {text}
        {isSorted && <span aria-hidden="true">{isDescending ? ' ↓' : ' ↑'}</span>}
      </a>
    </th>
  )
}

function nameOf(sort: Sort): SortName {
  return sort.replace('-', '') as SortName
}

function opposite(sort: Sort): Sort {
  return (sort.startsWith('-') ? nameOf(sort) : `-${sort}`) as Sort
}

/** How many permissions a row shows. */
const shownPermissions = 2

interface RowProps {
  page: Page
  apiKey: ApiKeyRecord
  slots: readonly Slot[]
  descriptions: ReadonlyMap<string, string>
}

function Row({ page, apiKey, slots, descriptions }: RowProps) {
  const { texts, to } = page
  const { columns } = texts.list
  const { environment } = appFieldsOf(apiKey)
  const words = wordsFor(descriptions, apiKey.permissions)
  const hidden = words.length - shownPermissions
  return (
    <tr role="row">
      <th scope="row" role="rowheader" class="name">
        <a href={to(apiKey.id)}>
          <bdi>{apiKey.name}</bdi>
        </a>
        <KeyEnds ends={apiKey} />
        {environment !== null && <span class="environment">{environment}</span>}
      </th>
      <td role="cell" class="permissions" data-label={columns.permissions}>
        <span>
          {words.slice(0, shownPermissions).join(', ')}
          {hidden > 0 && <span class="more"> {texts.more(hidden)}</span>}
        </span>
      </td>
      <td role="cell" class="status" data-label={columns.status}>
        <State page={page} apiKey={apiKey} />
      </td>
      <td role="cell" class="lastUsed" data-label={columns.lastUsed}>
        {apiKey.lastUsedAt ? (
          <Ago page={page} at={apiKey.lastUsedAt} />
        ) : (
          <span class="none">{texts.times.never}</span>
        )}
      </td>
      <td role="cell" class="usage" data-label={columns.usage}>
        <Sparkline page={page} slots={slots} />
      </td>
      <td role="cell" class="created" data-label={columns.created}>
        <Day page={page} at={apiKey.createdAt} />
      </td>
      <td role="cell" class="expires" data-label={columns.expires}>
        {apiKey.expiresAt ? (
          <Day page={page} at={apiKey.expiresAt} />
        ) : (
          <span class="none">{texts.times.noExpiry}</span>
        )}
      </td>
    </tr>
  )
}
