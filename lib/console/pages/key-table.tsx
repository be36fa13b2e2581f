import type { Sort, SortName } from '../../keys/cursor'
import type { ApiKeyRecord } from '../../keys/record'
import { appFieldsOf } from '../app-fields'
import type { Page } from '../page'
import { OwnerLink } from './admin/owner-parts'
import { Sparkline, type Slot } from './chart'
import { listAddress, type Wish } from './list-filters'
import { Day, KeyEnds, LastUsed, State, wordsFor } from './parts'
import { Cell, Heading, Row, RowHeading, Table } from './table'

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
  const headings = shown.map(([column, sort]) => (
    <SortHeading
      page={page}
      wish={wish}
      column={column}
      sort={canSort || column === 'created' ? sort : null}
    />
  ))
  return (
    <Table class="keys" headings={headings}>
      {keys.map(({ apiKey, slots }) => (
        <KeyOfList page={page} apiKey={apiKey} slots={slots} descriptions={descriptions} />
      ))}
    </Table>
  )
}

interface HeadingProps {
  page: Page
  wish: Wish
  column: Column
  sort: Sort | null
}

function SortHeading({ page, wish, column, sort }: HeadingProps) {
  const { list } = page.texts
  const text = list.columns[column]
  if (sort === null) {
    return <Heading class={column}>{text}</Heading>
  }

  const isSorted = nameOf(wish.sort) === nameOf(sort)
  const isDescending = wish.sort.startsWith('-')
  const next = isSorted ? opposite(wish.sort) : sort
  return (
    <Heading
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
    </Heading>
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

interface KeyProps extends KeyRow {
  page: Page
  descriptions: ReadonlyMap<string, string>
}

function KeyOfList({ page, apiKey, slots, descriptions }: KeyProps) {
  const { texts, to } = page
  const { columns } = texts.list
  const { environment } = appFieldsOf(apiKey)
  const words = wordsFor(descriptions, apiKey.permissions)
  const hidden = words.length - shownPermissions
  return (
    <Row>
      <RowHeading class="name">
        <a href={to(apiKey.id)}>
          <bdi>{apiKey.name}</bdi>
        </a>
        <KeyEnds ends={apiKey} />
        {environment !== null && <span class="environment">{environment}</span>}
      </RowHeading>
      {page.look.admin && (
        <Cell class="owner" label={columns.owner}>
          <OwnerLink page={page} owner={apiKey.owner} />
        </Cell>
      )}
      <Cell class="permissions" label={columns.permissions}>
        <span>
          {words.slice(0, shownPermissions).join(', ')}
          {hidden > 0 && <span class="more"> {texts.more(hidden)}</span>}
        </span>
      </Cell>
      <Cell class="status" label={columns.status}>
        <State page={page} apiKey={apiKey} />
        {page.look.admin && apiKey.ownerSuspended && (
          <span class="none">{texts.admin.ownerSuspended}</span>
        )}
      </Cell>
      <Cell class="lastUsed" label={columns.lastUsed}>
        <LastUsed page={page} at={apiKey.lastUsedAt} />
      </Cell>
      <Cell class="usage" label={columns.usage}>
        <Sparkline page={page} slots={slots} />
      </Cell>
      <Cell class="created" label={columns.created}>
        <Day page={page} at={apiKey.createdAt} />
      </Cell>
      <Cell class="expires" label={columns.expires}>
        {apiKey.expiresAt ? (
          <Day page={page} at={apiKey.expiresAt} />
        ) : (
          <span class="none">{texts.times.noExpiry}</span>
        )}
      </Cell>
    </Row>
  )
}
