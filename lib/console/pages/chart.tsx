import type { UsageCounts, UsageEntry } from '../../usage/report'
import type { Page } from '../page'
import { Exactly } from './parts'
import { Cell, Heading, Row, RowHeading, Table } from './table'

/** A part of a period, with its uses. */
export interface Slot extends UsageCounts {
  at: Date
}

/** Returns a slot for each hour or day of a period that ends now, also for those without uses. */
export function slotsOf(
  usage: readonly UsageEntry[],
  count: number,
  unitMs: number,
  now: Date,
): Slot[] {
  const byTime = new Map(usage.map((entry) => [entry.at.getTime(), entry]))
  const last = Math.floor(now.getTime() / unitMs) * unitMs
  return Array.from({ length: count }, (_, index) => {
    const at = last - (count - 1 - index) * unitMs
    return byTime.get(at) ?? { at: new Date(at), accepted: 0, denied: 0, rateLimited: 0 }
  })
}

const kinds = ['accepted', 'denied', 'rateLimited'] as const

function sumOf({ accepted, denied, rateLimited }: UsageCounts): number {
  return accepted + denied + rateLimited
}

/** Returns the least of 1, 2, 4, 5, 6, 8, 10, 20, 40 ... that a number does not exceed, so that an axis ends at a round number. */
function roundUp(value: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)))
  return ([1, 2, 4, 5, 6, 8, 10].find((step) => step * power >= value) ?? 10) * power
}

/** The uses of a key as small bars, for a row of the list. */
export function Sparkline({ page, slots }: { page: Page; slots: readonly Slot[] }) {
  const most = Math.max(...slots.map(sumOf), 1)
  const total = slots.reduce((sum, slot) => sum + sumOf(slot), 0)

  /** Returns the outlines of bars as one path, because a page has 600 of them. */
  function barsOf(heightOf: (slot: Slot) => number) {
    const bars = slots.map((slot, index) => {
      const height = Math.round(heightOf(slot))
      return height === 0 ? '' : `M${index * 4} 24v-${height}h3v${height}z`
    })
    return bars.join('')
  }

  return (
    <svg
      class="spark"
      viewBox={`0 0 ${slots.length * 4} 24`}
      preserveAspectRatio="none"
      role="img"
      aria-label={page.texts.list.uses(page.formats.number(total))}
    >
      <path class="empty" d={barsOf((slot) => (sumOf(slot) === 0 ? 1 : 0))} />
      <path
        class="accepted"
        d={barsOf((slot) => (sumOf(slot) === 0 ? 0 : 2 + (sumOf(slot) / most) * 22))}
      />
    </svg>
  )
}

/** The size of the plot, in units that the style stretches to its width. */
const [width, height] = [720, 160]

interface ChartProps {
  page: Page
  slots: readonly Slot[]
  isHourly: boolean
}

/** The uses of a key as bars. The table beside it has the numbers. */
export function Chart({ page, slots, isHourly }: ChartProps) {
  const { formats } = page
  const most = roundUp(Math.max(...slots.map(sumOf)))
  const step = width / slots.length
  const marks = [most, most / 2, 0].filter(Number.isInteger)
  const heightOf = (value: number) => (value / most) * height
  const labelOf = ({ at }: Slot) => (isHourly ? formats.time(at) : formats.date(at))
  const ends = [slots[0], slots.at(-1)].filter((slot) => slot !== undefined)

  return (
    <div class="chart" aria-hidden="true">
      <div class="axis-y">
        {marks.map((value) => (
          <span>{formats.number(value)}</span>
        ))}
      </div>
      <svg viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none">
        {marks.map((value) => {
          const y = height - heightOf(value)
          return <line class="grid" x1="0" x2={width} y1={y} y2={y} />
        })}
        {slots.map((slot, index) => (
          <Bar
            page={page}
            slot={slot}
            isHourly={isHourly}
            x={index * step}
            width={step}
            label={labelOf(slot)}
            heightOf={heightOf}
          />
        ))}
      </svg>
      <div class="axis-x">
        {ends.map((slot) => (
          <span>{isHourly ? <Exactly page={page} at={slot.at} /> : labelOf(slot)}</span>
        ))}
      </div>
      <p class="numbers-of-bar" />
    </div>
  )
}

interface BarProps {
  page: Page
  slot: Slot
  isHourly: boolean
  x: number
  width: number
  label: string
  heightOf(value: number): number
}

/** A bar of the chart, with a part for each kind of use. */
function Bar({ page, slot, isHourly, x, width, label, heightOf }: BarProps) {
  const { texts, formats } = page
  let y = height
  const [accepted, denied, limited] = kinds.map((kind) => formats.number(slot[kind]))
  const counts = texts.usage.chart(accepted ?? '', denied ?? '', limited ?? '')
  // Hours have their time, which the script shows in the reader's zone. Days are days of UTC.
  const at = isHourly ? slot.at.toISOString() : undefined
  return (
    <g class="bar" data-at={at} data-label={label} data-counts={counts}>
      <title>{`${label}: ${counts}`}</title>
      <rect class="hit" x={round(x)} y="0" width={round(width)} height={height} />
      {kinds.map((kind) => {
        const part = heightOf(slot[kind])
        y -= part
        return (
          part > 0 && (
            <rect
              class={kind}
              x={round(x + width * 0.15)}
              y={round(y)}
              width={round(width * 0.7)}
              height={round(part)}
            />
          )
        )
      })}
    </g>
  )
}

/** The numbers of the chart as a table. Times without uses are left out. */
export function UsageTable({ page, slots, isHourly }: ChartProps) {
  const { texts, formats } = page
  const used = slots.filter((slot) => sumOf(slot) > 0).toReversed()
  const headings = [
    isHourly ? texts.usage.hour : texts.usage.day,
    ...kinds.map((kind) => <Heading class="number">{texts.usage[kind]}</Heading>),
  ]
  return (
    <Table class="rows numbers" headings={headings}>
      {used.map((slot) => (
        <Row>
          <RowHeading>
            {isHourly ? <Exactly page={page} at={slot.at} /> : formats.date(slot.at)}
          </RowHeading>
          {kinds.map((kind) => (
            <Cell class="number">{formats.number(slot[kind])}</Cell>
          ))}
        </Row>
      ))}
    </Table>
  )
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}
