import type { Problem } from '../faults'
import type { Page } from '../page'
import type { Call } from '../router'
import { KeyFilters } from './admin/key-filters'
import { KeyTable, type KeyRow } from './key-table'
import { Banner } from './layout'
import { Filters, listAddress, type Wish } from './list-filters'
import { ExactTimes } from './parts'

interface ListProps {
  page: Page
  member: Call['member']
  wish: Wish
  keys: readonly KeyRow[]
  nextCursor: string | null
  /** The names of the environments of the app. */
  environments: readonly string[]
  descriptions: ReadonlyMap<string, string>
  problem: Problem | undefined
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
  problem,
}: ListProps) {
  const { list, admin } = page.texts
  const kind = member.owner?.type ?? 'all'
  const leads = { all: admin.list.lead, organization: list.leadOfOrganization }
  const lead = kind === 'all' || kind === 'organization' ? leads[kind] : list.lead
  const emptyLead = kind === 'organization' ? list.emptyLeadOfOrganization : list.emptyLead
  const fault = problem && (problem.general ?? [...problem.fields.values()][0])
  const isBare = keys.length === 0 && !isFiltered(wish) && fault === undefined
  return (
    <>
      <div class="title">
        <div>
          <h1>{page.texts.apiKeys}</h1>
          <p class="lead">{lead}</p>
        </div>
        {!isBare && !member.isReadOnly && (
          <a class="button primary" href={page.to('new')}>
            {list.create}
          </a>
        )}
      </div>
      {fault !== undefined && <Banner kind="bad">{fault}</Banner>}
      {kind === 'all' ? (
        <KeyFilters
          page={page}
          wish={wish}
          environments={environments}
          descriptions={descriptions}
          problem={problem}
        />
      ) : (
        <Filters page={page} wish={wish} environments={environments} />
      )}
      <div id="keys" data-live>
        {keys.length > 0 && (
          <KeyTable page={page} wish={wish} keys={keys} descriptions={descriptions} />
        )}
        {isBare && (
          <div class="empty-state">
            <h2>{list.empty}</h2>
            {!member.isReadOnly && (
              <>
                <p>{kind === 'all' ? admin.list.emptyLead : emptyLead}</p>
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

/** True if a user wishes for other keys than the first page of those that are not revoked. */
function isFiltered({ sort: _sort, ...filters }: Wish): boolean {
  return Object.values(filters).some((value) => value !== undefined && value !== '')
}
