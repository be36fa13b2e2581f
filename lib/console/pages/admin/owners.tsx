import type { Suspension } from '../../../lifecycle/overviews'
import type { OwnerInput } from '../../admin/owner-input'
import type { Problem } from '../../faults'
import type { Page } from '../../page'
import { Ago } from '../parts'
import { OwnerField, OwnerLink } from './owner-parts'

interface OwnersProps {
  page: Page
  wish: OwnerInput
  problem: Problem | undefined
  suspensions: readonly Suspension[]
}

/** The way to the page of an owner, and the owners who are suspended. */
export function Owners({ page, wish, problem, suspensions }: OwnersProps) {
  const { admin, list, revoke } = page.texts
  const { owners, sections, fields } = admin
  return (
    <>
      <h1>{sections.owners}</h1>
      <p class="lead">{owners.lead}</p>
      <form class="find" method="get" action={page.to('owner')} role="search">
        <OwnerField page={page} label={fields.owner} value={wish} problem={problem} hasFocus />
        <button class="button primary">{owners.find}</button>
      </form>
      <section class="card" aria-labelledby="suspended">
        <h2 id="suspended">{owners.suspended}</h2>
        {suspensions.length === 0 ? (
          <p class="none">{owners.noneSuspended}</p>
        ) : (
          <table class="rows brief" role="table">
            <thead role="rowgroup">
              <tr role="row">
                <th scope="col" role="columnheader">
                  {list.columns.owner}
                </th>
                <th scope="col" role="columnheader">
                  {revoke.reason}
                </th>
                <th scope="col" role="columnheader">
                  {owners.since}
                </th>
              </tr>
            </thead>
            <tbody role="rowgroup">
              {suspensions.map(({ owner, at, reason }) => (
                <tr role="row">
                  <th scope="row" role="rowheader">
                    <OwnerLink page={page} owner={owner} />
                  </th>
                  <td role="cell" dir="auto" data-label={revoke.reason}>
                    {reason ?? <span class="none">–</span>}
                  </td>
                  <td role="cell" data-label={owners.since}>
                    <Ago page={page} at={at} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </section>
    </>
  )
}
