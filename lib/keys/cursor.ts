import { pipe, string } from 'valibot'

import { readBy } from './parse-input'

/*
 * Lists are cut by key, not by offset: a cursor names the last entry of the page before, and so a page neither repeats
 * nor skips an entry, whatever is created meanwhile. Its text is opaque to clients.
 */

export const notACursor = 'must be the nextCursor of a page before'

/** What keys may be sorted by; with a `-`, the greatest first. */
export const sortNames = ['createdAt', 'name', 'lastUsedAt', 'expiresAt'] as const

export type SortName = (typeof sortNames)[number]

export type Sort = SortName | `-${SortName}`

export const sorts = sortNames.flatMap((name): Sort[] => [name, `-${name}`])

/** Where a page of keys ended, or would go on; lists run by a value of the key, then by id. */
export interface KeyPosition {
  sort: Sort
  /** A number, but for names. */
  value: string
  id: string
}

export function formatKeyCursor({ sort, value, id }: KeyPosition): string {
  return encode(`${sort}.${id}.${value}`)
}

/** Where a page of events ended: the id of its last one. */
export function formatEventCursor({ id }: { id: string }): string {
  return encode(id)
}

const keyPosition =
  /^(-?[a-zA-Z]{1,20})\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.(.{1,100})$/u

/** Milliseconds since 1970, as Postgres writes them. A time may be infinite, but not before those that Postgres has. */
const milliseconds = /^(?:(?:\d{1,15}|-\d{1,14})(?:\.\d{1,12})?|-?Infinity)$/

export const keyCursor = cursor(keyPosition, ([, sort = '', id = '', value = '']) => {
  if (!isSort(sort)) return null
  const isValue = sort.endsWith('name') ? isText(value) : milliseconds.test(value)
  return isValue ? { sort, value, id } : null
})

function isSort(text: string): text is Sort {
  return sorts.some((known) => known === text)
}

function isText(value: string): boolean {
  return !/\p{Cc}/u.test(value) && value.isWellFormed()
}

export const eventCursor = cursor(/^\d{1,18}$/, ([id]) => ({ id }))

/** Makes the schema of a cursor: `read` returns `null` for a position that cannot be. */
function cursor<Position>(shape: RegExp, read: (match: RegExpExecArray) => Position | null) {
  return pipe(
    string('must be a cursor'),
    readBy((text) => {
      const match = shape.exec(Buffer.from(text, 'base64url').toString())
      return match && read(match)
    }, notACursor),
  )
}

function encode(position: string) {
  return Buffer.from(position).toString('base64url')
}
