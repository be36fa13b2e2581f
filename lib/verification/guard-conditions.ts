import { show } from '../../models/option-checks'
import { ApiKeysError } from '../errors'
import type { PermissionSet } from '../keys/permissions'
import { allowsAll, type Bindings } from '../keys/resources'
import type { Settings } from '../read-options'
import type { Holding } from './verified-key'

/** The conditions of a guard on a key that is good. */
export interface GuardConditions {
  /** The environments whose keys it takes; `null` in an app without environments. */
  readonly environments: readonly string[] | null
  /** Returns the refusal of a key that holds these permissions; `null` if they suffice. */
  refusePermissions(held: PermissionSet): ApiKeysError | null
  /**
   * Returns the resources that a request is about, by their types. With `null`, the route itself sees to what a key is bound to. Without a
   * value, a key that is bound is refused, because each route that was forgotten would undo the binding.
   */
  readonly resource: ((request: object) => unknown) | null | undefined
}

/**
 * The conditions of a guard on the key of one request, and of the guards before. They are kept as long as the request lasts, because the
 * key may change meanwhile.
 */
export class RequestConditions {
  readonly #guard: GuardConditions
  readonly #request: object
  readonly #before: RequestConditions | undefined
  /** The app is asked once, because Express changes `req.params` behind a guard. */
  #resources: Readonly<Record<string, unknown>> | undefined = undefined

  constructor(guard: GuardConditions, request: object, before: RequestConditions | undefined) {
    this.#guard = guard
    this.#request = request
    this.#before = before
  }

  /**
   * Returns why a key does not meet the conditions, by the first of them that fails; `null` if the key meets them. If the app's `resource`
   * throws, it throws the same.
   */
  refuse({ row, permissions }: Holding): ApiKeysError | null {
    const { environments } = this.#guard
    if (environments !== null && !environments.includes(row.environment ?? '')) {
      return new ApiKeysError('environment_not_allowed')
    }
    // The permissions that the guard names.
    const refusal = this.#guard.refusePermissions(permissions)
    if (refusal) return refusal

    // The resources to which the key is bound. Most keys are not.
    const { bindings } = row.policy
    return bindings.sets.length === 0 || this.#isWithin(bindings)
      ? null
      : new ApiKeysError('resource_not_allowed')
  }

  /** Returns why a key does not meet the conditions of all guards so far; `null` if the key meets them. */
  refuseByAll(holding: Holding): ApiKeysError | null {
    try {
      return this.#before?.refuseByAll(holding) ?? this.refuse(holding)
    } catch (error) {
      // The key was bound after its guard. The app's error handler no longer waits for an error of `resource`.
      return new ApiKeysError('resource_not_allowed', { cause: error })
    }
  }

  #isWithin(bindings: Bindings): boolean {
    const { resource } = this.#guard
    if (resource === null) return true
    if (resource === undefined) return false

    this.#resources ??= readResources(resource(this.#request))
    return allowsAll(bindings, this.#resources)
  }
}

/** Reads the answer of an app's `resource`. A request that is about no resource cannot be within bindings. */
function readResources(answer: unknown): Readonly<Record<string, unknown>> {
  if (answer instanceof Promise) {
    // If it rejected, the process would end.
    answer.catch(() => {})
    throw new TypeError('resource must return the ids at once, not a promise')
  }
  if (answer === undefined || answer === null) return {}
  // Members that are not there are undefined.
  if (typeof answer === 'object') return answer as Record<string, unknown>
  throw new TypeError(`resource must return ids by their types, got ${show(answer)}`)
}

/** Refuses a `resource` that is neither `null` nor of a type, or that an app without resources gives. */
export function checkResource(
  caller: string,
  resource: unknown,
  type: 'function' | 'object',
  resources: Settings['resources'],
) {
  if (resource === undefined || resource === null) return
  if (resources.size === 0) {
    throw new TypeError(`${caller}: resource needs the option resources of createApiKeys`)
  }
  if (typeof resource === type) return
  const rule = type === 'function' ? 'a function that returns ids' : 'an object of ids'
  throw new TypeError(
    `${caller}: resource must be ${rule} by their types, or null, got ${show(resource)}`,
  )
}
