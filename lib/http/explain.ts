import { ApiKeysError, RateLimitedError, type ErrorCode, type InvalidReason } from '../errors'
import { readClientAddress } from '../keys/addresses'
import type { EnvironmentOption, If } from '../keys/app'
import type { Owner } from '../keys/owner'
import type { RequestedResources } from '../keys/resources'
import { asSent, type SecretFormat } from '../keys/secret'
import type { Settings } from '../read-options'
import type { CachedKey } from '../verification/cache'
import * as conditionsOfKey from '../verification/decide'
import {
  checkResource,
  RequestConditions,
  type GuardConditions,
} from '../verification/guard-conditions'
import type { Verification } from '../verification/verification'
import type { Holding } from '../verification/verified-key'
import { createPermissionCheck, type Demand } from './demand'
import { describeRefusal } from './decision-log'
import { checkOptions } from './guard-options'

/** The request that `explain` supposes. */
export type ExplainOptions<
  Permission extends string = string,
  Environment extends string = never,
  Resource extends string = never,
> = ExplainBasics<Permission> &
  EnvironmentOption<Environment> &
  If<Resource, { resource?: RequestedResources<Resource> | null | undefined }>

interface ExplainBasics<Permission extends string> {
  /** The permissions that the route demands, as in `requirePermission`. */
  permission?: Demand<Permission> | undefined
  /** The address of the client. Without it, a key with `allowedIps` is refused. */
  ip?: string | undefined
}

/** Says for each condition of an accepted key if it holds. */
export interface Explanation<O extends Owner = Owner> {
  /** True if no condition fails that can be known without the request. */
  isAccepted: boolean
  /** Why a request would be refused, by the first condition that fails; `null` if none fails. */
  reason: InvalidReason | ErrorCode | null
  /** `null` if no key of the database has the secret. */
  apiKey: { id: string; name: string; owner: O } | null
  /** The eleven conditions, in their order. */
  conditions: readonly Condition[]
}

/** A condition of an accepted key. */
export interface Condition {
  /** From 1 to 11, as on the page of verification. */
  number: number
  condition: string
  /** `null` if it is not known, because the key is not, or because only a request can say. */
  holds: boolean | null
  /** A sentence for people. It has no secret. */
  because: string
}

type Finding = Pick<Condition, 'holds' | 'because'>

interface ExplainParts {
  format: Pick<SecretFormat, 'markers' | 'hasShape'>
  settings: Pick<Settings, 'environments' | 'permissions' | 'resources'>
  verification: Pick<Verification, 'examine' | 'holdingOf' | 'rateLimiter'>
}

/** The facts that the conditions of a key are decided by. */
interface Facts {
  key: CachedKey
  wall: number
  request: Request
  /** The refusal if the app does not say what the owner holds. */
  holding: Holding | ApiKeysError
  /** The refusal by the limits; `null` if they leave a use. */
  limited: ApiKeysError | null
}

/** The request that is supposed. */
interface Request extends GuardConditions {
  ip: string | null | undefined
}

/** The conditions, in their order. */
const sentences = [
  'The request carries exactly one credential.',
  'The text has the form of a key, and its check is right.',
  'Its hash is in the database, and the secret works.',
  'Its status is ACTIVE, and its owner is not suspended.',
  'It is not expired.',
  'No user but its owner is signed in.',
  'It may be used from the address.',
  'It holds the permissions, and its owner holds them, too.',
  'It may be used for the resource.',
  'Its limits leave a use.',
  'Its environment may be used here.',
]

/** Makes `explain`, which asks the conditions of a verification one by one. */
export function createExplain({ format, settings, verification }: ExplainParts) {
  function readRequest(given: ExplainOptions<string, string, string>): Request {
    const name = 'explain'
    checkOptions(name, given, ['permission', 'resource', 'ip', 'environment'])
    const { permission, resource, ip, environment } = given
    checkResource(name, resource, 'object', settings.resources)
    return {
      ip: typeof ip === 'string' ? readClientAddress(ip) : undefined,
      environments: settings.environments.acceptedBy(name, environment),
      refusePermissions:
        permission === undefined
          ? () => null
          : createPermissionCheck(name, permission, settings.permissions),
      // Without a resource, the route sees to it itself, as for `verify`.
      resource: resource ? () => resource : null,
    }
  }

  async function readFacts(key: CachedKey, wall: number, request: Request): Promise<Facts> {
    const { limits } = key.policy
    const states = limits.length === 0 ? [] : verification.rateLimiter.read({ key, limits })
    return {
      key,
      wall,
      request,
      holding: await orRefusal(verification.holdingOf(key)),
      limited: await orRefusal(Promise.resolve(states).then(refuseByLimits)),
    }
  }

  return async function explain(
    plainTextKey: string,
    options: ExplainOptions<string, string, string> = {},
  ): Promise<Explanation> {
    const request = readRequest(options)
    const text = typeof plainTextKey === 'string' ? plainTextKey : ''
    const { digest, key, wall } = await verification.examine(text)
    const facts = key && (await readFacts(key, wall, request))
    const findings = [
      unknown('A request says how it carries the key.'),
      digest === null ? failed(faultOfText(text, format)) : met('It was made by this app.'),
      ...(facts ? findingsOf(facts) : findingsWithoutKey(digest !== null)),
    ]
    const reason = facts ? reasonOf(facts) : digest === null ? 'malformed' : 'unknown'
    return {
      isAccepted: reason === null,
      reason,
      apiKey: key && { id: key.id, name: key.name, owner: key.owner.shown },
      conditions: findings.map(({ holds, because }, index) => ({
        number: index + 1,
        condition: sentences[index] ?? '',
        holds,
        because,
      })),
    }
  }
}

/** Returns the reason of the first condition that fails, in the order of a verification and of a guard. */
function reasonOf({ key, wall, request, holding, limited }: Facts): Explanation['reason'] {
  const fault = conditionsOfKey.faultOf(key, wall, request)
  if (fault !== null) return fault
  if (holding instanceof ApiKeysError) return holding.code
  const refusal = new RequestConditions(request, request, undefined).refuse(holding) ?? limited
  return refusal?.code ?? null
}

/** Returns what is known of the conditions from the third on, if there is a key. */
function findingsOf(facts: Facts): Finding[] {
  const { key, wall, request, holding, limited } = facts
  const { expiresAtMs, policy, permissions } = key
  const { sets, resources } = policy.bindings
  const isBound = sets.length > 0
  const refusal = refuseBy({ resource: request.resource }, { row: key, permissions })

  return [
    findingOf(conditionsOfKey.faultOfSecret(key, wall), ageOfSecret(key)),
    findingOf(
      conditionsOfKey.faultOfStatus(key),
      key.status === 'SUSPENDED' ? 'The key or its owner is suspended.' : `It is ${key.status}.`,
    ),
    findingOf(
      conditionsOfKey.faultOfExpiry(key, wall),
      expiresAtMs === null ? 'It does not expire.' : `Its expiresAt is ${timeOf(expiresAtMs)}.`,
    ),
    unknown('A request says who is signed in.'),
    findingOf(conditionsOfKey.faultOfAddress(key, request), addressesOf(facts)),
    findingOfPermissions(holding, request),
    isBound && request.resource === null
      ? unknown(`It is bound to ${JSON.stringify(resources)}, and no resource was named.`)
      : findingOf(
          refusal,
          isBound ? `It is bound to ${JSON.stringify(resources)}.` : 'It is bound to no resource.',
        ),
    findingOf(limited, limited ? describeRefusal(limited) : usesLeft(policy.limits.length)),
    findingOfEnvironment(facts),
  ]
}

function findingOfPermissions(
  holding: Holding | ApiKeysError,
  { refusePermissions }: Request,
): Finding {
  if (holding instanceof ApiKeysError) return failed(describeRefusal(holding))
  const refusal = refuseBy({ refusePermissions }, holding)
  const held = holding.permissions.names.join(', ') || 'no permission'
  return findingOf(refusal, `${refusal ? `${describeRefusal(refusal)}. ` : ''}It holds ${held}.`)
}

function findingOfEnvironment({ key, request: { environments } }: Facts): Finding {
  const { environment, permissions } = key
  if (environments === null) return met('The app has no environments.')
  const fault = conditionsOfKey.faultOfEnvironment(key)
  if (fault) return failed('Its row names another environment than its prefix.')
  const refusal = refuseBy({ environments }, { row: key, permissions })
  return findingOf(
    refusal,
    `It is of ${environment}; keys of ${environments.join(', ')} are accepted.`,
  )
}

/** Returns what is known of the conditions from the third on, if there is no key. */
function findingsWithoutKey(isKey: boolean): Finding[] {
  const first = isKey ? failed('No key has its hash.') : unknown('The text is no key.')
  const others = sentences.slice(3).map(() => unknown('There is no such key.'))
  return [first, ...others]
}

/** Returns the refusal of a guard that has one condition. */
function refuseBy(condition: Partial<GuardConditions>, holding: Holding): ApiKeysError | null {
  const guard = { environments: null, refusePermissions: () => null, resource: null, ...condition }
  return new RequestConditions(guard, guard, undefined).refuse(holding)
}

function refuseByLimits(states: ConstructorParameters<typeof RateLimitedError>[0]) {
  return states.some(({ remaining }) => remaining < 1) ? new RateLimitedError(states, 1) : null
}

/** Returns the refusal that a promise rejects with. */
function orRefusal<Value>(promise: Promise<Value>): Promise<Value | ApiKeysError> {
  return promise.catch((error: unknown) => {
    if (error instanceof ApiKeysError) return error
    throw error
  })
}

function faultOfText(text: string, { markers, hasShape }: ExplainParts['format']): string {
  if (!markers.some((marker) => text.startsWith(marker))) {
    return `It does not begin with ${markers.join(' or ')}.`
  }
  return hasShape(asSent(text))
    ? 'Its check is wrong: it was mistyped, or made with a secret that is not among the secrets of the app.'
    : 'It begins like a key, but is too short or too long, or has characters that no key has.'
}

function ageOfSecret({ worksUntilMs }: CachedKey): string {
  if (worksUntilMs === null) return 'It is the current secret of the key.'
  return Number.isFinite(worksUntilMs)
    ? `It is an old secret, which works until ${timeOf(worksUntilMs)}.`
    : 'It is an old secret, which a rotation has ended.'
}

function addressesOf({ key: { policy }, request: { ip } }: Facts): string {
  if (policy.allowedIps === null) return 'It may be used from all addresses.'
  if (ip === undefined) return 'It may be used from some addresses, and no address was named.'
  return ip === null ? 'What was named is no address.' : `The address is ${ip}.`
}

function usesLeft(limits: number): string {
  return limits === 0
    ? 'It has no limits.'
    : 'Each limit leaves a use, by the counts of Redis, or else of this process.'
}

function timeOf(ms: number): string {
  return Number.isFinite(ms) ? new Date(ms).toISOString() : 'long ago'
}

function findingOf(fault: unknown, because: string): Finding {
  return fault === null ? met(because) : failed(because)
}

function met(because: string): Finding {
  return { holds: true, because }
}

function failed(because: string): Finding {
  return { holds: false, because }
}

function unknown(because: string): Finding {
  return { holds: null, because }
}
