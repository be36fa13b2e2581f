import { z } from 'zod'

import { statuses, type Status } from '../../models/api-key'
import { eventActions } from '../../models/api-key-event'
import type { UserIdType } from '../../models/storage-options'
import { InvalidInputError, type InputFault } from '../errors'
import { isAmbiguousRange, readAddressRange, readClientAddress } from './addresses'
import { eventCursor, keyCursor, notACursor, sorts, type KeyPosition, type Sort } from './cursor'
import { isLimitName, limitNameRule, longestWindowSeconds, maxLimits, mostUses } from './limits'
import { faultOfJson, isPlainObject, maxMetadataBytes, sizeOf, type Metadata } from './metadata'
import { usageUnits } from './usage-period'

/** More faults than anybody reads are not worth sending: a body of 32 kB can hold thousands. */
const maxFaults = 100

export type Rules = ReturnType<typeof createRules>

/** What a key may be made of, and what may be asked for, over HTTP and without. */
export function createRules({ permissions, userIdType, maxGracePeriodSeconds }: RulesOptions) {
  const permission = oneOf(permissions)
  const userId = userIdRule(userIdType)

  const changes = z.strictObject({
    name: text({ min: 1, max: 100 }),
    description: text({ max: 500, lines: true }).nullable(),
    expiresAt: expiry.nullable(),
    allowedIps: addressList.nullable(),
    metadata,
    limits: limits.nullable(),
  })

  const most = permissions.length
  const permissionSet = z
    // The length first: a body has room for thousands of names, each of which would be looked at.
    .array(z.unknown(), 'must be a list of permissions')
    .refine((names) => !Array.isArray(names) || names.length <= most, {
      message: `must name at most ${most} permissions, which is all there are`,
      abort: true,
    })
    .pipe(
      z
        .array(permission)
        .min(1, 'must name at least one permission')
        .superRefine(refuseRepeats, { when: ({ value }) => Array.isArray(value) }),
    )

  const newKey = changes
    .partial({
      description: true,
      expiresAt: true,
      allowedIps: true,
      metadata: true,
      limits: true,
    })
    .extend({ permissions: permissionSet })

  const rotation = z.strictObject({ gracePeriodSeconds: gracePeriod(maxGracePeriodSeconds) })
  const page = z.strictObject({ limit: pageSize })
  const keyPage = page.extend({
    cursor: keyCursor.optional(),
    status: statusList.optional(),
    isExpired: flag.optional(),
    sort: oneOf(sorts).default('-createdAt'),
  })
  const eventPage = page.extend({ cursor: eventCursor.optional() })
  const usageQuery = z.strictObject({
    from: momentOfUse.optional(),
    to: momentOfUse.optional(),
    by: oneOf(usageUnits).default('hour'),
  })

  return {
    userId,
    newKey,
    newKeyOf: newKey.extend({ userId }),
    changes: changes.partial(),
    permissionSet: z.strictObject({ permissions: permissionSet }),
    rotation,
    rotationQuery: z.strictObject({
      everywhere: z.undefined('is not for this: use it to end the rotation').optional(),
    }),
    /** Of changes that nobody waits for. */
    changeQuery: z.strictObject({
      everywhere: z.undefined('is not for this').optional(),
    }),
    rotationWish: rotation.extend({ reason: reason.optional() }),
    owner: z.strictObject({ userId }),
    anyOwner: z.strictObject({ userId: userId.optional() }),
    nothing: z.strictObject({}),
    explanation: z.strictObject({ reason: reason.optional() }),
    revokeAll: z.strictObject({ userId, reason: reason.optional(), dryRun }),
    /** Whether a change waits until no process goes by the old state: for administrators, as it takes its time. */
    adminQuery: z.strictObject({
      everywhere: z.enum(['true', 'false'], truth).default('false').transform(isTrue),
    }),
    ownQuery: z
      .strictObject({ everywhere: z.undefined('is for administrators').optional() })
      .transform(() => ({})),
    circumstances: z.strictObject({
      userId: userId.optional(),
      address: address.optional(),
      reason: reason.optional(),
      actor: actor.optional(),
    }),
    /** The keys of one user. */
    ownList: keyPage.superRefine(refuseOtherSort),
    /** The keys of everyone. */
    list: keyPage
      .extend({
        userId: userId.optional(),
        permission: permission.optional(),
        text: text({ min: 1, max: 200 })
          .refine(
            (text) => text.split(/\s+/).length <= maxWords,
            `must have at most ${maxWords} words`,
          )
          .optional(),
      })
      .superRefine((filter, context) => {
        refuseOtherSort(filter, context)
        if (filter.userId !== undefined || filter.sort.endsWith('createdAt')) return
        const message = 'must be createdAt or -createdAt, unless userId is given'
        context.addIssue({ code: 'custom', path: ['sort'], message })
      }),
    /** The audit trail of one key. */
    eventPage,
    /** The audit trail of all keys. */
    eventList: eventPage.extend({
      apiKeyId: z.guid('must be a UUID').optional(),
      userId: userId.optional(),
      action: oneOf(eventActions).optional(),
    }),
    /** The usage of one key. */
    usageQuery,
    /** The usage of all keys. */
    usageFilter: usageQuery.extend({
      apiKeyId: z.guid('must be a UUID').optional(),
      userId: userId.optional(),
    }),
    auditVerification: z.strictObject({ head: auditHead.optional() }),
    unusedKeys: z.strictObject({
      unusedForDays: pruningAge,
      userId: userId.optional(),
      dryRun,
    }),
    revokeUnused: z.strictObject({
      unusedForDays: pruningAge,
      userId: userId.optional(),
      dryRun,
      reason: reason.optional(),
    }),
    housekeeping: z
      .strictObject({
        revokedKeys: pruningAge.optional(),
        events: pruningAge.optional(),
        usage: pruningAge.optional(),
        dryRun,
        reason: reason.optional(),
      })
      .refine(
        ({ revokedKeys, events, usage }) => (revokedKeys ?? events ?? usage) !== undefined,
        'must say how many days old revokedKeys, events or usage have to be',
      ),
    pruning: z.strictObject({ olderThanDays: pruningAge, dryRun }),
  }
}

interface RulesOptions {
  permissions: readonly string[]
  userIdType: UserIdType
  maxGracePeriodSeconds: number
}

/** Why somebody suspends or revokes a key. */
const reason = text({ min: 1, max: 500, lines: true })

/** From where somebody asks for something. */
const address = z
  .string('must be an IP address')
  .max(100, 'must be an IP address')
  .transform((text, context) => {
    const shown = readClientAddress(text)
    if (shown === null) context.addIssue({ code: 'custom', message: 'must be an IP address' })
    return shown ?? text
  })

const hexadecimal = (length: number) =>
  z.string().regex(new RegExp(`^[0-9a-f]{${length}}$`), `must be ${length} hexadecimal characters`)

const auditHead = z.strictObject(
  {
    position: z.int('must be a whole number').min(0, 'must not be negative'),
    hash: z.union([hexadecimal(64), z.literal('')], 'must be 64 hexadecimal characters'),
    at: z.iso.datetime('must be a time'),
    secretId: hexadecimal(16).nullable(),
    mac: hexadecimal(64),
  },
  'must be a head of the audit trail, as it was exported',
)

const truth = 'must be true or false'

/** Also as text, as queries have it. */
const flag = z.union([z.boolean(), z.enum(['true', 'false']).transform(isTrue)], truth)

function isTrue(text: string) {
  return text === 'true'
}

/** Each word of a search costs a look-up of all words that begin with it. */
const maxWords = 10

/** One status or several, as a list or with commas between them. */
const statusList = z.unknown().transform((value, context): Status[] => {
  const names: unknown = typeof value === 'string' ? value.split(',') : value
  if (Array.isArray(names) && names.length > 0 && names.every(isStatus)) return [...new Set(names)]

  context.addIssue({ code: 'custom', message: `must be one of ${statuses.join(', ')}` })
  return z.NEVER
})

function isStatus(name: unknown): name is Status {
  return statuses.some((status) => status === name)
}

/** A page goes on in the order of the page before. */
function refuseOtherSort(
  { cursor, sort }: { cursor?: KeyPosition | undefined; sort: Sort },
  context: z.core.$RefinementCtx,
) {
  if (cursor === undefined || cursor.sort === sort) return
  context.addIssue({ code: 'custom', path: ['cursor'], message: notACursor })
}

const dryRun = z.boolean(truth).default(false)

const pruningAge = z
  .int('must be a whole number of days from 1 to 36500')
  .min(1, 'must be a whole number of days from 1 to 36500')
  .max(36_500, 'must be a whole number of days from 1 to 36500')

const defaultGracePeriodSeconds = 86_400

/** How long the old secret works on after a rotation. */
function gracePeriod(most: number) {
  const message = `must be a whole number of seconds from 0 to ${most}`
  return z
    .int(message)
    .min(0, message)
    .max(most, message)
    .default(Math.min(defaultGracePeriodSeconds, most))
}

/** An id as text, whatever it is made of. */
const textId = z
  .union([z.string(), z.int(), z.bigint()], 'must be a user id')
  .transform(String)
  .refine((id) => id.length >= 1 && id.length <= 255, 'must have 1 to 255 characters')
  .refine((id) => !id.includes('\0') && id.isWellFormed(), 'must be well-formed Unicode')

const actor = z.union(
  [
    z.strictObject({ type: z.literal('system') }),
    z.strictObject({ type: z.enum(['user', 'admin']), id: textId }),
  ],
  'must be { type: "system" }, or { type: "user", id } or { type: "admin", id }',
)

function oneOf<const Name extends string>(names: readonly Name[]) {
  return z.enum(names, { error: `must be one of ${names.join(', ')}` })
}

const pageSize = z
  .union(
    [
      z.int(),
      z
        .string()
        .regex(/^\d{1,9}$/)
        .transform(Number),
    ],
    'must be a whole number from 1 to 100',
  )
  .refine((limit) => limit >= 1 && limit <= 100, 'must be a whole number from 1 to 100')
  .default(20)

/** RFC 3339, section 5.6: "T" and "Z" may be lower case. */
const timestamp = z
  .string()
  .toUpperCase()
  .pipe(z.iso.datetime({ offset: true }))
  .transform((time) => new Date(time))

const moment = z.union(
  [z.date(), timestamp],
  'must be a time as in RFC 3339, such as 2030-01-31T12:00:00Z',
)

const expiry = moment
  .refine((time) => time.getTime() > Date.now(), 'must be in the future')
  .refine((time) => time.getTime() < Date.UTC(10_000, 0), 'must be before the year 10000')

const momentOfUse = moment.refine(
  (time) => time.getTime() >= 0 && time.getTime() < Date.UTC(10_000, 0),
  'must be between the years 1970 and 10000',
)

const addressList = z
  .array(
    z
      .string('must be an address or a range in CIDR notation, such as 203.0.113.0/24')
      .max(100, 'must be an address or a range in CIDR notation, such as 203.0.113.0/24')
      .superRefine((text, context) => {
        const message =
          readAddressRange(text) === null
            ? 'must be an address or a range in CIDR notation, such as 203.0.113.0/24'
            : isAmbiguousRange(text)
              ? 'must have no bits set behind its prefix'
              : null
        if (message) context.addIssue({ code: 'custom', message })
      })
      .transform((text) => readAddressRange(text) ?? text),
    'must be a list of addresses',
  )
  .min(1, 'must name at least one address; null means all')
  .max(100, 'must name at most 100 addresses')
  .superRefine(refuseRepeats)

const metadata = z
  .custom<Metadata>(isPlainObject, 'must be a JSON object')
  .superRefine((value, context) => {
    const message =
      faultOfJson(value) ??
      (sizeOf(value) > maxMetadataBytes
        ? `must have at most ${maxMetadataBytes} bytes as JSON`
        : null)
    if (message) context.addIssue({ code: 'custom', message })
  })

const limit = z.strictObject({
  limit: wholeNumber(1, mostUses),
  windowSeconds: wholeNumber(1, longestWindowSeconds),
})

/** By their names, in the order of these, so that what is the same looks the same. */
const limits = z
  // It would be lost on the way to an object, and no word said.
  .custom<unknown>((value) => !hasOwn(value, '__proto__'), 'must not have a limit called __proto__')
  .pipe(z.record(z.string(), limit.nullable(), 'must be a JSON object of limits, by their names'))
  .superRefine((value, context) => {
    const names = Object.keys(value)
    for (const name of names.filter((name) => !isLimitName(name))) {
      context.addIssue({ code: 'custom', path: [name], message: `its name ${limitNameRule}` })
    }
    if (names.length > maxLimits) {
      context.addIssue({ code: 'custom', message: `must have at most ${maxLimits} limits` })
    }
  })
  .transform((value) => Object.fromEntries(Object.entries(value).toSorted(byName)))

function hasOwn(value: unknown, name: string): boolean {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, name)
}

function byName([a]: [string, unknown], [b]: [string, unknown]): number {
  return a < b ? -1 : 1
}

function wholeNumber(least: number, most: number) {
  const message = `must be a whole number from ${least} to ${most}`
  return z.int(message).min(least, message).max(most, message)
}

/** Text that people write, trimmed; over several `lines` or on one. */
function text({ min = 0, max, lines = false }: { min?: number; max: number; lines?: boolean }) {
  const controls = lines ? /[^\P{Cc}\n\r\t]/u : /\p{Cc}/u
  const size = min > 0 ? `${min} to ${max}` : `at most ${max}`

  return z
    .string('must be text')
    .trim()
    .min(min, `must have ${size} characters`)
    .max(max, `must have ${size} characters`)
    .refine((value) => !controls.test(value), 'must not contain control characters')
    .refine((value) => value.isWellFormed(), 'must be well-formed Unicode')
}

/** Also where some names are not known, so that one answer lists every fault. */
function refuseRepeats(names: readonly unknown[], context: z.core.$RefinementCtx) {
  const seen = new Set()
  for (const [index, name] of names.entries()) {
    if (seen.has(name)) {
      context.addIssue({ code: 'custom', path: [index], message: 'must not be repeated' })
    }
    seen.add(name)
  }
}

/** Brings a user's id into the one form that the column's type has in JavaScript. */
function userIdRule(type: UserIdType): z.ZodType<string | number> {
  switch (type) {
    case 'text':
      return textId
    case 'uuid':
      return z.guid('must be a UUID').toLowerCase()
    case 'integer':
      return integer(-(2n ** 31n), 2n ** 31n - 1n).transform(Number)
    case 'bigint':
      return integer(-(2n ** 63n), 2n ** 63n - 1n).transform(String)
  }
}

function integer(least: bigint, greatest: bigint) {
  return z
    .union(
      [z.bigint(), z.int(), z.string().regex(/^-?\d{1,19}$/, 'must be a whole number')],
      'must be a whole number',
    )
    .transform(BigInt)
    .refine((id) => id >= least && id <= greatest, 'is out of range')
}

/** Returns the input as the schema makes it, or throws an `InvalidInputError` that lists every fault. */
export function parseInput<Schema extends z.ZodType>(
  schema: Schema,
  input: unknown,
): z.output<Schema> {
  const result = schema.safeParse(input, { reportInput: true })
  if (!result.success)
    throw new InvalidInputError(result.error.issues.flatMap(faultsOf).slice(0, maxFaults))

  return result.data
}

function faultsOf(issue: z.core.$ZodIssue): InputFault[] {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({
      pointer: pointerTo([...issue.path, key]),
      message: 'is not known here',
    }))
  }
  return [{ pointer: pointerTo(issue.path), message: messageOf(issue) }]
}

function messageOf(issue: z.core.$ZodIssue): string {
  if (issue.code === 'invalid_type' && issue.expected === 'object') return 'must be a JSON object'
  if (issue.input === undefined && issue.code.startsWith('invalid_')) return 'is required'
  return issue.message
}

/** A JSON Pointer in its URI fragment form (RFC 6901, section 6), as in the examples of RFC 9457. */
export function pointerTo(path: readonly PropertyKey[]): string {
  return [
    '#',
    ...path.map((key) => encodeURIComponent(escapePointer(String(key).toWellFormed()))),
  ].join('/')
}

function escapePointer(key: string) {
  return key.replaceAll('~', '~0').replaceAll('/', '~1')
}
