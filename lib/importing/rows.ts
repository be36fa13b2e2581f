import { InvalidInputError } from '../errors'
import type { ImportRow, ReadRow, UnmappedField } from './source'

/** A row of another system's table. */
export type ForeignRow = Readonly<Record<string, unknown>>

/** A time as a driver, a dump or a CSV file has it. SQL writes a space, and no zone for UTC. */
export function toTime(value: unknown): Date | string | null {
  if (value === null || value === undefined || value === '') return null
  if (value instanceof Date) return value
  if (typeof value === 'number' || /^-?\d{1,16}$/.test(textOf(value)))
    return fromNumber(Number(value))
  const [, day, time, zone = 'Z'] =
    /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d:\d\d(?:\.\d+)?)(?: ?(Z|[+-]\d\d(?::?\d\d)?|UTC))?)?$/i.exec(
      textOf(value),
    ) ?? []
  if (day === undefined) return textOf(value)
  return `${day}T${time ?? '00:00:00'}${toZone(zone)}`
}

function toZone(zone: string): string {
  if (/^(?:z|utc)$/i.test(zone)) return 'Z'
  const [, sign = '+', hours = '00', minutes = '00'] = /^([+-])(\d\d):?(\d\d)?$/.exec(zone) ?? []
  return `${sign}${hours}:${minutes}`
}

/** The number of milliseconds since 1970 that no time in seconds has before the year 5000. */
const leastMs = 1e11

/** A number is in seconds or in milliseconds since 1970. */
function fromNumber(value: number): Date {
  return new Date(Math.abs(value) < leastMs ? value * 1_000 : value)
}

/** Returns a time some units after another time; `null` without both. */
export function later(from: unknown, amount: unknown, unitMs: number): Date | null {
  const start = toTime(from)
  if (start === null || amount === null || amount === undefined || amount === '') return null
  const ms = new Date(start).getTime() + Number(amount) * unitMs
  return new Date(ms)
}

/** True for a flag as a driver, a dump or a CSV file has it. */
export function isTrue(value: unknown): boolean {
  return value === true || value === 1 || /^(?:1|t|true|yes)$/i.test(String(value))
}

/** Reads a list: as a driver has it, as JSON, as a list of Postgres, or as words with spaces or commas between them. */
export function toList(value: unknown): string[] {
  if (Array.isArray(value)) return value.map(String)
  const text = toText(value)
  if (text === undefined) return []
  if (text.startsWith('[')) return toList(fromJson(text))
  return text.split(/[\s,{}"]+/).filter((name) => name !== '')
}

/** Reads permissions such as `{"graph":["read"]}` as `graph:read`, from an object or from JSON. */
export function toNamedActions(value: unknown): string[] {
  const object: unknown = typeof value === 'string' ? fromJson(value) : value
  if (Array.isArray(object)) return object.map(String)
  return Object.entries(Object(object)).flatMap(([resource, actions]) =>
    [actions].flat().map((action) => `${resource}:${String(action)}`),
  )
}

/** Reads JSON; `null` for text that is none. */
export function fromJson(value: unknown): unknown {
  if (typeof value !== 'string') return value ?? null
  try {
    return JSON.parse(value) as unknown
  } catch {
    return null
  }
}

/** Returns text that is not empty; `undefined` for any other value. */
export function toText(value: unknown): string | undefined {
  return value === null || value === undefined || value === '' ? undefined : textOf(value)
}

function textOf(value: unknown): string {
  if (typeof value === 'string' || typeof value === 'bigint') return String(value)
  return JSON.stringify(value) ?? ''
}

/** Returns the value of the first of several columns that a row has. Systems rename columns, and dumps write them in snake case. */
export function columnOf(row: ForeignRow, ...names: readonly string[]): unknown {
  for (const name of names) {
    for (const spelling of [name, snakeCase(name)]) {
      if (Object.hasOwn(row, spelling)) return row[spelling]
    }
  }
  return undefined
}

function snakeCase(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}

/** Returns a row that is read, with the fields that have a value and are not imported. */
export function readRow(
  row: ImportRow,
  unmapped: readonly (UnmappedField & { isGiven: boolean })[] = [],
): ReadRow {
  const given = unmapped.filter(({ isGiven }) => isGiven)
  return { row, unmapped: given.map(({ field, message }) => ({ field, message })) }
}

/** Returns a field that is not imported if a row has a value for it. */
export function lost(row: ForeignRow, field: string, message: string) {
  const value = columnOf(row, field)
  const isGiven =
    toText(value) !== undefined && value !== false && value !== 'null' && value !== '{}'
  return { field, message, isGiven }
}

/** A part of a pattern that matches a prefix, or nothing. */
export function optionalPrefix(prefix = ''): string {
  return `(?:${prefix})?`
}

/** Returns the values that most tables have by these names. */
export function commonFields(row: ForeignRow): Omit<ImportRow, 'stored'> {
  return {
    name: toText(columnOf(row, 'name')),
    description: toText(columnOf(row, 'description')),
    createdAt: toTime(columnOf(row, 'createdAt', 'created')),
    expiresAt: toTime(columnOf(row, 'expiresAt')),
    lastUsedAt: toTime(columnOf(row, 'lastUsedAt')),
  }
}

/** More names of columns than these help no reader. */
const maxNames = 30

/**
 * Returns the text of a column; empty for a column without a value, so that the row is refused. Throws an `InvalidInputError` that names the
 * columns of the row if this is none of them.
 */
export function storedIn(row: ForeignRow, ...names: readonly [string, ...string[]]): string {
  const value = columnOf(row, ...names)
  if (value !== undefined) return toText(value) ?? ''
  const given = Object.keys(row)
  const has = given.length === 0 ? 'no columns' : given.slice(0, maxNames).join(', ').slice(0, 500)
  const message = `is missing: the row has ${has}`
  throw new InvalidInputError([{ pointer: `#/${names[0]}`, message }])
}

/** Reads metadata, which the rules of metadata check later; `undefined` for a value that is no object. */
export function toMetadata(value: unknown): ImportRow['metadata'] {
  const object = fromJson(value)
  return typeof object === 'object' && object !== null
    ? (object as ImportRow['metadata'])
    : undefined
}
