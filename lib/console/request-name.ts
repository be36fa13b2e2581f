import { randomUUID } from 'node:crypto'

import { valueOf, type Form } from './form'

/** The name of a request that makes a secret: the form carries it, so that the request is carried out once. */
export interface RequestName {
  /** The idempotency key. */
  name: string
  /** The time when the form was made, in milliseconds since 1970. A repeated request must not have another expiry. */
  at: number
}

const shape = /^[0-9a-f-]{36}\.(\d{1,15})$/

/** Returns a new name for a request. */
export function newRequest(): RequestName {
  const at = Date.now()
  return { name: `${randomUUID()}.${at}`, at }
}

/** Returns the name in a form that was sent; a new name if it has none. */
export function requestIn(form: Form): RequestName {
  const name = valueOf(form, 'request')
  const [, at] = shape.exec(name) ?? []
  return at === undefined ? newRequest() : { name, at: Number(at) }
}
