import type { ApiKeysError } from '../errors'
import type { Holding } from './verified-key'

/** The demands of a guard on the key of a request. A key that is good meets them, or is refused. */
export interface Demand {
  /** Returns the refusal of a key that holds these permissions; `null` if they suffice. */
  refusePermissions(held: readonly string[]): ApiKeysError | null
}

/**
 * A demand on the key of one request, and the demands of the guards before. It is kept as long as the request lasts, because the key may
 * change meanwhile.
 */
export class Demanded {
  readonly #demand: Demand
  readonly #before: Demanded | undefined

  constructor(demand: Demand, before: Demanded | undefined) {
    this.#demand = demand
    this.#before = before
  }

  /** Returns why a key does not meet the demand: the first condition that fails. Returns `null` if the key meets it. */
  refuse({ permissions }: Holding): ApiKeysError | null {
    // The permissions that the guard names.
    return this.#demand.refusePermissions(permissions)
  }

  /** Returns why a key does not meet the demands of all guards so far; `null` if the key meets them. */
  refuseByAll(holding: Holding): ApiKeysError | null {
    return this.#before?.refuseByAll(holding) ?? this.refuse(holding)
  }
}
