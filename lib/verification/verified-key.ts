import type { AnyApp, App, If } from '../keys/app'
import type { Closable } from '../keys/closable'
import { deepFreeze, type Metadata } from '../keys/metadata'
import type { Owner, UserIdIn } from '../keys/owner'
import type { PermissionSet } from '../keys/permissions'
import { allows, type Resources } from '../keys/resources'
import type { KeyUse } from '../usage/counts'
import type { CachedKey, KeyRow } from './cache'

/** An accepted key, in the form that the app gets. Frozen. */
export type VerifiedApiKey<A extends App = AnyApp> = VerifiedFields<A['permission']> & {
  readonly owner: A['owner']
} & UserIdIn<A['owner']> &
  If<A['environment'], { readonly environment: A['environment'] }> &
  If<
    A['resource'],
    {
      /** The ids to which the key is bound, by the types of resources; `null` if it is not bound. Frozen. */
      readonly resources: Resources<A['resource']> | null
      /** True if the key is not bound to resources of the type, or is bound to this one. */
      allows(type: A['resource'], id: string): boolean
    }
  >

/** The fields of an accepted key in every app. */
export interface VerifiedFields<Permission extends string> {
  readonly id: string
  readonly name: string
  /** With all that they imply. With the option `grantable`, only the permissions that its owner holds as well. */
  readonly permissions: readonly Permission[]
  readonly expiresAt: Date | null
  /** The data that the app keeps with the key. Frozen, and read from JSON when it is first asked for. */
  readonly metadata: Metadata
  /**
   * Aborts when the key is revoked, suspended or expired. Also aborts when the key or its owner no longer holds the
   * permissions that the guards of the request demanded. Its `reason` is the refusal that a new request would get. It
   * is made when it is first asked for.
   *
   * @example
   * req.apiKey.signal.addEventListener('abort', () => res.end())
   */
  readonly signal: AbortSignal
}

/** A row of a key, and the permissions that both the key and its owner hold. */
export interface Holding {
  readonly row: KeyRow
  readonly permissions: PermissionSet
}

/** Makes the signal of a key that a request, or a call, came with. */
export type MakeSignal = (holding: Holding, caller: KeyCaller) => AbortSignal

/** A request, or a call, that came with a key. */
export interface KeyCaller extends KeyUse {
  /** The signal of the key is kept until the first of these ends; without them, until it aborts. */
  readonly closables?: readonly Closable[] | undefined
  /** The key that was refused, if the database has it. It is kept here for reports. */
  refused?: { readonly id: string; readonly owner: Owner }
  /** Returns why the key does not meet what guards have demanded so far; `null` if it does. */
  refusalOf(holding: Holding): Error | null
}

/**
 * The verdict for a good key. The app's object of the key is made when it is first read, because most routes never read
 * it. The row is private, so that no dump of a request shows a hash.
 */
export class Acceptance implements Holding {
  readonly valid = true
  readonly permissions: PermissionSet
  readonly #row: CachedKey
  readonly #caller: KeyCaller
  readonly #makeSignal: MakeSignal
  #apiKey: AcceptedKey | undefined = undefined

  constructor(
    row: CachedKey,
    permissions: PermissionSet,
    caller: KeyCaller,
    makeSignal: MakeSignal,
  ) {
    this.permissions = permissions
    this.#row = row
    this.#caller = caller
    this.#makeSignal = makeSignal
  }

  get row(): CachedKey {
    return this.#row
  }

  get caller(): KeyCaller {
    return this.#caller
  }

  get apiKey(): VerifiedApiKey {
    this.#apiKey ??= new AcceptedKey(this)
    return this.#apiKey
  }

  /** Leaves the key the permissions that its owner holds as well. */
  narrow(held: PermissionSet): Acceptance {
    if (held === this.permissions) return this
    return new Acceptance(this.#row, held, this.#caller, this.#makeSignal)
  }

  makeSignal(): AbortSignal {
    return this.#makeSignal(this, this.#caller)
  }
}

/** It is a class, because its instances cost a fraction of frozen literals. */
class AcceptedKey implements VerifiedApiKey {
  readonly id: string
  readonly owner: Owner
  declare readonly userId?: string | number
  readonly name: string
  readonly permissions: readonly string[]
  readonly expiresAt: Date | null
  declare readonly environment?: string
  readonly #acceptance: Acceptance
  #signal: AbortSignal | undefined = undefined
  #metadata: Metadata | undefined = undefined

  constructor(acceptance: Acceptance) {
    const { row, permissions } = acceptance
    this.id = row.id
    this.owner = row.owner.shown
    if (row.owner.userId !== undefined) this.userId = row.owner.userId
    this.name = row.name
    this.permissions = permissions.names
    this.expiresAt = row.expiresAtMs === null ? null : new Date(row.expiresAtMs)
    if (row.environment !== null) this.environment = row.environment
    this.#acceptance = acceptance
    Object.freeze(this)
  }

  get metadata(): Metadata {
    this.#metadata ??= deepFreeze(JSON.parse(this.#acceptance.row.policy.metadata) as Metadata)
    return this.#metadata
  }

  get resources(): Resources | null {
    return this.#acceptance.row.policy.bindings.resources
  }

  allows(type: string, id: string): boolean {
    return allows(this.#acceptance.row.policy.bindings, type, id)
  }

  get signal(): AbortSignal {
    this.#signal ??= this.#acceptance.makeSignal()
    return this.#signal
  }

  static acceptanceOf(value: object): Acceptance | undefined {
    return #acceptance in value ? value.#acceptance : undefined
  }
}

/** Returns the verdict of the app's object of a key; `undefined` for any other object. */
export const acceptanceOf: (value: object) => Acceptance | undefined = AcceptedKey.acceptanceOf
