import { spreadOf } from './statistics'

type Row = readonly string[]

/** Formats a table in Markdown. The first column is text, the remaining columns are numbers. */
export function formatTable(head: Row, rows: readonly Row[]): string {
  const widths = head.map((_, column) =>
    Math.max(3, ...[head, ...rows].map((row) => row[column]?.length ?? 0)),
  )
  const format = (row: Row) =>
    `| ${widths.map((width, column) => pad(row[column] ?? '', width, column)).join(' | ')} |`
  const line = `| ${widths.map((width, column) => (column === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`)).join(' | ')} |`

  return [format(head), line, ...rows.map(format)].join('\n')
}

function pad(text: string, width: number, column: number) {
  return column === 0 ? text.padEnd(width) : text.padStart(width)
}

/** The median, and the two values between which half of all rounds lie. */
export function formatSpread(values: readonly number[], digits: number): string {
  const { median, low, high } = spreadOf(values)
  return `${median.toFixed(digits)} (${low.toFixed(digits)}–${high.toFixed(digits)})`
}

export function formatCount(value: number): string {
  return Math.round(value).toLocaleString('en')
}

/** A promise on speed, and its result in this run. */
export interface Target {
  what: string
  wanted: string
  measured: string
  isMet: boolean
}

export function formatTargets(targets: readonly Target[]): string {
  return formatTable(
    ['Target', 'wanted', 'measured', ''],
    targets.map(({ what, wanted, measured, isMet }) => [
      what,
      wanted,
      measured,
      isMet ? '✅' : '❌',
    ]),
  )
}

/** A target for the median of values. */
export function expectMedian(
  what: string,
  values: readonly number[],
  limit: ({ atLeast: number } | { atMost: number }) & { digits: number; unit?: string },
): Target {
  const { median } = spreadOf(values)
  const { digits, unit = '' } = limit
  const isMet = 'atLeast' in limit ? median >= limit.atLeast : median <= limit.atMost
  const bound = 'atLeast' in limit ? `≥ ${limit.atLeast}` : `≤ ${limit.atMost}`

  return {
    what,
    wanted: `${bound}${unit}`,
    measured: `${formatSpread(values, digits)}${unit}`,
    isMet,
  }
}
