import type { UsageCounts } from '../../usage/report'
import type { Page } from '../page'
import { Chart, UsageTable, type Slot } from './chart'
import type { KeyProps } from './key-props'

/** How often a key was used. */
export function UsageOfKey({ page, apiKey, slots, totals, period }: KeyProps) {
  return (
    <section class="card" aria-labelledby="usage">
      <div class="card-head">
        <h2 id="usage">{page.texts.usage.title}</h2>
        <PeriodTabs page={page} period={period} address={page.to(apiKey.id)} />
      </div>
      <UsageSummary page={page} slots={slots} totals={totals} isHourly={period === 'hour'} />
    </section>
  )
}

interface PeriodProps {
  page: Page
  period: 'hour' | 'day'
  /** The address of the view, for the usage by the day. */
  address: string
}

/** The choice between the usage of days and of hours. */
export function PeriodTabs({ page, period, address }: PeriodProps) {
  const { usage } = page.texts
  return (
    <nav class="tabs small" aria-label={usage.period}>
      <a href={address} aria-current={period === 'day' ? 'page' : undefined}>
        {usage.days}
      </a>
      <a
        href={`${address}${address.includes('?') ? '&' : '?'}by=hour`}
        aria-current={period === 'hour' ? 'page' : undefined}
      >
        {usage.hours}
      </a>
    </nav>
  )
}

interface SummaryProps {
  page: Page
  slots: readonly Slot[]
  totals: UsageCounts
  isHourly: boolean
}

/** Uses as numbers, as a chart and as a table. */
export function UsageSummary({ page, slots, totals, isHourly }: SummaryProps) {
  const { texts, formats } = page
  const { usage } = texts
  const counts = [totals.accepted, totals.denied, totals.rateLimited].map((count) =>
    formats.number(count),
  )
  const [accepted = '', denied = '', limited = ''] = counts
  const isUsed = totals.accepted + totals.denied + totals.rateLimited > 0
  return (
    <>
      <dl class="totals">
        <div>
          <dt class="accepted">{usage.accepted}</dt>
          <dd>{accepted}</dd>
        </div>
        <div>
          <dt class="denied">{usage.denied}</dt>
          <dd>{denied}</dd>
        </div>
        <div>
          <dt class="rateLimited">{usage.rateLimited}</dt>
          <dd>{limited}</dd>
        </div>
      </dl>
      {isUsed ? (
        <>
          <Chart page={page} slots={slots} isHourly={isHourly} />
          <details>
            <summary>{usage.table}</summary>
            <UsageTable page={page} slots={slots} isHourly={isHourly} />
          </details>
        </>
      ) : (
        <p class="none">{usage.none}</p>
      )}
    </>
  )
}
