import { statuses } from '../../models/api-key'
import { eventActions, type ActorType } from '../../models/api-key-event'
import type { AuditFault } from '../audit/faults'
import type { AuditHead } from '../audit/head'
import type { ApiKeyEvent } from '../audit/list-entries'
import type { AuditVerification } from '../audit/verify'
import type { IdTypes, Owner } from '../keys/owner'
import { isUsersOnly } from '../keys/owner'
import type { JsonSchema } from '../keys/parse-input'
import type { DescribedPermission } from '../keys/permissions'
import type { Exposure, PendingRotation, PreviousSecret, RecordFields } from '../keys/record'
import type { ResourceTypes } from '../keys/resources'
import type { Erased } from '../lifecycle/erase-owner'
import type { KeyUsage, TotalUsage, Usage, UsageCounts, UsageEntry } from '../usage/report'
import { nullable } from './json-schema'

/** The parts of an app by which its answers differ. */
export interface AnswerSettings {
  idTypes: IdTypes
  resources: ResourceTypes
  environments: { readonly names: readonly string[] }
}

/** The name of the schema of an answer. */
export type AnswerName = keyof ReturnType<typeof answerSchemas>

const text = { type: 'string' }
const flag = { type: 'boolean' }
const number = { type: 'integer' }
const time = { type: 'string', format: 'date-time' }
const uuid = { type: 'string', format: 'uuid' }
const textOrNull = { type: ['string', 'null'] }
const timeOrNull = { type: ['string', 'null'], format: 'date-time' }
const anyObject = { type: 'object', additionalProperties: true }
const listOf = (items: unknown) => ({ type: 'array', items })
const ref = (name: string) => ({ $ref: `#/components/schemas/${name}` })

/** Makes the schema of an object that always has all of its members. The compiler sees to it that no member of its type is missing. */
// The members of the type are the names that the compiler asks for.
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters
function all<Type extends object>(properties: { [Name in keyof Type]-?: unknown }) {
  return { type: 'object', properties, required: Object.keys(properties) }
}

const actorTypes = Object.keys({
  user: true,
  admin: true,
  system: true,
  database: true,
} satisfies Record<ActorType, true>)

const faultKinds = Object.keys({
  edited: true,
  removed: true,
  inserted: true,
  reordered: true,
  head_changed: true,
  checkpoint_changed: true,
  contradicted: true,
  unguarded: true,
  unreadable: true,
} satisfies Record<AuditFault['kind'], true>)

const counts = { accepted: number, denied: number, rateLimited: number }

const limits = {
  type: ['object', 'null'],
  additionalProperties: nullable(
    all<{ limit: 0; windowSeconds: 0 }>({ limit: number, windowSeconds: number }),
  ),
}

/** Returns the schema of the id of an owner in answers. */
function idOf(type: IdTypes[keyof IdTypes]): JsonSchema {
  return type === 'integer' ? number : text
}

function ownerSchema({ user, organization, service }: IdTypes): JsonSchema {
  const kinds = Object.entries({ user, organization, service }).filter(([, id]) => id !== undefined)
  const owners = kinds.map(([type, id]) => all<Owner>({ type: { const: type }, id: idOf(id) }))
  const [first = {}, ...others] = owners
  return others.length > 0 ? { oneOf: owners } : first
}

function recordSchema({ idTypes, resources, environments }: AnswerSettings): JsonSchema {
  const previousSecret = all<PreviousSecret>({
    prefix: text,
    postfix: text,
    worksUntil: time,
    lastUsedAt: timeOrNull,
  })
  const record = all<RecordFields<string> & { owner: Owner }>({
    id: uuid,
    name: text,
    description: textOrNull,
    prefix: text,
    postfix: text,
    status: { type: 'string', enum: statuses },
    permissions: listOf(text),
    allowedIps: nullable(listOf(text)),
    metadata: anyObject,
    limits,
    owner: ref('Owner'),
    ...(isUsersOnly(idTypes) && { userId: idOf(idTypes.user) }),
    createdAt: time,
    updatedAt: time,
    lastUsedAt: timeOrNull,
    lastUsedFrom: textOrNull,
    // An infinite time that was written by SQL is null in JSON.
    expiresAt: timeOrNull,
    isExpired: flag,
    idleExpiresAt: time,
    revokedAt: timeOrNull,
    previousSecret: nullable(previousSecret),
    pendingRotation: nullable(
      all<PendingRotation>({ prefix: text, postfix: text, gracePeriodSeconds: number }),
    ),
    ownerSuspended: flag,
    createdBy: textOrNull,
    ...(environments.names.length > 0 && { environment: text }),
    ...(resources.size > 0 && {
      resources: { type: ['object', 'null'], additionalProperties: listOf(text) },
    }),
    exposed: all<Exposure>({ at: time, source: text, url: textOrNull }),
    source: text,
  })
  // Most records have no such members.
  const rare = new Set(['exposed', 'source', 'idleExpiresAt'])
  return { ...record, required: record.required.filter((name) => !rare.has(name)) }
}

/** Returns the schema of an entry. Entries may be about owners of before, whose ids were of another type. */
function eventSchema(): JsonSchema {
  const owner = nullable(
    all<Owner>({
      type: { type: 'string', enum: ['user', 'organization', 'service'] },
      id: { type: ['string', 'integer'] },
    }),
  )
  return all<ApiKeyEvent>({
    id: text,
    apiKeyId: { type: ['string', 'null'], format: 'uuid' },
    owner,
    formerOwner: owner,
    action: { type: 'string', enum: eventActions },
    actorType: { type: 'string', enum: actorTypes },
    actorId: textOrNull,
    address: textOrNull,
    reason: textOrNull,
    before: { type: ['object', 'null'], additionalProperties: true },
    after: { type: ['object', 'null'], additionalProperties: true },
    createdAt: time,
    isErased: flag,
  })
}

function auditSchemas() {
  const head = all<AuditHead>({
    position: number,
    hash: text,
    at: time,
    mac: text,
    secretId: textOrNull,
  })
  const fault = all<AuditFault>({
    kind: { type: 'string', enum: faultKinds },
    position: { type: ['integer', 'null'] },
    eventId: textOrNull,
    message: text,
  })
  return {
    AuditHead: head,
    AuditVerification: all<AuditVerification>({
      isIntact: flag,
      entries: number,
      pruned: number,
      adopted: number,
      erased: number,
      unsealed: number,
      unverifiable: number,
      head: nullable(ref('AuditHead')),
      faults: listOf(fault),
      cannotFind: listOf(text),
    }),
  }
}

function usageSchemas() {
  const entries = listOf(all<UsageEntry>({ at: time, ...counts }))
  const totals = all<UsageCounts>(counts)
  const ofKey = all<KeyUsage>({ apiKeyId: uuid, owner: nullable(ref('Owner')), ...counts })
  return {
    Usage: all<Usage>({ usage: entries, totals }),
    TotalUsage: all<TotalUsage>({ usage: entries, totals, keys: listOf(ofKey) }),
  }
}

/** Returns the schemas of all answers of the routes, for one app. */
export function answerSchemas(settings: AnswerSettings) {
  const apiKey = ref('ApiKey')
  const nextCursor = textOrNull
  const secrets = all({ apiKey, plainTextKey: textOrNull })
  const permission = all<DescribedPermission>({
    name: text,
    description: textOrNull,
    implies: listOf(text),
  })
  const pruned = { revokedKeys: number, events: number, usage: number }

  return {
    Owner: ownerSchema(settings.idTypes),
    ApiKey: recordSchema(settings),
    ApiKeyPage: all({ apiKeys: listOf(apiKey), nextCursor }),
    NewSecret: all({ apiKey, plainTextKey: text }),
    NewSecrets: all({ apiKeys: listOf(secrets), failure: nullable(ref('Problem')) }),
    PermissionList: all({ permissions: listOf(permission) }),
    Event: eventSchema(),
    EventPage: all({ events: listOf(ref('Event')), nextCursor }),
    ...usageSchemas(),
    ...auditSchemas(),
    Revoked: all({ revoked: number }),
    ManyRevoked: all({ revoked: number, notFound: listOf(uuid) }),
    OwnerSuspended: all({ suspended: flag }),
    OwnerReactivated: all({ reactivated: flag }),
    OwnerErased: all({
      erased: all<Erased>({ keys: number, createdKeys: number, events: number, hours: number }),
    }),
    Pruned: { type: 'object', properties: pruned },
  } as const satisfies Record<string, JsonSchema>
}
