import v = require('valibot')

import { readBy } from './parse-input'

/*
 * A cursor names the last entry of the page before, instead of counting entries. So a page neither repeats nor skips an
 * entry if new entries are created in between. The text of a cursor is opaque to clients.
 */

/** The message for a cursor that names no page. */
export const notACursor = 'must be the nextCursor of a page before'

/** The values by which keys can be sorted. */
export const sortNames = ['createdAt', 'name', 'lastUsedAt', 'expiresAt'] as const

/** A value by which keys can be sorted. */
export type SortName = (typeof sortNames)[number]

/** An order of keys; with a `-`, the greatest value comes first. */
export type Sort = SortName | `-${SortName}`

/** All orders of keys. */
export const sorts = sortNames.flatMap((name): Sort[] => [name, `-${name}`])

/** The end of a page of keys. Lists are sorted by a value of the keys, then by id. */
export interface KeyPosition {
  sort: Sort
  /** A number as text, unless keys are sorted by name. */
  value: string
  id: string
}

/** Returns the cursor of the page after a key. */
export function formatKeyCursor({ sort, value, id }: KeyPosition): string {
  return encode(`${sort}.${id}.${value}`)
}

/** Returns the cursor of the page after an event. */
export function formatEventCursor({ id }: { id: string }): string {
  return encode(id)
}

const keyPosition =
  /^(-?[a-zA-Z]{1,20})\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.(.{1,100})$/u

/** Milliseconds since 1970, as Postgres writes them. A time can be infinite, but not before the first time of Postgres. */
const milliseconds = /^(?:(?:\d{1,15}|-\d{1,14})(?:\.\d{1,12})?|-?Infinity)$/

/** The cursor of a page of keys, as a position. */
export const keyCursor = cursor(keyPosition, ([, name, id = '', value = '']) => {
  const sort = sorts.find((known) => known === name)
  if (!sort) return null
  const isValue = sort.endsWith('name') ? isText(value) : milliseconds.test(value)
  return isValue ? { sort, value, id } : null
})

function isText(value: string): boolean {
  return !/\p{Cc}/u.test(value) && value.isWellFormed()
}

/** The cursor of a page of events, as the id of the last event before. */
export const eventCursor = cursor(/^\d{1,18}$/, ([id]) => ({ id }))

/** Makes the schema of a cursor. `read` returns `null` for a position that cannot exist. */
function cursor<Position>(shape: RegExp, read: (match: RegExpExecArray) => Position | null) {
  return v.pipe(
    v.string('must be a cursor'),
    readBy((text) => {
      const match = shape.exec(Buffer.from(text, 'base64url').toString())
      return match && read(match)
    }, notACursor),
  )
}

function encode(position: string) {
  return Buffer.from(position).toString('base64url')
}
