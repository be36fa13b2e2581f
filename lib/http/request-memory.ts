import type { ServerResponse } from 'node:http'

import type { ApiKeysError } from '../errors'
import type { SentKey } from '../keys/secret'
import type { MaybePromise } from '../options'
import { closablesOfRequest, isOver, whenOver } from '../keys/closable'
import { AcceptedKey, type Bearer, type VerifiedApiKey } from '../verification/verified-key'
import type { Credential } from './credentials'
import { clientAddressOf, type GuardedRequest } from './request'

/** What came of the credential of a request. */
export type Authentication =
  | Accepted
  /** No key of ours, but perhaps a token that the app understands. The error is for a guard that demands a key. */
  | { kind: 'absent'; error: ApiKeysError }
  | { kind: 'refused'; error: ApiKeysError }

export interface Accepted {
  kind: 'accepted'
  apiKey: VerifiedApiKey
  user: object
  bearer: RequestBearer
}

/** Says what a key lacks; `null` if it may pass. */
export type Demand = (apiKey: VerifiedApiKey) => ApiKeysError | null

/**
 * What one instance of the library knows of a request: its credential, what came of it, and what guards have demanded and
 * counted. The signal of its key holds as long as its response.
 */
export class RequestBearer implements Bearer {
  countedInHour: number | undefined = undefined
  wasRefused = false
  /** What came of the credential; `undefined` until a guard or the strategy asks. */
  authentication: MaybePromise<Authentication> | undefined = undefined
  /** The key that was accepted, and whose it is. */
  accepted: Accepted | undefined = undefined
  declare refused?: NonNullable<Bearer['refused']>
  readonly #req: GuardedRequest
  #res: ServerResponse | undefined
  #credential: Credential | undefined = undefined
  #demand: Demand = demandsNothing
  #paid = 0
  #isReported = false
  #userBefore: object | undefined = undefined

  constructor(
    /** The instance that knows this. */
    readonly owner: symbol,
    req: GuardedRequest,
    res: ServerResponse | undefined,
    /** What another instance knows of the same request. */
    readonly next: RequestBearer | undefined,
  ) {
    this.#req = req
    this.#res = res
  }

  get closables() {
    return closablesOfRequest(this.#req, this.response)
  }

  /** The response that a guard was given, else the one that Express keeps with the request. */
  get response(): ServerResponse | undefined {
    return this.#res ?? this.#req.res
  }

  get ip() {
    return clientAddressOf(this.#req)
  }

  /** Notes the response of a request that was read without one. */
  noteResponse(res: ServerResponse | undefined) {
    this.#res ??= res
  }

  /** Keeps a credential that was masked before a guard asked for it. */
  keepCredential(credential: Credential) {
    this.#credential = credential
  }

  /** A credential that was masked, and that no guard of this instance has asked for yet. */
  get keptCredential(): Credential | undefined {
    return this.#credential
  }

  /** Returns the credential that was kept, and drops it. */
  takeCredential(): Credential | undefined {
    const credential = this.#credential
    this.#credential = undefined
    return credential
  }

  /** Notes what a guard demanded, and was given. */
  add(demand: Demand) {
    const before = this.#demand
    this.#demand = before === demandsNothing ? demand : (apiKey) => before(apiKey) ?? demand(apiKey)
  }

  /** How many uses a guard has still to count: a request counts for as many as its dearest guard says. */
  owes(cost: number): number {
    return Math.max(cost - this.#paid, 0)
  }

  notePaid(cost: number) {
    this.#paid += cost
  }

  /** Calls the first of several functions when the request ends, unless the key was refused by then. */
  whenAccepted(report: () => void) {
    if (this.#isReported) return
    this.#isReported = true

    const { closables } = this
    if (closables.length === 0 || isOver(closables)) return report()
    const stopWatching = whenOver(closables, () => {
      stopWatching()
      if (!this.wasRefused) report()
    })
  }

  refusalOf(apiKey: VerifiedApiKey): ApiKeysError | null {
    return this.#demand(apiKey)
  }

  accept(apiKey: VerifiedApiKey, user: object, userBefore: object | undefined): Accepted {
    const req = this.#req
    this.#userBefore = userBefore
    // What the app keeps under this name is its own.
    if (isFree(req.apiKey)) req.apiKey = apiKey
    req.user = user
    this.accepted = { kind: 'accepted', apiKey, user, bearer: this }
    return this.accepted
  }

  withdraw() {
    this.accepted = undefined
    const req = this.#req
    if (isFree(req.apiKey)) req.apiKey = undefined
    req.user = this.#userBefore
  }
}

const demandsNothing: Demand = () => null

/** True if a key of ours may stand in a place of the request: it is empty, or holds one of ours. */
function isFree(present: unknown): boolean {
  return present === undefined || present === null || AcceptedKey.isOne(Object(present))
}

/** Under this name a request keeps its memory. */
const memory = Symbol('express-api-keys')

/** Keeps the memory of a request: a chain with a link for each instance that has read it. */
interface Keeper {
  [memory]?: RequestBearer | undefined
}

const keepers = new WeakMap<object, Keeper>()

/**
 * Returns what keeps the memory of a request: the list of its header lines. Before Node 24, Express makes each request an
 * object of a shape of its own: to read a property of it takes a quarter as long as all else that a guard does, to add one
 * longer than that. A WeakMap costs even more, and is for requests without such a list, or with an empty one: all requests of
 * an adapter or a test may have the same empty list.
 */
export function keeperOf(req: object, lines: string[] | undefined): Keeper {
  if (lines !== undefined && lines.length > 0) return lines as Keeper

  const known = keepers.get(req)
  if (known) return known

  const keeper: Keeper = {}
  keepers.set(req, keeper)
  return keeper
}

/** Returns what an instance knows of a request. */
export function recallBearer(keeper: Keeper, owner: symbol): RequestBearer | undefined {
  let bearer = keeper[memory]
  while (bearer !== undefined && bearer.owner !== owner) bearer = bearer.next
  return bearer
}

/** Begins what an instance knows of a request. It stands before what was known until now. */
export function beginBearer(
  keeper: Keeper,
  owner: symbol,
  req: GuardedRequest,
  res: ServerResponse | undefined,
): RequestBearer {
  const bearer = new RequestBearer(owner, req, res, keeper[memory])
  keeper[memory] = bearer
  return bearer
}

/** Returns the key that an instance has masked and not yet judged; `undefined` if there is none. */
export function recallMaskedKey(keeper: Keeper): SentKey | undefined {
  for (let bearer = keeper[memory]; bearer !== undefined; bearer = bearer.next) {
    if (bearer.keptCredential?.kind === 'key') return bearer.keptCredential
  }
  return undefined
}

/** True if any instance has accepted the key that a request came with. */
export function hasAcceptedKey(keeper: Keeper): boolean {
  for (let bearer = keeper[memory]; bearer !== undefined; bearer = bearer.next) {
    if (bearer.accepted) return true
  }
  return false
}
