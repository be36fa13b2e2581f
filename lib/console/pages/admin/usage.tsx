import type { Owner } from '../../../keys/owner'
import type { ApiKeyRecord } from '../../../keys/record'
import type { KeyUsage, UsageCounts } from '../../../usage/report'
import type { Page } from '../../page'
import type { Slot } from '../chart'
import { PeriodTabs, UsageSummary } from '../key-usage'
import { KeyLink } from '../parts'
import { Cell, Heading, Row, RowHeading, Table } from '../table'
import { nameOf, ownerAddress, OwnerLink } from './owner-parts'

interface TotalUsageProps {
  page: Page
  /** The owner whose usage it is; `undefined` for all owners. */
  owner: Owner | undefined
  period: 'hour' | 'day'
  slots: readonly Slot[]
  totals: UsageCounts
  /** The keys that were used most. */
  keys: readonly KeyUsage[]
  /** Their records, by their ids. A deleted key has none. */
  records: ReadonlyMap<string, ApiKeyRecord>
}

/** The usage of all keys together, or of the keys of an owner, and the busiest keys. */
export function TotalUsagePage(props: TotalUsageProps) {
  const { page, owner, period, slots, totals, keys } = props
  const { usage } = page.texts.admin
  const address = owner ? ownerAddress(page, owner, 'usage') : page.to('usage')
  return (
    <>
      <div class="title">
        <div>
          <h1>{usage.title}</h1>
          <p class="lead">
            {owner ? <bdi>{usage.leadOfOwner(nameOf(page, owner))}</bdi> : usage.lead}
          </p>
        </div>
        {owner && (
          <a class="button" href={page.to('usage')}>
            {usage.all}
          </a>
        )}
      </div>
      <div id="usage" data-live>
        <section class="card" aria-labelledby="totals">
          <div class="card-head">
            <h2 id="totals">{usage.totals}</h2>
            <PeriodTabs page={page} period={period} address={address} />
          </div>
          <UsageSummary page={page} slots={slots} totals={totals} isHourly={period === 'hour'} />
        </section>
        <section class="card" aria-labelledby="busiest">
          <h2 id="busiest">{usage.busiest}</h2>
          {keys.length > 0 ? <Busiest {...props} /> : <p class="none">{usage.none}</p>}
        </section>
      </div>
    </>
  )
}

function Busiest({ page, totals, keys, records }: TotalUsageProps) {
  const { admin, list, usage } = page.texts
  const counts = [usage.accepted, usage.denied, usage.rateLimited]
  const headings = [
    list.columns.name,
    list.columns.owner,
    admin.usage.share,
    ...counts.map((text) => <Heading class="number">{text}</Heading>),
  ]
  return (
    <Table class="rows brief busiest" headings={headings}>
      {keys.map((used) => (
        <BusyKey
          page={page}
          used={used}
          apiKey={records.get(used.apiKeyId)}
          most={Math.max(totals.accepted, 1)}
        />
      ))}
    </Table>
  )
}

interface BusyKeyProps {
  page: Page
  used: KeyUsage
  /** `undefined` for a deleted key. */
  apiKey: ApiKeyRecord | undefined
  /** The accepted requests of all keys. */
  most: number
}

function BusyKey({ page, used, apiKey, most }: BusyKeyProps) {
  const { texts, formats } = page
  const { admin, list, usage } = texts
  const share = used.accepted / most
  const counts = [
    [usage.accepted, used.accepted],
    [usage.denied, used.denied],
    [usage.rateLimited, used.rateLimited],
  ] as const
  return (
    <Row>
      <RowHeading class="name">
        {apiKey ? (
          <KeyLink page={page} apiKey={apiKey} />
        ) : (
          <>
            {admin.usage.deleted} <code class="ends">{used.apiKeyId}</code>
          </>
        )}
      </RowHeading>
      <Cell label={list.columns.owner}>
        {used.owner ? <OwnerLink page={page} owner={used.owner} /> : null}
      </Cell>
      <Cell label={admin.usage.share}>
        <svg class="share" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
          <rect class="rest" width="100" height="8" />
          <rect class="accepted" width={Math.round(share * 1000) / 10} height="8" />
        </svg>{' '}
        {formats.percent(share)}
      </Cell>
      {counts.map(([label, count]) => (
        <Cell class="number" label={label}>
          {formats.number(count)}
        </Cell>
      ))}
    </Row>
  )
}
