import { ApiKeysError, RateLimitedError, type ErrorCode, type InvalidReason } from '../errors'
import { readClientAddress } from '../keys/addresses'
import type { EnvironmentOption, If } from '../keys/app'
import type { Owner } from '../keys/owner'
import type { RequestedResources } from '../keys/resources'
import type { Settings } from '../read-options'
import type { CachedKey } from '../verification/cache'
import * as conditionsOfKey from '../verification/decide'
import { checkResource, RequestConditions } from '../verification/guard-conditions'
import type { Verification } from '../verification/verification'
import { createPermissionCheck, type Demand } from './demand'
import {
  findingOfText,
  findingsOf,
  findingsWithoutKey,
  sentences,
  unknown,
  type Condition,
  type ExplainedRequest,
  type Facts,
  type TextFormat,
} from './explain-findings'
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

interface ExplainParts {
  format: TextFormat
  settings: Pick<Settings, 'environments' | 'permissions' | 'resources'>
  verification: Pick<Verification, 'examine' | 'holdingOf' | 'rateLimiter'>
}

/** Makes `explain`, which asks the conditions of a verification one by one. */
export function createExplain({ format, settings, verification }: ExplainParts) {
  function readRequest(given: ExplainOptions<string, string, string>): ExplainedRequest {
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

  async function readFacts(
    key: CachedKey,
    wall: number,
    request: ExplainedRequest,
  ): Promise<Facts> {
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
    const { digests, key, source, wall } = await verification.examine(text)
    const facts = key && (await readFacts(key, wall, request))
    const findings = [
      unknown('A request says how it carries the key.'),
      findingOfText(text, { digests, source }, format),
      ...(facts ? findingsOf(facts) : findingsWithoutKey(digests.length > 0)),
    ]
    const reason = facts ? reasonOf(facts) : digests.length === 0 ? 'malformed' : 'unknown'
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
