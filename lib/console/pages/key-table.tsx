import type { Sort, SortName } from '../../keys/cursor'
import type { ApiKeyRecord } from '../../keys/record'
import { appFieldsOf } from '../app-fields'
import type { Page } from '../page'
import { OwnerLink } from './admin/owner-parts'
import { Sparkline, type Slot } from './chart'
import { listAddress, type Wish } from './list-filters'
import { Ago, Day, KeyEnds, State, wordsFor } from './parts'

/** A key in the list, with its uses of 30 days. */
export interface KeyRow {
  apiKey: ApiKeyRecord
  slots: readonly Slot[]
}

type Column = keyof Page['texts']['list']['columns']

/** The columns, and the order by which each sorts at the first click. */
const columns: readonly [Column, Sort | null][] = [
  ['name', 'name'],
  ['owner', null],
  ['permissions', null],
  ['status', null],
  ['lastUsed', '-lastUsedAt'],
  ['usage', null],
  ['created', '-createdAt'],
  ['expires', 'expiresAt'],
]

interface TableProps {
  page: Page
  wish: Wish
  keys: readonly KeyRow[]
  descriptions: ReadonlyMap<string, string>
}

/** The table of the list. Only administrators need a column for owners. */
export function KeyTable({ page, wish, keys, descriptions }: TableProps) {
  const shown = columns.filter(([column]) => column !== 'owner' || page.look.admin)
  // The keys of all owners are in the order of an index.
  const canSort = !page.look.admin || wish.ownerId !== ''
  return (
    <table class="keys" role="table">
      <thead role="rowgroup">
        <tr role="row">
          {shown.map(([column, sort]) => (
            <Heading
              page={page}
              wish={wish}
              column={column}
              sort={canSort || column === 'created' ? sort : null}
            />
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

interface RowProps extends KeyRow {
  page: Page
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
      {page.look.admin && (
        <td role="cell" class="owner" data-label={columns.owner}>
          <OwnerLink page={page} owner={apiKey.owner} />
        </td>
      )}
      <td role="cell" class="permissions" data-label={columns.permissions}>
        <span>
          {words.slice(0, shownPermissions).join(', ')}
          {hidden > 0 && <span class="more"> {texts.more(hidden)}</span>}
        </span>
      </td>
      <td role="cell" class="status" data-label={columns.status}>
        <State page={page} apiKey={apiKey} />
        {page.look.admin && apiKey.ownerSuspended && (
          <span class="none">{texts.admin.ownerSuspended}</span>
        )}
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
