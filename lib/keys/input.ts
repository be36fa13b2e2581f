import v = require('valibot')

import { eventActions } from '../../models/api-key-event'
import { namesKeys, notNamedIn } from './criteria'
import { eventCursor, keyCursor, notACursor, sorts, type KeyPosition, type Sort } from './cursor'
import type { Environments } from './environments'
import * as fields from './fields'
import { limitOverrides } from './limits'
import type { IdTypes } from './owner'
import { createOwnerInput } from './owner-input'
import { createParser, notKnown, type Messages } from './parse-input'
import type { Permissions } from './permissions'
import { resourceLists, type ResourceTypes } from './resources'
import { usageQuery } from './usage-period'

interface InputSettings {
  environments: Pick<Environments, 'usual'> & { readonly names: readonly string[] }
  permissions: Permissions
  resources: ResourceTypes
  idTypes: IdTypes
  maxGracePeriodSeconds: number
}

/** The functions that parse the input of routes and functions. They throw an `InvalidInputError`. */
export type Parsers = ReturnType<typeof createParsers>

/** The parsed input for a new key. */
export type NewKey = ReturnType<Parsers['newKeyOf']>
/** Parsed changes of a key. */
export type KeyChanges = ReturnType<Parsers['changes']>
/** The parsed filter of a list of keys. */
export type KeyFilter = ReturnType<Parsers['list']>
/** The parsed filter of a list of events. */
export type EventFilter = ReturnType<Parsers['eventList']>
/** The parsed criteria for the revocation of unused keys. */
export type UnusedKeys = ReturnType<Parsers['unusedKeys']>
/** The parsed criteria for the revocation of many keys. */
export type ManyKeys = ReturnType<Parsers['manyKeys']>
/** The parsed filter of such a revocation. */
export type ManyFilter = Omit<ManyKeys, 'ids' | 'dryRun'>
/** A parsed change of the name that keys have for a permission. */
export type PermissionChange = ReturnType<Parsers['permissionChange']>
/** The parsed criteria for pruning. */
export type Pruning = ReturnType<Parsers['pruning']>

type OwnerInput = ReturnType<typeof createOwnerInput>

/** Makes the functions that parse all input: of the routes, and of the functions that an app calls. */
export function createParsers(settings: InputSettings) {
  const owners = createOwnerInput(settings.idTypes)
  const { userId, organizationId, ofOwner, ofAnyOwner } = owners

  return {
    ...createKeyParsers(settings, owners),
    ...createFilterParsers(settings, owners),
    ...createBulkParsers(settings, owners),

    /** Returns the id of a user in the form that the database returns; `undefined` if it is not an id. */
    readUserId(id: unknown): string | number | undefined {
      const result = v.safeParse(userId, id)
      return result.success ? result.output : undefined
    },
    /** Returns the id of an organization in that form; `undefined` if it is not an id, or if the app has no organizations. */
    readOrganizationId(id: unknown): string | number | undefined {
      const result = organizationId && v.safeParse(organizationId, id)
      return result?.success === true ? result.output : undefined
    },
    owner: createParser(ofOwner({})),
    anyOwner: createParser(ofAnyOwner({})),
    nothing: parserOf({}),

    circumstances: createParser(
      ofAnyOwner({
        address: v.optional(fields.clientAddress),
        ...because,
        actor: v.optional(fields.actor),
      }),
    ),
    explanation: parserOf(because),
    /** Parses the options of a verification of the audit trail: a head that was exported before, or none. */
    auditVerification: parserOf({
      head: v.optional(fields.auditHead),
      onProgress: v.optional(fields.progressListener),
    }),

    /** Parses the query of a change that can wait until all processes honour it. */
    everywhere: parserOf({ everywhere: v.optional(fields.flag, false) }),
    /** Makes the function that parses the query of a change that cannot wait. The message says why. */
    notEverywhere: (message: string) => parserOf({}, { everywhere: message }),
  }
}

/** Makes the functions for new keys and for changes of keys. */
function createKeyParsers(
  { environments, permissions, resources, maxGracePeriodSeconds }: InputSettings,
  { ofOwner }: OwnerInput,
) {
  const optional = v.partial(v.object(keyFieldsOf([...resources.keys()]))).entries
  const newKey = {
    name,
    ...optional,
    permissions: fields.permissionSet(permissions),
    environment: environmentOfNewKey(environments),
  }
  const neverChanges = environments.names.length > 0 && {
    environment: 'never changes: create another key instead',
  }
  const rotation = { gracePeriodSeconds: gracePeriod(maxGracePeriodSeconds), ...activation }

  return {
    newKey: parserOf(newKey),
    newKeyOf: createParser(ofOwner(newKey)),
    changes: parserOf(
      { name: v.optional(name), ...optional },
      {
        permissions: 'is not changed here: use PUT /:id/permissions, or setPermissions()',
        ...neverChanges,
      },
    ),
    permissionSet: parserOf({ permissions: newKey.permissions }),
    rotation: parserOf(rotation),
    request: parserOf({ idempotencyKey: v.optional(fields.idempotencyKey) }),
    rotationWish: parserOf({ ...rotation, ...because }),
  }
}

/** Makes the functions for the filters of lists and reports. */
function createFilterParsers({ environments }: InputSettings, { ofAnyOwner }: OwnerInput) {
  const ownPage = {
    limit: fields.pageSize,
    cursor: v.optional(keyCursor),
    status: v.optional(fields.statusList),
    isExpired: v.optional(fields.flag),
    sort: v.optional(fields.oneOf(sorts), '-createdAt'),
    createdBy: v.optional(fields.textId),
    environment: environmentOfFilter(environments.names),
  }
  const apiKeyId = v.optional(fields.guid)
  const list = {
    ...ownPage,
    permission: v.optional(fields.permissionName),
    text: v.optional(searchText),
  }

  return {
    /** Parses the filter for the keys of one user. */
    ownList: createParser(
      v.pipe(
        v.object(ownPage),
        v.forward(v.partialCheck([['cursor'], ['sort']], isInOrder, notACursor), ['cursor']),
      ),
    ),
    /** Parses the filter for the keys of all users. */
    list: createParser(
      v.pipe(
        ofAnyOwner(list),
        v.forward(v.partialCheck([['cursor'], ['sort']], isInOrder, notACursor), ['cursor']),
        v.forward(
          v.partialCheck(
            [['sort'], ['owner']],
            ({ owner, sort }) => owner !== undefined || sort.endsWith('createdAt'),
            'must be createdAt or -createdAt, unless an owner is given',
          ),
          ['sort'],
        ),
      ),
    ),
    /** Parses the filter for the audit trail of one key. */
    eventPage: parserOf(eventPage),
    /** Parses the filter for the audit trail of all keys. */
    eventList: createParser(
      ofAnyOwner({ ...eventPage, apiKeyId, action: v.optional(fields.oneOf(eventActions)) }),
    ),
    /** Parses the question for the usage of one key. */
    usageQuery: createParser(usageQuery),
    /** Parses the question for the usage of all keys. */
    usageFilter: createParser(ofAnyOwner({ ...usageQuery.entries, apiKeyId })),
  }
}

/** Makes the functions for changes of many keys. */
function createBulkParsers(
  { environments, permissions }: InputSettings,
  { ofOwner, ofAnyOwner }: OwnerInput,
) {
  const notNamed = notNamedIn(environments.names)
  const manyKeys = {
    ids: v.optional(fields.idList),
    createdBy: v.optional(fields.textId),
    environment: environmentOfFilter(environments.names),
    status: v.optional(fields.statusList),
    isExpired: v.optional(fields.flag),
    permission: v.optional(fields.permissionName),
    text: v.optional(searchText),
    dryRun: wish,
  }
  const { environment } = manyKeys
  const unusedKeys = { unusedForDays: days, environment, dryRun: wish }

  return {
    /** Parses the body with many new keys, which are parsed one by one later. */
    batch: parserOf({ apiKeys: v.unknown() }),
    revokeAll: createParser(ofOwner({ ...because, dryRun: wish })),
    erasing: createParser(ofOwner({ reason, revoke: wish, dryRun: wish })),
    /** Parses the body of a suspension of an owner, its end, and a transfer. */
    ownerChange: createParser(ofOwner(because)),
    manyKeys: createParser(
      v.pipe(
        ofAnyOwner(manyKeys),
        v.check((criteria) => namesKeys(criteria), notNamed),
      ),
    ),
    revokeMany: createParser(
      v.pipe(
        ofAnyOwner({ ...manyKeys, ...because }),
        v.check((criteria) => namesKeys(criteria), notNamed),
      ),
    ),
    unusedKeys: createParser(ofAnyOwner(unusedKeys)),
    revokeUnused: createParser(ofAnyOwner({ ...unusedKeys, ...because })),
    permissionChange: createParser(
      v.pipe(
        v.object({
          from: fields.permissionName,
          to: v.optional(fields.oneOf(permissions.names)),
          dryRun: wish,
        }),
        v.forward(
          v.partialCheck([['from'], ['to']], ({ from, to }) => from !== to, 'must be another name'),
          ['to'],
        ),
      ),
    ),
    pruning: parserOf({ olderThanDays: days, dryRun: wish }),
    housekeeping: createParser(
      v.pipe(
        v.object({
          revokedKeys: v.optional(days),
          events: v.optional(days),
          usage: v.optional(days),
          dryRun: wish,
          ...because,
        }),
        v.check(
          ({ revokedKeys, events, usage }) => (revokedKeys ?? events ?? usage) !== undefined,
          'must say how many days old revokedKeys, events or usage have to be',
        ),
      ),
    ),
  }
}

function parserOf<const Fields extends v.ObjectEntries>(entries: Fields, refused?: Messages) {
  return createParser(v.object(entries), refused)
}

/** Makes the schema of the environment of a new key. It is not known in an app without environments. */
function environmentOfNewKey({ names, usual }: InputSettings['environments']) {
  if (names.length === 0) return environmentOfFilter(names)
  return usual === undefined ? fields.oneOf(names) : v.optional(fields.oneOf(names), usual)
}

/** Makes the schema of the environment in a filter. */
function environmentOfFilter(names: readonly string[]) {
  return v.optional(names.length > 0 ? fields.oneOf(names) : notKnown)
}

const name = fields.text({ min: 1, max: 100 })

/** The fields that a new key can lack. */
const keyFields = {
  description: v.nullable(fields.text({ max: 500, lines: true })),
  expiresAt: v.nullable(fields.expiry),
  allowedIps: v.nullable(fields.addressList),
  metadata: fields.metadata,
  limits: v.nullable(limitOverrides),
}

/** Returns the same for an app with types of resources, or with none. */
function keyFieldsOf(types: readonly string[]) {
  const all = { ...keyFields, resources: v.nullable(resourceLists(types)) }
  // Without types the field is not known. Its type stays, because one type is for the input of all apps.
  return types.length > 0 ? all : (keyFields as typeof all)
}

/** The reason of a change, for the audit trail. */
const reason = fields.text({ min: 1, max: 500, lines: true })
const because = { reason: v.optional(reason) }

/** When a new secret takes the place of the old one. */
const activation = { activate: v.optional(fields.oneOf(['now', 'on-first-use']), 'now') }

/** The seconds that the old secret works after a rotation, unless the call or the app's maximum says otherwise: a day. */
const defaultGraceSeconds = 86_400

/** Makes the schema of the seconds that the old secret works after a rotation. */
function gracePeriod(most: number) {
  const message = `must be a whole number of seconds from 0 to ${most}`
  return v.optional(fields.wholeNumber(0, most, message), Math.min(defaultGraceSeconds, most))
}

const wish = v.optional(v.boolean('must be true or false'), false)

const days = fields.wholeNumber(1, 36_500, 'must be a whole number of days from 1 to 36500')

/** A page goes on in the order of the page before. */
function isInOrder({ cursor, sort }: { cursor?: KeyPosition | undefined; sort: Sort }): boolean {
  return cursor === undefined || cursor.sort === sort
}

/** Each word of a search costs a search for all words that begin with it. */
const maxWords = 10

const searchText = v.pipe(
  // The text may be a key of another system.
  fields.text({ min: 1, max: 1_024 }),
  v.check((words) => words.split(/\s+/).length <= maxWords, `must have at most ${maxWords} words`),
)

const eventPage = { limit: fields.pageSize, cursor: v.optional(eventCursor) }
