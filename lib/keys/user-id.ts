import v = require('valibot')

import type { UserIdType } from '../../models/storage-options'
import { readBy } from './parse-input'

/** A UUID of any version. */
export const guid = v.pipe(v.string('must be a UUID'), v.uuid('must be a UUID'))

/** An id as text, from text or a whole number. */
const textId = v.pipe(
  v.unknown(),
  readBy((value) => {
    const isId =
      typeof value === 'string' || typeof value === 'bigint' || Number.isSafeInteger(value)
    return isId ? String(value) : null
  }, 'must be a user id'),
  v.check(({ length }) => length >= 1 && length <= 255, 'must have 1 to 255 characters'),
  v.check((id) => !id.includes('\0') && id.isWellFormed(), 'must be well-formed Unicode'),
)

/** The schema of a user's id. */
export type UserIdSchema = v.GenericSchema<unknown, string | number>

/** Makes the schema of a user's id. It brings all spellings of an id into the form that the database returns. */
export function userIdOf(type: UserIdType): UserIdSchema {
  switch (type) {
    case 'text':
      return textId
    case 'uuid':
      return v.pipe(guid, v.toLowerCase())
    case 'integer':
      return v.pipe(integer(31n), v.transform(Number))
    case 'bigint':
      return v.pipe(integer(63n), v.transform(String))
  }
}

function integer(bits: bigint) {
  return v.pipe(
    v.unknown(),
    readBy((value) => {
      const isText = typeof value === 'string' && /^-?\d{1,19}$/.test(value)
      return isText || typeof value === 'bigint' || Number.isSafeInteger(value)
        ? BigInt(value as string | number | bigint)
        : null
    }, 'must be a whole number'),
    v.check((id) => id >= -(2n ** bits) && id < 2n ** bits, 'is out of range'),
  )
}

/** The actor of a change, as callers of functions name it. */
export const actor = v.union(
  [
    v.strictObject({ type: v.literal('system') }),
    v.strictObject({ type: v.picklist(['user', 'admin']), id: textId }),
  ],
  'must be { type: "system" }, or { type: "user", id } or { type: "admin", id }',
)
