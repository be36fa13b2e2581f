import {
  array,
  check,
  custom,
  map,
  maxLength,
  minLength,
  minValue,
  nullable,
  object,
  optional,
  picklist,
  pipe,
  rawCheck,
  strictObject,
  string,
  toLowerCase,
  transform,
  trim,
  union,
  unknown,
  uuid,
  literal,
  type GenericSchema,
} from 'valibot'

import type { UserIdType } from '../../models/storage-options'
import { statuses, type Status } from '../../models/api-key'
import { isAmbiguousRange, readAddressRange, readClientAddress } from './addresses'
import { isLimitName, limitNameRule, longestWindowSeconds, maxLimits, mostUses } from './limits'
import { faultOfJson, isPlainObject, maxMetadataBytes, sizeOf, type Metadata } from './metadata'
import { pathTo, readBy, strict } from './parse-input'

/** Makes the schema of text that people write, trimmed; over several `lines` or on one. */
export function text({
  min = 0,
  max,
  lines = false,
}: {
  min?: number
  max: number
  lines?: boolean
}) {
  const controls = lines ? /[^\P{Cc}\n\r\t]/u : /\p{Cc}/u
  const size = min > 0 ? `${min} to ${max}` : `at most ${max}`

  return pipe(
    string('must be text'),
    trim(),
    check(({ length }) => length >= min && length <= max, `must have ${size} characters`),
    check((value) => !controls.test(value), 'must not contain control characters'),
    check((value) => value.isWellFormed(), 'must be well-formed Unicode'),
  )
}

/** Makes the schema of one of several names. */
export function oneOf<const Name extends string>(names: readonly Name[]) {
  return picklist(names, `must be one of ${names.join(', ')}`)
}

export function wholeNumber(
  least: number,
  most: number,
  message = `must be a whole number from ${least} to ${most}`,
) {
  return custom<number>((value) => isWithin(value, least, most), message)
}

function isWithin(value: unknown, least: number, most: number): boolean {
  return Number.isSafeInteger(value) && Number(value) >= least && Number(value) <= most
}

/** True or false, also as text, because queries have nothing else. */
export const flag = pipe(
  unknown(),
  readBy((value) => {
    if (typeof value === 'boolean') return value
    return value === 'true' || value === 'false' ? value === 'true' : null
  }, 'must be true or false'),
)

export const pageSize = optional(
  pipe(
    unknown(),
    readBy((value) => {
      const size = typeof value === 'string' && /^\d{1,9}$/.test(value) ? Number(value) : value
      return isWithin(size, 1, 100) ? Number(size) : null
    }, 'must be a whole number from 1 to 100'),
  ),
  20,
)

/** RFC 3339, section 5.6. The day is looked up, because not every month has 31. */
const timestamp =
  /^(\d{4}-\d\d-\d\d)T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)$/

function readMoment(value: unknown): Date | null {
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value
  if (typeof value !== 'string') return null

  // "T" and "Z" may be lower case.
  const time = value.toUpperCase()
  const [, day = ''] = timestamp.exec(time) ?? []
  return isDay(day) ? new Date(time) : null
}

function isDay(day: string): boolean {
  const time = Date.parse(day)
  return !Number.isNaN(time) && new Date(time).toISOString().startsWith(day)
}

const moment = pipe(
  unknown(),
  readBy(readMoment, 'must be a time as in RFC 3339, such as 2030-01-31T12:00:00Z'),
)

const year10000 = Date.UTC(10_000, 0)

export const expiry = pipe(
  moment,
  check((time) => time.getTime() > Date.now(), 'must be in the future'),
  check((time) => time.getTime() < year10000, 'must be before the year 10000'),
)

export const momentOfUse = pipe(
  moment,
  check(
    (time) => time.getTime() >= 0 && time.getTime() < year10000,
    'must be between the years 1970 and 10000',
  ),
)

/** One status or several, as a list or with commas between them. */
export const statusList = pipe(
  unknown(),
  readBy(
    (value): Status[] | null => {
      const names: unknown = typeof value === 'string' ? value.split(',') : value
      const isList = Array.isArray(names) && names.length > 0 && names.every(isStatus)
      return isList ? [...new Set(names)] : null
    },
    `must be one of ${statuses.join(', ')}`,
  ),
)

function isStatus(name: unknown): name is Status {
  return statuses.some((status) => status === name)
}

const noAddress = 'must be an IP address'

/** The address from which a call is made. */
export const clientAddress = pipe(
  string(noAddress),
  readBy((value) => (value.length <= 100 ? readClientAddress(value) : null), noAddress),
)

const noRange = 'must be an address or a range in CIDR notation, such as 203.0.113.0/24'

const addressRange = pipe(
  string(noRange),
  check((value) => value.length <= 100 && readAddressRange(value) !== null, noRange),
  check((value) => !isAmbiguousRange(value), 'must have no bits set behind its prefix'),
  transform((value) => readAddressRange(value) ?? value),
)

export const addressList = pipe(
  array(addressRange, 'must be a list of addresses'),
  minLength(1, 'must name at least one address; null means all'),
  maxLength(100, 'must name at most 100 addresses'),
  refuseRepeats(),
)

/** Makes the schema of a set of the app's permissions. */
export function permissionSet(permissions: readonly string[]) {
  const most = permissions.length

  return pipe(
    // The length first: a body has room for thousands of names, each of which would be looked at.
    array(unknown(), 'must be a list of permissions'),
    maxLength(most, `must name at most ${most} permissions, which is all there are`),
    array(oneOf(permissions)),
    minLength(1, 'must name at least one permission'),
    refuseRepeats(),
  )
}

/** Makes a check that also works if some names are not known, so that one answer lists every fault. */
function refuseRepeats<Name>() {
  return rawCheck<Name[]>(({ dataset: { value }, addIssue }) => {
    if (!Array.isArray(value)) return
    const seen = new Set()
    for (const [index, name] of value.entries()) {
      if (seen.has(name)) addIssue({ path: pathTo(value, index), message: 'must not be repeated' })
      seen.add(name)
    }
  })
}

export const metadata = pipe(
  custom<Metadata>(isPlainObject, 'must be a JSON object'),
  rawCheck(({ dataset, addIssue }) => {
    const fault = dataset.typed ? faultOfMetadata(dataset.value) : null
    if (fault !== null) addIssue({ message: fault })
  }),
)

function faultOfMetadata(value: Metadata): string | null {
  const fault = faultOfJson(value)
  if (fault !== null || sizeOf(value) <= maxMetadataBytes) return fault
  return `must have at most ${maxMetadataBytes} bytes as JSON`
}

const limit = strict(
  object({
    limit: wholeNumber(1, mostUses),
    windowSeconds: wholeNumber(1, longestWindowSeconds),
  }),
)

/** By their names, in the order of these, so that what is the same looks the same. */
export const limits = pipe(
  custom<object>(isPlainObject, 'must be a JSON object of limits, by their names'),
  check((value) => !Object.hasOwn(value, '__proto__'), 'must not have a limit called __proto__'),
  // Valibot's `record` passes over names such as `constructor`.
  transform((value) => new Map(Object.entries(value))),
  map(string(), nullable(limit)),
  rawCheck(({ dataset: { value }, addIssue }) => {
    if (!(value instanceof Map)) return
    for (const name of value.keys()) {
      if (isLimitName(name)) continue
      addIssue({ path: pathTo(value, name), message: `its name ${limitNameRule}` })
    }
    if (value.size > maxLimits) addIssue({ message: `must have at most ${maxLimits} limits` })
  }),
  transform((value) => Object.fromEntries([...value].toSorted(([a], [b]) => (a < b ? -1 : 1)))),
)

export const guid = pipe(string('must be a UUID'), uuid('must be a UUID'))

/** An id as text, whatever it is made of. */
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

/** Makes the schema of a user's id, which brings it into the one form that the column's type has in JavaScript. */
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

/** Who makes a change, as callers of functions name them. */
export const actor = union(
  [
    strictObject({ type: literal('system') }),
    strictObject({ type: picklist(['user', 'admin']), id: textId }),
  ],
  'must be { type: "system" }, or { type: "user", id } or { type: "admin", id }',
)

function hexadecimal(length: number) {
  const shape = new RegExp(`^[0-9a-f]{${length}}$`)
  return custom<string>(
    (value) => typeof value === 'string' && shape.test(value),
    `must be ${length} hexadecimal characters`,
  )
}

export const auditHead = strict(
  object({
    position: pipe(
      custom<number>(Number.isSafeInteger, 'must be a whole number'),
      minValue(0, 'must not be negative'),
    ),
    hash: union([hexadecimal(64), literal('')], 'must be 64 hexadecimal characters'),
    at: custom<string>(isUtcTime, 'must be a time'),
    secretId: nullable(hexadecimal(16)),
    mac: hexadecimal(64),
  }),
)

/** As `toISOString()` writes it. */
function isUtcTime(value: unknown): boolean {
  return (
    typeof value === 'string' &&
    value.endsWith('Z') &&
    timestamp.test(value) &&
    readMoment(value) !== null
  )
}
