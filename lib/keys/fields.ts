import v = require('valibot')

import { statuses } from '../../models/api-key'
import type { UserIdType } from '../../models/storage-options'
import { isAmbiguousRange, readAddressRange, readClientAddress } from './addresses'
import { faultOfJson, faultOfSize, isPlainObject, type Metadata } from './metadata'
import { documentedAs, documentedLike, pathTo, readInput, strict } from './parse-input'
import { isScopeToken } from './permission-options'
import type { Permissions } from './permissions'

/** Makes the schema of text that people write. It is trimmed, and has one line, unless `lines` allows several. */
export function text({ min = 0, max, lines }: { min?: number; max: number; lines?: boolean }) {
  const controls = lines ? /[^\P{Cc}\n\r\t]/u : /\p{Cc}/u
  const size = min > 0 ? `${min} to ${max}` : `at most ${max}`

  return v.pipe(
    v.string('must be text'),
    v.trim(),
    v.check(({ length }) => length >= min && length <= max, `must have ${size} characters`),
    v.check((value) => !controls.test(value), 'must not contain control characters'),
    v.check((value) => value.isWellFormed(), 'must be well-formed Unicode'),
    documentedAs({ type: 'string', ...(min > 0 && { minLength: min }), maxLength: max }),
  )
}

/** Makes the schema of text of one shape. */
export function matching(shape: RegExp, message: string) {
  return v.pipe(
    v.custom<string>((value) => typeof value === 'string' && shape.test(value), message),
    documentedAs({ type: 'string', pattern: shape.source }),
  )
}

/** A text that names a request, so that it is carried out once. */
export const idempotencyKey = matching(
  /^[ -~]{1,255}$/,
  'must have 1 to 255 printable characters of ASCII',
)

/** Makes the schema of one of several names. The message may show only some of them. */
export function oneOf<const Name extends string>(names: readonly Name[], shown = names) {
  return v.picklist(names, `must be one of ${shown.join(', ')}`)
}

/** The name of a permission, which the app need not have any longer. */
export const permissionName = v.pipe(
  v.custom<string>(
    isScopeToken,
    'must have 1 to 100 printable characters of ASCII without space, " and \\',
  ),
  documentedAs({ type: 'string', minLength: 1, maxLength: 100 }),
)

/** Makes the schema of a whole number between two bounds. */
export function wholeNumber(
  least: number,
  most: number,
  message = `must be a whole number from ${least} to ${most}`,
) {
  return v.pipe(
    v.custom<number>((value) => isWithin(value, least, most), message),
    documentedAs({ type: 'integer', minimum: least, maximum: most }),
  )
}

function isWithin(value: unknown, least: number, most: number): boolean {
  return Number.isSafeInteger(value) && Number(value) >= least && Number(value) <= most
}

/** True or false. Text is taken as well, because queries have only text. */
export const flag = v.pipe(
  readInput((value) => {
    if (typeof value === 'boolean') return value
    return value === 'true' || value === 'false' ? value === 'true' : null
  }, 'must be true or false'),
  documentedAs({ type: 'boolean' }),
)

/** How many entries a page has, 20 by default. Queries give it as text. */
export const pageSize = v.optional(
  v.pipe(
    readInput((value) => {
      const size = typeof value === 'string' && /^\d{1,9}$/.test(value) ? Number(value) : value
      return isWithin(size, 1, 100) ? Number(size) : null
    }, 'must be a whole number from 1 to 100'),
    documentedAs({ type: 'integer', minimum: 1, maximum: 100 }),
  ),
  20,
)

const someStatuses = v.pipe(v.array(v.picklist(statuses)), v.nonEmpty())

/** One or several statuses, as a list or as text with commas. */
export const statusList = v.pipe(
  readInput(
    (value) => {
      const names = typeof value === 'string' ? value.split(',') : value
      return v.is(someStatuses, names) ? [...new Set(names)] : null
    },
    `must be one of ${statuses.join(', ')}`,
  ),
  documentedLike(someStatuses),
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

const moment = v.pipe(
  readInput(readMoment, 'must be a time as in RFC 3339, such as 2030-01-31T12:00:00Z'),
  documentedAs({ type: 'string', format: 'date-time' }),
)

const year10000 = Date.UTC(10_000, 0)

/** A time at which a key can expire. */
export const expiry = v.pipe(
  moment,
  v.check((time) => time.getTime() > Date.now(), 'must be in the future'),
  v.check((time) => time.getTime() < year10000, 'must be before the year 10000'),
)

/** A time that limits a report of usage. */
export const momentOfUse = v.pipe(
  moment,
  v.check(
    (time) => time.getTime() >= 0 && time.getTime() < year10000,
    'must be between the years 1970 and 10000',
  ),
)

/** A time as `toISOString()` writes it. */
export const utcTime = v.pipe(
  v.custom<string>(
    (value) => typeof value === 'string' && /T.+Z$/.test(value) && readMoment(value) !== null,
    'must be a time',
  ),
  documentedAs({ type: 'string', format: 'date-time' }),
)

/** A UUID of any version. */
export const guid = v.pipe(
  v.string('must be a UUID'),
  v.uuid('must be a UUID'),
  documentedAs({ type: 'string', format: 'uuid' }),
)

/** How many keys one call may create or name. */
export const mostKeys = 10_000

/** The ids of many keys. */
export const idList = v.pipe(
  v.array(v.unknown(), 'must be a list of ids'),
  v.maxLength(mostKeys, `must have at most ${mostKeys} ids`),
  v.array(guid),
)

/** An id as text, from text or a whole number. The trail has the ids of actors so. */
export const textId = v.pipe(
  readInput((value) => {
    const isId =
      typeof value === 'string' || typeof value === 'bigint' || Number.isSafeInteger(value)
    return isId ? String(value) : null
  }, 'must be a user id'),
  v.check(({ length }) => length >= 1 && length <= 255, 'must have 1 to 255 characters'),
  v.check((id) => !id.includes('\0') && id.isWellFormed(), 'must be well-formed Unicode'),
  documentedAs({ type: 'string', minLength: 1, maxLength: 255 }),
)

/** The schema of a user's id. */
export type UserIdSchema = v.GenericSchema<unknown, string | number>

/** The schema of a user's id of each type. It brings all spellings of an id into the form that the database returns. */
export const userIds: Readonly<Record<UserIdType, UserIdSchema>> = {
  text: textId,
  uuid: v.pipe(guid, v.toLowerCase()),
  integer: v.pipe(integer(31n), v.transform(Number), documentedAs({ type: 'integer' })),
  bigint: v.pipe(
    integer(63n),
    v.transform(String),
    documentedAs({ type: 'string', pattern: '^-?\\d{1,19}$' }),
  ),
}

function integer(bits: bigint) {
  return v.pipe(
    readInput((value) => {
      const isText = typeof value === 'string' && /^-?\d{1,19}$/.test(value)
      return isText || typeof value === 'bigint' || Number.isSafeInteger(value)
        ? BigInt(value as string | number | bigint)
        : null
    }, 'must be a whole number'),
    v.check((id) => id >= -(2n ** bits) && id < 2n ** bits, 'is out of range'),
  )
}

/** The actor of a change in the options of a function. */
export const actor = v.union(
  [
    v.strictObject({ type: v.literal('system') }),
    v.strictObject({ type: v.picklist(['user', 'admin']), id: textId }),
  ],
  'must be { type: "system" }, or { type: "user", id } or { type: "admin", id }',
)

/** Makes the schema of a set of the app's permissions, some perhaps by their former names. */
export function permissionSet({ names, known, namesOf }: Permissions) {
  const most = known.length

  return v.pipe(
    // The length comes first, because a body has room for thousands of names.
    v.array(v.unknown(), 'must be a list of permissions'),
    v.maxLength(most, `must name at most ${most} permissions, which is all there are`),
    v.array(oneOf(known, names)),
    v.check((given) => namesOf(given).length > 0, 'must name at least one permission'),
    refuseRepeats(),
    documentedAs({
      type: 'array',
      items: { type: 'string', enum: names },
      minItems: 1,
      uniqueItems: true,
    }),
  )
}

/** Makes a check of a list of names or ids. It also runs if some members are refused, so that one answer lists every fault. */
export function refuseRepeats<Name>() {
  return v.rawCheck<Name[]>(({ dataset: { value }, addIssue }) => {
    if (!Array.isArray(value)) return
    const seen = new Set()
    for (const [index, name] of value.entries()) {
      if (seen.has(name)) addIssue({ path: pathTo(value, index), message: 'must not be repeated' })
      seen.add(name)
    }
  })
}

/** The metadata of a key, if the database can store it. */
export const metadata = v.pipe(
  v.custom<Metadata>(isPlainObject, 'must be a JSON object'),
  v.rawCheck(({ dataset: { typed, value }, addIssue }) => {
    const message = typed ? (faultOfJson(value) ?? faultOfSize(value)) : null
    if (message !== null) addIssue({ message })
  }),
  documentedAs({ type: 'object', additionalProperties: true }),
)

/** The address from which a call is made. */
export const clientAddress = readInput(
  (value) => (typeof value === 'string' ? readClientAddress(value) : null),
  'must be an IP address',
)

const noRange = 'must be an address or a range in CIDR notation, such as 203.0.113.0/24'

const addressRange = v.pipe(
  v.string(noRange),
  v.check((value) => value.length <= 100 && readAddressRange(value) !== null, noRange),
  v.check((value) => !isAmbiguousRange(value), 'must have no bits set behind its prefix'),
  v.transform((value) => readAddressRange(value) ?? value),
)

/** Addresses and ranges, in their shortest form. */
export const addressList = v.pipe(
  v.array(addressRange, 'must be a list of addresses'),
  v.minLength(1, 'must name at least one address; null means all'),
  v.maxLength(100, 'must name at most 100 addresses'),
  refuseRepeats(),
  documentedAs({ uniqueItems: true }),
)

/** The exported end of the audit trail. */
export const auditHead = strict(
  v.object({
    position: v.pipe(
      v.custom<number>(Number.isSafeInteger, 'must be a whole number'),
      v.minValue(0, 'must not be negative'),
      documentedAs({ type: 'integer', minimum: 0 }),
    ),
    hash: v.union([hexadecimal(64), v.literal('')], 'must be 64 hexadecimal characters'),
    at: utcTime,
    secretId: v.nullable(hexadecimal(16)),
    mac: hexadecimal(64),
  }),
)

function hexadecimal(length: number) {
  const shape = new RegExp(`^[0-9a-f]{${length}}$`)
  return matching(shape, `must be ${length} hexadecimal characters`)
}

/** How far a verification of the audit trail is. */
export interface AuditProgress {
  /** How many entries were verified. */
  verified: number
  /** How many entries there are. */
  total: number
}

/** A function that is called again and again. */
export const progressListener = v.pipe(
  v.custom<(progress: AuditProgress) => void>(
    (value) => typeof value === 'function',
    'must be a function',
  ),
  documentedAs(false),
)
