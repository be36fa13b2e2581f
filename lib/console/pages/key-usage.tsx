import { Chart, UsageTable } from './chart'
import type { KeyProps } from './key-props'

/** How often a key was used, as numbers, as a chart and as a table. */
export function UsageOfKey({ page, apiKey, slots, totals, period }: KeyProps) {
  const { texts, formats, to } = page
  const { usage } = texts
  const counts = [totals.accepted, totals.denied, totals.rateLimited].map((count) =>
    formats.number(count),
  )
  const [accepted = '', denied = '', limited = ''] = counts
  const isUsed = totals.accepted + totals.denied + totals.rateLimited > 0
  return (
    <section class="card" aria-labelledby="usage">
      <div class="card-head">
        <h2 id="usage">{usage.title}</h2>
        <nav class="tabs small" aria-label={usage.period}>
          <a href={to(apiKey.id)} aria-current={period === 'day' ? 'page' : undefined}>
            {usage.days}
          </a>
          <a
            href={`${to(apiKey.id)}?by=hour`}
            aria-current={period === 'hour' ? 'page' : undefined}
          >
            {usage.hours}
          </a>
        </nav>
      </div>
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
          <Chart page={page} slots={slots} isHourly={period === 'hour'} />
          <details>
            <summary>{usage.table}</summary>
            <UsageTable page={page} slots={slots} isHourly={period === 'hour'} />
          </details>
        </>
      ) : (
        <p class="none">{usage.none}</p>
      )}
    </section>
  )
}
