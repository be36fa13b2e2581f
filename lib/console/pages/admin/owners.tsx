import type { Suspension } from '../../../lifecycle/overviews'
import type { OwnerInput } from '../../admin/owner-input'
import type { Problem } from '../../faults'
import type { Page } from '../../page'
import { Ago } from '../parts'
import { Cell, Row, RowHeading, Table } from '../table'
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
          <Table class="rows brief" headings={[list.columns.owner, revoke.reason, owners.since]}>
            {suspensions.map(({ owner, at, reason }) => (
              <Row>
                <RowHeading>
                  <OwnerLink page={page} owner={owner} />
                </RowHeading>
                <Cell dir="auto" label={revoke.reason}>
                  {reason ?? <span class="none">–</span>}
                </Cell>
                <Cell label={owners.since}>
                  <Ago page={page} at={at} />
                </Cell>
              </Row>
            ))}
          </Table>
        )}
      </section>
    </>
  )
}
