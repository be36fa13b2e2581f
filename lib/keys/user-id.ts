import {
  check,
  literal,
  picklist,
  pipe,
  strictObject,
  string,
  toLowerCase,
  transform,
  union,
  unknown,
  uuid,
  type GenericSchema,
} from 'valibot'

import type { UserIdType } from '../../models/storage-options'
import { readBy } from './parse-input'

/** A UUID of any version. */
export const guid = pipe(string('must be a UUID'), uuid('must be a UUID'))

/** An id as text, from text or a whole number. */
const textId = pipe(
  unknown(),
  readBy((value) => {
    const isId =
      typeof value === 'string' || typeof value === 'bigint' || Number.isSafeInteger(value)
    return isId ? String(value) : null
  }, 'must be a user id'),
  check(({ length }) => length >= 1 && length <= 255, 'must have 1 to 255 characters'),
  check((id) => !id.includes('\0') && id.isWellFormed(), 'must be well-formed Unicode'),
)

/** Makes the schema of a user's id. It brings all spellings of an id into the form that the database returns. */
export function userIdOf(type: UserIdType): GenericSchema<unknown, string | number> {
  switch (type) {
    case 'text':
      return textId
    case 'uuid':
      return pipe(guid, toLowerCase())
    case 'integer':
      return pipe(integer(31n), transform(Number))
    case 'bigint':
      return pipe(integer(63n), transform(String))
  }
}

function integer(bits: bigint) {
  return pipe(
    unknown(),
    readBy((value) => {
      const isText = typeof value === 'string' && /^-?\d{1,19}$/.test(value)
      return isText || typeof value === 'bigint' || Number.isSafeInteger(value)
        ? BigInt(value as string | number | bigint)
        : null
    }, 'must be a whole number'),
    check((id) => id >= -(2n ** bits) && id < 2n ** bits, 'is out of range'),
  )
}

/** The actor of a change, as callers of functions name it. */
export const actor = union(
  [
    strictObject({ type: literal('system') }),
    strictObject({ type: picklist(['user', 'admin']), id: textId }),
  ],
  'must be { type: "system" }, or { type: "user", id } or { type: "admin", id }',
)
