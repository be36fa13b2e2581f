import { ApiKeysError } from '../errors'
import { asSent, type SecretFormat } from '../keys/secret'
import type { CachedKey } from '../verification/cache'
import * as conditionsOfKey from '../verification/decide'
import type { Examination } from '../verification/examine'
import { RequestConditions, type GuardConditions } from '../verification/guard-conditions'
import type { Holding } from '../verification/verified-key'
import { describeRefusal } from './decision-log'

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

/** The answer about a condition, as far as it is known. */
export type Finding = Pick<Condition, 'holds' | 'because'>

/** The part that knows the form of keys. */
export type TextFormat = Pick<SecretFormat, 'markers' | 'hasShape'>

/** The facts that the conditions of a key are decided by. */
export interface Facts {
  key: CachedKey
  wall: number
  request: ExplainedRequest
  /** The refusal if the app does not say what the owner holds. */
  holding: Holding | ApiKeysError
  /** The refusal by the limits; `null` if they leave a use. */
  limited: ApiKeysError | null
}

/** The request that is supposed. */
export interface ExplainedRequest extends GuardConditions {
  ip: string | null | undefined
}

/** The conditions, in their order. */
export const sentences = [
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

/** Returns what is known of the conditions from the third on, if there is a key. */
export function findingsOf(facts: Facts): Finding[] {
  const { key, wall, request, holding, limited } = facts
  const { policy, permissions } = key
  const { sets, resources } = policy.bindings
  const isBound = sets.length > 0
  const refusal = refuseBy({ resource: request.resource }, { row: key, permissions })

  return [
    findingOf(conditionsOfKey.faultOfSecret(key, wall), ageOfSecret(key)),
    findingOf(
      conditionsOfKey.faultOfStatus(key),
      key.status === 'SUSPENDED' ? 'The key or its owner is suspended.' : `It is ${key.status}.`,
    ),
    findingOf(conditionsOfKey.faultOfExpiry(key, wall), endOf(key)),
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
  { refusePermissions }: ExplainedRequest,
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
export function findingsWithoutKey(isKey: boolean): Finding[] {
  const first = isKey ? failed('No key has its hash.') : unknown('The text is no key.')
  const others = sentences.slice(3).map(() => unknown('There is no such key.'))
  return [first, ...others]
}

/** Returns the refusal of a guard that has one condition. */
function refuseBy(condition: Partial<GuardConditions>, holding: Holding): ApiKeysError | null {
  const guard = { environments: null, refusePermissions: () => null, resource: null, ...condition }
  return new RequestConditions(guard, guard, undefined).refuse(holding)
}

/** Returns what is known of the second condition. */
export function findingOfText(
  text: string,
  { digests, source }: Pick<Examination, 'digests' | 'source'>,
  format: TextFormat,
): Finding {
  if (digests.length > 0) {
    return met(source === null ? 'It was made by this app.' : `It was imported from ${source}.`)
  }
  return failed(
    source === null
      ? faultOfText(text, format)
      : `It has the form of a key of ${source}, and no such key was imported.`,
  )
}

function faultOfText(text: string, { markers, hasShape }: TextFormat): string {
  if (!markers.some((marker) => text.startsWith(marker))) {
    return `It does not begin with ${markers.join(' or ')}.`
  }
  return hasShape(asSent(text))
    ? 'Its check is wrong: it was mistyped, or made with a secret that is not among the secrets of the app.'
    : 'It begins like a key, but is too short or too long, or has characters that no key has.'
}

function endOf({ expiresAtMs, endsAtMs }: CachedKey): string {
  if (endsAtMs === Infinity) return 'It does not expire.'
  if (endsAtMs === expiresAtMs) return `Its expiresAt is ${timeOf(endsAtMs)}.`
  return `Without a further use, it expires at ${timeOf(endsAtMs)}.`
}

function ageOfSecret({ worksUntilMs, isPending }: CachedKey): string {
  if (isPending) return 'It is a new secret, and its first use makes it the current one.'
  if (worksUntilMs === null) return 'It is the current secret of the key.'
  return Number.isFinite(worksUntilMs)
    ? `It is an old secret, which works until ${timeOf(worksUntilMs)}.`
    : 'It is an old secret that has ended, or a new secret that was cancelled before its first use.'
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

/** Returns that a condition is not known. */
export function unknown(because: string): Finding {
  return { holds: null, because }
}
