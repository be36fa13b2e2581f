import { z } from 'zod'

/*
 * Lists are cut by key, not by offset: a cursor names the last entry of the page before, and so a page neither repeats
 * nor skips an entry, whatever is created meanwhile. Its text is opaque to clients.
 */

/** Where a page of keys ended; lists run by time of creation, then id, newest first. */
export interface KeyPosition {
  createdAt: Date
  id: string
}

export function formatKeyCursor({ createdAt, id }: KeyPosition): string {
  return encode(`${createdAt.getTime()}.${id}`)
}

/** Where a page of events ended: the id of its last one. */
export function formatEventCursor({ id }: { id: string }): string {
  return encode(id)
}

/** A time until the year 5138, which has four digits for Postgres to read, and a UUID. */
const keyPosition = /^(\d{1,14})\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/

export const keyCursor = cursor(keyPosition, ([, time, id]): KeyPosition => {
  return { createdAt: new Date(Number(time)), id: String(id) }
})

export const eventCursor = cursor(/^\d{1,18}$/, ([id]) => ({ id }))

function cursor<Position>(shape: RegExp, read: (match: RegExpExecArray) => Position) {
  return z.string('must be a cursor').transform((text, context) => {
    const match = shape.exec(Buffer.from(text, 'base64url').toString('latin1'))
    if (match) return read(match)

    context.addIssue({ code: 'custom', message: 'must be the nextCursor of a page before' })
    return z.NEVER
  })
}

function encode(position: string) {
  return Buffer.from(position, 'latin1').toString('base64url')
}
