import type { Language } from './texts/texts'

/** Writes times, numbers and lists in a language. */
export type Formats = ReturnType<typeof createFormats>

const minuteS = 60
const hourS = 60 * minuteS
const dayS = 24 * hourS

/** The units of a distance in time, from the longest to the shortest, with their seconds. */
const units = [
  ['year', 365 * dayS],
  ['month', 30 * dayS],
  ['day', dayS],
  ['hour', hourS],
  ['minute', minuteS],
] as const

/** Creates what writes times, numbers and lists in a language. Times are in UTC. The script shows them in the reader's zone. */
export function createFormats(language: Language) {
  const locale = language === 'en' ? 'en-GB' : language
  const time = new Intl.DateTimeFormat(locale, {
    dateStyle: 'medium',
    timeStyle: 'short',
    timeZone: 'UTC',
  })
  const date = new Intl.DateTimeFormat(locale, { dateStyle: 'medium', timeZone: 'UTC' })
  const hour = new Intl.DateTimeFormat(locale, {
    hour: '2-digit',
    minute: '2-digit',
    timeZone: 'UTC',
  })
  const relative = new Intl.RelativeTimeFormat(locale, { numeric: 'auto' })
  const number = new Intl.NumberFormat(locale)
  const percent = new Intl.NumberFormat(locale, { style: 'percent', maximumFractionDigits: 1 })
  const list = new Intl.ListFormat(locale, { type: 'conjunction' })

  return {
    time: (at: Date) => `${time.format(at)} UTC`,
    date: (at: Date) => date.format(at),
    hour: (at: Date) => hour.format(at),
    number: (value: number) => number.format(value),
    percent: (value: number) => percent.format(value),
    /** Writes a length of time of less than some minutes. */
    milliseconds: (ms: number) =>
      Math.abs(ms) < 1_000
        ? inUnit(Math.round(ms) || 0, 'millisecond')
        : inUnit(Math.round(ms / 100) / 10, 'second'),
    list: (values: readonly string[]) => list.format(values),

    /** Writes how long ago a time is, or how long until then. The seconds until then count, those since then do not. */
    distance(at: Date, now: Date): string {
      const seconds = (at.getTime() - now.getTime()) / 1000
      for (const [unit, length] of units) {
        if (Math.abs(seconds) >= length) return relative.format(Math.trunc(seconds / length), unit)
      }
      return relative.format(Math.max(Math.ceil(seconds), 0), 'second')
    },

    /** Writes a length of time in its longest unit that needs no fraction. */
    duration(seconds: number): string {
      for (const [unit, length] of [
        ['day', dayS],
        ['hour', hourS],
        ['minute', minuteS],
      ] as const) {
        if (seconds % length === 0 && seconds > 0) return inUnit(seconds / length, unit)
      }
      return inUnit(seconds, 'second')
    },
  }

  function inUnit(value: number, unit: string): string {
    return new Intl.NumberFormat(locale, { style: 'unit', unit, unitDisplay: 'long' }).format(value)
  }
}
