import { deepFreeze, type Metadata } from '../keys/metadata'
import type { KeyRow } from './cache'
import type { Closable } from '../keys/closable'
import type { KeyUse } from '../usage/counts'

/** An accepted key, in the form that the app gets. Frozen. */
export interface VerifiedApiKey<Permission extends string = string, UserId = string | number> {
  readonly id: string
  readonly userId: UserId
  readonly name: string
  /** With the option `grantable`, the permissions that its owner holds as well. */
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

/** Makes the signal of a key. */
export type MakeSignal = (apiKey: AcceptedKey) => AbortSignal

/**
 * A key that one request or call came with, and its signal. It is a class, because its instances cost a fraction of frozen
 * literals.
 */
export class AcceptedKey implements VerifiedApiKey {
  readonly id: string
  readonly userId: string | number
  readonly name: string
  readonly permissions: readonly string[]
  readonly expiresAt: Date | null
  readonly #row: KeyRow
  readonly #origin: Origin
  #signal: AbortSignal | undefined = undefined
  #metadata: Metadata | undefined = undefined

  constructor(row: KeyRow, permissions: readonly string[], origin: Origin) {
    this.id = row.id
    this.userId = row.userId
    this.name = row.name
    this.permissions = permissions
    this.expiresAt = row.expiresAtMs === null ? null : new Date(row.expiresAtMs)
    this.#row = row
    this.#origin = origin
    Object.freeze(this)
  }

  get metadata(): Metadata {
    this.#metadata ??= deepFreeze(JSON.parse(this.#row.policy.metadata) as Metadata)
    return this.#metadata
  }

  get signal(): AbortSignal {
    this.#signal ??= this.#origin.makeSignal(this)
    return this.#signal
  }

  static rowOf(apiKey: VerifiedApiKey): KeyRow {
    if (!AcceptedKey.isOne(apiKey)) throw new TypeError('this key was not accepted here')
    return apiKey.#row
  }

  static isOne(value: object): value is AcceptedKey {
    return #row in value
  }

  /** True if the key may be used from some addresses only. */
  static isBound(apiKey: VerifiedApiKey): boolean {
    return AcceptedKey.isOne(apiKey) && apiKey.#row.policy.allowedIps !== null
  }

  static callerOf(apiKey: AcceptedKey): KeyCaller {
    return apiKey.#origin.caller
  }

  /** Returns the key of the same request by another row, or with other permissions. */
  static again(apiKey: AcceptedKey, row: KeyRow, permissions: readonly string[]): AcceptedKey {
    return new AcceptedKey(row, permissions, apiKey.#origin)
  }
}

/** The request or call that an accepted key came with, and its way to a signal. */
interface Origin {
  caller: KeyCaller
  makeSignal: MakeSignal
}

/** A request, or a call, that came with a key. */
export interface KeyCaller extends KeyUse {
  /** The signal of the key is kept until the first of these ends; without them, until it aborts. */
  readonly closables?: readonly Closable[] | undefined
  /** The key that was refused, if the database has it. It is kept here for reports. */
  refused?: { readonly id: string; readonly userId: string | number }
  /** Returns why the key does not allow what guards have demanded so far; `null` if it does. */
  refusalOf(apiKey: VerifiedApiKey): Error | null
}
