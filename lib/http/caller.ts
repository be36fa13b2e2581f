import type { ServerResponse } from 'node:http'

import type { ApiKeysError } from '../errors'
import { closablesOfRequest, isOver, whenOver } from '../keys/closable'
import type { SentKey } from '../keys/secret'
import type { MaybePromise } from '../options'
import { RequestConditions, type GuardConditions } from '../verification/guard-conditions'
import {
  acceptanceOf,
  type Acceptance,
  type Holding,
  type KeyCaller,
  type VerifiedApiKey,
} from '../verification/verified-key'
import { linesOf, type Credential } from './credentials'
import { clientAddressOf, type GuardedRequest } from './request'

/** The result of authenticating a request. */
export type Authentication =
  | Accepted
  /** The request carries no key of ours, but perhaps a token that the app reads. A guard that demands a key has this error. */
  | { kind: 'absent'; error: ApiKeysError }
  | { kind: 'refused'; error: ApiKeysError }

/**
 * A request with a good key. It is a class, because V8 may come to make literals of one place where long-lived objects are: each would
 * keep its request in memory until the next full collection.
 */
export class Accepted {
  readonly kind = 'accepted'

  constructor(
    readonly key: Acceptance,
    /** The user whom the request acts for; `undefined` if the owner of the key is no user. */
    public user: object | undefined,
    readonly caller: Caller,
  ) {}
}

/**
 * A request, as one instance of the library knows it: its credential, the result of authenticating it, and what guards have
 * demanded and counted so far. The signal of its key lasts as long as its response.
 */
export class Caller implements KeyCaller {
  countedInHour: number | undefined = undefined
  wasRefused = false
  declare refused?: NonNullable<KeyCaller['refused']>
  /** The result; `undefined` until a guard or the strategy asks for it. */
  authentication: MaybePromise<Authentication> | undefined = undefined
  /** The accepted key, and its user. */
  accepted: Accepted | undefined = undefined
  /** The number of uses that the request was counted for so far. */
  countedUses = 0
  /** No property, so that no dump of a request shows a key. */
  #masked: Credential | undefined = undefined
  readonly #req: GuardedRequest
  #res: ServerResponse | undefined
  #conditions: RequestConditions | undefined = undefined
  #isReported = false
  #userBefore: object | undefined = undefined

  constructor(
    /** The instance to which this caller belongs. */
    readonly instance: symbol,
    req: GuardedRequest,
    res: ServerResponse | undefined,
    /** The caller of the same request in another instance. */
    readonly next: Caller | undefined,
  ) {
    this.#req = req
    this.#res = res
  }

  /** The credential, if it was masked and no guard has asked for it yet. */
  get masked(): Credential | undefined {
    return this.#masked
  }

  set masked(credential: Credential | undefined) {
    this.#masked = credential
  }

  get closables() {
    return closablesOfRequest(this.#req, this.response)
  }

  /** The response that a guard was given, else the response that Express keeps with the request. */
  get response(): ServerResponse | undefined {
    return this.#res ?? this.#req.res
  }

  /** Takes the response of a request that was read without one. */
  addResponse(res: ServerResponse | undefined) {
    this.#res ??= res
  }

  get ip() {
    return clientAddressOf(this.#req)
  }

  /**
   * Returns why a key does not meet the conditions of a guard; `null` if it does. The signal then aborts once the key no longer meets them.
   */
  meet(guard: GuardConditions, key: Holding): ApiKeysError | null {
    const conditions = new RequestConditions(guard, this.#req, this.#conditions)
    const refusal = conditions.refuse(key)
    if (refusal === null) this.#conditions = conditions
    return refusal
  }

  refusalOf(holding: Holding): ApiKeysError | null {
    return this.#conditions?.refuseByAll(holding) ?? null
  }

  /** Calls the first of several functions when the request ends, unless the key was refused by then. */
  reportOnce(report: () => void) {
    if (this.#isReported) return
    this.#isReported = true

    const { closables } = this
    if (closables.length === 0 || isOver(closables)) return report()
    const stopWatching = whenOver(closables, () => {
      stopWatching()
      if (!this.wasRefused) report()
    })
  }

  /** Accepts the key, and puts it and its user on the request. */
  accept(key: Acceptance, user: object | undefined, userBefore: object | undefined): Accepted {
    const req = this.#req
    this.#userBefore = userBefore
    if (!hasKeyProperty(req)) putKey(req, key.apiKey)
    req.user = user
    this.accepted = new Accepted(key, user, this)
    return this.accepted
  }

  /** Takes back that the key was accepted. The request may go on without it, and later guards get the error. */
  reject(error: ApiKeysError): Authentication {
    const req = this.#req
    if (!hasKeyProperty(req)) putKey(req, undefined)
    req.user = this.#userBefore
    this.accepted = undefined
    this.authentication = { kind: 'refused', error }
    return this.authentication
  }
}

/** A request keeps its callers under this name. */
const callers = Symbol('express-api-keys')

/** The object that keeps the callers of a request: a chain with a link for each instance that has read it. */
interface Keeper {
  [callers]?: Caller | undefined
}

const keepers = new WeakMap<object, Keeper>()

/**
 * Returns the keeper of a request: the list of its header lines. Before Node 24, Express gives each request object a
 * shape of its own. Reading a property of such an object takes a quarter of the time of a guard, and adding a property
 * takes longer. A WeakMap costs even more. The WeakMap is for requests without such a list. It is also for empty lists,
 * because all requests of an adapter or a test may share an empty list.
 */
export function keeperOf(req: object, lines: string[] | undefined): Keeper {
  const known = findKeeper(req, lines)
  if (known) return known

  const keeper: Keeper = {}
  keepers.set(req, keeper)
  return keeper
}

function findKeeper(req: object, lines: string[] | undefined): Keeper | undefined {
  return lines !== undefined && lines.length > 0 ? (lines as Keeper) : keepers.get(req)
}

/** Returns the caller that an instance knows. */
export function findCaller(keeper: Keeper, instance: symbol): Caller | undefined {
  let caller = keeper[callers]
  while (caller !== undefined && caller.instance !== instance) caller = caller.next
  return caller
}

/** Adds a caller for an instance. It comes before all other callers. */
export function addCaller(
  keeper: Keeper,
  instance: symbol,
  req: GuardedRequest,
  res: ServerResponse | undefined,
): Caller {
  const caller = new Caller(instance, req, res, keeper[callers])
  keeper[callers] = caller
  return caller
}

/** Returns the key that some instance has masked and not judged; `undefined` if there is none. */
export function findMaskedKey(keeper: Keeper): SentKey | undefined {
  for (let caller = keeper[callers]; caller !== undefined; caller = caller.next) {
    const { masked } = caller
    if (masked?.kind === 'key') return masked
    if (masked?.kind === 'foreign' && masked.sent) return masked.sent
  }
  return undefined
}

/** True if any instance has accepted the key of the request. */
export function hasAcceptedKey(keeper: Keeper): boolean {
  for (let caller = keeper[callers]; caller !== undefined; caller = caller.next) {
    if (caller.accepted) return true
  }
  return false
}

/** Returns the key that an instance has accepted, the latest instance first; `undefined` if there is none. */
function findAcceptedKey(keeper: Keeper | undefined): VerifiedApiKey | undefined {
  for (let caller = keeper?.[callers]; caller !== undefined; caller = caller.next) {
    if (caller.accepted) return caller.accepted.key.apiKey
  }
  return undefined
}

/** Puts a key on a request as `req.apiKey`, or takes it away, unless the app keeps a value of its own under this name. */
function putKey(req: GuardedRequest, apiKey: VerifiedApiKey | undefined) {
  const { apiKey: present } = req
  const isFree = present === undefined || present === null
  if (isFree || acceptanceOf(Object(present))) req.apiKey = apiKey
}

/** The prototypes of requests, with true for a prototype whose `apiKey` is the accessor below. */
const prototypes = new WeakMap<object, boolean>()
let latestPrototype: object | undefined

/**
 * True if a request has `apiKey` by an accessor on the prototype that Express makes for the requests of each app,
 * `app.request`. Adds it to a new app. Before Node 24, putting a key on each request would double the time of a guard.
 */
function hasKeyProperty(req: GuardedRequest): boolean {
  const prototype: object = Object.getPrototypeOf(req)
  // Nearly all processes have one app.
  if (prototype === latestPrototype) return true

  let hasProperty = prototypes.get(prototype)
  if (hasProperty === undefined) {
    hasProperty = addKeyProperty(prototype)
    prototypes.set(prototype, hasProperty)
  }
  if (hasProperty) latestPrototype = prototype
  return hasProperty
}

function addKeyProperty(prototype: object): boolean {
  const target = requestOfOutermostApp(prototype)
  if (target === undefined) return false
  if (Object.getOwnPropertyDescriptor(target, 'apiKey')?.get === readKey) return true
  // The app has a property of this name.
  if ('apiKey' in prototype) return false
  return Reflect.defineProperty(target, 'apiKey', {
    get: readKey,
    set: writeKey,
    enumerable: true,
    configurable: true,
  })
}

/** Requests of an app that is mounted on another app inherit from the requests of that app, and go back to it. */
function requestOfOutermostApp(prototype: object): object | undefined {
  let outermost: object | undefined
  for (let object: object | null = prototype; object; object = Object.getPrototypeOf(object)) {
    const app: unknown = Object.getOwnPropertyDescriptor(object, 'app')?.value
    if (typeof app === 'function' && Reflect.get(app, 'request') === object) outermost = object
  }
  return outermost
}

function readKey(this: GuardedRequest): VerifiedApiKey | undefined {
  return findAcceptedKey(findKeeper(this, linesOf(this)))
}

/** The app, or another copy of this library, puts a value of its own on a request. */
function writeKey(this: GuardedRequest, value: unknown) {
  Object.defineProperty(this, 'apiKey', {
    value,
    writable: true,
    enumerable: true,
    configurable: true,
  })
}
