import type { ApiKeysError } from '../errors'
import type { PermissionSet } from '../keys/permissions'
import type { Holding } from './verified-key'

/** The conditions of a guard on a key that is good. */
export interface GuardConditions {
  /** Returns the refusal of a key that holds these permissions; `null` if they suffice. */
  refusePermissions(held: PermissionSet): ApiKeysError | null
}

/**
 * The conditions of a guard on the key of one request, and of the guards before. They are kept as long as the request lasts, because the
 * key may change meanwhile.
 */
export class RequestConditions {
  readonly #conditions: GuardConditions
  readonly #before: RequestConditions | undefined

  constructor(conditions: GuardConditions, before: RequestConditions | undefined) {
    this.#conditions = conditions
    this.#before = before
  }

  /** Returns why a key does not meet the conditions, by the first of them that fails; `null` if the key meets them. */
  refuse({ permissions }: Holding): ApiKeysError | null {
    // The permissions that the guard names.
    return this.#conditions.refusePermissions(permissions)
  }

  /** Returns why a key does not meet the conditions of all guards so far; `null` if the key meets them. */
  refuseByAll(holding: Holding): ApiKeysError | null {
    return this.#before?.refuseByAll(holding) ?? this.refuse(holding)
  }
}
